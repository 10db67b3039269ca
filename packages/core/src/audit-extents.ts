/**
 * The auditor's look at extents and their mappings. What they mean for frames (a reference each, replacements that are on
 * no list) is counted for audit-memory.ts.
 */
import { isAlive } from "./accounting.ts";
import { EXTENT_CLOSED, EXTENT_FREE } from "./extent-table.ts";
import { HYPERVISOR_OWNER, ZERO_FRAME } from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import {
  HANDLES_PER_PAGE,
  MAPPING_FLAG_EXTENT,
  MAPPING_FLAG_PROVIDED,
  MAPPING_LIVE,
  MAPPING_SEVERED,
} from "./maptrack-table.ts";
import { P2M_EXTENT_RO, P2M_EXTENT_RW, P2M_ZERO, p2mEntry, p2mType } from "./p2m.ts";

/** Findings about extents; empty when all is well. */
export const auditExtents = (hypervisor: Hypervisor): string[] => {
  const findings = [...auditZeroFrame(hypervisor), ...auditRows(hypervisor)];
  const mapped = new Uint32Array(hypervisor.domains.slotCount);
  for (const [slot, row] of extentMappings(hypervisor)) {
    mapped[slot]! += hypervisor.maptrack.count[row]!;
    for (const problem of mappingProblems(hypervisor, slot, row)) {
      findings.push(`slot ${slot}: mapping of extent ${hypervisor.maptrack.ref[row]}: ${problem}`);
    }
  }
  return [...findings, ...auditEntries(hypervisor, mapped)];
};

/** Adds what extents hold: a reference on each frame, and in `kept` the replacements that belong to mappings. */
export const countExtents = (hypervisor: Hypervisor, references: Uint32Array, kept: Uint8Array): void => {
  const { extents, maptrack } = hypervisor;
  for (let row = 0; row < extents.rowCount; row += 1) {
    if (extents.state[row] === EXTENT_FREE) continue;
    const mfn = extents.mfn[row]!;
    for (let frame = mfn; frame < mfn + extents.count[row]!; frame += 1) references[frame]! += 1;
  }
  for (const [, row] of extentMappings(hypervisor)) {
    const local = maptrack.local[row]!;
    if (local !== 0) kept.fill(1, local - 1, local - 1 + maptrack.count[row]!);
  }
};

/** Slot and row of every mapping of an extent. */
function* extentMappings({ domains, maptrack }: Hypervisor): Generator<readonly [slot: number, row: number]> {
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    const handles = maptrack.frameCount[slot]! * HANDLES_PER_PAGE;
    for (let handle = 0; handle < handles; handle += 1) {
      const row = maptrack.row(slot, handle);
      const state = maptrack.state[row]!;
      const isMapped = state === MAPPING_LIVE || state === MAPPING_SEVERED;
      if (isMapped && (maptrack.flags[row]! & MAPPING_FLAG_EXTENT) !== 0) yield [slot, row];
    }
  }
}

const auditZeroFrame = ({ directMap, frames }: Hypervisor): string[] => {
  const findings: string[] = [];
  if (frames.owner[ZERO_FRAME] !== HYPERVISOR_OWNER) findings.push("the frame of zeros is not the hypervisor's");
  const words = directMap.u32[0]!.subarray(0, 1024);
  if (words.some((word) => word !== 0)) findings.push("the frame of zeros is not zero");
  return findings;
};

const auditRows = (hypervisor: Hypervisor): string[] => {
  const { extents } = hypervisor;
  const findings: string[] = [];
  for (let row = 0; row < extents.rowCount; row += 1) {
    if (extents.state[row] === EXTENT_FREE) continue;
    for (const problem of rowProblems(hypervisor, row)) findings.push(`extent ${row}: ${problem}`);
  }
  return findings;
};

const rowProblems = (hypervisor: Hypervisor, row: number): string[] => {
  const { domains, extents, frames, maptrack } = hypervisor;
  const problems: string[] = [];
  const granter = extents.granter[row]!;
  const mfn = extents.mfn[row]!;
  let listed = 0;
  for (let link = extents.first[row]!; link !== 0 && listed <= extents.mappings[row]!; listed += 1) {
    const mapping = link - 1;
    const isOurs = maptrack.ref[mapping] === row && maptrack.state[mapping] === MAPPING_LIVE;
    if (!isOurs) problems.push(`row ${mapping} of its list is no mapping of it`);
    link = maptrack.next[mapping]!;
  }
  if (listed !== extents.mappings[row]) problems.push(`${listed} mappings listed, ${extents.mappings[row]} counted`);
  if (extents.state[row] === EXTENT_CLOSED && listed === 0) problems.push("closed and mapped nowhere, but still there");
  if (!isAlive(hypervisor, granter) && domains.stateOf(granter) !== "dying") problems.push("its granter is gone");
  const isOwned = frames.owner.subarray(mfn, mfn + extents.count[row]!).every((owner) => owner === granter + 1);
  if (!isOwned) problems.push("not all of its frames are its granter's");
  return problems;
};

const mappingProblems = (hypervisor: Hypervisor, slot: number, row: number): string[] => {
  const { extents, frames, maptrack, p2m } = hypervisor;
  const problems: string[] = [];
  const extent = maptrack.ref[row]!;
  const count = maptrack.count[row]!;
  const gfn = maptrack.gfn[row]! - 1;
  const local = maptrack.local[row]! - 1;
  const isWritable = (maptrack.flags[row]! & MAPPING_FLAG_PROVIDED) !== 0;
  const isLive = maptrack.state[row] === MAPPING_LIVE;
  if (isWritable !== local >= 0) problems.push("writable exactly when it has a replacement");
  if (isLive && (maptrack.mfn[row] !== extents.mfn[extent] || maptrack.granter[row] !== extents.granter[extent])) {
    problems.push("not of this extent");
  }
  if (isLive && !isListed(hypervisor, extent, row)) problems.push("not on its list");
  const shown = isLive ? maptrack.mfn[row]! : local;
  const type = isWritable ? P2M_EXTENT_RW : P2M_EXTENT_RO;
  for (let index = 0; index < count; index += 1) {
    const isZero = !isLive && !isWritable;
    const expected = isZero ? p2mEntry(ZERO_FRAME, P2M_ZERO) : p2mEntry(shown + index, type);
    if (p2m.get(slot, gfn + index) !== expected) problems.push(`gfn ${gfn + index} shows something else`);
    if (local >= 0 && frames.owner[local + index] !== slot + 1) problems.push(`replacement ${index} is not its own`);
  }
  return problems;
};

const isListed = ({ extents, maptrack }: Hypervisor, extent: number, row: number): boolean => {
  for (let link = extents.first[extent]!, left = extents.mappings[extent]!; link !== 0 && left > 0; left -= 1) {
    if (link === row + 1) return true;
    link = maptrack.next[link - 1]!;
  }
  return false;
};

/** Entries of extents stand for mappings, and for nothing else. Zeros may also stand for a revoked grant. */
const auditEntries = ({ domains, p2m }: Hypervisor, mapped: Uint32Array): string[] => {
  const findings: string[] = [];
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    let extents = 0;
    let zeros = 0;
    for (let gfn = 0; gfn < domains.gfnEnd[slot]!; gfn += 1) {
      const type = p2mType(p2m.get(slot, gfn));
      if (type === P2M_EXTENT_RO || type === P2M_EXTENT_RW) extents += 1;
      else if (type === P2M_ZERO) zeros += 1;
    }
    if (extents > mapped[slot]! || extents + zeros < mapped[slot]!) {
      findings.push(`slot ${slot}: ${extents} gfns of extents and ${zeros} of zeros, ${mapped[slot]} mapped`);
    }
  }
  return findings;
};
