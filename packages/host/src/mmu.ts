/**
 * The page tables of the guests as Linux keeps them: machine frames are pages of memfds, a guest's memory is 4 GiB of
 * address space that the control domain owns, and each change is one system call. Any thread may call it: descriptors
 * and addresses belong to the process.
 *
 * The control domain's own address spaces are soft: JavaScript has views of them, and a view must not fault, neither
 * after its memory was taken away nor when it writes what is there for reading only. So where a guest would find nothing
 * or a page that it cannot write, there is private memory of nobody else's.
 */
import type { Mmu } from "@xenolith/core";
import {
  mapCopies,
  mapFrames,
  mapScratch,
  mapZeros,
  PROT_READ,
  PROT_READ_WRITE,
  punchHole,
  reserve,
} from "@xenolith/sys";

/** Bytes of one frame. */
export const FRAME_BYTES = 4096;
/** log2 of the frames of one bank. */
const BANK_SHIFT = 20;
const BANK_MASK = (1 << BANK_SHIFT) - 1;

/** {@link Mmu} over memfd banks. */
export class LinuxMmu implements Mmu {
  readonly #bankFds: readonly number[];
  readonly #softBases: readonly number[];

  /**
   * `bankFds[b]` is the memfd that holds frames `b << 20` ... of the machine; `softBases` are the bases of the address
   * spaces in which nothing may fault.
   */
  constructor(bankFds: readonly number[], softBases: readonly number[]) {
    this.#bankFds = bankFds;
    this.#softBases = softBases;
  }

  map(base: number, gfn: number, mfn: number, count: number, writable: boolean): number {
    const address = base + gfn * FRAME_BYTES;
    const lengthBytes = count * FRAME_BYTES;
    const fd = this.#bankFds[mfn >>> BANK_SHIFT]!;
    const offset = (mfn & BANK_MASK) * FRAME_BYTES;
    if (!writable && this.#isSoft(base)) return mapCopies(address, lengthBytes, fd, offset);
    return mapFrames(address, lengthBytes, writable ? PROT_READ_WRITE : PROT_READ, fd, offset);
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
