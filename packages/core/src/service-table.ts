/**
 * Calls that vCPUs make of the control domain's thread, a row for each vCPU: row = slot * vcpusPerDomain + vcpu id. See
 * service-call.ts.
 *
 *     column    type  holds                                             written by
 *     state     i32   SERVICE_*                                         own thread, control domain
 *     serial    u32   counts the calls of the row                       own thread
 *     number    u32   the hypercall                                     own thread
 *     command   u32   its command                                       own thread
 *     argument  u32   its argument                                      own thread
 *     answer    i32   what the guest gets                               control domain
 *     posted    i32   calls that nobody has taken yet, one number       own thread, control domain, atomically
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** No call. */
export const SERVICE_NONE = 0;
/** A call that nobody has taken yet. */
export const SERVICE_POSTED = 1;
/** The control domain's thread works on it. */
export const SERVICE_TAKEN = 2;
/** The answer is there. */
export const SERVICE_ANSWERED = 3;

/** See the file's comment. */
export class ServiceTable {
  readonly state: Int32Array;
  readonly serial: Uint32Array;
  readonly number: Uint32Array;
  readonly command: Uint32Array;
  readonly argument: Uint32Array;
  readonly answer: Int32Array;
  readonly posted: Int32Array;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const count = geometry.domainCountMax * geometry.vcpusPerDomain;
    this.state = arena.i32(count);
    this.serial = arena.u32(count);
    this.number = arena.u32(count);
    this.command = arena.u32(count);
    this.argument = arena.u32(count);
    this.answer = arena.i32(count);
    this.posted = arena.i32(1);
  }
}
