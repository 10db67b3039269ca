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
import {
  COPY_DEST,
  COPY_DEST_NAME,
  COPY_SIZES,
  COPY_SOURCE,
  COPY_SOURCE_NAME,
  COPY_WORDS,
  CopyHold,
} from "./copy-hold.ts";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { perCaller } from "./per-caller.ts";

/** Operations that are read together, made, and answered together; then the caller may be paused. */
const SLICE_OPERATIONS = 256;
const OPERATION_BYTES = gnttab_copy.sizeBytes;
const STATUS_OFFSET = gnttab_copy.status.offset;
/** Length and flags of copies of a whole page. */
const FROM_WHOLE = (GNTCOPY_source_gref << 16) | FRAME_BYTES;
const TO_WHOLE = (GNTCOPY_dest_gref << 16) | FRAME_BYTES;
/** Shorter rows are not worth the effort. */
const ROW_MIN = 4;

/** Operations as they were read, and their statuses. */
class CopySlice {
  readonly words = new Int32Array(SLICE_OPERATIONS * COPY_WORDS);
  readonly statuses = new Int16Array(SLICE_OPERATIONS);
  readonly #views: (Uint8Array | undefined)[] = [];

  /** The first `count` operations as bytes. */
  bytes(count: number): Uint8Array {
    return (this.#views[count] ??= new Uint8Array(this.words.buffer, 0, count * OPERATION_BYTES));
  }
}

const sliceOf = perCaller(() => new CopySlice());

/** Locks of one slice: while it holds any, its thread does nothing else. */
const hold = new CopyHold();

/** GNTTABOP_copy: `count` operations at `array`, in order. 0, or -EFAULT: one of them could not be read or answered. */
export const copyGrantOp = (cpu: Cpu, array: number, count: number): number => {
  const slice = sliceOf(cpu);
  let done = 0;
  while (done < count) {
    if (done > 0) passGate(cpu);
    const at = array + done * OPERATION_BYTES;
    const length = fetchSlice(cpu, slice, at, Math.min(count - done, SLICE_OPERATIONS));
    if (length === 0) return -EFAULT;
    copySlice(cpu, slice, length);
    hold.finish();
    const isStored = storeStatuses(cpu, slice, at, length);
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
const fetchSlice = ({ memory }: Cpu, slice: CopySlice, at: number, length: number): number => {
  if (length > 1 && memory.accessible(at, length * OPERATION_BYTES, true)) {
    if (memory.copyFromGuest(at, slice.bytes(length)) === 0) return length;
  }
  return memory.copyFromGuest(at, slice.bytes(1)) === 0 ? 1 : 0;
};

/** Makes the first `length` operations, and notes their statuses. */
const copySlice = (cpu: Cpu, { words, statuses }: CopySlice, length: number): void => {
  statuses.fill(GNTST_okay, 0, length);
  // Where the row ends.
  let end = 0;
  let index = 0;
  while (index < length) {
    if (index === end) end = endOfRow(words, index, length);
    if (end - index >= ROW_MIN) index += copyRow(cpu, words, index * COPY_WORDS, end - index);
    if (index === end) continue;
    statuses[index] = copyOne(cpu, words, index * COPY_WORDS);
    index += 1;
  }
};

/** Where copies of whole pages end, from number `index` on, that are the same but for their frames, references in a row. */
const endOfRow = (words: Int32Array, index: number, length: number): number => {
  const first = index * COPY_WORDS;
  const sizes = words[first + COPY_SIZES]!;
  if (sizes !== FROM_WHOLE && sizes !== TO_WHOLE) return index + 1;
  const sourceName = words[first + COPY_SOURCE_NAME]!;
  const destName = words[first + COPY_DEST_NAME]!;
  const side = sizes === TO_WHOLE ? COPY_DEST : COPY_SOURCE;
  let ref = words[first + side]!;
  let end = index + 1;
  for (let at = first + COPY_WORDS; end < length; end += 1, at += COPY_WORDS) {
    ref = (ref + 1) | 0;
    const differing =
      (words[at + side]! ^ ref) |
      (words[at + COPY_SIZES]! ^ sizes) |
      (words[at + COPY_SOURCE_NAME]! ^ sourceName) |
      (words[at + COPY_DEST_NAME]! ^ destName);
    if (differing !== 0) break;
  }
  return end;
};

/** Makes operations in a row, as far as all is as it should be; returns how many. */
const copyRow = (cpu: Cpu, words: Int32Array, at: number, count: number): number => {
  const source = words[at + COPY_SOURCE_NAME]!;
  const dest = words[at + COPY_DEST_NAME]!;
  const isDest = words[at + COPY_SIZES] === TO_WHOLE;
  // A page has an offset of 0, or does not fit.
  if ((source | dest) >>> 16 !== 0) return 0;
  if (hold.enter(cpu, source, dest, !isDest, isDest) !== 0) return 0;
  return hold.copyRow(words, at, count);
};

/** Makes the operation at `at`; returns its status. */
const copyOne = (cpu: Cpu, words: Int32Array, at: number): number => {
  const sizes = words[at + COPY_SIZES]!;
  const sizeBytes = sizes & 0xffff;
  if (sizeBytes === 0) return GNTST_okay;
  const source = words[at + COPY_SOURCE_NAME]!;
  const dest = words[at + COPY_DEST_NAME]!;
  const isSourceRef = ((sizes >>> 16) & GNTCOPY_source_gref) !== 0;
  const isDestRef = ((sizes >>> 16) & GNTCOPY_dest_gref) !== 0;
  const refused = hold.enter(cpu, source & 0xffff, dest & 0xffff, isSourceRef, isDestRef);
  if (refused !== 0) return refused;
  const from = hold.source(words[at + COPY_SOURCE]!);
  if (from < 0) return from;
  const to = hold.dest(words[at + COPY_DEST]!);
  if (to < 0) return to;
  const fromOffset = source >>> 16;
  const toOffset = dest >>> 16;
  if (fromOffset + sizeBytes > FRAME_BYTES || toOffset + sizeBytes > FRAME_BYTES) return GNTST_bad_copy_arg;
  hold.copy(to, toOffset, from, fromOffset, sizeBytes);
  return GNTST_okay;
};

/** Writes the statuses of `length` operations to `at`, and nothing else of them. False: not all can be written. */
const storeStatuses = (cpu: Cpu, slice: CopySlice, at: number, length: number): boolean => {
  const { memory, hypervisor } = cpu;
  const isEven = (at & 1) === 0;
  // The caller's p2m lock is held already, unless both sides are others'. At an odd place a status may lie in two pages.
  const isCovered = isEven && hold.covers(cpu);
  if (!isCovered) hold.close();
  if (!isEven) return storeEach(cpu, slice, at, length);
  if (!isCovered) hypervisor.locks.acquire(memory.lock);
  let stored = 0;
  while (stored < length) {
    const end = storeInPage(cpu, slice, at, stored, length);
    if (end === stored) break;
    stored = end;
  }
  if (!isCovered) hypervisor.locks.release(memory.lock);
  return stored === length;
};

/** Writes the statuses from number `index` on, below `length`, that lie in its page; returns where the next page begins. */
const storeInPage = (
  { memory, hypervisor }: Cpu,
  { statuses }: CopySlice,
  at: number,
  index: number,
  length: number,
): number => {
  const { directMap } = hypervisor;
  const first = at + index * OPERATION_BYTES + STATUS_OFFSET;
  const machine = memory.translate(first, true);
  if (machine < 0) return index;
  const fitting = Math.ceil((FRAME_BYTES - (first & (FRAME_BYTES - 1))) / OPERATION_BYTES);
  const end = Math.min(length, index + fitting);
  const halves = directMap.i16[directMap.bankOf(machine)]!;
  let place = (directMap.offsetOf(machine) / 2) | 0;
  for (let done = index; done < end; done += 1, place += OPERATION_BYTES / 2) halves[place] = statuses[done]!;
  return end;
};

const storeEach = ({ memory }: Cpu, { statuses }: CopySlice, at: number, length: number): boolean => {
  for (let index = 0; index < length; index += 1) {
    if (!memory.writeU16(at + index * OPERATION_BYTES + STATUS_OFFSET, statuses[index]! & 0xffff)) return false;
  }
  return true;
};
