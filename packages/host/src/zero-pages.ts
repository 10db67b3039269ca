/**
 * Memory of guests that have no balloon driver: frames that hold nothing but zeros give their memory back to the host and
 * stay where they are. Nothing changes for the guest, not even its accounts: the machine's frame is the page of a memory
 * file, and a hole in the file reads as zeros. See docs/decisions/0008-squeezing-by-zero-pages.md.
 *
 * Between looking and punching nobody may write. The guest's vCPUs are at rest (`isAtRest`), and the p2m lock keeps
 * others from taking a reference; a frame that somebody holds already is left alone.
 */
import { type Hypervisor, GATE_IN, P2M_RAM, p2mMfn, p2mType, VCPU_BLOCKED, VCPU_RUNNABLE } from "@xenolith/core";
import { seek, Whence } from "@xenolith/sys";
import type { Machine } from "./machine.ts";
import { FRAME_BYTES } from "./mmu.ts";

/** Guest frames of one pause: some milliseconds when all of them hold something. */
export const SQUEEZE_SLICE_FRAMES = 2048;

/** How often a domain that computes is looked at before it is left alone. */
export const SQUEEZE_LOOKS = 8;

const WORDS_PER_FRAME = FRAME_BYTES / 4;

/**
 * Whether no vCPU of a domain that was asked to pause can run guest code before it is unpaused. A vCPU sleeps in the
 * hypervisor in states that it changes inside its gate only; seen outside the gate in such a state, it meets the pause
 * first. One in state "running" may be in guest code, so it is not at rest, wherever it is. `isIdle`: vCPU 0 belongs to a
 * reactor that waits for its next call, which comes from this thread.
 */
export const isAtRest = ({ domains, vcpus }: Hypervisor, slot: number, isIdle: boolean): boolean => {
  for (let vcpu = isIdle ? 1 : 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const index = vcpus.index(slot, vcpu);
    if (Atomics.load(vcpus.tag, index) === 0) continue;
    if ((Atomics.load(vcpus.gate, index) & GATE_IN) !== 0) return false;
    const state = Atomics.load(vcpus.state, index);
    if (state !== VCPU_BLOCKED && state !== VCPU_RUNNABLE) return false;
  }
  return true;
};

/** Punches the zero frames among `count` guest frames from `gfn` of a domain at rest; returns how many there were. */
export const dropZeroFrames = (
  hypervisor: Hypervisor,
  { bankFds }: Machine,
  slot: number,
  range: { readonly gfn: number; readonly count: number },
): number => {
  const { locks, p2m, frames, platform, directMap } = hypervisor;
  const lock = locks.id("p2m", slot);
  const end = Math.min(range.gfn + range.count, p2m.gfnCount);
  let dropped = 0;
  locks.acquire(lock);
  for (let gfn = range.gfn; gfn < end;) {
    const entry = p2m.get(slot, gfn);
    const mfn = p2mMfn(entry);
    gfn += 1;
    if (p2mType(entry) !== P2M_RAM || Atomics.load(frames.refs, mfn) !== 1) continue;
    // Reading a hole would fill it: only pages that the file has are looked at.
    const at = mfn & directMap.frameMask;
    const bank = mfn >>> directMap.frameShift;
    if (seek(bankFds[bank]!, at * FRAME_BYTES, Whence.DATA) !== at * FRAME_BYTES) continue;
    if (!isZero(directMap.u32[bank]!, at * WORDS_PER_FRAME)) continue;
    if (platform.mmu.discard(mfn, 1) === 0) dropped += 1;
  }
  locks.release(lock);
  return dropped;
};

const isZero = (words: Uint32Array, from: number): boolean => {
  for (let at = from; at < from + WORDS_PER_FRAME; at += 1) if (words[at] !== 0) return false;
  return true;
};
