/**
 * Pinning many entries of one table at once: references in a row that nobody has pinned, which permit the access and name
 * RAM, as batches of plain mappings usually ask for. It does what grant-acquire.ts does for one, but a step for all of
 * them at a time: the handshakes in one call of the WebAssembly module, the references to neighbouring frames in one
 * more, and of each row only the columns that change. It stops before the first entry that is not so simple.
 */
import { GNTMAP_readonly, GTF_permit_access, GTF_reading, GTF_revokable, GTF_writing } from "@xenolith/abi";
import { ENTRY_READ_MASK, ENTRY_WRITE_MASK } from "./grant-acquire.ts";
import { GRANT_ENTRY_BYTES, PIN_HOST_READ, PIN_HOST_WRITE, REFS_PER_FRAME } from "./grant-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { isRam, P2M_HOLE, P2M_RAM } from "./p2m.ts";

/** Shorter runs are not worth the effort. */
const RUN_MIN = 4;
/** As for every use, and the entry is not one that only a revokable mapping may use. */
const READ_MASK = ENTRY_READ_MASK | GTF_revokable;
const WRITE_MASK = ENTRY_WRITE_MASK | GTF_revokable;
/** References to a frame that can be referred to: its owner's, and the new one. */
const REFS_LEAST = 2;

/** Requests in columns: references, GNTMAP_* and, going out, frames. */
export interface PinColumns {
  readonly ref: Uint32Array;
  readonly flags: Uint32Array;
  readonly mfn: Int32Array;
}

/** A run of entries: row of the first, the bank of their shared frame, where they are in it, and the access wanted. */
interface EntryRun {
  readonly row: number;
  readonly bank: number;
  readonly place: number;
  readonly isWrite: boolean;
}

/**
 * Pins the entries of requests `from` ..., below `end`, of the table of the domain in `granter`, which is alive, for the
 * domain called `grantee`. Their frames go to `columns.mfn`, with a reference each. Returns how many were pinned; of the
 * next one nothing has been changed. Under `lockGranter`.
 */
export const pinRun = (
  hypervisor: Hypervisor,
  granter: number,
  grantee: number,
  columns: PinColumns,
  from: number,
  end: number,
): number => {
  const { directMap, grants } = hypervisor;
  const length = runLength(hypervisor, granter, columns, from, end);
  if (length < RUN_MIN) return 0;
  const ref = columns.ref[from]!;
  const shared = grants.sharedFrame[granter * grants.framesMax + Math.floor(ref / REFS_PER_FRAME)]! - 1;
  const run: EntryRun = {
    row: grants.row(granter, ref),
    bank: shared >>> directMap.frameShift,
    place: directMap.placeOf(shared) | ((ref % REFS_PER_FRAME) * GRANT_ENTRY_BYTES),
    isWrite: (columns.flags[from]! & GNTMAP_readonly) === 0,
  };
  const words = directMap.words[run.bank]!;
  const bits = run.isWrite ? GTF_reading | GTF_writing : GTF_reading;
  const wanted = (grantee << 16) | GTF_permit_access;
  const begun = words.beginRun(run.place, length, run.isWrite ? WRITE_MASK : READ_MASK, wanted, bits);
  const named = translateRun(hypervisor, granter, run, columns.mfn, from, begun);
  const count = referTo(hypervisor, columns.mfn, from, named);
  if (count < begun) words.endRun(run.place + count * GRANT_ENTRY_BYTES, begun - count, bits);
  const { row } = run;
  grants.pin.fill(run.isWrite ? PIN_HOST_WRITE : PIN_HOST_READ, row, row + count);
  grants.grantee.fill(grantee, row, row + count);
  for (let index = 0; index < count; index += 1) grants.frame[row + index] = columns.mfn[from + index]! + 1;
  return count;
};

/** How many requests from `from` on ask for one way of access to unpinned entries in a row, of one shared frame. */
const runLength = (
  { grants }: Hypervisor,
  granter: number,
  { ref, flags }: PinColumns,
  from: number,
  end: number,
): number => {
  const first = ref[from]!;
  const refEnd = grants.frameCount[granter]! * REFS_PER_FRAME;
  if (first >= refEnd) return 0;
  const { pin } = grants;
  const row = grants.row(granter, first);
  const access = flags[from]! & GNTMAP_readonly;
  const limit = Math.min(end - from, REFS_PER_FRAME - (first % REFS_PER_FRAME));
  let count = 0;
  while (count < limit && ref[from + count] === first + count && pin[row + count] === 0) {
    if ((flags[from + count]! & GNTMAP_readonly) !== access) break;
    count += 1;
  }
  return count;
};

/** Notes what `count` entries name, each read once after its bits are set, up to one that is no RAM of the granter's. */
const translateRun = (
  { directMap, grants, p2m }: Hypervisor,
  granter: number,
  { row, bank, place, isWrite }: EntryRun,
  mfns: Int32Array,
  from: number,
  count: number,
): number => {
  const words = directMap.i32[bank]!;
  const { entries, gfnCount } = p2m;
  const base = p2m.at(granter, 0);
  // The second word of each entry.
  const at = (place >>> 2) + 1;
  for (let index = 0; index < count; index += 1) {
    const gfn = words[at + index * 2]!;
    const entry = gfn >= 0 && gfn < gfnCount ? entries[base + gfn]! : P2M_HOLE;
    if (isWrite ? (entry & 15) !== P2M_RAM : !isRam(entry)) return index;
    grants.gfn[row + index] = gfn;
    mfns[from + index] = entry >>> 4;
  }
  return count;
};

/** Takes a reference to each of `count` frames, neighbours at a time, up to one that can have no more. */
const referTo = ({ frames, words }: Hypervisor, mfns: Int32Array, from: number, count: number): number => {
  let done = 0;
  while (done < count) {
    const mfn = mfns[from + done]!;
    let length = 1;
    while (done + length < count && mfns[from + done + length] === mfn + length) length += 1;
    const address = frames.refsStart + mfn * 4;
    const added = words.addRun(address, length, 1, REFS_LEAST);
    done += added;
    if (added === length) continue;
    words.sub(address + added * 4, 1);
    break;
  }
  return done;
};
