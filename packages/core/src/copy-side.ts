/**
 * The two sides of copies between domains, source and destination: which domain each is about, what of its tables is
 * looked at for every operation, and the locks under which that stays as it is (copy-hold.ts).
 */
import {
  DOMID_SELF,
  GNTST_bad_domain,
  GNTST_bad_page,
  GNTST_general_error,
  GNTST_permission_denied,
} from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { DOMAIN_STATES } from "./domain-table.ts";
import { REFS_PER_FRAME } from "./grant-table.ts";
import { LOCK_RANKS } from "./lock.ts";
import { P2M_RAM, P2M_RAM_RO } from "./p2m.ts";

/** How many ranks the lock of a table is behind that of a p2m. */
const TABLE_RANKS = LOCK_RANKS.indexOf("grantTable") - LOCK_RANKS.indexOf("p2m");
const DYING = DOMAIN_STATES.indexOf("dying");
/** Neither a slot nor a frame. */
export const NONE = -1;

/** One side of the operations of a hold. */
export interface Side {
  slot: number;
  /** It is a reference of the domain's table. */
  isRef: boolean;
  /** Its domain is not dying. */
  isAlive: boolean;
  /** References that the table has; first row, place in `sharedFrame` and place in the p2m. */
  refEnd: number;
  row: number;
  frames: number;
  entries: number;
  /** References in a row whose entries are in use by the hold: the first, any 32-bit number, and how many there are. */
  runRef: number;
  runCount: number;
  /** Where the frame that the first one names stands: words of its bank, and the place there. */
  words: Int32Array;
  named: number;
}

const nowhere = new Int32Array(0);

/** A side that is about no domain yet. */
export const newSide = (): Side => ({
  slot: NONE,
  isRef: false,
  isAlive: false,
  refEnd: 0,
  row: 0,
  frames: 0,
  entries: 0,
  runRef: 0,
  runCount: 0,
  words: nowhere,
  named: 0,
});

/** Slot of the domain that one side is about, or a status. */
export const slotOfSide = (cpu: Cpu, domid: number, isRef: boolean): number => {
  if (domid === DOMID_SELF) return cpu.slot;
  if (!isRef) return GNTST_permission_denied;
  const slot = cpu.hypervisor.domains.slotOf(domid);
  return slot < 0 ? GNTST_bad_domain : slot;
};

/** The frame of a p2m entry, if it is RAM that may be read, or written, or a status. */
export const frameOf = (entry: number, isWrite: boolean): number => {
  const type = entry & 15;
  if (type === P2M_RAM) return entry >>> 4;
  if (type !== P2M_RAM_RO) return GNTST_bad_page;
  return isWrite ? GNTST_general_error : entry >>> 4;
};

/** Makes `side` be about the domain in `slot`. Under the locks. */
export const openSide = (side: Side, cpu: Cpu, slot: number, isRef: boolean): void => {
  const { domains, grants, p2m } = cpu.hypervisor;
  side.slot = slot;
  side.isRef = isRef;
  side.runCount = 0;
  side.entries = p2m.at(slot, 0);
  if (!isRef) return;
  // Plain: what has been begun when the domain starts to die may end as if it had been before.
  const state = domains.state[slot]!;
  side.isAlive = state !== 0 && state < DYING;
  side.refEnd = grants.frameCount[slot]! * REFS_PER_FRAME;
  side.row = grants.row(slot, 0);
  side.frames = slot * grants.framesMax;
};

/** Identity of the first p2m lock. */
const p2mLockOf = (cpu: Cpu): number => cpu.memory.lock - cpu.slot;
/** Identity of the first lock of a grant table. */
const tableLockOf = (cpu: Cpu): number => p2mLockOf(cpu) + TABLE_RANKS * cpu.hypervisor.domains.slotCount;

/** Takes the p2m locks of both sides. */
export const lockP2ms = (cpu: Cpu, source: number, dest: number): void => {
  lockBoth(cpu, p2mLockOf(cpu), source, dest);
};

/** Gives them back, and lets in who was woken by that. No other lock is held. */
export const unlockP2ms = (cpu: Cpu, source: number, dest: number): void => {
  const awaited = unlockBoth(cpu, p2mLockOf(cpu), source, dest);
  if (awaited !== NONE) cpu.hypervisor.locks.letIn(awaited);
};

/** Takes the locks of both tables. NONE: that side is no reference. */
export const lockTables = (cpu: Cpu, source: number, dest: number): void => {
  if (Math.max(source, dest) === NONE) return;
  lockBoth(cpu, tableLockOf(cpu), source === NONE ? dest : source, dest === NONE ? source : dest);
};

/** Gives them back. */
export const unlockTables = (cpu: Cpu, source: number, dest: number): void => {
  if (Math.max(source, dest) === NONE) return;
  unlockBoth(cpu, tableLockOf(cpu), source === NONE ? dest : source, dest === NONE ? source : dest);
};

/** Takes the locks `first + a` and `first + b`, or the one that they are. */
const lockBoth = (cpu: Cpu, first: number, a: number, b: number): void => {
  const { locks } = cpu.hypervisor;
  locks.acquire(first + Math.min(a, b));
  if (a !== b) locks.acquire(first + Math.max(a, b));
};

/** Gives them back; returns one that somebody was woken for, or NONE. */
const unlockBoth = (cpu: Cpu, first: number, a: number, b: number): number => {
  const { locks } = cpu.hypervisor;
  const [low, high] = [first + Math.min(a, b), first + Math.max(a, b)];
  const isHighAwaited = a !== b && locks.release(high);
  if (locks.release(low)) return low;
  return isHighAwaited ? high : NONE;
};
