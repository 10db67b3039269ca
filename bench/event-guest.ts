/** The guest of the event bench: plays ping-pong over an event channel, waiting in three ways. */
import {
  DOMID_SELF,
  EVTCHNOP_send,
  SCHEDOP_block,
  SCHEDOP_poll,
  sched_poll,
  shared_info,
  vcpu_info,
  xen_add_to_physmap,
  XENMAPSPACE_shared_info,
  XENMEM_add_to_physmap,
} from "@xenolith/abi";
import { assembleGuest } from "./guest-text.ts";

/** How a player waits for its turn. */
export type Waiting = "poll" | "block" | "spin";

const SHARED = 0x10_0000;
const SHARED_GFN = SHARED / 4096;
const PORT = 64;
const POLL = 128;
const MAP = 256;
const TIME = 512;
const CLOCK_MONOTONIC = 1;

const pendingWord = `(i32.add (i32.const ${SHARED + shared_info.evtchn_pending.offset}) (i32.shl (i32.shr_u (local.get $port) (i32.const 5)) (i32.const 2)))`;
const maskWord = `(i32.add (i32.const ${SHARED + shared_info.evtchn_mask.offset}) (i32.shl (i32.shr_u (local.get $port) (i32.const 5)) (i32.const 2)))`;
const bit = "(i32.shl (i32.const 1) (local.get $port))";
const upcall = SHARED + shared_info.vcpu_info.offset + vcpu_info.evtchn_upcall_pending.offset;
const selector = SHARED + shared_info.vcpu_info.offset + vcpu_info.evtchn_pending_sel.offset;

const sleep: Readonly<Record<Waiting, string>> = {
  poll: `(drop (call $sched_op (i32.const ${SCHEDOP_poll}) (i32.const ${POLL})))`,
  // An upcall handler would do the first two; a vCPU that blocks with one pending does not sleep.
  block: `
    (i32.store8 (i32.const ${upcall}) (i32.const 0))
    (drop (i32.atomic.rmw.xchg (i32.const ${selector}) (i32.const 0)))
    (if (i32.eqz (call $is_pending (local.get $port)))
      (then (drop (call $sched_op (i32.const ${SCHEDOP_block}) (i32.const 0)))))`,
  spin: "",
};

/** Who spins serves all ports of a word at once, and takes them by one exchange. */
const take: Readonly<Record<Waiting, string>> = { poll: "$take", block: "$take", spin: "$take_word" };

const player = (waiting: Waiting): string => `
  (func $wait_${waiting} (param $port i32)
    (block $turn (loop $again
      (br_if $turn (call ${take[waiting]} (local.get $port)))
      ${sleep[waiting]}
      (br $again))))
  (func (export "ping_${waiting}") (param $port i32) (param $left i32) (result i64) (local $start i64)
    (call $send)
    (call $wait_${waiting} (local.get $port))
    (local.set $start (call $now))
    (loop $again
      (call $send)
      (call $wait_${waiting} (local.get $port))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i64.sub (call $now) (local.get $start)))
  (func (export "pong_${waiting}") (param $port i32) (param $left i32)
    (call $wait_${waiting} (local.get $port))
    (call $send)
    (loop $again
      (call $wait_${waiting} (local.get $port))
      (call $send)
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))`;

/**
 * Exports `setup(port, masked)`, which maps shared_info and returns 0, and `ping_*` and `pong_*(port, turns)` for each
 * way of waiting. Ping returns how many nanoseconds the turns took, after one turn to meet the other.
 */
export const eventGuest = (): Uint8Array<ArrayBuffer> =>
  assembleGuest(`(module
    (import "xen" "event_channel_op" (func $event_channel_op (param i32 i32) (result i32)))
    (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
    (import "xen" "memory_op" (func $memory_op (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
    (memory (export "memory") 1 32 shared)
    (func (export "setup") (param $port i32) (param $masked i32) (result i32)
      (i32.store (i32.const ${PORT}) (local.get $port))
      (i32.store (i32.const ${POLL + sched_poll.ports.offset}) (i32.const ${PORT}))
      (i32.store (i32.const ${POLL + sched_poll.nr_ports.offset}) (i32.const 1))
      (i32.store16 (i32.const ${MAP + xen_add_to_physmap.domid.offset}) (i32.const ${DOMID_SELF}))
      (i32.store (i32.const ${MAP + xen_add_to_physmap.space.offset}) (i32.const ${XENMAPSPACE_shared_info}))
      (i32.store (i32.const ${MAP + xen_add_to_physmap.gpfn.offset}) (i32.const ${SHARED_GFN}))
      (if (call $memory_op (i32.const ${XENMEM_add_to_physmap}) (i32.const ${MAP})) (then (return (i32.const 1))))
      (if (local.get $masked) (then (drop (i32.atomic.rmw.or ${maskWord} ${bit}))))
      ;; Binding raised an event before the port was masked: who polls with an upcall pending does not sleep.
      (drop (call $take (local.get $port)))
      (i32.store8 (i32.const ${upcall}) (i32.const 0))
      (drop (i32.atomic.rmw.xchg (i32.const ${selector}) (i32.const 0)))
      (i32.const 0))
    (func $now (result i64)
      (drop (call $clock_time_get (i32.const ${CLOCK_MONOTONIC}) (i64.const 1) (i32.const ${TIME})))
      (i64.load (i32.const ${TIME})))
    (func $send (drop (call $event_channel_op (i32.const ${EVTCHNOP_send}) (i32.const ${PORT}))))
    (func $is_pending (param $port i32) (result i32) (i32.and (i32.atomic.load ${pendingWord}) ${bit}))
    (func $take (param $port i32) (result i32)
      (if (result i32) (call $is_pending (local.get $port))
        (then (i32.and (i32.atomic.rmw.and ${pendingWord} (i32.xor ${bit} (i32.const -1))) ${bit}))
        (else (i32.const 0))))
    (func $take_word (param $port i32) (result i32)
      (if (result i32) (call $is_pending (local.get $port))
        (then (i32.atomic.rmw.xchg ${pendingWord} (i32.const 0)))
        (else (i32.const 0))))
    ${player("poll")} ${player("block")} ${player("spin")})`);
