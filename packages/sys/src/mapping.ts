/**
 * Changes to this process's address space, at addresses that the caller chose. Hot: every function returns 0 or a
 * negative errno and neither throws nor allocates (an `assert` failure is a bug of ours, not a result).
 *
 * What the caller owes, in every `SAFETY:` comment below called "the caller's range": the addresses lie in memory that
 * the caller reserved for itself and still keeps, normally a 4 GiB shared WebAssembly memory that somebody references.
 * MAP_FIXED replaces whatever is there without asking, so a stale base address destroys somebody else's memory.
 *
 * At `vm.max_map_count` what needs one more mapping fails with `ENOMEM`: a new mapping, or splitting one (`unmap` and
 * `protect` too). The kernel lets a process come to one above the limit, and there every `mapFrames` and `reserve` fails,
 * also one that would only replace mappings. What still works then is `protect`, `advise` and `unmap` over whole
 * mappings: a page that is a mapping of its own can be taken away by `protect` with PROT_NONE.
 *
 * Other errors: `EINVAL` for a bad alignment or offset, `EBADF`, `EACCES` when the descriptor does not
 * allow the protection, `EPERM` when a seal forbids it, `EAGAIN` when locked memory would exceed RLIMIT_MEMLOCK.
 *
 * Source: mmap(2), mprotect(2), madvise(2).
 */
import assert from "node:assert/strict";
import { bind, resultOf } from "./libc.ts";
import { ADDRESS_END } from "./platform.ts";
import { check } from "./system-call-error.ts";

export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_READ_WRITE = 3;
/** What code may do with mapped pages: one of the `PROT_*` constants. */
export type Protection = typeof PROT_NONE | typeof PROT_READ | typeof PROT_READ_WRITE;

/** Advice about a range. Values are Linux's `MADV_*`. */
export const Advice = {
  /** Drop the pages from this address space; a shared file keeps its contents. */
  DONTNEED: 4,
  /** Punch a hole into the shared file behind the range: contents are lost, memory goes back to the host. */
  REMOVE: 9,
  /** Children made by fork do not get the range. */
  DONTFORK: 10,
  /** Core dumps leave the range out. */
  DONTDUMP: 16,
} as const;
/** One of {@link Advice}. */
export type Advice = (typeof Advice)[keyof typeof Advice];

const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;

/** The lowest address that an unprivileged process may map by default (vm.mmap_min_addr). */
const ADDRESS_BEGIN = 0x1_0000;

const mmap = bind("intptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)");
const munmap = bind("int munmap(uintptr_t, size_t)");
const mprotect = bind("int mprotect(uintptr_t, size_t, int)");
const madvise = bind("int madvise(uintptr_t, size_t, int)");

/**
 * Lays a run of a file (machine frames of a memfd) over a range, atomically replacing what was mapped there.
 * The file's descriptor may be closed afterwards.
 */
export const mapFrames = (
  address: number,
  lengthBytes: number,
  protection: Protection,
  fd: number,
  offsetBytes: number,
): number => {
  assert(isRange(address, lengthBytes));
  assert(offsetBytes >= 0);
  // SAFETY: the caller's range. The file is a sealed memfd that cannot shrink, so its pages cannot vanish (SIGBUS).
  const returned = mmap()(address, lengthBytes, protection, MAP_SHARED | MAP_FIXED, fd, offsetBytes);
  return returned === -1 ? resultOf(-1) : 0;
};

/** Replaces a range by inaccessible address space that costs no memory: touching it faults. */
export const reserve = (address: number, lengthBytes: number): number => {
  assert(isRange(address, lengthBytes));
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  // SAFETY: the caller's range.
  const returned = mmap()(address, lengthBytes, PROT_NONE, flags, -1, 0);
  return returned === -1 ? resultOf(-1) : 0;
};

/** Replaces a range by pages of the kernel's that read as zeros, cost no memory, and cannot be written. */
export const mapZeros = (address: number, lengthBytes: number): number => {
  assert(isRange(address, lengthBytes));
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  // SAFETY: the caller's range.
  const returned = mmap()(address, lengthBytes, PROT_READ, flags, -1, 0);
  return returned === -1 ? resultOf(-1) : 0;
};

/** Replaces a range by private memory that reads as zeros until it is written, and costs nothing until then. */
export const mapScratch = (address: number, lengthBytes: number): number => {
  assert(isRange(address, lengthBytes));
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  // SAFETY: the caller's range.
  const returned = mmap()(address, lengthBytes, PROT_READ_WRITE, flags, -1, 0);
  return returned === -1 ? resultOf(-1) : 0;
};

/**
 * As {@link mapFrames}, for reading: a write does not fault, it gives this mapping a private copy of the page, and the
 * file stays as it is.
 */
export const mapCopies = (address: number, lengthBytes: number, fd: number, offsetBytes: number): number => {
  assert(isRange(address, lengthBytes));
  assert(offsetBytes >= 0);
  const flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED;
  // SAFETY: the caller's range, and a sealed memfd, as in mapFrames.
  const returned = mmap()(address, lengthBytes, PROT_READ_WRITE, flags, fd, offsetBytes);
  return returned === -1 ? resultOf(-1) : 0;
};

/** Gives a range of addresses back to the kernel. Never for a range within a WebAssembly memory: V8 owns those. */
export const unmap = (address: number, lengthBytes: number): number => {
  assert(isRange(address, lengthBytes));
  // SAFETY: the caller's range, which nothing uses from now on.
  return resultOf(munmap()(address, lengthBytes));
};

/** Changes what code may do with the pages of a range. On failure a part of the range may have changed. */
export const protect = (address: number, lengthBytes: number, protection: Protection): number => {
  assert(isRange(address, lengthBytes));
  // SAFETY: the caller's range; no protection given here makes memory executable.
  return resultOf(mprotect()(address, lengthBytes, protection));
};

/** Tells the kernel how a range is used. `EINVAL` for REMOVE means that the range is no writable shared file. */
export const advise = (address: number, lengthBytes: number, advice: Advice): number => {
  assert(isRange(address, lengthBytes));
  // SAFETY: the caller's range; DONTNEED and REMOVE lose contents, which is what the caller asks for.
  return resultOf(madvise()(address, lengthBytes, advice));
};

/** What {@link mapAnywhere} maps. */
export interface FileRun {
  readonly fd: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly protection: Protection;
}

/**
 * Maps a run of a file at an address that the kernel chooses, and returns that address.
 *
 * @throws SystemCallError as listed above.
 */
export const mapAnywhere = ({ fd, offsetBytes, lengthBytes, protection }: FileRun): number => {
  assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0);
  // SAFETY: without MAP_FIXED the kernel picks unused addresses.
  const address = resultOf(mmap()(0, lengthBytes, protection, MAP_SHARED, fd, offsetBytes));
  return check(address, "mmap", { length: lengthBytes, protection, fd, offset: offsetBytes });
};

/**
 * Reserves inaccessible addresses that the kernel chooses, and returns the first.
 *
 * @throws SystemCallError as listed above.
 */
export const reserveAnywhere = (lengthBytes: number): number => {
  assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0);
  // SAFETY: without MAP_FIXED the kernel picks unused addresses.
  const address = resultOf(mmap()(0, lengthBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  return check(address, "mmap", { length: lengthBytes });
};

/** Alignment is left to the kernel, which answers EINVAL: only what could hit foreign memory is refused here. */
const isRange = (address: number, lengthBytes: number): boolean =>
  Number.isSafeInteger(address) &&
  Number.isSafeInteger(lengthBytes) &&
  address >= ADDRESS_BEGIN &&
  lengthBytes > 0 &&
  address + lengthBytes <= ADDRESS_END;
