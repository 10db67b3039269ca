/**
 * vCPUs, `vcpusPerDomain` rows per domain slot: row = slot * vcpusPerDomain + vcpu id.
 *
 *     column        type  holds                                              written by
 *     gate          i32   see gate.ts; sleepers of a pause wait on it        own thread, control domain
 *     wake          i32   counter; a blocked vCPU sleeps on it               whoever wakes it, own thread
 *     state         u32   VCPU_OFFLINE ... VCPU_BLOCKED                      own thread, vcpu_op up/down
 *     pollPort      i32   sched_op(poll): port, -1 any port, 0 not polling   own thread
 *     futexKey      f64   machine byte address waited on + 1, or 0           own thread (set), notifier (cleared)
 *     vcpuInfo      f64   direct-map byte address of its vcpu_info, or 0     create, register_vcpu_info
 *     runstateArea  u32   guest address of the registered runstate area, or 0
 *     timeArea      u32   guest address of the registered time area, or 0
 *     singleshotNs  f64   deadline of the singleshot timer, 0 = off          holder of the event lock
 *     periodicNs    f64   period, 0 = off                                    holder of the event lock
 *     periodicNextNs f64  next expiry of the periodic timer                  holder of the event lock
 *     stateSinceNs  f64   entry time of the current runstate
 *     timeInState   f64×4 nanoseconds spent running, runnable, blocked, offline
 *     cpuNs         f64   processor time its thread used, as last reported   own thread
 *     tag           i32   lock tag of the thread that runs it, 0 = none      host
 *     flags         i32   VCPU_*                                             vcpu_op, host, atomically
 *     startRequest  i32   1 = the host is asked to start a thread for it     vcpu_op, unpause; host takes it
 *     entry         u32   table index of the function that it starts in      vcpu_op initialise
 *     stack         u32   its stack pointer                                  vcpu_op initialise
 *     argument      u32   what it is started with                            vcpu_op initialise
 *     infoFrame     u32   mfn + 1 of the registered vcpu_info, or 0          register_vcpu_info, reap
 *     futexState    i32   serial << 2 | FUTEX_* of futex.ts                  own thread, notifier (atomically)
 *     futexTicket   f64   order of arrival among the waiters                 own thread
 *     futexMask     i32   per slot: bit per vCPU that waits                  own thread, atomically
 *     futexSlots    i32   bit per slot with a waiter                         waiters, atomically
 *     counters      i32×2 [0] start requests not taken, [1] futex tickets    atomically
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** `state`: it has no thread, or is down. */
export const VCPU_OFFLINE = 0;
/** It runs guest code or a hypercall. */
export const VCPU_RUNNING = 1;
/** It would run, but waits for something that is not an event; the control domain serves its timers. */
export const VCPU_RUNNABLE = 2;
/** It sleeps in the hypervisor until it is woken, and serves its own timers. */
export const VCPU_BLOCKED = 3;

/** The vCPU knows where to start. */
export const VCPU_INITIALISED = 1;
/** It is down: not started yet, or taken down by VCPUOP_down. */
export const VCPU_DOWN = 2;
/** The host was asked once to start a thread for it. */
export const VCPU_STARTED = 4;
/** VCPUOP_send_nmi was called for it; whoever delivers upcalls takes the flag. */
export const VCPU_NMI_PENDING = 8;

/** `counters`: requests of `startRequest` that the host has not taken. */
export const COUNTER_START_REQUESTS = 0;
/** `counters`: last ticket given to a futex waiter. */
export const COUNTER_FUTEX_TICKETS = 1;

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
  readonly stateSinceNs: Float64Array;
  readonly timeInState: Float64Array;
  readonly cpuNs: Float64Array;
  readonly tag: Int32Array;
  readonly flags: Int32Array;
  readonly startRequest: Int32Array;
  readonly entry: Uint32Array;
  readonly stack: Uint32Array;
  readonly argument: Uint32Array;
  readonly infoFrame: Uint32Array;
  readonly futexState: Int32Array;
  readonly futexTicket: Float64Array;
  readonly futexMask: Int32Array;
  readonly futexSlots: Int32Array;
  readonly counters: Int32Array;
  readonly perDomain: number;
  /** Where `gate` begins in the control buffer, in bytes. */
  readonly gateStart: number;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const count = geometry.domainCountMax * geometry.vcpusPerDomain;
    this.perDomain = geometry.vcpusPerDomain;
    this.gate = arena.i32(count);
    this.gateStart = this.gate.byteOffset;
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
    this.stateSinceNs = arena.f64(count);
    this.timeInState = arena.f64(count * 4);
    this.cpuNs = arena.f64(count);
    this.tag = arena.i32(count);
    this.flags = arena.i32(count);
    this.startRequest = arena.i32(count);
    this.entry = arena.u32(count);
    this.stack = arena.u32(count);
    this.argument = arena.u32(count);
    this.infoFrame = arena.u32(count);
    this.futexState = arena.i32(count);
    this.futexTicket = arena.f64(count);
    this.futexMask = arena.i32(geometry.domainCountMax);
    this.futexSlots = arena.i32(Math.ceil(geometry.domainCountMax / 32));
    this.counters = arena.i32(2);
  }

  /** Row of vCPU `vcpu` of the domain in `slot`. */
  index(slot: number, vcpu: number): number {
    return slot * this.perDomain + vcpu;
  }
}
