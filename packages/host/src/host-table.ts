/**
 * What the host itself shares between its threads about domains: how WebAssembly sees their memory, how they ended, and
 * which vCPUs wait for a thread. Everything else is in the hypervisor's own tables.
 *
 *     column          type    holds                                             written by
 *     memoryPages     u32     RAM in pages of 64 KiB, as `memory.size` tells    builder, memory_grow (under growLock)
 *     memoryPagesMax  u32     greatest value that memoryPages may take          builder
 *     growLock        i32     tag of the thread that grows the memory, or 0     memory_grow
 *     exitKnown       u32     1 once exitCode is valid (publishes it)           vCPU that ends the program
 *     exitCode        u32     what the program ended with                       the same
 *     where           u8×256  zero-terminated place of the crash                crashing vCPU, before it crashes
 *     vcpuEntry       u32     VCPU_ENTRY_*: what vCPU n is used for             thread-spawn, control domain
 */
import type { Geometry } from "@xenolith/core";

/** Bytes kept of the place of a crash. */
export const WHERE_BYTES = 256;

/** The vCPU is not a WASI thread: if the guest starts it, it does so with vcpu_op. */
export const VCPU_ENTRY_OWN = 0;
/** A WASI thread: `wasi_thread_start(tid, argument)`. */
export const VCPU_ENTRY_THREAD = 1;

/** Columns per domain slot and per vCPU row. */
export class HostTable {
  readonly memoryPages: Uint32Array;
  readonly memoryPagesMax: Uint32Array;
  readonly growLock: Int32Array;
  readonly exitKnown: Uint32Array;
  readonly exitCode: Uint32Array;
  readonly vcpuEntry: Uint32Array;
  readonly #where: Uint8Array;

  constructor(buffer: SharedArrayBuffer, geometry: Geometry) {
    const slots = geometry.domainCountMax;
    const columnBytes = slots * 4;
    this.memoryPages = new Uint32Array(buffer, 0, slots);
    this.memoryPagesMax = new Uint32Array(buffer, columnBytes, slots);
    this.growLock = new Int32Array(buffer, 2 * columnBytes, slots);
    this.exitKnown = new Uint32Array(buffer, 3 * columnBytes, slots);
    this.exitCode = new Uint32Array(buffer, 4 * columnBytes, slots);
    this.#where = new Uint8Array(buffer, 5 * columnBytes, slots * WHERE_BYTES);
    const rows = slots * geometry.vcpusPerDomain;
    this.vcpuEntry = new Uint32Array(buffer, 5 * columnBytes + slots * WHERE_BYTES, rows);
  }

  /** Empties the row of `slot` for a new domain. */
  reset(slot: number, vcpusPerDomain: number): void {
    this.memoryPages[slot] = 0;
    this.memoryPagesMax[slot] = 0;
    this.exitCode[slot] = 0;
    Atomics.store(this.growLock, slot, 0);
    Atomics.store(this.exitKnown, slot, 0);
    this.vcpuEntry.fill(VCPU_ENTRY_OWN, slot * vcpusPerDomain, (slot + 1) * vcpusPerDomain);
    this.setWhere(slot, "");
  }

  /** Records the exit code of the program; the first one stays. */
  setExitCode(slot: number, code: number): void {
    if (Atomics.load(this.exitKnown, slot) !== 0) return;
    this.exitCode[slot] = code;
    Atomics.store(this.exitKnown, slot, 1);
  }

  /** The exit code, or undefined when the program did not end by itself. */
  exitCodeOf(slot: number): number | undefined {
    return Atomics.load(this.exitKnown, slot) === 0 ? undefined : this.exitCode[slot]!;
  }

  /** Records where the domain crashed. */
  setWhere(slot: number, where: string): void {
    const row = this.#where.subarray(slot * WHERE_BYTES, (slot + 1) * WHERE_BYTES);
    row.fill(0);
    // Encoded apart: the encoder refuses shared memory.
    row.set(new TextEncoder().encode(where).subarray(0, WHERE_BYTES - 1));
  }

  /** Where the domain crashed, or "". */
  whereOf(slot: number): string {
    const row = this.#where.slice(slot * WHERE_BYTES, (slot + 1) * WHERE_BYTES);
    return new TextDecoder().decode(row.subarray(0, row.indexOf(0)));
  }
}

/** The table's buffer for `geometry`, zeroed. */
export const createHostTableBuffer = (geometry: Geometry): SharedArrayBuffer => {
  const slots = geometry.domainCountMax;
  return new SharedArrayBuffer(slots * (5 * 4 + WHERE_BYTES + geometry.vcpusPerDomain * 4));
};
