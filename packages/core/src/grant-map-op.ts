/**
 * GNTTABOP_map_grant_ref and the extension GNTTABOP_map_revokable: lists of requests in the guest's memory. A slice of
 * the list is copied in, worked on and copied back; between slices the caller may pause or stop. The whole structure is
 * written back; a mapping whose handle cannot be told to the guest is undone.
 */
import { EFAULT, GNTMAP_device_map, GNTST_okay, gnttab_map_grant_ref, gnttab_map_revokable } from "@xenolith/abi";
import { passGate } from "./block.ts";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { BATCH_MAX, MapBatch, mapBatch } from "./grant-batch.ts";
import { mapGrant } from "./grant-map.ts";
import { dropMapping } from "./grant-unmap.ts";
import { perCaller } from "./per-caller.ts";

const ENTRY_BYTES = gnttab_map_grant_ref.sizeBytes;
const ENTRY_WORDS = ENTRY_BYTES / 4;
const REVOKABLE_BYTES = gnttab_map_revokable.sizeBytes;
/** Words of an entry. */
const HOST_LOW = gnttab_map_grant_ref.host_addr.low.offset / 4;
const HOST_HIGH = gnttab_map_grant_ref.host_addr.high.offset / 4;
const FLAGS = gnttab_map_grant_ref.flags.offset / 4;
const REF = gnttab_map_grant_ref.ref.offset / 4;
/** Domid in the low half, status in the high one. */
const DOM = gnttab_map_grant_ref.dom.offset / 4;
const HANDLE = gnttab_map_grant_ref.handle.offset / 4;
const DEVICE_LOW = gnttab_map_grant_ref.dev_bus_addr.low.offset / 4;
const DEVICE_HIGH = gnttab_map_grant_ref.dev_bus_addr.high.offset / 4;
/** An address that no guest has; as a gfn it is none. */
const NO_GFN = 0xffff_ffff;
/** Entries of map_revokable done between two looks at whether the caller should pause. */
const SLICE_REVOKABLE = 64;

/** A slice of a guest's list. */
class MapSlice {
  readonly words = new Uint32Array(BATCH_MAX * ENTRY_WORDS);
  readonly batch = new MapBatch();
  readonly #bytes = new Uint8Array(this.words.buffer);
  readonly #views: (Uint8Array | undefined)[] = [];

  /** The first `count` entries as bytes. */
  bytes(count: number): Uint8Array {
    return (this.#views[count] ??= this.#bytes.subarray(0, count * ENTRY_BYTES));
  }
}

const sliceOf = perCaller(() => new MapSlice());

/** GNTTABOP_map_grant_ref on `count` entries at `array`. 0, or -EFAULT: an entry cannot be read or written. */
export const mapGrantOp = (cpu: Cpu, array: number, count: number): number => {
  const slice = sliceOf(cpu);
  for (let done = 0; done < count; done += BATCH_MAX) {
    if (done > 0) passGate(cpu);
    const length = Math.min(BATCH_MAX, count - done);
    const result = mapSlice(cpu, slice, array + done * ENTRY_BYTES, length);
    if (result !== 0) return result;
  }
  return 0;
};

const mapSlice = (cpu: Cpu, slice: MapSlice, address: number, count: number): number => {
  const { batch } = slice;
  const { memory } = cpu;
  const isFetched = count === 1 && memory.fetchWords(address, slice.words, ENTRY_WORDS);
  if (!isFetched && memory.copyFromGuest(address, slice.bytes(count)) !== 0) {
    return mapApart(cpu, slice, address, count);
  }
  decode(slice, count);
  mapBatch(cpu.hypervisor, cpu.slot, batch, count);
  encode(slice, count);
  if (count === 1 && memory.storeWords(address, slice.words, ENTRY_WORDS)) return 0;
  if (memory.copyToGuest(address, slice.bytes(count)) === 0) return 0;
  return storeApart(cpu, slice, address, count);
};

/** A slice that is not readable as a whole: what lies before the bad place is done. */
const mapApart = (cpu: Cpu, slice: MapSlice, address: number, count: number): number => {
  for (let index = 0; index < count && count > 1; index += 1) {
    if (mapSlice(cpu, slice, address + index * ENTRY_BYTES, 1) !== 0) return -EFAULT;
  }
  return count > 1 ? 0 : -EFAULT;
};

/** A slice that is not writable as a whole: what the guest is not told is undone. */
const storeApart = (cpu: Cpu, slice: MapSlice, address: number, count: number): number => {
  let stored = 0;
  const bytes = slice.bytes(count);
  while (stored < count) {
    const entry = bytes.subarray(stored * ENTRY_BYTES, (stored + 1) * ENTRY_BYTES);
    if (cpu.memory.copyToGuest(address + stored * ENTRY_BYTES, entry) !== 0) break;
    stored += 1;
  }
  const { batch } = slice;
  for (let index = stored; index < count; index += 1) {
    if (batch.status[index] === GNTST_okay) dropMapping(cpu.hypervisor, cpu.slot, batch.handle[index]!, true);
  }
  return stored === count ? 0 : -EFAULT;
};

const decode = (slice: MapSlice, count: number): void => {
  const { batch, words } = slice;
  for (let index = 0, at = 0; index < count; index += 1, at += ENTRY_WORDS) {
    batch.gfn[index] = words[at + HOST_HIGH] === 0 ? words[at + HOST_LOW]! >>> 12 : NO_GFN;
    batch.flags[index] = words[at + FLAGS]!;
    batch.ref[index] = words[at + REF]!;
    batch.granter[index] = words[at + DOM]! & 0xffff;
    // Where in the DMA view: an input of the control domain's, which alone has one.
    batch.deviceGfn[index] = words[at + DEVICE_HIGH] === 0 ? words[at + DEVICE_LOW]! >>> 12 : NO_GFN;
  }
};

const encode = (slice: MapSlice, count: number): void => {
  const { batch, words } = slice;
  for (let index = 0, at = 0; index < count; index += 1, at += ENTRY_WORDS) {
    const status = batch.status[index]!;
    words[at + DOM] = batch.granter[index]! | (status << 16);
    if (status !== GNTST_okay) continue;
    const hasDevice = (batch.flags[index]! & GNTMAP_device_map) !== 0;
    words[at + HANDLE] = batch.handle[index]!;
    words[at + DEVICE_LOW] = hasDevice ? batch.deviceGfn[index]! * FRAME_BYTES : 0;
    words[at + DEVICE_HIGH] = 0;
  }
};

/** GNTTABOP_map_revokable (an extension) on `count` entries at `array`. 0, or -EFAULT. */
export const mapRevokableOp = (cpu: Cpu, array: number, count: number): number => {
  for (let index = 0; index < count; index += 1) {
    if (index > 0 && index % SLICE_REVOKABLE === 0) passGate(cpu);
    if (!mapRevokable(cpu, array + index * REVOKABLE_BYTES)) return -EFAULT;
  }
  return 0;
};

const mapRevokable = (cpu: Cpu, address: number): boolean => {
  const { memory } = cpu;
  const { request } = sliceOf(cpu).batch;
  const { map, lgfn } = gnttab_map_revokable;
  if (!memory.fetch(address, REVOKABLE_BYTES)) return false;
  const view = memory.scratch;
  request.granter = map.dom.get(view, 0);
  request.ref = map.ref.get(view, 0);
  request.flags = map.flags.get(view, 0);
  request.gfn = map.host_addr.high.get(view, 0) === 0 ? map.host_addr.low.get(view, 0) >>> 12 : NO_GFN;
  request.deviceGfn = map.dev_bus_addr.high.get(view, 0) === 0 ? map.dev_bus_addr.low.get(view, 0) >>> 12 : NO_GFN;
  request.isRevokable = true;
  request.lgfn = lgfn.get(view, 0);
  const status = mapGrant(cpu.hypervisor, cpu.slot, request);
  map.status.set(view, 0, status);
  if (status === GNTST_okay) {
    const hasDevice = (request.flags & GNTMAP_device_map) !== 0;
    map.handle.set(view, 0, request.handle);
    map.dev_bus_addr.low.set(view, 0, hasDevice ? request.deviceGfn * FRAME_BYTES : 0);
    map.dev_bus_addr.high.set(view, 0, 0);
  }
  if (memory.store(address, ENTRY_BYTES)) return true;
  if (status === GNTST_okay) dropMapping(cpu.hypervisor, cpu.slot, request.handle, true);
  return false;
};
