/**
 * XENMEM_exchange: a domain gives up frames and gets as many others, in extents of another size. The work is done in
 * chunks as long as the larger extent; a chunk is exchanged entirely or not at all, and `nr_exchanged` tells how far the
 * call came. What was in the frames is lost: the new ones are zero.
 * Source: xen/include/public/memory.h, struct xen_memory_exchange.
 */
import { EFAULT, EINVAL, EPERM, xen_memory_exchange } from "@xenolith/abi";
import { allocateReplacement, countPages } from "./accounting.ts";
import { hookRun, rehookRun, unhookRun } from "./address-space.ts";
import { passGate } from "./block.ts";
import { freeRun } from "./buddy.ts";
import type { Cpu } from "./cpu.ts";
import { ExtentList } from "./extent-list.ts";
import { keepUnhooked } from "./frame-reference.ts";
import { FRAME_EXCHANGED } from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { areFlagsPossible, ORDER_MAX } from "./memory-reservation.ts";
import { P2M_HOLE, P2M_RAM, p2mType } from "./p2m.ts";
import { perCaller } from "./per-caller.ts";
import { resolveDomain } from "./policy.ts";

const CHUNK_FRAMES_MAX = 2 ** ORDER_MAX;
/** Frames exchanged between two looks at whether the caller should pause. */
const SLICE_FRAMES = CHUNK_FRAMES_MAX;

/** One side of an exchange: extents in the guest's list, and the frames of the current chunk. */
class Side {
  readonly gfns = new Uint32Array(CHUNK_FRAMES_MAX);
  readonly mfns = new Uint32Array(CHUNK_FRAMES_MAX);
  readonly list = new ExtentList();
  address = 0;
  count = 0;
  order = 0;

  /** Reads the extents of one chunk of `frameCount` frames. False: a fault. */
  read(frameCount: number): boolean {
    const size = 2 ** this.order;
    for (let at = 0; at < frameCount; at += size) {
      const gfn = this.list.next();
      if (gfn < 0) return false;
      for (let index = 0; index < size; index += 1) this.gfns[at + index] = Math.min(gfn + index, 0xffff_ffff);
    }
    return true;
  }
}

/** Both sides of a caller's exchange. */
interface Exchange {
  readonly given: Side;
  readonly taken: Side;
}

const exchangeOf = perCaller<Exchange>(() => ({ given: new Side(), taken: new Side() }));

/**
 * XENMEM_exchange. 0 when all is exchanged, else -EFAULT, -EPERM: an extent too large, -EINVAL: sizes that differ, a
 * start beyond the end, a gfn that is not plain RAM or is used by others, -ESRCH, -ENOMEM, -ENOSPC.
 */
export const exchangeOp = (cpu: Cpu, argument: number): number => {
  const { memory } = cpu;
  const exchange = exchangeOf(cpu);
  const { given, taken } = exchange;
  if (!memory.fetch(argument, xen_memory_exchange.sizeBytes)) return -EFAULT;
  const view = memory.scratch;
  const flags = xen_memory_exchange.out.mem_flags.get(view, 0);
  const domid = xen_memory_exchange.in.domid.get(view, 0);
  const isOneDomain = xen_memory_exchange.out.domid.get(view, 0) === domid;
  const start = xen_memory_exchange.nr_exchanged.get(view, 0);
  readSide(given, view, xen_memory_exchange.in);
  readSide(taken, view, xen_memory_exchange.out);
  const isSane = isOneDomain && areFlagsPossible(cpu.hypervisor, flags);
  if (given.order > ORDER_MAX || taken.order > ORDER_MAX) return -EPERM;
  const frameCount = 2 ** Math.max(given.order, taken.order);
  const extentCount = frameCount / 2 ** given.order;
  const isSameSize = given.count * 2 ** given.order === taken.count * 2 ** taken.order;
  if (!isSane || !isSameSize || start > given.count || start % extentCount !== 0) return -EINVAL;
  const slot = resolveDomain(cpu, domid, "TARGET");
  if (slot < 0) return slot;
  if (!openLists(cpu, exchange, start)) return -EFAULT;
  let exchanged = start;
  let result = 0;
  while (result === 0 && exchanged < given.count) {
    result =
      given.read(frameCount) && taken.read(frameCount)
        ? exchangeChunk(cpu.hypervisor, slot, exchange, frameCount)
        : -EFAULT;
    if (result === 0) exchanged += extentCount;
    // Between chunks nothing is half done. Another domain could be gone when the caller goes on.
    const isSliceEnd = ((exchanged - start) * 2 ** given.order) % SLICE_FRAMES === 0;
    if (result === 0 && isSliceEnd && slot === cpu.slot) passGate(cpu);
  }
  const isTold = memory.writeU32(argument + xen_memory_exchange.nr_exchanged.offset, exchanged);
  return isTold ? result : -EFAULT;
};

const readSide = (side: Side, view: DataView, reservation: typeof xen_memory_exchange.in): void => {
  side.address = reservation.extent_start.get(view, 0);
  side.count = reservation.nr_extents.get(view, 0);
  side.order = reservation.extent_order.get(view, 0);
};

/** Opens both lists, behind the `start` extents of the first that are exchanged already. False: not in memory. */
const openLists = (cpu: Cpu, { given, taken }: Exchange, start: number): boolean => {
  const skipped = (start * 2 ** given.order) / 2 ** taken.order;
  return (
    given.list.open(cpu.memory, given.address + start * 4, given.count - start) &&
    taken.list.open(cpu.memory, taken.address + skipped * 4, taken.count - skipped)
  );
};

/** Exchanges the chunk that both sides have read. 0, or an errno with nothing changed. */
const exchangeChunk = (hypervisor: Hypervisor, slot: number, exchange: Exchange, frameCount: number): number => {
  const { given, taken } = exchange;
  const { locks } = hypervisor;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const marked = markGiven(hypervisor, slot, given, frameCount);
  let result = marked === frameCount && areTargetsFree(hypervisor, slot, taken, frameCount) ? 0 : -EINVAL;
  if (result === 0) result = allocateTaken(hypervisor, slot, taken, frameCount);
  if (result === 0) result = swap(hypervisor, slot, exchange, frameCount);
  for (let index = 0; index < marked; index += 1) hypervisor.frames.flags[given.mfns[index]!]! &= ~FRAME_EXCHANGED;
  locks.release(lock);
  if (result === 0) freeFramesOf(hypervisor, given, frameCount);
  return result;
};

/** Marks the frames given up: plain RAM, named once, used by nobody else. Returns how many could be. */
const markGiven = (hypervisor: Hypervisor, slot: number, given: Side, frameCount: number): number => {
  const { frames, p2m } = hypervisor;
  for (let index = 0; index < frameCount; index += 1) {
    const entry = p2m.get(slot, given.gfns[index]!);
    const mfn = entry >>> 4;
    const isPlain = p2mType(entry) === P2M_RAM && Atomics.load(frames.refs, mfn) === 1;
    if (!isPlain || (frames.flags[mfn]! & FRAME_EXCHANGED) !== 0) return index;
    frames.flags[mfn]! |= FRAME_EXCHANGED;
    given.mfns[index] = mfn;
  }
  return frameCount;
};

/** Whether every gfn that gets a frame is a hole or gives one up. */
const areTargetsFree = (hypervisor: Hypervisor, slot: number, taken: Side, frameCount: number): boolean => {
  const { frames, p2m } = hypervisor;
  for (let index = 0; index < frameCount; index += 1) {
    const gfn = taken.gfns[index]!;
    const entry = p2m.get(slot, gfn);
    if (!p2m.contains(gfn)) return false;
    if (entry !== P2M_HOLE && (p2mType(entry) !== P2M_RAM || (frames.flags[entry >>> 4]! & FRAME_EXCHANGED) === 0)) {
      return false;
    }
  }
  return true;
};

/** Allocates the new extents of a chunk. 0, or an errno with nothing allocated. */
const allocateTaken = (hypervisor: Hypervisor, slot: number, taken: Side, frameCount: number): number => {
  const size = 2 ** taken.order;
  for (let at = 0; at < frameCount; at += size) {
    const mfn = allocateReplacement(hypervisor, slot, taken.order);
    if (mfn < 0) {
      freeFramesOf(hypervisor, taken, at);
      return mfn;
    }
    for (let index = 0; index < size; index += 1) taken.mfns[at + index] = mfn + index;
  }
  return 0;
};

/** Unhooks what is given and hooks what is taken; undoes both when a step fails. */
const swap = (hypervisor: Hypervisor, slot: number, exchange: Exchange, frameCount: number): number => {
  const { given, taken } = exchange;
  let unhooked = 0;
  let hooked = 0;
  let result = 0;
  while (result === 0 && unhooked < frameCount) {
    const length = runLength(given, unhooked, frameCount, hypervisor.frames.framesPerBank);
    result = unhookRun(hypervisor, slot, given.gfns[unhooked]!, length, true);
    if (result === 0) unhooked += length;
  }
  while (result === 0 && hooked < frameCount) {
    const length = runLength(taken, hooked, frameCount, hypervisor.frames.framesPerBank);
    const gfn = taken.gfns[hooked]!;
    const areHoles = isHoleRun(hypervisor, slot, gfn, length);
    result = areHoles ? hookRun(hypervisor, slot, gfn, taken.mfns[hooked]!, length, P2M_RAM) : -EINVAL;
    if (result === 0) hooked += length;
  }
  if (result !== 0) undo(hypervisor, slot, exchange, { unhooked, hooked, frameCount });
  return result;
};

/**
 * Takes back the first `hooked` frames and puts the first `unhooked` ones back. Where the page table refuses even that,
 * the domain keeps the new frame where it is, and its old one without a gfn.
 */
const undo = (
  hypervisor: Hypervisor,
  slot: number,
  { given, taken }: Exchange,
  done: { readonly unhooked: number; readonly hooked: number; readonly frameCount: number },
): void => {
  for (let index = 0; index < done.frameCount; index += 1) {
    const isHooked = index < done.hooked;
    const isFree = !isHooked || unhookRun(hypervisor, slot, taken.gfns[index]!, 1, true) === 0;
    if (isFree) freeUncounted(hypervisor, taken.mfns[index]!, 1);
    else countPages(hypervisor, slot, 1);
  }
  for (let index = 0; index < done.unhooked; index += 1) {
    const gfn = given.gfns[index]!;
    const mfn = given.mfns[index]!;
    const isHole = hypervisor.p2m.get(slot, gfn) === P2M_HOLE;
    const isBack = isHole && rehookRun(hypervisor, slot, gfn, mfn, 1, P2M_RAM) === 0;
    if (!isBack) keepUnhooked(hypervisor, slot, mfn);
  }
};

/** Whether all of a run are holes: not so when the taken side names a gfn twice. */
const isHoleRun = (hypervisor: Hypervisor, slot: number, gfn: number, count: number): boolean => {
  for (let index = 0; index < count; index += 1) {
    if (hypervisor.p2m.get(slot, gfn + index) !== P2M_HOLE) return false;
  }
  return true;
};

/** Frees the first `frameCount` frames of a side, which nothing names any more. They are not in the accounts. */
const freeFramesOf = (hypervisor: Hypervisor, side: Side, frameCount: number): void => {
  const { framesPerBank } = hypervisor.frames;
  let first = 0;
  for (let next = 1; next <= frameCount; next += 1) {
    const mfn = side.mfns[next]!;
    const isNext = next < frameCount && mfn === side.mfns[next - 1]! + 1 && mfn % framesPerBank !== 0;
    if (isNext) continue;
    freeUncounted(hypervisor, side.mfns[first]!, next - first);
    first = next;
  }
};

const freeUncounted = (hypervisor: Hypervisor, mfn: number, count: number): void => {
  hypervisor.frames.refs.fill(0, mfn, mfn + count);
  freeRun(hypervisor, mfn, count);
};

/** Number of frames from `first` whose gfns and mfns both go up by one, in one bank. */
const runLength = (side: Side, first: number, end: number, framesPerBank: number): number => {
  let last = first;
  while (last + 1 < end) {
    const mfn = side.mfns[last + 1]!;
    const isNext = side.gfns[last + 1] === side.gfns[last]! + 1 && mfn === side.mfns[last]! + 1;
    if (!isNext || mfn % framesPerBank === 0) break;
    last += 1;
  }
  return last + 1 - first;
};
