/** Memory that is set aside for a domain, and why there is none. */
import { EINVAL, ENOMEM, XenolithError } from "@xenolith/abi";
import { freeFramesNow, type Hypervisor, isAlive, replaceClaim } from "@xenolith/core";
import { FRAME_BYTES } from "./mmu.ts";

/**
 * Sets memory aside so that the domain in `slot` can come to own `frames` in all, in place of what it had claimed.
 *
 * @throws XenolithError `INVALID_SIZE`: more than it may own, `MEMORY_EXHAUSTED`: too little is free, `DOMAIN_STATE`.
 */
export const claimFrames = (hypervisor: Hypervisor, slot: number, frames: number): void => {
  const { domains } = hypervisor;
  const result = replaceClaim(hypervisor, slot, frames);
  if (result === 0) return;
  const what = `cannot set ${frames * FRAME_BYTES} bytes aside for domain ${domains.domid[slot]!}`;
  if (result === -ENOMEM) {
    const now = freeFramesNow(hypervisor);
    const free = now.free - now.claimed + domains.claim[slot]!;
    const owned = domains.totPages[slot]! * FRAME_BYTES;
    throw new XenolithError("MEMORY_EXHAUSTED", `${what}: it owns ${owned}, and ${free * FRAME_BYTES} are free for it`);
  }
  if (result === -EINVAL && isAlive(hypervisor, slot))
    throw new XenolithError("INVALID_SIZE", `${what}: it may own ${domains.maxPages[slot]! * FRAME_BYTES}`);
  throw new XenolithError("DOMAIN_STATE", `${what}: it is going`);
};
