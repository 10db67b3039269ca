/**
 * vCPUs, `vcpusPerDomain` rows per domain slot: row = slot * vcpusPerDomain + vcpu id.
 *
 *     column        type  holds                                              written by
 *     gate          i32   see gate.ts; sleepers of a pause wait on it        own thread, control domain
 *     wake          i32   counter; a blocked vCPU sleeps on it               whoever wakes it, own thread
 *     state         u32   VCPU_STATES index                                  own thread, vcpu_op up/down
 *     pollPort      i32   sched_op(poll): port, -1 any port, 0 not polling   own thread
 *     futexKey      f64   machine byte address waited on + 1, or 0           own thread (set), notifier (cleared)
 *     vcpuInfo      f64   direct-map byte address of its vcpu_info, or 0     create, register_vcpu_info
 *     runstateArea  u32   guest address of the registered runstate area, or 0
 *     timeArea      u32   guest address of the registered time area, or 0
 *     singleshotNs  f64   deadline of the singleshot timer, 0 = off          own thread, whoever expires it (claims by CAS word)
 *     periodicNs    f64   period, 0 = off
 *     periodicNextNs f64  next expiry of the periodic timer
 *     timerLock     i32   1 while somebody expires or sets this vCPU's timers
 *     stateSinceNs  f64   entry time of the current runstate
 *     timeInState   f64×4 nanoseconds spent running, runnable, blocked, offline
 *     cpuNs         f64   processor time its thread used, as last reported   own thread
 *     tag           i32   lock tag of the thread that runs it, 0 = none      host
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** What a vCPU does; the index is what the column holds. */
export const VCPU_STATES = ["offline", "running", "runnable", "blocked"] as const;

/** Column table of all vCPUs. */
export class VcpuTable {
  readonly gate: Int32Array;
  readonly wake: Int32Array;
  readonly state: Uint32Array;
  readonly pollPort: Int32Array;
  readonly futexKey: Float64Array;
  readonly vcpuInfo: Float64Array;
  readonly runstateArea: Uint32Array;
  readonly timeArea: Uint32Array;
  readonly singleshotNs: Float64Array;
  readonly periodicNs: Float64Array;
  readonly periodicNextNs: Float64Array;
  readonly timerLock: Int32Array;
  readonly stateSinceNs: Float64Array;
  readonly timeInState: Float64Array;
  readonly cpuNs: Float64Array;
  readonly tag: Int32Array;
  readonly perDomain: number;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const count = geometry.domainCountMax * geometry.vcpusPerDomain;
    this.perDomain = geometry.vcpusPerDomain;
    this.gate = arena.i32(count);
    this.wake = arena.i32(count);
    this.state = arena.u32(count);
    this.pollPort = arena.i32(count);
    this.futexKey = arena.f64(count);
    this.vcpuInfo = arena.f64(count);
    this.runstateArea = arena.u32(count);
    this.timeArea = arena.u32(count);
    this.singleshotNs = arena.f64(count);
    this.periodicNs = arena.f64(count);
    this.periodicNextNs = arena.f64(count);
    this.timerLock = arena.i32(count);
    this.stateSinceNs = arena.f64(count);
    this.timeInState = arena.f64(count * 4);
    this.cpuNs = arena.f64(count);
    this.tag = arena.i32(count);
  }

  /** Row of vCPU `vcpu` of the domain in `slot`. */
  index(slot: number, vcpu: number): number {
    return slot * this.perDomain + vcpu;
  }
}
