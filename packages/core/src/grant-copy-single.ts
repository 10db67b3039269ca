/**
 * The copy that is made most, on its own: one operation, between a page that another domain granted and one of the
 * caller's, where everything is as it should be. It does what grant-copy.ts does for longer lists under the same locks,
 * without what only lists need. Whatever is unusual is left to that, with nothing done.
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
import { ENTRY_READ_MASK, ENTRY_WRITE_MASK } from "./copy-hold.ts";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { DOMAIN_STATES } from "./domain-table.ts";
import { GRANT_ENTRY_BYTES, REFS_PER_FRAME } from "./grant-table.ts";
import { perCaller } from "./per-caller.ts";
import { P2M_HOLE, P2M_RAM, P2M_WRITABLE_TYPES } from "./p2m.ts";

const OPERATION_BYTES = gnttab_copy.sizeBytes;
const STATUS_OFFSET = gnttab_copy.status.offset;
const IN_PAGE = FRAME_BYTES - 1;
const DYING = DOMAIN_STATES.indexOf("dying");
const REFS_SHIFT = Math.log2(REFS_PER_FRAME) | 0;

/** What a caller's last copies were about. */
interface Habit {
  /** Slot of their granter: a guess at the next one's, so that its lock can be taken before the list is read. */
  granter: number;
  /** Copies that are not tried, and how many there will be after the next wrong guess. */
  left: number;
  penalty: number;
}

const PENALTY_MAX = 64;

const habitOf = perCaller((): Habit => ({ granter: -1, left: 0, penalty: 1 }));

/** Makes the operation at `at`. False: it is unusual, nothing has been done. */
export const copySingle = (cpu: Cpu, at: number): boolean => {
  const inPage = at & IN_PAGE;
  const habit = habitOf(cpu);
  if (habit.left > 0) {
    habit.left -= 1;
    return false;
  }
  if ((inPage & 3) !== 0 || inPage > FRAME_BYTES - OPERATION_BYTES) return false;
  const { granter } = habit;
  if (granter < 0 || granter === cpu.slot) return guessAgain(cpu, habit, at);
  const { locks } = cpu.hypervisor;
  const mine = cpu.memory.lock;
  const theirs = mine - cpu.slot + granter;
  const table = locks.id("grantTable", granter);
  locks.acquire(Math.min(mine, theirs));
  locks.acquire(Math.max(mine, theirs));
  locks.acquire(table);
  const outcome = copyHeld(cpu, at, granter);
  locks.release(table);
  locks.release(Math.max(mine, theirs));
  locks.release(Math.min(mine, theirs));
  if (outcome === OTHER_GRANTER) return guessAgain(cpu, habit, at);
  if (outcome === DONE) habit.penalty = 1;
  return outcome === DONE;
};

/** Looks whom the operation is about, for the next time. */
const guessAgain = (cpu: Cpu, habit: Habit, at: number): false => {
  const { hypervisor, memory } = cpu;
  habit.left = habit.penalty;
  habit.penalty = Math.min(2 * habit.penalty, PENALTY_MAX);
  if (memory.fetch(at, OPERATION_BYTES)) {
    const isWrite = memory.scratch.getUint16(18, true) === GNTCOPY_dest_gref;
    habit.granter = hypervisor.domains.slotOf(memory.scratch.getUint16(isWrite ? 12 : 4, true));
  }
  return false;
};

const DONE = 0;
const UNUSUAL = 1;
const OTHER_GRANTER = 2;

/** Under the locks of both p2ms and of the granter's table. Each word of the operation is read once. */
const copyHeld = (cpu: Cpu, at: number, granter: number): number => {
  const { hypervisor, slot } = cpu;
  const { directMap, domains, geometry, p2m } = hypervisor;
  const bankMask = geometry.framesPerBank - 1;
  const bankShift = 32 - Math.clz32(bankMask);
  const mine = p2m.at(slot, 0);
  const list = p2m.entries[mine + (at >>> 12)]!;
  if (((P2M_WRITABLE_TYPES >>> (list & 15)) & 1) === 0) return UNUSUAL;
  const operation = directMap.i32[list >>> (4 + bankShift)]!;
  const listAt = (((list >>> 4) & bankMask) << 10) | ((at & IN_PAGE) >>> 2);
  const sizes = operation[listAt + 4]!;
  const isWrite = sizes >>> 16 === GNTCOPY_dest_gref;
  const theirAt = listAt + (isWrite ? 2 : 0);
  const ownAt = listAt + (isWrite ? 0 : 2);
  const ref = operation[theirAt]!;
  const their = operation[theirAt + 1]!;
  const gfn = operation[ownAt]!;
  const own = operation[ownAt + 1]!;
  if (domains.slotByDomid[their & 0xffff] !== granter + 1) return OTHER_GRANTER;
  const sizeBytes = sizes & 0xffff;
  const last = Math.max(own >>> 16, their >>> 16) + sizeBytes;
  if ((!isWrite && sizes >>> 16 !== GNTCOPY_source_gref) || sizeBytes === 0 || last > FRAME_BYTES) return UNUSUAL;
  if ((own & 0xffff) !== DOMID_SELF || gfn < 0 || gfn >= p2m.gfnCount) return UNUSUAL;
  const ownEntry = p2m.entries[mine + gfn]!;
  if ((ownEntry & 15) !== P2M_RAM) return UNUSUAL;
  const frame = begin(cpu, granter, ref, isWrite);
  if (frame < 0) return UNUSUAL;
  const to = isWrite ? frame : ownEntry >>> 4;
  const from = isWrite ? ownEntry >>> 4 : frame;
  const toOffset = isWrite ? their >>> 16 : own >>> 16;
  directMap.copyBetween(to, toOffset, from, isWrite ? own >>> 16 : their >>> 16, sizeBytes);
  end(cpu, granter, ref, isWrite);
  directMap.views[list >>> (4 + bankShift)]!.setInt16(listAt * 4 + STATUS_OFFSET, GNTST_okay, true);
  return DONE;
};

/** Sets the in-use bits of an entry that nobody has pinned and that permits the copy. Its frame, or -1 with no bit set. */
const begin = (cpu: Cpu, granter: number, ref: number, isWrite: boolean): number => {
  const { directMap, domains, grants, p2m } = cpu.hypervisor;
  const state = domains.state[granter]!;
  if (state === 0 || state >= DYING || ref < 0 || ref >= grants.frameCount[granter]! * REFS_PER_FRAME) return -1;
  if (grants.pin[grants.row(granter, ref)] !== 0) return -1;
  const { bank, place } = entryOf(cpu, granter, ref);
  const shared = directMap.i32[bank]!;
  const word = shared[place >>> 2]!;
  if ((word & (isWrite ? ENTRY_WRITE_MASK : ENTRY_READ_MASK)) !== ((cpu.domid << 16) | GTF_permit_access)) return -1;
  const bits = isWrite ? GTF_reading | GTF_writing : GTF_reading;
  if (directMap.words[bank]!.compareExchange(place, word, word | bits) !== word) return -1;
  // Read once, after the bits are set.
  const gfn = shared[(place >>> 2) + 1]!;
  const entry = gfn >= 0 && gfn < p2m.gfnCount ? p2m.entries[p2m.at(granter, gfn)]! : P2M_HOLE;
  if ((entry & 15) === P2M_RAM) return entry >>> 4;
  end(cpu, granter, ref, isWrite);
  return -1;
};

/** Clears the bits that `begin` has set. */
const end = (cpu: Cpu, granter: number, ref: number, isWrite: boolean): void => {
  const { bank, place } = entryOf(cpu, granter, ref);
  cpu.hypervisor.directMap.words[bank]!.and(place, ~(isWrite ? GTF_reading | GTF_writing : GTF_reading));
};

/** Where the shared entry is: bank, and place in it, signed. */
const entryOf = ({ hypervisor }: Cpu, granter: number, ref: number) => {
  const { geometry, grants } = hypervisor;
  const frame = grants.sharedFrame[granter * grants.framesMax + (ref >>> REFS_SHIFT)]! - 1;
  const mask = geometry.framesPerBank - 1;
  const place = ((frame & mask) << 12) | ((ref & (REFS_PER_FRAME - 1)) * GRANT_ENTRY_BYTES);
  return { bank: frame >>> (32 - Math.clz32(mask)), place };
};
