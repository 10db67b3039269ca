/**
 * Domains, one row per slot. A slot is a position in the tables; a domid is a name; a generation tells two domains
 * apart that had the same name or the same slot at different times.
 *
 *     column         type  holds                                        written by
 *     state          u32   DOMAIN_STATES index; publishes the row       lifecycle, under the domain lock
 *     domid          u32   number, < DOMID_FIRST_RESERVED               create
 *     generation     u32   serial of the creation, never reused         create
 *     flags          u32   DOMAIN_FLAG_*                                create, domctl
 *     target         u32   slot + 1 of the domain this one is the device model of, or 0
 *     pauses         u32   nested pauses by the control domain          domctl
 *     shutdownCode   u32   SHUTDOWN_* + 1 once recorded, else 0          sched_op, crash
 *     totPages       u32   frames owned                                 accounting, under the pages lock
 *     maxPages       u32   ceiling for totPages                         memory limits, under the pages lock
 *     extraPagesMax  u32   by how much device models may raise it       memory limits, under the pages lock
 *     extraPages     u32   by how much they have                        memory limits, under the pages lock
 *     frozenToken    u32   token of who froze the limits, or 0          memory limits, under the pages lock
 *     frozenBy       u32   slot + 1 of the domain that froze, or 0       memory limits, under the pages lock
 *     claim          u32   frames claimed and not yet allocated         accounting
 *     peakPages      u32   highest totPages so far                      accounting
 *     unhooked       u32   first frame of the list of owned frames without a gfn (mfn + 1), or 0
 *     vmaCount       u32   VMAs that the address space uses             address space, under the p2m lock
 *     vmaBudget      u32   VMAs that it may use                         create
 *     gfnEnd         u32   one past the highest gfn ever hooked         p2m
 *     vcpuCount      u32   vCPUs (fixed at creation)                    create
 *     portEnd        u32   one past the highest port allowed            create
 *     sharedInfo     u32   mfn of the shared_info frame + 1, or 0        create, reap
 *     sharedInfoGfn  u32   gfn where it is hooked + 1, or 0              add_to_physmap
 *     references     u32   things that keep the row beyond death        everybody, atomically
 *     hypercalls     u32   per vCPU: hypercalls made                    vCPU
 *     events         u32   per vCPU: events received (approximate)      delivery
 *     denied         u32   calls refused for want of privilege          vCPUs
 *     reapStage      u32   REAP_STAGES index of a dying domain          reap
 *     reapCursor     u32   next gfn or port to look at                  reap
 *     graceEpoch     u32   epoch in which the last port was closed       reap
 *     gateEntries    u32   per vCPU: times it entered the hypervisor     vCPU
 *     gateSeen       u32   per vCPU: last epoch in which it was outside  reap
 *     gateMark       u32   per vCPU: gateEntries when it was looked at   reap
 *     markEpoch      u32   per vCPU: epoch in which that was             reap
 *     spaceBase      f64   host address of gfn 0; 0 = not attached      control domain, under the p2m lock
 *     createdNs      f64   host time of creation                        create
 *     handle         u8×16 uuid                                         create, setdomainhandle
 *     crashReason    u8×256 zero-terminated UTF-8                       crash
 *
 * A row is free when `state` is 0. Rows are taken and given back under the domain list lock; only the control domain's
 * thread gives them back.
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";
import { NarrowingTable } from "./narrowing-table.ts";
import { TraceTable } from "./trace-table.ts";

/** Life of a domain; the index is what the column holds. See lifecycle.ts for the legal moves. */
export const DOMAIN_STATES = ["free", "building", "paused", "running", "shutdown", "dying", "dead"] as const;
/** One state of a domain. */
export type DomainState = (typeof DOMAIN_STATES)[number];

/** The domain may make every hypercall: dom0 and delegated toolstacks. */
export const DOMAIN_FLAG_PRIVILEGED = 1;
/** The domain serves xenstore. */
export const DOMAIN_FLAG_XENSTORE = 2;
/** The domain ended by misbehaviour: crashReason says which. */
export const DOMAIN_FLAG_CRASHED = 4;

/** Bytes kept of a crash reason. */
export const CRASH_REASON_BYTES = 256;
/** Number of domids (u16 values below the reserved ones). */
export const DOMID_COUNT = 0x7ff0;
/** In `slotByDomid`: the domid is taken by a domain that is not there yet or no more. */
export const DOMID_RETIRED = 0xffff;
/** Slot of the control domain; its domid is 0 too. */
export const DOM0_SLOT = 0;
/**
 * The last slot never holds a domain: its address space is the control domain's DMA view, into which frames are mapped
 * for its devices.
 */
export const dmaSlot = (domains: Pick<DomainTable, "slotCount">): number => domains.slotCount - 1;

/** Column table of all domains. */
export class DomainTable {
  readonly state: Uint32Array;
  readonly domid: Uint32Array;
  readonly generation: Uint32Array;
  readonly flags: Uint32Array;
  readonly target: Uint32Array;
  readonly pauses: Uint32Array;
  readonly shutdownCode: Uint32Array;
  readonly totPages: Uint32Array;
  readonly maxPages: Uint32Array;
  readonly extraPagesMax: Uint32Array;
  readonly extraPages: Uint32Array;
  readonly frozenToken: Uint32Array;
  readonly frozenBy: Uint32Array;
  readonly claim: Uint32Array;
  readonly peakPages: Uint32Array;
  readonly unhooked: Uint32Array;
  readonly vmaCount: Uint32Array;
  readonly vmaBudget: Uint32Array;
  readonly gfnEnd: Uint32Array;
  readonly vcpuCount: Uint32Array;
  readonly portEnd: Uint32Array;
  readonly sharedInfo: Uint32Array;
  readonly sharedInfoGfn: Uint32Array;
  readonly references: Uint32Array;
  readonly hypercalls: Uint32Array;
  readonly events: Uint32Array;
  readonly denied: Uint32Array;
  readonly reapStage: Uint32Array;
  readonly reapCursor: Uint32Array;
  readonly graceEpoch: Uint32Array;
  readonly gateEntries: Uint32Array;
  readonly gateSeen: Uint32Array;
  readonly gateMark: Uint32Array;
  readonly markEpoch: Uint32Array;
  readonly spaceBase: Float64Array;
  readonly createdNs: Float64Array;
  readonly handle: Uint8Array;
  readonly crashReason: Uint8Array;
  /** domid -> slot + 1, or 0, or DOMID_RETIRED. */
  readonly slotByDomid: Uint16Array;
  /** [0] generation last given out, [1] domid last given out, [2] grace epoch, [3] freeze token last given out. */
  readonly serial: Uint32Array;
  /** What the operator's policy takes from each domain. */
  readonly narrowing: NarrowingTable;
  /** 1: it takes something. The column of `narrowing`. */
  readonly isNarrowed: Uint32Array;
  /** What guests gave the hypervisor reason to note. */
  readonly trace: TraceTable;
  readonly slotCount: number;
  /** Where `hypercalls` and `gateEntries` begin in the control buffer, in bytes. */
  readonly hypercallsStart: number;
  readonly gateEntriesStart: number;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const count = geometry.domainCountMax;
    this.slotCount = count;
    this.state = arena.u32(count);
    this.domid = arena.u32(count);
    this.generation = arena.u32(count);
    this.flags = arena.u32(count);
    this.target = arena.u32(count);
    this.pauses = arena.u32(count);
    this.shutdownCode = arena.u32(count);
    this.totPages = arena.u32(count);
    this.maxPages = arena.u32(count);
    this.extraPagesMax = arena.u32(count);
    this.extraPages = arena.u32(count);
    this.frozenToken = arena.u32(count);
    this.frozenBy = arena.u32(count);
    this.claim = arena.u32(count);
    this.peakPages = arena.u32(count);
    this.unhooked = arena.u32(count);
    this.vmaCount = arena.u32(count);
    this.vmaBudget = arena.u32(count);
    this.gfnEnd = arena.u32(count);
    this.vcpuCount = arena.u32(count);
    this.portEnd = arena.u32(count);
    this.sharedInfo = arena.u32(count);
    this.sharedInfoGfn = arena.u32(count);
    this.references = arena.u32(count);
    this.hypercalls = arena.u32(count * geometry.vcpusPerDomain);
    this.hypercallsStart = this.hypercalls.byteOffset;
    this.events = arena.u32(count * geometry.vcpusPerDomain);
    this.denied = arena.u32(count);
    this.reapStage = arena.u32(count);
    this.reapCursor = arena.u32(count);
    this.graceEpoch = arena.u32(count);
    this.gateEntries = arena.u32(count * geometry.vcpusPerDomain);
    this.gateEntriesStart = this.gateEntries.byteOffset;
    this.gateSeen = arena.u32(count * geometry.vcpusPerDomain);
    this.gateMark = arena.u32(count * geometry.vcpusPerDomain);
    this.markEpoch = arena.u32(count * geometry.vcpusPerDomain);
    this.spaceBase = arena.f64(count);
    this.createdNs = arena.f64(count);
    this.handle = arena.u8(count * 16);
    this.crashReason = arena.u8(count * CRASH_REASON_BYTES);
    this.slotByDomid = arena.u16(DOMID_COUNT);
    this.serial = arena.u32(4);
    this.narrowing = new NarrowingTable(arena, geometry);
    this.isNarrowed = this.narrowing.isNarrowed;
    this.trace = new TraceTable(arena, geometry);
  }

  /** Hypercalls that the domain in `slot` has made. */
  hypercallCount(slot: number): number {
    return sumOfRow(this.hypercalls, slot, this.slotCount);
  }

  /** Events that it has received. */
  eventCount(slot: number): number {
    return sumOfRow(this.events, slot, this.slotCount);
  }

  /** Slot of the domain called `domid`, zombies included, or -1. */
  slotOf(domid: number): number {
    if (!(domid >= 0 && domid < DOMID_COUNT)) return -1;
    const slot = Atomics.load(this.slotByDomid, domid) - 1;
    return slot < this.slotCount ? slot : -1;
  }

  /** State of the domain in `slot`. */
  stateOf(slot: number): DomainState {
    return DOMAIN_STATES[Atomics.load(this.state, slot)]!;
  }
}

/** Sum over the vCPUs of the domain in `slot`, in a column with as many cells for each of `slotCount` domains. */
const sumOfRow = (column: Uint32Array, slot: number, slotCount: number): number => {
  const perDomain = column.length / slotCount;
  let sum = 0;
  for (let at = slot * perDomain; at < (slot + 1) * perDomain; at += 1) sum += column[at]!;
  return sum;
};
