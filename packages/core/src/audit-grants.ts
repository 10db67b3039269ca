/**
 * The auditor's look at grants: every pin, reference, list and p2m entry is derived from the maptracks again. What a
 * granter writes into its shared entries is its own affair and not looked at.
 */
import { GNTMAP_device_map, GNTMAP_host_map, GNTMAP_readonly } from "@xenolith/abi";
import { dmaSlot } from "./domain-table.ts";
import { ZERO_FRAME } from "./frame-table.ts";
import { HALVES, mappingType, unitsOf } from "./grant-mapping.ts";
import { GRANT_MODE_PLAIN, GRANT_MODE_REVOKABLE } from "./grant-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import {
  HANDLES_PER_PAGE,
  MAPPING_FLAG_EXTENT,
  MAPPING_FLAG_LAID_OVER,
  MAPPING_FLAG_PROVIDED,
  MAPPING_FLAG_REVOKABLE,
  MAPPING_FREE,
  MAPPING_LIVE,
  MAPPING_SEVERED,
} from "./maptrack-table.ts";
import {
  P2M_GRANT_RO,
  P2M_GRANT_RW,
  P2M_LOCAL_RO,
  P2M_LOCAL_RW,
  P2M_REVOKABLE_RO,
  P2M_REVOKABLE_RW,
  p2mEntry,
} from "./p2m.ts";

/** What the maptracks say there should be. */
interface Expected {
  readonly hypervisor: Hypervisor;
  readonly findings: string[];
  /** By row of the grant table. */
  readonly pins: Map<number, { pin: number; grantee: number; mfn: number; isRevokable: boolean; rows: Set<number> }>;
  /** By index of the p2m. */
  readonly entries: Map<number, number>;
}

const BORROWED_TYPES =
  (1 << P2M_GRANT_RW) |
  (1 << P2M_GRANT_RO) |
  (1 << P2M_REVOKABLE_RW) |
  (1 << P2M_REVOKABLE_RO) |
  (1 << P2M_LOCAL_RW) |
  (1 << P2M_LOCAL_RO);

/** Findings about grants and maptracks; empty when all is well. */
export const auditGrants = (hypervisor: Hypervisor): string[] => {
  const expected: Expected = { hypervisor, findings: [], pins: new Map(), entries: new Map() };
  auditPool(expected);
  for (let slot = 0; slot < hypervisor.domains.slotCount; slot += 1) auditMaptrack(expected, slot);
  auditEntries(expected);
  auditPins(expected);
  return expected.findings;
};

/** Adds the references that mappings hold: on the granted frame, and on the mapper's own page that will replace it. */
export const countGrants = (hypervisor: Hypervisor, references: Uint32Array): void => {
  const { domains, maptrack } = hypervisor;
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    for (const [row] of mappingsOf(hypervisor, slot)) {
      if ((maptrack.flags[row]! & MAPPING_FLAG_EXTENT) !== 0) continue;
      if (maptrack.state[row] === MAPPING_LIVE) references[maptrack.mfn[row]!]! += 1;
      const isProvided = (maptrack.flags[row]! & MAPPING_FLAG_PROVIDED) !== 0;
      if (maptrack.local[row] !== 0 && !isProvided) references[maptrack.local[row]! - 1]! += 1;
    }
  }
};

/** Rows and handles that are in use. */
function* mappingsOf(hypervisor: Hypervisor, slot: number): Generator<readonly [number, number]> {
  const { maptrack } = hypervisor;
  const end = maptrack.frameCount[slot]! * HANDLES_PER_PAGE;
  for (let handle = 0; handle < end; handle += 1) {
    const row = maptrack.row(slot, handle);
    if (maptrack.state[row] !== MAPPING_FREE) yield [row, handle];
  }
}

/** Every page of the pool is one domain's, or free and on the list once. */
const auditPool = ({ hypervisor, findings }: Expected): void => {
  const { maptrack } = hypervisor;
  const used = maptrack.poolHead[1]!;
  const seen = new Uint8Array(maptrack.pageCount);
  for (let link = maptrack.poolHead[0]!; link !== 0; link = maptrack.pageNext[link - 1]!) {
    if (seen[link - 1] !== 0 || link > used) {
      findings.push(`maptrack page ${link - 1}: on the free list twice, or never used`);
      break;
    }
    seen[link - 1] = 1;
  }
  for (let slot = 0; slot < hypervisor.domains.slotCount; slot += 1) {
    for (let index = 0; index < maptrack.frameCount[slot]!; index += 1) {
      const page = maptrack.directory[slot * maptrack.framesMax + index]! - 1;
      if (page < 0 || seen[page] !== 0 || maptrack.pageOwner[page] !== slot + 1) {
        findings.push(`maptrack page ${page} of slot ${slot} is not its own`);
      } else seen[page] = 1;
    }
  }
  for (let page = 0; page < used; page += 1) if (seen[page] === 0) findings.push(`maptrack page ${page} is lost`);
};

const auditMaptrack = (expected: Expected, slot: number): void => {
  const { findings, hypervisor } = expected;
  const { maptrack } = hypervisor;
  const count = maptrack.frameCount[slot]! * HANDLES_PER_PAGE;
  const free = new Uint8Array(count);
  let freeCount = 0;
  for (let link = maptrack.freeHead[slot]!; link !== 0; link = maptrack.next[maptrack.row(slot, link - 1)]!) {
    const handle = link - 1;
    if (handle >= count || free[handle] !== 0 || maptrack.state[maptrack.row(slot, handle)] !== MAPPING_FREE) {
      findings.push(`slot ${slot}: free list of handles is broken at ${handle}`);
      break;
    }
    const row = maptrack.row(slot, handle);
    const isBlank = [maptrack.gfn, maptrack.deviceGfn, maptrack.local, maptrack.notify].every(
      (column) => column[row] === 0,
    );
    if (!isBlank || maptrack.count[row] !== 1) findings.push(`slot ${slot}: free handle ${handle} is not blank`);
    free[handle] = 1;
    freeCount += 1;
  }
  let live = 0;
  for (const [row, handle] of mappingsOf(hypervisor, slot)) {
    live += 1;
    if ((maptrack.flags[row]! & MAPPING_FLAG_EXTENT) !== 0) continue;
    for (const problem of expectRow(expected, slot, row)) findings.push(`slot ${slot} handle ${handle}: ${problem}`);
  }
  if (live !== maptrack.liveCount[slot] || live + freeCount !== count) {
    findings.push(
      `slot ${slot}: ${live} handles in use and ${freeCount} free of ${count}, ${maptrack.liveCount[slot]} counted`,
    );
  }
};

/** Notes what one mapping stands for, and says what is wrong with it by itself. */
const expectRow = (expected: Expected, slot: number, row: number): string[] => {
  const { hypervisor } = expected;
  const { domains, frames, maptrack } = hypervisor;
  const problems: string[] = [];
  const flags = maptrack.flags[row]!;
  const state = maptrack.state[row]!;
  const gfn = maptrack.gfn[row]! - 1;
  const deviceGfn = maptrack.deviceGfn[row]! - 1;
  const local = maptrack.local[row]! - 1;
  if (state !== MAPPING_LIVE && state !== MAPPING_SEVERED) problems.push(`in state ${state} while nothing happens`);
  if (local >= 0 && frames.owner[local] !== slot + 1) problems.push(`replacement ${local} is not its own`);
  if (state === MAPPING_LIVE) {
    const halves = (gfn >= 0 ? GNTMAP_host_map : 0) | (deviceGfn >= 0 ? GNTMAP_device_map : 0);
    if ((flags & HALVES) !== halves || halves === 0) problems.push(`halves ${halves}, pinned ${flags & HALVES}`);
    expectPin(expected, slot, row);
    expectEntry(expected, slot, gfn, p2mEntry(maptrack.mfn[row]!, mappingType(flags)));
    expectEntry(expected, dmaSlot(domains), deviceGfn, p2mEntry(maptrack.mfn[row]!, mappingType(flags)));
  } else {
    const type = (flags & GNTMAP_readonly) === 0 ? P2M_LOCAL_RW : P2M_LOCAL_RO;
    const shown = p2mEntry(local < 0 ? ZERO_FRAME : local, type);
    expectEntry(expected, slot, gfn, shown);
    expectEntry(expected, dmaSlot(domains), deviceGfn, shown);
    if ((flags & MAPPING_FLAG_LAID_OVER) !== 0) problems.push("severed, but still laid over a page");
  }
  return problems;
};

const expectEntry = ({ entries, findings, hypervisor }: Expected, slot: number, gfn: number, entry: number): void => {
  if (gfn < 0) return;
  const at = hypervisor.p2m.at(slot, gfn);
  if (entries.has(at)) findings.push(`slot ${slot} gfn ${gfn}: two mappings say that they stand there`);
  entries.set(at, entry);
};

const expectPin = (expected: Expected, slot: number, row: number): void => {
  const { findings, hypervisor, pins } = expected;
  const { domains, grants, maptrack } = hypervisor;
  const entry = grants.row(maptrack.granter[row]!, maptrack.ref[row]!);
  const grantee = domains.domid[slot]!;
  const mfn = maptrack.mfn[row]!;
  const isRevokable = (maptrack.flags[row]! & MAPPING_FLAG_REVOKABLE) !== 0;
  const known = pins.get(entry) ?? { pin: 0, grantee, mfn, isRevokable, rows: new Set<number>() };
  if (known.grantee !== grantee || known.mfn !== mfn || known.isRevokable !== isRevokable) {
    findings.push(`row ${row}: another grantee, frame or mode than other mappings of its entry`);
  }
  known.pin += unitsOf(maptrack.flags[row]!);
  if (isRevokable) known.rows.add(row);
  pins.set(entry, known);
};

/** The p2ms hold what the mappings say, and no borrowed page besides. */
const auditEntries = ({ entries, findings, hypervisor }: Expected): void => {
  const { domains, p2m } = hypervisor;
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    for (let gfn = 0; gfn < domains.gfnEnd[slot]!; gfn += 1) {
      const entry = p2m.get(slot, gfn);
      const wanted = entries.get(p2m.at(slot, gfn));
      const isBorrowed = ((BORROWED_TYPES >>> (entry & 15)) & 1) !== 0;
      if (wanted === undefined ? isBorrowed : wanted !== entry) {
        findings.push(`slot ${slot} gfn ${gfn}: p2m says ${entry}, its mapping ${wanted ?? "nothing"}`);
      }
    }
  }
};

/** The active entries are pinned by their mappings, and by nothing else. */
const auditPins = (expected: Expected): void => {
  const { domains, grants } = expected.hypervisor;
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    const refs = domains.stateOf(slot) === "free" ? 0 : grants.refsMax;
    for (let ref = 0; ref < refs; ref += 1) {
      for (const problem of entryProblems(expected, slot, grants.row(slot, ref))) {
        expected.findings.push(`slot ${slot} reference ${ref}: ${problem}`);
      }
    }
  }
};

const entryProblems = ({ hypervisor, pins }: Expected, slot: number, row: number): string[] => {
  const { frames, grants } = hypervisor;
  const problems: string[] = [];
  const known = pins.get(row);
  const mapped = known?.pin ?? 0;
  if (mapped !== grants.pin[row]) problems.push(`pin ${grants.pin[row]}, mapped ${mapped}`);
  const listed = known?.rows ?? new Set<number>();
  const linked = linkedRows(hypervisor, row);
  const isSameList = linked.size === listed.size && [...linked].every((mapping) => listed.has(mapping));
  if (!isSameList) problems.push("its list and its revokable mappings differ");
  if (known === undefined) return problems;
  const mode = known.isRevokable ? GRANT_MODE_REVOKABLE : GRANT_MODE_PLAIN;
  const isSame = grants.grantee[row] === known.grantee && grants.frame[row] === known.mfn + 1;
  if (!isSame || grants.mode[row] !== mode) problems.push("grantee, frame or mode is not that of its mappings");
  if (frames.owner[known.mfn] !== slot + 1) problems.push(`frame ${known.mfn} is not its own`);
  return problems;
};

/** Rows on the list of an active entry. */
const linkedRows = ({ grants, maptrack }: Hypervisor, row: number): Set<number> => {
  const linked = new Set<number>();
  for (let link = grants.first[row]!; link !== 0 && !linked.has(link - 1); link = maptrack.next[link - 1]!) {
    linked.add(link - 1);
  }
  return linked;
};
