/**
 * The auditor's look at extents and their mappings. What they mean for frames (a reference each, replacements that are on
 * no list) is counted for audit-memory.ts.
 */
import { isAlive } from "./accounting.ts";
import { GNTMAP_readonly } from "@xenolith/abi";
import { EXTENT_CLOSED, EXTENT_FREE, EXTENT_OF_FRAMES } from "./extent-table.ts";
import { HYPERVISOR_OWNER, ZERO_FRAME } from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import {
  HANDLES_PER_PAGE,
  MAPPING_FLAG_EXTENT,
  MAPPING_FLAG_PROVIDED,
  MAPPING_LIVE,
  MAPPING_SEVERED,
} from "./maptrack-table.ts";
import {
  isSecret,
  P2M_EXTENT_RO,
  P2M_EXTENT_RW,
  P2M_SECRET_RO,
  P2M_SECRET_RW,
  P2M_ZERO,
  p2mEntry,
  p2mType,
} from "./p2m.ts";
import { secretPage, secretRow } from "./secret-frames.ts";

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
    if (extents.state[row] === EXTENT_FREE || extents.kind[row] !== EXTENT_OF_FRAMES) continue;
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
  const owners = extents.kind[row] === EXTENT_OF_FRAMES ? frames.owner.subarray(mfn, mfn + extents.count[row]!) : [];
  if (!owners.every((owner) => owner === granter + 1)) problems.push("not all of its frames are its granter's");
  return problems;
};

const mappingProblems = (hypervisor: Hypervisor, slot: number, row: number): string[] => {
  const { frames, maptrack, p2m } = hypervisor;
  const problems: string[] = [];
  const extent = maptrack.ref[row]!;
  const count = maptrack.count[row]!;
  const gfn = maptrack.gfn[row]! - 1;
  const local = maptrack.local[row]! - 1;
  const isLive = maptrack.state[row] === MAPPING_LIVE;
  if (isReplaced(hypervisor, slot, row) !== local >= 0) problems.push("writable exactly when it has a replacement");
  if (isLive && !isPart(hypervisor, extent, row)) problems.push("not of this extent");
  if (isLive && !isListed(hypervisor, extent, row)) problems.push("not on its list");
  const shown = isLive ? maptrack.mfn[row]! : local;
  const type = isLive ? liveType(hypervisor, extent, row) : P2M_EXTENT_RW;
  for (let index = 0; index < count; index += 1) {
    const isZero = !isLive && local < 0;
    const expected = isZero ? p2mEntry(ZERO_FRAME, P2M_ZERO) : p2mEntry(shown + index, type);
    if (p2m.get(slot, gfn + index) !== expected) problems.push(`gfn ${gfn + index} shows something else`);
    if (local >= 0 && frames.owner[local + index] !== slot + 1) problems.push(`replacement ${index} is not its own`);
  }
  return problems;
};

/** Whether frames of the mapper's own are to take its place: it may, or might once, write what is another's. */
const isReplaced = ({ maptrack }: Hypervisor, slot: number, row: number): boolean => {
  const flags = maptrack.flags[row]!;
  const isWritable = (flags & GNTMAP_readonly) === 0 && maptrack.granter[row] !== slot;
  return isWritable || (flags & MAPPING_FLAG_PROVIDED) !== 0;
};

/** Whether a mapping that is live shows what the extent consists of. */
const isPart = ({ extents, geometry, maptrack }: Hypervisor, extent: number, row: number): boolean => {
  if (maptrack.granter[row] !== extents.granter[extent]) return false;
  const mfn = maptrack.mfn[row]!;
  if (extents.kind[extent] === EXTENT_OF_FRAMES) return mfn === extents.mfn[extent];
  return secretRow(geometry, mfn) === extent && secretPage(mfn) + maptrack.count[row]! <= extents.count[extent]!;
};

/** P2M type of the entries of a mapping that is live. */
const liveType = ({ extents, maptrack }: Hypervisor, extent: number, row: number): number => {
  const isReadOnly = (maptrack.flags[row]! & GNTMAP_readonly) !== 0;
  if (extents.kind[extent] === EXTENT_OF_FRAMES) return isReadOnly ? P2M_EXTENT_RO : P2M_EXTENT_RW;
  return isReadOnly || extents.sealed[extent] !== 0 ? P2M_SECRET_RO : P2M_SECRET_RW;
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
      const entry = p2m.get(slot, gfn);
      const type = p2mType(entry);
      if (type === P2M_EXTENT_RO || type === P2M_EXTENT_RW || isSecret(entry)) extents += 1;
      else if (type === P2M_ZERO) zeros += 1;
    }
    if (extents > mapped[slot]! || extents + zeros < mapped[slot]!) {
      findings.push(`slot ${slot}: ${extents} gfns of extents and ${zeros} of zeros, ${mapped[slot]} mapped`);
    }
  }
  return findings;
};
