/**
 * The page tables of the guests as Linux keeps them: machine frames are pages of memfds, a guest's memory is 4 GiB of
 * address space that the control domain owns, and each change is one system call. Any thread may call it: descriptors
 * and addresses belong to the process.
 *
 * The control domain's own address spaces are soft: JavaScript has views of them, and a view must not fault, neither
 * after its memory was taken away nor when it writes what is there for reading only. So where a guest would find nothing
 * or a page that it cannot write, there is private memory of nobody else's.
 */
import assert from "node:assert/strict";
import { EAGAIN } from "@xenolith/abi";
import type { Mmu } from "@xenolith/core";
import {
  Advice,
  advise,
  lockMemory,
  mapCopies,
  mapFrames,
  mapScratch,
  mapZeros,
  PROT_READ,
  PROT_READ_WRITE,
  protect,
  punchHole,
  reserve,
} from "@xenolith/sys";
import type { SecretFiles } from "./secret-files.ts";

/** Bytes of one frame. */
export const FRAME_BYTES = 4096;
/** log2 of the frames of one bank. */
const BANK_SHIFT = 20;
const BANK_MASK = (1 << BANK_SHIFT) - 1;

/** {@link Mmu} over memfd banks. */
export class LinuxMmu implements Mmu {
  readonly #bankFds: readonly number[];
  readonly #softBases: readonly number[];
  readonly #secrets: SecretFiles | undefined;

  /**
   * `bankFds[b]` is the memfd that holds frames `b << 20` ... of the machine; `softBases` are the bases of the address
   * spaces in which nothing may fault; `secrets` is for the control domain's thread.
   */
  constructor(bankFds: readonly number[], softBases: readonly number[], secrets?: SecretFiles) {
    this.#bankFds = bankFds;
    this.#softBases = softBases;
    this.#secrets = secrets;
  }

  map(base: number, gfn: number, mfn: number, count: number, writable: boolean): number {
    const address = base + gfn * FRAME_BYTES;
    const lengthBytes = count * FRAME_BYTES;
    const fd = this.#bankFds[mfn >>> BANK_SHIFT]!;
    const offset = (mfn & BANK_MASK) * FRAME_BYTES;
    if (!writable && this.#isSoft(base)) return mapCopies(address, lengthBytes, fd, offset);
    return mapFrames(address, lengthBytes, writable ? PROT_READ_WRITE : PROT_READ, fd, offset);
  }

  mapSecret(base: number, gfn: number, handle: number, page: number, count: number, writable: boolean): number {
    assert(this.#secrets !== undefined);
    const address = base + gfn * FRAME_BYTES;
    const lengthBytes = count * FRAME_BYTES;
    const { fd, hidden } = this.#secrets.get(handle);
    const protection = writable ? PROT_READ_WRITE : PROT_READ;
    const result = mapFrames(address, lengthBytes, protection, fd, page * FRAME_BYTES);
    return hidden || result !== 0 ? result : guard(address, lengthBytes);
  }

  protect(base: number, gfn: number, count: number, writable: boolean): number {
    const protection = writable ? PROT_READ_WRITE : PROT_READ;
    return protect(base + gfn * FRAME_BYTES, count * FRAME_BYTES, protection);
  }

  zero(base: number, gfn: number, count: number): number {
    const place = this.#isSoft(base) ? mapScratch : mapZeros;
    return place(base + gfn * FRAME_BYTES, count * FRAME_BYTES);
  }

  unmap(base: number, gfn: number, count: number): number {
    const place = this.#isSoft(base) ? mapScratch : reserve;
    return place(base + gfn * FRAME_BYTES, count * FRAME_BYTES);
  }

  discard(mfn: number, count: number): number {
    return punchHole(this.#bankFds[mfn >>> BANK_SHIFT]!, (mfn & BANK_MASK) * FRAME_BYTES, count * FRAME_BYTES);
  }

  #isSoft(base: number): boolean {
    return this.#softBases.includes(base);
  }
}

/**
 * Keeps memory that the kernel can read out of swap and core files, or takes it away again. ENOMEM and EPERM of mlock are
 * what EAGAIN is of mmap: RLIMIT_MEMLOCK is reached.
 */
const guard = (address: number, lengthBytes: number): number => {
  const dumped = advise(address, lengthBytes, Advice.DONTDUMP);
  const locked = dumped === 0 ? lockMemory(address, lengthBytes) : 0;
  if (dumped === 0 && locked === 0) return 0;
  const undone = reserve(address, lengthBytes);
  assert(undone === 0, "what was just mapped can be taken away");
  return dumped === 0 ? -EAGAIN : dumped;
};
