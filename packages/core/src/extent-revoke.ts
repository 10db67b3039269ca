/**
 * Taking extents back from those who have them mapped, at once and while they use them. Who may only read sees zeros from
 * then on, who may write its own private pages; nobody faults, and nothing of the granter's is held any more. The mapping
 * is severed: it stays until it is unmapped, which only takes the replacement away.
 */
import { ENOENT } from "@xenolith/abi";
import { closeExtent, dropUnused, extentName, extentRow } from "./extent.ts";
import { mappingName, mappingRow, mappingSlot, switchMapping, unlinkMapping } from "./extent-mapping.ts";
import { unmapExtent } from "./extent-map.ts";
import { EXTENT_FREE, EXTENT_OPEN } from "./extent-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { HANDLES_PER_PAGE, MAPPING_FLAG_EXTENT, MAPPING_LIVE, MAPPING_SEVERED } from "./maptrack-table.ts";
import { P2M_EXTENT_RW, P2M_ZERO } from "./p2m.ts";

/**
 * Takes an extent back from all who have it mapped. Returns how many they were, or -ENOENT: it is gone. An errno of the
 * page table's: a mapper's address space could neither be changed nor be taken away; it still sees the extent.
 */
export const revokeExtent = (hypervisor: Hypervisor, extent: number): number => {
  const row = extentRow(hypervisor, extent);
  return row < 0 ? -ENOENT : severAll(hypervisor, row);
};

/** Takes an extent back from one who has it mapped. 0 also if that was done before, or an errno as above. */
export const revokeMapping = (hypervisor: Hypervisor, mapping: number): number => {
  const row = mappingRow(hypervisor, mapping);
  if (row < 0) return -ENOENT;
  return sever(hypervisor, mappingSlot(mapping), row);
};

/**
 * The domain in `slot` is dying: what it has mapped goes, and what it shares is taken back from everybody. Returns
 * whether all of that is done.
 */
export const reapExtents = (hypervisor: Hypervisor, slot: number): boolean => {
  const { extents, maptrack } = hypervisor;
  for (let handle = maptrack.frameCount[slot]! * HANDLES_PER_PAGE - 1; handle >= 0; handle -= 1) {
    const row = maptrack.row(slot, handle);
    if ((maptrack.flags[row]! & MAPPING_FLAG_EXTENT) === 0) continue;
    const result = unmapExtent(hypervisor, mappingName(hypervisor, slot, handle));
    if (result !== 0 && result !== -ENOENT) return false;
  }
  for (let row = 0; row < extents.rowCount; row += 1) {
    if (extents.state[row] === EXTENT_FREE || extents.granter[row] !== slot) continue;
    if (severAll(hypervisor, row) < 0) return false;
    if (extents.state[row] === EXTENT_OPEN) closeExtent(hypervisor, extentName(hypervisor, row));
  }
  return true;
};

const severAll = (hypervisor: Hypervisor, extent: number): number => {
  const { extents, maptrack } = hypervisor;
  for (let count = 0; ; count += 1) {
    const row = extents.first[extent]! - 1;
    if (row < 0) return count;
    const result = sever(hypervisor, maptrack.ownerOf(row), row);
    if (result !== 0) return result;
  }
};

const sever = (hypervisor: Hypervisor, slot: number, row: number): number => {
  const { maptrack } = hypervisor;
  if (maptrack.state[row] !== MAPPING_LIVE) return 0;
  const result = switchMapping(hypervisor, slot, row, maptrack.local[row] === 0 ? P2M_ZERO : P2M_EXTENT_RW);
  if (result !== 0) return result;
  unlinkMapping(hypervisor, row);
  Atomics.store(maptrack.state, row, MAPPING_SEVERED);
  dropUnused(hypervisor, maptrack.ref[row]!);
  return 0;
};
