/**
 * What rewritten code calls instead of instructions that V8 must not execute on a domain's memory (see the loader's
 * `services`): the size and growth of the memory, waiting and waking, passive data segments.
 */
import {
  type Cpu,
  enterHypercall,
  failInside,
  guestNotify,
  guestWait32,
  guestWait64,
  leaveHypercall,
} from "@xenolith/core";
import type { ServiceFunctions } from "@xenolith/loader";
import { growHeap } from "./guest-heap.ts";
import { heapHasRoom } from "./heap-guard.ts";
import type { HostTable } from "./host-table.ts";
import type { PassiveSegments } from "./protocol.ts";

/** Loop turns between two looks at the gate in images that were made with `poll`. */
const POLL_TURNS = 10_000;
const TRAP = 1;

/** Services of one vCPU. */
export const createServices = (
  cpu: Cpu,
  vcpu: { readonly hostTable: HostTable; readonly tag: number; readonly passive: PassiveSegments | undefined },
): ServiceFunctions => {
  const { hostTable, tag } = vcpu;
  const segments = new SegmentState(vcpu.passive);
  const inside = <T>(operation: () => T): T => {
    try {
      enterHypercall(cpu);
      const result = operation();
      leaveHypercall(cpu);
      return result;
    } catch (thrown) {
      return failInside(cpu, thrown);
    }
  };
  return {
    memory_size: () => Atomics.load(hostTable.memoryPages, cpu.slot),
    memory_grow: (pages: number) => (heapHasRoom() ? inside(() => growHeap(cpu, hostTable, tag, pages >>> 0)) : -1),
    atomic_wait32: (address: number, expected: number, timeoutNs: bigint) =>
      inside(() => guestWait32(cpu, address >>> 0, expected | 0, toTimeout(timeoutNs))),
    atomic_wait64: (address: number, expected: bigint, timeoutNs: bigint) =>
      inside(() => guestWait64(cpu, address >>> 0, expected, toTimeout(timeoutNs))),
    // The rewritten code has touched the address: it cannot fault for good, only lose a race, which wakes nobody.
    atomic_notify: (address: number, count: number) =>
      inside(() => Math.max(0, guestNotify(cpu, address >>> 0, count >>> 0))),
    memory_init: (segment: number, to: number, from: number, lengthBytes: number) =>
      inside(() => {
        const source = segments.slice(segment >>> 0, from >>> 0, lengthBytes >>> 0);
        return source !== undefined && cpu.memory.copyToGuest(to >>> 0, source) === 0 ? 0 : TRAP;
      }),
    data_drop: (segment: number) => segments.drop(segment >>> 0),
    poll: () => inside(() => POLL_TURNS),
  };
};

const toTimeout = (timeoutNs: bigint): number => (timeoutNs < 0n ? Infinity : Number(timeoutNs));

/** Which passive segments this instance still has. */
class SegmentState {
  readonly #passive: PassiveSegments | undefined;
  readonly #dropped = new Set<number>();

  constructor(passive: PassiveSegments | undefined) {
    this.#passive = passive;
  }

  /** The bytes from `from`, or undefined when the segment is shorter. A dropped segment has length 0. */
  slice(segment: number, from: number, lengthBytes: number): Uint8Array | undefined {
    const range = this.#dropped.has(segment) ? undefined : this.#passive?.ranges[segment];
    const available = range?.length ?? 0;
    if (from + lengthBytes > available) return undefined;
    if (range === undefined || this.#passive === undefined) return new Uint8Array(0);
    return new Uint8Array(this.#passive.bytes, range.offset + from, lengthBytes);
  }

  drop(segment: number): void {
    this.#dropped.add(segment);
  }
}
