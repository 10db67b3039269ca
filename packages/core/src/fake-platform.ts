/**
 * A platform for tests and simulation: settable clocks, one thread, a checking page-table double, and a whole
 * hypervisor in plain shared buffers. Nothing here is used in production.
 */
import assert from "node:assert/strict";
import { FakeMmu } from "./fake-mmu.ts";
import type { Geometry } from "./geometry.ts";
import { controlBytes, grantBytes, Hypervisor } from "./hypervisor.ts";
import type { HypervisorStorage } from "./hypervisor.ts";
import type { Platform } from "./platform.ts";

/** Thrown by `parkForever`: the vCPU would never run again. */
export class ParkedError extends Error {
  override readonly name = "ParkedError";
}

/** What a sleeping thread would wait for. */
export interface FakeWait {
  readonly words: Int32Array;
  readonly index: number;
  readonly expected: number;
  readonly timeoutNs: number;
}

/** See the file's comment. */
export class FakePlatform implements Platform {
  readonly mmu: FakeMmu;
  /** What `now` answers. A wait with a time limit that nobody ends moves it on. */
  nowNs = 0;
  /** What `wallClock` answers. */
  wallClockNs = 1_700_000_000_000_000_000n;
  /** Rings of the doorbell so far. */
  doorbells = 0;
  /** Calls of `wake` so far. */
  wakes = 0;
  /** What `wake` answers. */
  sleepers = 0;
  /** Bytes of tables that were given back so far. */
  discardedBytes = 0;
  /** Called in place of sleeping: the rest of the world moves on. */
  onWait: ((wait: FakeWait) => void) | undefined = undefined;

  constructor(mmu: FakeMmu) {
    this.mmu = mmu;
  }

  now(): number {
    return this.nowNs;
  }

  wallClock(): bigint {
    return this.wallClockNs;
  }

  wait(words: Int32Array, index: number, expected: number, timeoutNs: number): void {
    if (Atomics.load(words, index) !== expected) return;
    this.onWait?.({ words, index, expected, timeoutNs });
    if (Atomics.load(words, index) !== expected) return;
    assert(timeoutNs !== Infinity, "a wait that nobody will ever end");
    this.nowNs += timeoutNs;
  }

  wake(_words: Int32Array, _index: number): number {
    this.wakes += 1;
    return this.sleepers;
  }

  ringDoorbell(): void {
    this.doorbells += 1;
  }

  discardTable = (buffer: ArrayBufferLike, byteOffset: number, byteLength: number): void => {
    new Uint8Array(buffer, byteOffset, byteLength).fill(0);
    this.discardedBytes += byteLength;
  };

  parkForever(): never {
    throw new ParkedError("parked for ever");
  }
}

/** A small machine: 500 frames in two banks, 8 domains (and the DMA view) of 1024 guest frames. */
export const testGeometry: Geometry = {
  framesPerBank: 256,
  bankCount: 2,
  machineFrames: 500,
  domainCountMax: 9,
  gfnCount: 1024,
  vcpusPerDomain: 4,
  portsPerDomain: 1024,
  grantFramesMax: 4,
  maptrackFramesMax: 4,
  maptrackPages: 16,
  extentCount: 16,
  vmaLimit: 600,
  vmaReserve: 60,
};

/** A hypervisor over plain buffers, not yet initialised, and the parts that tests look into. */
export interface TestHypervisor {
  readonly hypervisor: Hypervisor;
  readonly platform: FakePlatform;
  readonly mmu: FakeMmu;
  readonly storage: HypervisorStorage;
}

const WASM_PAGE_BYTES = 65_536;

const sharedMemory = (sizeBytes: number): WebAssembly.Memory => {
  const pages = Math.ceil(sizeBytes / WASM_PAGE_BYTES);
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
};

/** The same, over memories of WebAssembly: hypercalls use its atomics, as on a real host. */
const withMemories = (storage: HypervisorStorage): HypervisorStorage => {
  const control = sharedMemory(storage.control.byteLength);
  const banks = storage.banks.map((bank) => sharedMemory(bank.byteLength));
  const bufferOf = ({ buffer }: WebAssembly.Memory): SharedArrayBuffer => {
    assert(buffer instanceof SharedArrayBuffer);
    return buffer;
  };
  return { ...storage, control: bufferOf(control), banks: banks.map(bufferOf), memories: { control, banks } };
};

/**
 * Builds storage of the given geometry (fields left out are `testGeometry`'s) and one view of it. Atomics are those of
 * JavaScript, which tests can watch, unless `isFast`.
 */
export const createTestHypervisor = (geometry: Partial<Geometry> = {}, isFast = false): TestHypervisor => {
  const whole: Geometry = { ...testGeometry, ...geometry };
  const { domainCountMax, gfnCount, bankCount, framesPerBank } = whole;
  const plain: HypervisorStorage = {
    geometry: whole,
    control: new SharedArrayBuffer(controlBytes(whole)),
    p2m: new SharedArrayBuffer(domainCountMax * gfnCount * 4),
    grants: new SharedArrayBuffer(grantBytes(whole)),
    banks: Array.from({ length: bankCount }, () => new SharedArrayBuffer(framesPerBank * 4096)),
  };
  const storage = isFast ? withMemories(plain) : plain;
  const mmu = new FakeMmu(whole, storage.banks);
  const platform = new FakePlatform(mmu);
  return { hypervisor: new Hypervisor(storage, { platform, tag: 1 }), platform, mmu, storage };
};
