/**
 * The page of EOI bits that a guest may register: bit n says that pirq n needs PHYSDEVOP_eoi. Its frame is referenced.
 */
import { FRAME_BYTES } from "./direct-map.ts";
import type { Hypervisor } from "./hypervisor.ts";

/** Keeps the bit of `pirq` of the domain in `slot`; nothing happens when it has no such page. */
export const markEoi = (hypervisor: Hypervisor, slot: number, pirq: number, isNeeded: boolean): void => {
  const { directMap, pirqs } = hypervisor;
  const frame = pirqs.eoiFrame[slot]! - 1;
  if (frame < 0) return;
  const at = frame * FRAME_BYTES + (pirq >>> 5) * 4;
  if (isNeeded) directMap.orU32(at, (1 << (pirq & 31)) >>> 0);
  else directMap.andU32(at, ~(1 << (pirq & 31)) >>> 0);
};
