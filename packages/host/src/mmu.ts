/**
 * The page tables of the guests as Linux keeps them: machine frames are pages of memfds, a guest's memory is 4 GiB of
 * address space that the control domain owns, and each change is one system call. Any thread may call it: descriptors
 * and addresses belong to the process.
 */
import type { Mmu } from "@xenolith/core";
import { mapFrames, mapZeros, PROT_READ, PROT_READ_WRITE, punchHole, reserve } from "@xenolith/sys";

/** Bytes of one frame. */
export const FRAME_BYTES = 4096;
/** log2 of the frames of one bank. */
const BANK_SHIFT = 20;
const BANK_MASK = (1 << BANK_SHIFT) - 1;

/** {@link Mmu} over memfd banks. */
export class LinuxMmu implements Mmu {
  readonly #bankFds: readonly number[];

  /** `bankFds[b]` is the memfd that holds frames `b << 20` ... of the machine. */
  constructor(bankFds: readonly number[]) {
    this.#bankFds = bankFds;
  }

  map(base: number, gfn: number, mfn: number, count: number, writable: boolean): number {
    return mapFrames(
      base + gfn * FRAME_BYTES,
      count * FRAME_BYTES,
      writable ? PROT_READ_WRITE : PROT_READ,
      this.#bankFds[mfn >>> BANK_SHIFT]!,
      (mfn & BANK_MASK) * FRAME_BYTES,
    );
  }

  zero(base: number, gfn: number, count: number): number {
    return mapZeros(base + gfn * FRAME_BYTES, count * FRAME_BYTES);
  }

  unmap(base: number, gfn: number, count: number): number {
    return reserve(base + gfn * FRAME_BYTES, count * FRAME_BYTES);
  }

  discard(mfn: number, count: number): number {
    return punchHole(this.#bankFds[mfn >>> BANK_SHIFT]!, (mfn & BANK_MASK) * FRAME_BYTES, count * FRAME_BYTES);
  }
}
