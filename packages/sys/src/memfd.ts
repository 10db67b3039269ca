/**
 * Files that live in memory only: the banks that machine frames come from, and secret memory.
 *
 * Source: memfd_create(2), memfd_secret(2), fcntl(2) (file sealing), fallocate(2).
 */
import assert from "node:assert/strict";
import { closeDescriptor, truncate } from "./descriptor.ts";
import { bind, NativeBuffer, rawSystemCall, resultOf } from "./libc.ts";
import { PAGE_BYTES, systemCallNumbers } from "./platform.ts";
import { check, errnoName } from "./system-call-error.ts";

const MFD_CLOEXEC = 0x01;
const MFD_ALLOW_SEALING = 0x02;
const MFD_NOEXEC_SEAL = 0x08;

const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
/** What may no longer be done with a memory file: Linux's `F_SEAL_*`. */
export const Seal = { SEAL: 0x01, SHRINK: 0x02, GROW: 0x04, WRITE: 0x08, EXEC: 0x20 } as const;

const O_CLOEXEC = 0o2000000;
const NAME_BYTES_MAX = 249;

const memfd_create = bind("int memfd_create(uintptr_t, unsigned int)");
const fcntl = bind("int fcntl(int, int, int)");

/** What memory file to create. */
export interface MemfdOptions {
  /** Shown in /proc/self/maps as `/memfd:NAME`; at most 249 bytes of ASCII. */
  readonly name: string;
  /** A positive multiple of the page size. */
  readonly sizeBytes: number;
}

/**
 * Creates a sparse memory file of a fixed size: sealed against growing, shrinking, execution and further seals, so
 * that a mapping of it can never lose its pages; writing and punching holes stay possible. Closed on exec.
 *
 * @returns the descriptor.
 * @throws SystemCallError `EMFILE`, `ENFILE`, `ENOMEM`, `EFBIG`.
 */
export const createMemfd = ({ name, sizeBytes }: MemfdOptions): number => {
  assert(/^[\x21-\x7e]+$/.test(name) && name.length <= NAME_BYTES_MAX);
  assert(Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % PAGE_BYTES === 0);
  const fd = check(openMemfd(name), "memfd_create", { name });
  return sized(fd, sizeBytes, () =>
    // SAFETY: F_ADD_SEALS takes one integer and touches no memory.
    check(resultOf(fcntl()(fd, F_ADD_SEALS, Seal.GROW | Seal.SHRINK | Seal.SEAL)), "fcntl", { fd, flags: F_ADD_SEALS }),
  );
};

/**
 * Creates a memory file whose pages the kernel itself cannot read, of a fixed size. Its mappings count as locked
 * memory (RLIMIT_MEMLOCK, `EAGAIN` from mmap), it can be mapped but not read, written or punched. Closed on exec.
 *
 * @returns the descriptor.
 * @throws SystemCallError `ENOSYS` when the kernel has no secret memory or it is disabled, `EMFILE`, `ENFILE`, `ENOMEM`.
 */
export const createSecretMemfd = (sizeBytes: number): number => {
  assert(Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % PAGE_BYTES === 0);
  // SAFETY: memfd_secret takes one flags word.
  const fd = rawSystemCall(systemCallNumbers().memfd_secret, O_CLOEXEC);
  return sized(check(fd, "memfd_secret", { size: sizeBytes }), sizeBytes);
};

/** The seals of a memory file: a sum of {@link Seal} bits, or a negative errno (`EINVAL`: not a sealable file). */
export const sealsOf = (fd: number): number =>
  // SAFETY: F_GET_SEALS takes no further argument.
  resultOf(fcntl()(fd, F_GET_SEALS, 0));

const openMemfd = (name: string): number => {
  const text = new NativeBuffer(name.length + 1);
  new TextEncoder().encodeInto(name, text.bytes);
  // SAFETY: text holds a NUL-terminated string and outlives the call.
  const fd = resultOf(memfd_create()(text.address, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL));
  if (fd >= 0 || errnoName(-fd) !== "EINVAL") return fd;
  // Linux before 6.3 does not know MFD_NOEXEC_SEAL.
  // SAFETY: as above.
  return resultOf(memfd_create()(text.address, MFD_CLOEXEC | MFD_ALLOW_SEALING));
};

/** Gives a new file its size and finishes it; closes it when that fails. */
const sized = (fd: number, sizeBytes: number, finish?: () => unknown): number => {
  try {
    check(truncate(fd, sizeBytes), "ftruncate", { fd, size: sizeBytes });
    finish?.();
    return fd;
  } catch (cause) {
    closeDescriptor(fd);
    throw cause;
  }
};
