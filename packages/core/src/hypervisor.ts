/**
 * One hypervisor, seen from one thread. All state lives in the shared buffers of `HypervisorStorage`; every thread
 * builds its own `Hypervisor` over them and executes the hypercalls it makes.
 */
import { type AtomicWords, plainWords, wasmWords } from "./atomic-words.ts";
import { Attention } from "./attention.ts";
import { ColumnArena } from "./columns.ts";
import { DirectMap } from "./direct-map.ts";
import { DomainTable } from "./domain-table.ts";
import { ConsoleTable } from "./console-table.ts";
import { EventTable } from "./event-table.ts";
import { FrameTable } from "./frame-table.ts";
import { ExtentTable } from "./extent-table.ts";
import type { Geometry } from "./geometry.ts";
import { GrantTable } from "./grant-table.ts";
import { HvmParamTable } from "./hvm-param-table.ts";
import { LockTable } from "./lock.ts";
import { MaptrackTable } from "./maptrack-table.ts";
import { P2m } from "./p2m.ts";
import { PirqTable } from "./pirq-table.ts";
import type { Platform } from "./platform.ts";
import { ServiceTable } from "./service-table.ts";
import { VcpuTable } from "./vcpu-table.ts";

/** The shared buffers of one hypervisor. Structured-clonable: posted to every vCPU thread. */
export interface HypervisorStorage {
  readonly geometry: Geometry;
  /** Tables; `controlBytes(geometry)` long, zeroed. */
  readonly control: SharedArrayBuffer;
  /** p2m, 4 bytes per guest frame of every slot: domainCountMax * gfnCount * 4 bytes, zeroed, committed lazily. */
  readonly p2m: SharedArrayBuffer;
  /** Grant tables, maptracks and extents: `grantBytes(geometry)` long, zeroed, committed lazily. */
  readonly grants: SharedArrayBuffer;
  /** Direct map of each bank: framesPerBank * 4096 bytes. */
  readonly banks: readonly SharedArrayBuffer[];
  /** The memories that `control` and `banks` are the buffers of, if they are: makes hypercalls faster. */
  readonly memories?: { readonly control: WebAssembly.Memory; readonly banks: readonly WebAssembly.Memory[] };
}

/** What a thread brings to its view of the hypervisor. */
export interface ThreadContext {
  readonly platform: Platform;
  /** Lock tag, unique among live threads; the control domain's thread is 1. */
  readonly tag: number;
  /** A non-shared byte view of a bank, where the thread can have one (faster copies). Asked for once per bank. */
  readonly fastBank?: (bank: number) => Uint8Array;
}

/** The hypervisor as one thread sees it. */
export class Hypervisor {
  readonly geometry: Geometry;
  readonly platform: Platform;
  /** Fast atomics on the control buffer. */
  readonly words: AtomicWords;
  readonly locks: LockTable;
  readonly attention: Attention;
  readonly domains: DomainTable;
  readonly vcpus: VcpuTable;
  readonly frames: FrameTable;
  readonly p2m: P2m;
  readonly events: EventTable;
  readonly pirqs: PirqTable;
  readonly hvmParams: HvmParamTable;
  readonly consoles: ConsoleTable;
  readonly services: ServiceTable;
  readonly directMap: DirectMap;
  readonly grants: GrantTable;
  readonly maptrack: MaptrackTable;
  readonly extents: ExtentTable;

  constructor(storage: HypervisorStorage, thread: ThreadContext) {
    const { geometry } = storage;
    const arena = new ColumnArena(storage.control);
    this.geometry = geometry;
    this.platform = thread.platform;
    const { memories } = storage;
    this.words = memories === undefined ? plainWords(storage.control) : wasmWords(memories.control);
    const tables = layTables(arena, geometry, thread, this.words);
    this.locks = tables.locks;
    this.attention = tables.attention;
    this.domains = tables.domains;
    this.vcpus = tables.vcpus;
    this.frames = tables.frames;
    this.events = tables.events;
    this.pirqs = tables.pirqs;
    this.hvmParams = tables.hvmParams;
    this.consoles = tables.consoles;
    this.services = tables.services;
    const granted = layGrantTables(new ColumnArena(storage.grants), geometry);
    this.grants = granted.grants;
    this.maptrack = granted.maptrack;
    this.extents = granted.extents;
    this.p2m = new P2m(new Uint32Array(storage.p2m), geometry);
    this.directMap = new DirectMap(storage.banks, thread.fastBank, memories?.banks.map(wasmWords));
  }
}

/** Every table in the control buffer, in the one order that all threads use. */
const layTables = (arena: ColumnArena, geometry: Geometry, thread: ThreadContext, words: AtomicWords) => ({
  locks: new LockTable(arena, { geometry, words, platform: thread.platform, tag: thread.tag }),
  attention: new Attention(arena, thread.platform),
  domains: new DomainTable(arena, geometry),
  vcpus: new VcpuTable(arena, geometry),
  events: new EventTable(arena, geometry),
  pirqs: new PirqTable(arena, geometry),
  hvmParams: new HvmParamTable(arena, geometry),
  consoles: new ConsoleTable(arena, geometry),
  services: new ServiceTable(arena, geometry),
  frames: new FrameTable(arena, geometry),
});

/** Every table in the grants buffer. */
const layGrantTables = (arena: ColumnArena, geometry: Geometry) => ({
  grants: new GrantTable(arena, geometry),
  maptrack: new MaptrackTable(arena, geometry),
  extents: new ExtentTable(arena, geometry),
});

/** Bytes of the grants buffer that `geometry` needs. */
export const grantBytes = (geometry: Geometry): number => {
  const arena = new ColumnArena(null);
  layGrantTables(arena, geometry);
  return arena.usedBytes;
};

const unused = (): never => {
  throw new Error("tables that are only measured do nothing");
};

/** The platform of tables that are laid out to be measured: nobody calls it. */
const measuringPlatform: Platform = {
  mmu: { map: unused, mapSecret: unused, protect: unused, zero: unused, unmap: unused, discard: unused },
  now: unused,
  wallClock: unused,
  wait: unused,
  wake: unused,
  ringDoorbell: unused,
  parkForever: unused,
};

/** Bytes of the control buffer that `geometry` needs. */
export const controlBytes = (geometry: Geometry): number => {
  const arena = new ColumnArena(null);
  layTables(arena, geometry, { platform: measuringPlatform, tag: 1 }, plainWords(new SharedArrayBuffer(0)));
  return arena.usedBytes;
};
