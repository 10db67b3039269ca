/**
 * GNTTABOP_copy: the hypervisor copies up to a page for its caller, who has to map nothing. Either end is a reference
 * that was given to the caller, or a frame of its own. Each operation of a batch has its own status.
 * Source: xen/include/public/grant_table.h.
 */
import {
  EFAULT,
  GNTCOPY_dest_gref,
  GNTCOPY_source_gref,
  GNTST_bad_copy_arg,
  GNTST_okay,
  gnttab_copy,
} from "@xenolith/abi";
import { passGate } from "./block.ts";
import { CopyHold } from "./copy-hold.ts";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";

/** Operations that are read together, made, and answered together; then the caller may be paused. */
const SLICE_OPERATIONS = 128;
const OPERATION_BYTES = gnttab_copy.sizeBytes;
const STATUS_OFFSET = gnttab_copy.status.offset;

/** Locks of one slice: while it holds any, its thread does nothing else. */
const hold = new CopyHold();

/** GNTTABOP_copy: `count` operations at `array`, in order. 0, or -EFAULT: one of them could not be read or answered. */
export const copyGrantOp = (cpu: Cpu, array: number, count: number): number => {
  let done = 0;
  while (done < count) {
    if (done > 0) passGate(cpu);
    const at = array + done * OPERATION_BYTES;
    const length = fetchSlice(cpu, at, Math.min(count - done, SLICE_OPERATIONS));
    if (length === 0) return -EFAULT;
    for (let offset = 0; offset < length * OPERATION_BYTES; offset += OPERATION_BYTES) {
      cpu.memory.scratch.setInt16(offset + STATUS_OFFSET, copyOne(cpu, offset), true);
    }
    hold.finish();
    const isStored = storeStatuses(cpu, at, length);
    hold.close();
    if (!isStored) return -EFAULT;
    done += length;
  }
  return 0;
};

/**
 * Reads the next operations, and returns how many: one by one when not all of them can be read and answered, so that
 * those before the fault are made and those after it are not. 0: the first cannot be read.
 */
const fetchSlice = (cpu: Cpu, at: number, length: number): number => {
  const { memory } = cpu;
  if (length === 1) return memory.fetch(at, OPERATION_BYTES) ? 1 : 0;
  const isSound = memory.accessible(at, length * OPERATION_BYTES, true) && memory.fetch(at, length * OPERATION_BYTES);
  if (isSound) return length;
  return memory.fetch(at, OPERATION_BYTES) ? 1 : 0;
};

/** Makes the operation at `at` of the scratch buffer; returns its status. */
const copyOne = (cpu: Cpu, at: number): number => {
  const { scratch } = cpu.memory;
  const sizes = scratch.getInt32(at + 16, true);
  const sizeBytes = sizes & 0xffff;
  if (sizeBytes === 0) return GNTST_okay;
  const source = scratch.getInt32(at + 4, true);
  const dest = scratch.getInt32(at + 12, true);
  const isSourceRef = ((sizes >>> 16) & GNTCOPY_source_gref) !== 0;
  const isDestRef = ((sizes >>> 16) & GNTCOPY_dest_gref) !== 0;
  const refused = hold.enter(cpu, source & 0xffff, dest & 0xffff, isSourceRef, isDestRef);
  if (refused !== 0) return refused;
  const from = hold.source(scratch.getInt32(at, true));
  if (from < 0) return from;
  const to = hold.dest(scratch.getInt32(at + 8, true));
  if (to < 0) return to;
  const fromOffset = source >>> 16;
  const toOffset = dest >>> 16;
  if (fromOffset + sizeBytes > FRAME_BYTES || toOffset + sizeBytes > FRAME_BYTES) return GNTST_bad_copy_arg;
  hold.copy(to, toOffset, from, fromOffset, sizeBytes);
  return GNTST_okay;
};

/** Writes the statuses of `length` operations to `at`, and nothing else of them. False: not all can be written. */
const storeStatuses = (cpu: Cpu, at: number, length: number): boolean => {
  const { memory, hypervisor } = cpu;
  const isEven = (at & 1) === 0;
  // The caller's p2m lock is held already, unless both sides are others'. At an odd place a status may lie in two pages.
  const isCovered = isEven && hold.covers(cpu);
  if (!isCovered) hold.close();
  if (!isEven) return storeEach(cpu, at, length);
  if (!isCovered) hypervisor.locks.acquire(memory.lock);
  let stored = 0;
  while (stored < length) {
    const end = storeInPage(cpu, at, stored, length);
    if (end === stored) break;
    stored = end;
  }
  if (!isCovered) hypervisor.locks.release(memory.lock);
  return stored === length;
};

/** Writes the statuses from number `index` on, below `length`, that lie in its page; returns where the next page begins. */
const storeInPage = (cpu: Cpu, at: number, index: number, length: number): number => {
  const { memory, hypervisor } = cpu;
  const { directMap } = hypervisor;
  const first = at + index * OPERATION_BYTES + STATUS_OFFSET;
  const machine = memory.translate(first, true);
  if (machine < 0) return index;
  const fitting = Math.ceil((FRAME_BYTES - (first & (FRAME_BYTES - 1))) / OPERATION_BYTES);
  const end = Math.min(length, index + fitting);
  const view = directMap.views[directMap.bankOf(machine)]!;
  const start = directMap.offsetOf(machine) - index * OPERATION_BYTES - STATUS_OFFSET;
  for (
    let offset = index * OPERATION_BYTES + STATUS_OFFSET;
    offset < end * OPERATION_BYTES;
    offset += OPERATION_BYTES
  ) {
    view.setInt16(start + offset, memory.scratch.getInt16(offset, true), true);
  }
  return end;
};

const storeEach = (cpu: Cpu, at: number, length: number): boolean => {
  const { memory } = cpu;
  for (let offset = STATUS_OFFSET; offset < length * OPERATION_BYTES; offset += OPERATION_BYTES) {
    if (!memory.writeU16(at + offset, memory.scratch.getUint16(offset, true))) return false;
  }
  return true;
};
