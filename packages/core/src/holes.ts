/**
 * Looking for places in an address space where nothing stands. Without the slot's p2m lock the answer is a hint.
 */
import type { Hypervisor } from "./hypervisor.ts";
import { P2M_HOLE } from "./p2m.ts";

/** Gfns whose entries are compared at once. */
const CHUNK = 16_384;
/** Below this many a loop is faster. */
const LOOP_MAX = 64;

const holes = new Uint8Array(CHUNK * Uint32Array.BYTES_PER_ELEMENT);

/** Whether nothing stands at `count` gfns from `gfn`, which exist. */
export const isHoleRun = (hypervisor: Hypervisor, slot: number, gfn: number, count: number): boolean => {
  const { domains, p2m } = hypervisor;
  const { entries } = p2m;
  let at = p2m.at(slot, gfn);
  const end = p2m.at(slot, Math.min(gfn + count, domains.gfnEnd[slot]!));
  for (; end - at > LOOP_MAX; at += CHUNK) {
    const length = Math.min(CHUNK, end - at) * Uint32Array.BYTES_PER_ELEMENT;
    const found = new Uint8Array(entries.buffer, entries.byteOffset + at * Uint32Array.BYTES_PER_ELEMENT, length);
    // The engine's own comparison: fast from the first call on.
    if (Buffer.compare(found, length === holes.length ? holes : holes.subarray(0, length)) !== 0) return false;
  }
  for (; at < end; at += 1) if (entries[at] !== P2M_HOLE) return false;
  return true;
};

/** The highest gfn from which `count` gfns below `end` are holes, or -1. */
export const findHoles = (hypervisor: Hypervisor, slot: number, count: number, end: number): number => {
  const { domains, p2m } = hypervisor;
  const { entries } = p2m;
  const first = p2m.at(slot, 0);
  const used = first + Math.min(domains.gfnEnd[slot]!, end);
  // Everything from the last gfn that was ever used is a hole.
  let top = first + Math.min(end, p2m.gfnCount);
  for (let at = Math.min(used, top) - 1; top - count >= first; at -= 1) {
    if (at < top - count) return top - count - first;
    if (entries[at] !== P2M_HOLE) top = at;
  }
  return -1;
};
