/**
 * GNTTABOP_unmap_grant_ref and GNTTABOP_unmap_and_replace: lists of requests in the guest's memory, a slice at a time.
 * Only the status of each is written.
 */
import { EFAULT, gnttab_unmap_and_replace, gnttab_unmap_grant_ref } from "@xenolith/abi";
import { passGate } from "./block.ts";
import type { Cpu } from "./cpu.ts";
import { BATCH_MAX } from "./grant-batch.ts";
import { storeStatuses } from "./grant-statuses.ts";
import { UnmapBatch, unmapBatch } from "./grant-unbatch.ts";
import { perCaller } from "./per-caller.ts";

/** The two structures have their fields at the same places. */
const ENTRY_BYTES = gnttab_unmap_grant_ref.sizeBytes;
const ENTRY_WORDS = ENTRY_BYTES / 4;
const HOST_LOW = gnttab_unmap_grant_ref.host_addr.low.offset / 4;
const HOST_HIGH = gnttab_unmap_grant_ref.host_addr.high.offset / 4;
/** dev_bus_addr, or new_addr. */
const OTHER_LOW = gnttab_unmap_and_replace.new_addr.low.offset / 4;
const OTHER_HIGH = gnttab_unmap_and_replace.new_addr.high.offset / 4;
const HANDLE = gnttab_unmap_grant_ref.handle.offset / 4;
const STATUS_BYTE = gnttab_unmap_grant_ref.status.offset;

/** A slice of a guest's list. */
class UnmapSlice {
  readonly words = new Uint32Array(BATCH_MAX * ENTRY_WORDS);
  readonly batch = new UnmapBatch();
  readonly #bytes = new Uint8Array(this.words.buffer);
  readonly #views: (Uint8Array | undefined)[] = [];

  /** The first `count` entries as bytes. */
  bytes(count: number): Uint8Array {
    return (this.#views[count] ??= this.#bytes.subarray(0, count * ENTRY_BYTES));
  }
}

const sliceOf = perCaller(() => new UnmapSlice());

/** GNTTABOP_unmap_grant_ref on `count` entries at `array`. 0, or -EFAULT: an entry cannot be read or written. */
export const unmapGrantOp = (cpu: Cpu, array: number, count: number): number => unmapList(cpu, array, count, false);

/** GNTTABOP_unmap_and_replace: what stands elsewhere cannot be moved there, so it is an unmapping of the host half. */
export const unmapAndReplaceOp = (cpu: Cpu, array: number, count: number): number => unmapList(cpu, array, count, true);

const unmapList = (cpu: Cpu, array: number, count: number, isReplace: boolean): number => {
  const slice = sliceOf(cpu);
  for (let done = 0; done < count; done += BATCH_MAX) {
    if (done > 0) passGate(cpu);
    const length = Math.min(BATCH_MAX, count - done);
    const result = unmapSlice(cpu, slice, array + done * ENTRY_BYTES, length, isReplace);
    if (result !== 0) return result;
  }
  return 0;
};

const unmapSlice = (cpu: Cpu, slice: UnmapSlice, address: number, count: number, isReplace: boolean): number => {
  const { batch } = slice;
  const isFetched = count === 1 && cpu.memory.fetchWords(address, slice.words, ENTRY_WORDS);
  if (!isFetched && cpu.memory.copyFromGuest(address, slice.bytes(count)) !== 0) {
    for (let index = 0; index < count && count > 1; index += 1) {
      if (unmapSlice(cpu, slice, address + index * ENTRY_BYTES, 1, isReplace) !== 0) return -EFAULT;
    }
    return count > 1 ? 0 : -EFAULT;
  }
  decode(slice, count, isReplace);
  unmapBatch(cpu.hypervisor, cpu.slot, batch, count);
  return storeStatuses(cpu, address + STATUS_BYTE, ENTRY_BYTES, batch.status, count) === count ? 0 : -EFAULT;
};

const decode = (slice: UnmapSlice, count: number, isReplace: boolean): void => {
  const { batch, words } = slice;
  batch.isReplace = isReplace;
  for (let index = 0, at = 0; index < count; index += 1, at += ENTRY_WORDS) {
    batch.hostLow[index] = words[at + HOST_LOW]!;
    batch.hostHigh[index] = words[at + HOST_HIGH]!;
    batch.otherLow[index] = words[at + OTHER_LOW]!;
    batch.otherHigh[index] = words[at + OTHER_HIGH]!;
    batch.handle[index] = words[at + HANDLE]!;
  }
};
