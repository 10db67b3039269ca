/**
 * The copy that is made most, on its own: one operation, between a page that another domain granted and one of the
 * caller's, where everything is as it should be. Whatever is unusual is left to grant-copy.ts, with nothing done.
 *
 * It is one of the calls of quick-call.ts: the caller's READ keeps its own pages where they are, those that are written
 * too, as whoever takes a page away waits for READ afterwards. Of the granter only the p2m lock is held: no entry can be
 * pinned without it, and who has to know that no copy goes on takes it (`awaitCopies`). An entry whose in-use bits are
 * set already is left alone: somebody who has just unpinned it, under the lock of the table only, may be about to clear
 * them. While it holds READ it may not wait, so if the lock is not free the call is made as any other.
 *
 * The entry is translated before its bits are set, and afterwards counts only if it still is what was translated. So
 * setting the bits, the copy and clearing them are one call of the WebAssembly module: six atomic operations in all.
 */
import {
  DOMID_SELF,
  GNTCOPY_dest_gref,
  GNTCOPY_source_gref,
  GNTST_okay,
  gnttab_copy,
  GTF_permit_access,
  GTF_reading,
  GTF_writing,
} from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { DOMAIN_STATES, DOMID_COUNT } from "./domain-table.ts";
import { ENTRY_READ_MASK, ENTRY_WRITE_MASK } from "./grant-acquire.ts";
import { GRANT_ENTRY_BYTES, REFS_PER_FRAME } from "./grant-table.ts";
import { P2M_HOLE, P2M_RAM, P2M_WRITABLE_TYPES } from "./p2m.ts";

const OPERATION_BYTES = gnttab_copy.sizeBytes;
const STATUS_OFFSET = gnttab_copy.status.offset;
const IN_PAGE = FRAME_BYTES - 1;
const DYING = DOMAIN_STATES.indexOf("dying");
const REFS_SHIFT = Math.log2(REFS_PER_FRAME) | 0;
const IN_USE = GTF_reading | GTF_writing;
/** As for lists, and nobody uses the entry. */
const READ_MASK = ENTRY_READ_MASK | IN_USE;
const WRITE_MASK = ENTRY_WRITE_MASK | IN_USE;

/** Words of an operation: the sides, each a reference or gfn and then domid and offset; length and flags. */
const SOURCE = 0;
const DEST = 2;
const SIZES = 4;

/** Makes the operation at `at`. False: it is unusual, nothing has been done. Inside a gate with READ. */
export const copySingle = (cpu: Cpu, at: number): boolean => {
  const { directMap, domains, locks, p2m } = cpu.hypervisor;
  const inPage = at & IN_PAGE;
  const gfn = at >>> 12;
  if ((inPage & 3) !== 0 || inPage > FRAME_BYTES - OPERATION_BYTES || gfn >= p2m.gfnCount) return false;
  const list = p2m.entries[p2m.at(cpu.slot, gfn)]!;
  if (((P2M_WRITABLE_TYPES >>> (list & 15)) & 1) === 0) return false;
  const bank = list >>> (4 + directMap.frameShift);
  const place = (directMap.placeOf(list >>> 4) | inPage) >>> 2;
  const operation = directMap.i32[bank]!;
  // Of the operation every word is read once.
  const sizes = operation[place + SIZES]!;
  const their = operation[place + (sizes >>> 16 === GNTCOPY_dest_gref ? DEST : SOURCE) + 1]!;
  const granter = slotNamed(cpu, their & 0xffff);
  if (granter < 0) return false;
  const lock = cpu.memory.lock - cpu.slot + granter;
  if (!locks.tryAcquire(lock)) return false;
  // The slot cannot have changed hands since it was looked up: this vCPU is inside its gate.
  const state = domains.state[granter]!;
  const isDone = state !== 0 && state < DYING && copyHeld(cpu, granter, operation, place, sizes, their);
  locks.release(lock);
  if (isDone) directMap.views[bank]!.setInt16(place * 4 + STATUS_OFFSET, GNTST_okay, true);
  return isDone;
};

/** Slot of another domain, by its domid; -1: there is none, or it is the caller. */
const slotNamed = ({ hypervisor, slot }: Cpu, domid: number): number => {
  const { domains } = hypervisor;
  const found = domid < DOMID_COUNT ? domains.slotByDomid[domid]! - 1 : -1;
  return found < domains.slotCount && found !== slot ? found : -1;
};

/** Checks what the operation says about the caller's side, and which entry it is about. Under the granter's p2m lock. */
const copyHeld = (
  cpu: Cpu,
  granter: number,
  operation: Int32Array,
  place: number,
  sizes: number,
  their: number,
): boolean => {
  const { grants, p2m } = cpu.hypervisor;
  const isWrite = sizes >>> 16 === GNTCOPY_dest_gref;
  const ref = operation[place + (isWrite ? DEST : SOURCE)]!;
  const gfn = operation[place + (isWrite ? SOURCE : DEST)]!;
  const own = operation[place + (isWrite ? SOURCE : DEST) + 1]!;
  const sizeBytes = sizes & 0xffff;
  const end = Math.max(own >>> 16, their >>> 16) + sizeBytes;
  if ((!isWrite && sizes >>> 16 !== GNTCOPY_source_gref) || sizeBytes === 0 || end > FRAME_BYTES) return false;
  if ((own & 0xffff) !== DOMID_SELF || gfn < 0 || gfn >= p2m.gfnCount) return false;
  if (ref < 0 || ref >= grants.frameCount[granter]! * REFS_PER_FRAME) return false;
  const ownEntry = p2m.entries[p2m.at(cpu.slot, gfn)]!;
  if ((ownEntry & 15) !== P2M_RAM || grants.pin[grants.row(granter, ref)] !== 0) return false;
  return copyEntry(cpu, granter, ref, ownEntry >>> 4, their >>> 16, own >>> 16, sizes);
};

/** Translates the entry, and copies if it permits that and all is in one bank. */
const copyEntry = (
  { hypervisor, domid }: Cpu,
  granter: number,
  ref: number,
  own: number,
  theirOffset: number,
  ownOffset: number,
  sizes: number,
): boolean => {
  const { directMap, grants, p2m } = hypervisor;
  const shared = grants.sharedFrame[granter * grants.framesMax + (ref >>> REFS_SHIFT)]! - 1;
  const at = directMap.placeOf(shared) | ((ref & (REFS_PER_FRAME - 1)) * GRANT_ENTRY_BYTES);
  const bank = shared >>> directMap.frameShift;
  const entry = directMap.i32[bank]!;
  const word = entry[at >>> 2]!;
  const gfn = entry[(at >>> 2) + 1]!;
  const isWrite = sizes >>> 16 === GNTCOPY_dest_gref;
  if ((word & (isWrite ? WRITE_MASK : READ_MASK)) !== ((domid << 16) | GTF_permit_access)) return false;
  const named = gfn >= 0 && gfn < p2m.gfnCount ? p2m.entries[p2m.at(granter, gfn)]! : P2M_HOLE;
  const theirs = named >>> 4;
  const isHere = theirs >>> directMap.frameShift === bank && own >>> directMap.frameShift === bank;
  if ((named & 15) !== P2M_RAM || !isHere) return false;
  const ownAt = directMap.placeOf(own) | ownOffset;
  const theirAt = directMap.placeOf(theirs) | theirOffset;
  const bits = isWrite ? IN_USE : GTF_reading;
  const to = isWrite ? theirAt : ownAt;
  return directMap.words[bank]!.copyEntry(at, word, gfn, bits, to, isWrite ? ownAt : theirAt, sizes & 0xffff) !== 0;
};
