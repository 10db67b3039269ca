/**
 * A page that the control domain shares with a guest from its creation: its console ring, its xenstore ring. The frame is
 * referenced, so it is this one for as long as it is used, whatever the guest does to its own address space; it is read
 * and written through the direct map only.
 */
import { type DirectMap, FRAME_BYTES, getFrame, type Hypervisor, putFrame } from "@xenolith/core";

/** The pages of one host. */
export class RingFrames {
  readonly #hypervisor: Hypervisor;
  readonly #open = new Set<RingFrame>();

  constructor(hypervisor: Hypervisor) {
    this.#hypervisor = hypervisor;
  }

  /** References the RAM frame at `gfn` of the domain in `slot`; undefined if there is none. */
  open(slot: number, gfn: number): RingFrame | undefined {
    const mfn = getFrame(this.#hypervisor, slot, gfn);
    if (mfn < 0) return undefined;
    const frame: RingFrame = new RingFrame(this.#hypervisor.directMap, mfn, () => {
      this.#open.delete(frame);
      putFrame(this.#hypervisor, mfn);
    });
    this.#open.add(frame);
    return frame;
  }

  /** Machine frames that are referenced, once for each reference. For the auditor. */
  *mfns(): Generator<number, void, undefined> {
    for (const { mfn } of this.#open) yield mfn;
  }
}

/** A referenced frame. Nothing here throws; after `close` it reads as zeros and takes no writes. */
export class RingFrame {
  readonly #directMap: DirectMap;
  readonly #release: () => void;
  #mfn: number;

  /** Takes over a reference to frame `mfn`, which `release` drops. */
  constructor(directMap: DirectMap, mfn: number, release: () => void) {
    this.#directMap = directMap;
    this.#release = release;
    this.#mfn = mfn;
  }

  /** The machine frame; -1: closed. */
  get mfn(): number {
    return this.#mfn;
  }

  /** The word at `offset`, whole and in order with the bytes. */
  loadU32(offset: number): number {
    return this.#mfn < 0 ? 0 : this.#directMap.atomicLoadU32(this.#mfn * FRAME_BYTES + offset);
  }

  /** Writes the word at `offset`, whole and after the bytes. */
  storeU32(offset: number, value: number): void {
    if (this.#mfn >= 0) this.#directMap.atomicStoreU32(this.#mfn * FRAME_BYTES + offset, value);
  }

  /** Fills `target` from `offset`. */
  readBytes(offset: number, target: Uint8Array): void {
    if (this.#mfn < 0) target.fill(0);
    else this.#directMap.copyOut(this.#mfn * FRAME_BYTES + offset, target, 0, target.length);
  }

  /** Writes `bytes` at `offset`. */
  writeBytes(offset: number, bytes: Uint8Array): void {
    if (this.#mfn >= 0) this.#directMap.copyIn(this.#mfn * FRAME_BYTES + offset, bytes, 0, bytes.length);
  }

  /** Lets go of the frame. May be called again. */
  close(): void {
    if (this.#mfn < 0) return;
    this.#mfn = -1;
    this.#release();
  }
}
