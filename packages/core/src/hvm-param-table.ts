/**
 * HVM parameters: 39 numbers of 64 bits per domain slot.
 *
 *     column  type     holds            written by
 *     low     u32×39   bits 0 to 31     hvm_op, builder
 *     high    u32×39   bits 32 to 63    hvm_op, builder
 *
 * A value is two words, so readers and writers hold the domain's lock.
 * Source: xen/include/public/hvm/params.h.
 */
import assert from "node:assert/strict";
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** Number of HVM parameters. */
export const HVM_PARAM_COUNT = 39;

/** Parameters of all domains. */
export class HvmParamTable {
  readonly low: Uint32Array;
  readonly high: Uint32Array;

  constructor(arena: ColumnArena, geometry: Geometry) {
    this.low = arena.u32(geometry.domainCountMax * HVM_PARAM_COUNT);
    this.high = arena.u32(geometry.domainCountMax * HVM_PARAM_COUNT);
  }

  /** Row of parameter `index` of the domain in `slot`. */
  row(slot: number, index: number): number {
    assert(index < HVM_PARAM_COUNT);
    return slot * HVM_PARAM_COUNT + index;
  }

  /** Value of a parameter, for the control domain. */
  get(slot: number, index: number): bigint {
    const row = this.row(slot, index);
    return (BigInt(this.high[row]!) << 32n) | BigInt(this.low[row]!);
  }

  /** Sets a parameter, for the control domain. */
  set(slot: number, index: number, value: bigint): void {
    const row = this.row(slot, index);
    this.low[row] = Number(value & 0xffff_ffffn);
    this.high[row] = Number((value >> 32n) & 0xffff_ffffn);
  }

  /** Sets all parameters of `slot` to 0. */
  reset(slot: number): void {
    this.low.fill(0, slot * HVM_PARAM_COUNT, (slot + 1) * HVM_PARAM_COUNT);
    this.high.fill(0, slot * HVM_PARAM_COUNT, (slot + 1) * HVM_PARAM_COUNT);
  }
}
