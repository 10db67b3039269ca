/**
 * Runs of a domain's own RAM, found in its p2m: the frames behind a range of gfns, as few contiguous machine runs as
 * there are. What decrease_reservation, exchange, physmap changes and tear-down take frames away with.
 */
import { freeDomainRun, keepUnhooked, releaseFrame } from "./frame-reference.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { isRam } from "./p2m.ts";

/** Machine runs that one collection holds. Bounds the work under one hold of a lock. */
export const RAM_RUNS_MAX = 1024;

/** Machine runs collected from a p2m. Each thread has its own; the contents live within one operation. */
export class RamRuns {
  readonly #mfn = new Uint32Array(RAM_RUNS_MAX);
  /** Frames in the run; 0: one frame that others hold references to. */
  readonly #count = new Uint32Array(RAM_RUNS_MAX);
  #length = 0;

  /**
   * Collects the frames behind `gfn` ..., at most `countMax`, as far as they are RAM and the runs fit. Returns how many
   * gfns that are. Under the slot's p2m lock, which keeps others from taking references meanwhile.
   */
  collect(hypervisor: Hypervisor, slot: number, gfn: number, countMax: number): number {
    const { entries } = hypervisor.p2m;
    const { refs, framesPerBank } = hypervisor.frames;
    const first = hypervisor.p2m.at(slot, gfn);
    let at = first;
    let next = -1;
    this.#length = 0;
    for (; at < first + countMax; at += 1) {
      const entry = entries[at]!;
      if (!isRam(entry)) break;
      const mfn = entry >>> 4;
      // Plain: while it is 1 and the lock is held, nobody else can change it.
      const isHeld = refs[mfn] !== 1;
      if (mfn === next && !isHeld && (mfn & (framesPerBank - 1)) !== 0) {
        this.#count[this.#length - 1]! += 1;
        next += 1;
        continue;
      }
      if (this.#length === RAM_RUNS_MAX) break;
      this.#mfn[this.#length] = mfn;
      this.#count[this.#length] = isHeld ? 0 : 1;
      this.#length += 1;
      next = isHeld ? -1 : mfn + 1;
    }
    return at - first;
  }

  /** Drops the owner's references of frames that nobody else holds: what `free` will free. Still under the p2m lock. */
  drop(hypervisor: Hypervisor): void {
    const { refs } = hypervisor.frames;
    for (let index = 0; index < this.#length; index += 1) {
      const mfn = this.#mfn[index]!;
      refs.fill(0, mfn, mfn + this.#count[index]!);
    }
  }

  /** Frees what was collected, unhooked and dropped. Frames that others hold wait for them. Without the p2m lock. */
  free(hypervisor: Hypervisor, slot: number): void {
    for (let index = 0; index < this.#length; index += 1) {
      const mfn = this.#mfn[index]!;
      const count = this.#count[index]!;
      if (count === 0) releaseFrame(hypervisor, slot, mfn);
      else freeDomainRun(hypervisor, slot, mfn, count);
    }
    this.#length = 0;
  }

  /** Puts what was collected and unhooked on the domain's list of unhooked frames. */
  keep(hypervisor: Hypervisor, slot: number): void {
    for (let index = 0; index < this.#length; index += 1) {
      const mfn = this.#mfn[index]!;
      const count = Math.max(1, this.#count[index]!);
      for (let frame = mfn; frame < mfn + count; frame += 1) keepUnhooked(hypervisor, slot, frame);
    }
    this.#length = 0;
  }
}
