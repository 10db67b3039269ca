/**
 * Keeps operations that change page tables away from a full JavaScript heap. Node ends a thread whose heap is full at
 * whatever it does; inside such an operation that would leave a change half made. A guest can fill the heap with
 * exceptions and references, but not while its thread executes the hypervisor: so one look before it enters is enough.
 */
import type { getHeapStatistics } from "node:v8";
import { YOUNG_HEAP_MIB_MAX } from "./thread-limits.ts";

/**
 * Room that every operation is given: 32 MiB, many times what the longest one allocates before the collector runs. The
 * limit that V8 tells counts the young generation three times, which the old one cannot use.
 */
const ROOM_BYTES = 32 * 2 ** 20 + 3 * YOUNG_HEAP_MIB_MAX * 2 ** 20;

/** Loaded on first use: threads start without it. */
let statistics: typeof getHeapStatistics | undefined;

/** Whether the calling thread's heap has room for an operation of the hypervisor; takes under a microsecond. */
export const heapHasRoom = (): boolean => {
  const { heap_size_limit, total_heap_size } = (statistics ??= process.getBuiltinModule("node:v8").getHeapStatistics)();
  return heap_size_limit - total_heap_size >= ROOM_BYTES;
};
