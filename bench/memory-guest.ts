/** The guest of the memory bench: populates, touches and gives back runs of pages, and takes the times. */
import {
  DOMID_SELF,
  xen_memory_reservation,
  XENMEM_decrease_reservation,
  XENMEM_populate_physmap,
} from "@xenolith/abi";
import { assembleGuest } from "./guest-text.ts";

const RESERVATION = 1024;
const TIME = 512;
/** The list of gfns: room for 131,072 of them. */
const LIST = 0x1_0000;
const LIST_ENTRIES_MAX = 131_072;
const PAGES = (LIST + LIST_ENTRIES_MAX * 4) / 65_536;
/** Where the runs are put: behind what the guest declared. */
export const RUN_GFN = 0x1_0000;
/** Frames that the guest itself takes. */
export const GUEST_FRAMES = PAGES * 16;

const CLOCK_MONOTONIC = 1;

/**
 * Exports `prepare(extents, order)`; `populate()`, `touch()` and `decrease()`, which return the nanoseconds that they
 * took or -1 for a request that was not done whole.
 */
export const memoryGuest = (): Uint8Array<ArrayBuffer> =>
  assembleGuest(`(module
    (import "xen" "memory_op" (func $memory_op (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
    (memory (export "memory") ${PAGES})
    (global $extents (mut i32) (i32.const 0))
    (global $order (mut i32) (i32.const 0))
    (func $now (result i64)
      (drop (call $clock_time_get (i32.const ${CLOCK_MONOTONIC}) (i64.const 1) (i32.const ${TIME})))
      (i64.load (i32.const ${TIME})))
    (func (export "prepare") (param $extents i32) (param $order i32) (local $at i32)
      (global.set $extents (local.get $extents))
      (global.set $order (local.get $order))
      (i32.store (i32.const ${RESERVATION + xen_memory_reservation.extent_start.offset}) (i32.const ${LIST}))
      (i32.store (i32.const ${RESERVATION + xen_memory_reservation.nr_extents.offset}) (local.get $extents))
      (i32.store (i32.const ${RESERVATION + xen_memory_reservation.extent_order.offset}) (local.get $order))
      (i32.store16 (i32.const ${RESERVATION + xen_memory_reservation.domid.offset}) (i32.const ${DOMID_SELF}))
      (loop $again
        (i32.store
          (i32.add (i32.const ${LIST}) (i32.shl (local.get $at) (i32.const 2)))
          (i32.add (i32.const ${RUN_GFN}) (i32.shl (local.get $at) (local.get $order))))
        (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $extents)))))
    (func $request (param $command i32) (result i64) (local $start i64) (local $done i32)
      (local.set $start (call $now))
      (local.set $done (call $memory_op (local.get $command) (i32.const ${RESERVATION})))
      (local.set $start (i64.sub (call $now) (local.get $start)))
      (select (local.get $start) (i64.const -1) (i32.eq (local.get $done) (global.get $extents))))
    (func (export "populate") (result i64) (call $request (i32.const ${XENMEM_populate_physmap})))
    (func (export "decrease") (result i64) (call $request (i32.const ${XENMEM_decrease_reservation})))
    (func (export "touch") (result i64) (local $start i64) (local $at i32) (local $end i32)
      (local.set $start (call $now))
      (local.set $at (i32.const ${RUN_GFN * 4096}))
      (local.set $end (i32.add (local.get $at)
        (i32.shl (global.get $extents) (i32.add (global.get $order) (i32.const 12)))))
      (loop $again
        (i32.store (local.get $at) (i32.const 1))
        (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (local.get $end))))
      (i64.sub (call $now) (local.get $start))))`);
