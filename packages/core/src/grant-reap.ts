/**
 * The grants of a dying domain, once no vCPU can be in the middle of one: first its own mappings go, so that their
 * granters can end access; then what it granted revokably is taken back, and who asked is told that it ended. Plain
 * grants that others have mapped stay what they are: the frames live on until the last mapping goes.
 */
import { GNTST_okay } from "@xenolith/abi";
import { fireRefNotify } from "./grant-notify.ts";
import { revokeGrant } from "./grant-revoke.ts";
import { GRANT_MODE_PLAIN } from "./grant-table.ts";
import { dropMapping } from "./grant-unmap.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { releaseMaptrack } from "./maptrack.ts";
import { HANDLES_PER_PAGE, MAPPING_FREE } from "./maptrack-table.ts";

/** What ending a mapping costs, in handles and references that nothing has to be done for. */
const MAPPING_COST = 16;

/**
 * Goes on with the grants of the domain in `slot`, at most `budget` handles and references at a time, of which a mapping
 * counts as many; returns whether all is done. `reapCursor` counts those that are.
 */
export const reapGrants = (hypervisor: Hypervisor, slot: number, budget: number): boolean => {
  const { domains, grants, maptrack } = hypervisor;
  const handles = maptrack.frameCount[slot]! * HANDLES_PER_PAGE;
  const end = handles + grants.refCount(slot);
  for (let left = budget; left > 0 && domains.reapCursor[slot]! < end;) {
    const at = domains.reapCursor[slot]!;
    const isFree = at < handles && maptrack.state[maptrack.row(slot, handles - 1 - at)] === MAPPING_FREE;
    left -= at < handles && !isFree ? MAPPING_COST : 1;
    // The highest handle first; then the references.
    const isDone =
      at < handles ? reapHandle(hypervisor, slot, handles - 1 - at) : reapRef(hypervisor, slot, at - handles);
    if (!isDone) return false;
    domains.reapCursor[slot] = at + 1;
  }
  if (domains.reapCursor[slot]! < end) return false;
  domains.reapCursor[slot] = 0;
  releaseMaptrack(hypervisor, slot);
  return true;
};

const reapHandle = (hypervisor: Hypervisor, slot: number, handle: number): boolean => {
  const { maptrack } = hypervisor;
  if (maptrack.state[maptrack.row(slot, handle)] === MAPPING_FREE) return true;
  return dropMapping(hypervisor, slot, handle, true) === GNTST_okay;
};

const reapRef = (hypervisor: Hypervisor, slot: number, ref: number): boolean => {
  const { grants } = hypervisor;
  const row = grants.row(slot, ref);
  if (grants.notify[row] !== 0) fireRefNotify(hypervisor, slot, ref);
  return grants.mode[row] === GRANT_MODE_PLAIN || revokeGrant(hypervisor, slot, ref) === GNTST_okay;
};
