/**
 * Statuses of a list of entries in a guest's memory: of each entry only that field is written, whatever the guest does
 * to the rest meanwhile.
 */
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import type { DirectMap } from "./direct-map.ts";
import { P2M_WRITABLE_TYPES } from "./p2m.ts";

const STATUS_BYTES = 2;

/**
 * Writes `statuses[0]` ... `statuses[count - 1]` to the 16-bit fields at `address`, `address + strideBytes` ... of the
 * caller's memory, in order. Returns how many it wrote: fewer when one cannot be written. Takes the p2m lock once.
 */
export const storeStatuses = (
  cpu: Cpu,
  address: number,
  strideBytes: number,
  statuses: Int32Array,
  count: number,
): number => {
  const { directMap, locks, p2m } = cpu.hypervisor;
  if (count === 1) return cpu.memory.writeU16(address, statuses[0]! & 0xffff) ? 1 : 0;
  const lock = locks.id("p2m", cpu.slot);
  let done = 0;
  locks.acquire(lock);
  while (done < count) {
    const at = address + done * strideBytes;
    const entry = p2m.get(cpu.slot, Math.floor(at / FRAME_BYTES));
    const inPage = at % FRAME_BYTES;
    // A field that lies in two pages is left to the caller's memory accessor, without the lock.
    const fitting = Math.floor((FRAME_BYTES - STATUS_BYTES - inPage) / strideBytes) + 1;
    if (fitting <= 0 || ((P2M_WRITABLE_TYPES >>> (entry & 15)) & 1) === 0) break;
    const end = Math.min(count, done + fitting);
    storeInFrame(directMap, (entry >>> 4) * FRAME_BYTES + inPage, strideBytes, statuses, done, end);
    done = end;
  }
  locks.release(lock);
  if (done === count || !cpu.memory.writeU16(address + done * strideBytes, statuses[done]! & 0xffff)) return done;
  return done + 1 + storeRest(cpu, address, strideBytes, statuses, done + 1, count);
};

/** Goes on one by one: behind a field that lies in two pages, which in an aligned list there is none of. */
const storeRest = (
  cpu: Cpu,
  address: number,
  strideBytes: number,
  statuses: Int32Array,
  from: number,
  count: number,
): number => {
  for (let index = from; index < count; index += 1) {
    if (!cpu.memory.writeU16(address + index * strideBytes, statuses[index]! & 0xffff)) return index - from;
  }
  return count - from;
};

const storeInFrame = (
  directMap: DirectMap,
  machine: number,
  strideBytes: number,
  statuses: Int32Array,
  from: number,
  end: number,
): void => {
  const view = directMap.views[directMap.bankOf(machine)]!;
  let at = directMap.offsetOf(machine);
  for (let index = from; index < end; index += 1) {
    view.setInt16(at, statuses[index]!, true);
    at += strideBytes;
  }
};
