import assert from "node:assert/strict";
import { after, test } from "node:test";
import { VIRQ_DOM_EXC } from "@xenolith/abi";
import { assertClean, eventually, guest, openHost, program, run } from "./support.ts";

const host = await openHost();
after(() => host.close());

/** A Xen-style guest; `$port` is what dom0 wrote to address 0, `$info` the address of shared_info. */
const xenGuest = (main: string, upcall = "", rest = ""): Uint8Array =>
  guest(`(module
    (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
    (import "xen" "event_channel_op" (func $event_channel_op (param i32 i32) (result i32)))
    (import "xen" "set_timer_op" (func $set_timer_op (param i32 i32) (result i32)))
    (import "xen" "vcpu_op" (func $vcpu_op (param i32 i32 i32) (result i32)))
    (import "xen" "physdev_op" (func $physdev_op (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (global $info (mut i32) (i32.const 0))
    (global $upcalls (export "upcalls") (mut i32) (i32.const 0))
    ${rest}
    (func $block (drop (call $sched_op (i32.const 1) (i32.const 0))))
    ;; Takes all pending bits of word 0 and returns them.
    (func $take (result i32)
      (i32.store8 (global.get $info) (i32.const 0))
      (i32.store offset=4 (global.get $info) (i32.const 0))
      (i32.atomic.rmw.xchg offset=2048 (global.get $info) (i32.const 0)))
    (func (export "xen_upcall")
      (global.set $upcalls (i32.add (global.get $upcalls) (i32.const 1)))
      ${upcall})
    (func (export "xen_start") (param $start i32)
      (global.set $info (i32.load offset=36 (local.get $start)))
      ${main}))`);

test("start_info tells the guest its pages, where shared_info stands, and its command line", async () => {
  const image = guest(`(module (memory (export "memory") 2)
    (func (export "xen_start") (param $start i32) (i32.store (i32.const 0) (local.get $start))))`);
  await using domain = await run(host, image, { commandLine: "root=x quiet" });
  await domain.exited;
  const at = new DataView(domain.read(0, 4).buffer).getUint32(0, true);
  const info = domain.read(at, 1112);
  const view = new DataView(info.buffer);
  assert.equal(at, 0xffff_d000);
  assert.equal(new TextDecoder().decode(info.subarray(0, 15)), "xen-3.0-wasm_32");
  assert.equal(view.getUint32(32, true), 35);
  assert.equal(view.getUint32(36, true), at - 4096);
  assert.equal(new TextDecoder().decode(info.subarray(80, 92)), "root=x quiet");
  assert.equal(domain.read(at - 4096, 4096).length, 4096);
  assertClean(host);
});

test("dom0 and a guest send events both ways", async () => {
  // evtchn_bind_interdomain at 16: dom0, port at 0; the local port comes back at 24; evtchn_send at 24.
  const echo = xenGuest(
    `(i32.store16 (i32.const 16) (i32.const 0))
     (i32.store (i32.const 20) (i32.load (i32.const 0)))
     (if (i32.ne (call $event_channel_op (i32.const 0) (i32.const 16)) (i32.const 0)) (then unreachable))
     (loop $again (call $block) (br $again))`,
    `(if (i32.and (call $take) (i32.shl (i32.const 1) (i32.load (i32.const 24))))
       (then (drop (call $event_channel_op (i32.const 4) (i32.const 24)))))`,
  );
  await using domain = await host.createDomain({ image: echo });
  let echoes = 0;
  const port = host.events.allocateUnbound(domain.domid, () => {
    echoes += 1;
  });
  domain.write(0, Uint8Array.of(port, 0, 0, 0));
  await domain.start();
  // Binding makes the guest's end pending once: that is the first echo.
  await eventually(() => echoes >= 1);
  for (let round = 2; round <= 20; round += 1) {
    host.events.notify(port);
    await eventually(() => echoes >= round);
  }
  assert.equal(domain.state, "running");
  assert.ok(domain.stats().events >= 20);
  host.events.close(port);
  assert.throws(() => host.events.notify(port), { code: "HYPERCALL_FAILED" });
  await domain.destroy();
  assertClean(host);
});

test("two guests play ping-pong", async () => {
  // Both have their local port at 24. Each answers an event with an event, 1000 times.
  const answer = `(if (i32.and (call $take) (i32.shl (i32.const 1) (i32.load (i32.const 24))))
    (then
      (i32.store (i32.const 32) (i32.add (i32.load (i32.const 32)) (i32.const 1)))
      (drop (call $event_channel_op (i32.const 4) (i32.const 24)))))`;
  const loop =
    "(loop $again (if (i32.lt_u (i32.load (i32.const 32)) (i32.const 1000)) (then (call $block) (br $again))))";
  // The first: alloc_unbound (dom self at 16, remote at 18, port at 20); publishes the port at 0 and copies it to 24.
  const first = xenGuest(
    `(i32.store16 (i32.const 16) (i32.const 0x7ff0))
     (i32.store16 (i32.const 18) (i32.load (i32.const 8)))
     (if (call $event_channel_op (i32.const 6) (i32.const 16)) (then unreachable))
     (i32.store (i32.const 24) (i32.load (i32.const 20)))
     (i32.store (i32.const 0) (i32.load (i32.const 20)))
     ${loop}`,
    answer,
  );
  const second = xenGuest(
    `(i32.store16 (i32.const 16) (i32.load (i32.const 8)))
     (i32.store (i32.const 20) (i32.load (i32.const 0)))
     (if (call $event_channel_op (i32.const 0) (i32.const 16)) (then unreachable))
     ${loop}`,
    answer,
  );
  await using a = await host.createDomain({ image: first });
  await using b = await host.createDomain({ image: second });
  a.write(8, Uint8Array.of(b.domid & 255, b.domid >> 8));
  await a.start();
  await eventually(() => a.read(0, 1)[0] !== 0);
  b.write(8, Uint8Array.of(a.domid & 255, a.domid >> 8));
  b.write(0, a.read(0, 4));
  await b.start();
  assert.deepEqual((await a.exited).reason, "exit");
  assert.deepEqual((await b.exited).reason, "exit");
  assertClean(host);
});

test("a one-shot timer wakes a blocked guest, and one that computes", async () => {
  // evtchn_bind_virq (VIRQ_TIMER, vCPU 0) at 16; vcpu_set_singleshot_timer at 64: absolute time.
  const timer = (wait: string): Uint8Array =>
    xenGuest(
      `(i64.store (i32.const 16) (i64.const 0))
       (if (call $event_channel_op (i32.const 1) (i32.const 16)) (then unreachable))
       (i64.store (i32.const 64) (i64.add (i64.load offset=48 (global.get $info)) (i64.const 5000000)))
       (i32.store (i32.const 72) (i32.const 0))
       (if (call $vcpu_op (i32.const 8) (i32.const 0) (i32.const 64)) (then unreachable))
       ${wait}`,
      "(drop (call $take)) (i32.store (i32.const 32) (i32.const 1))",
    );
  const blocked = timer("(loop $again (if (i32.eqz (i32.load (i32.const 32))) (then (call $block) (br $again))))");
  const spinning = timer(`(loop $again
      (drop (call $sched_op (i32.const 0) (i32.const 0)))
      (br_if $again (i32.eqz (i32.load (i32.const 32)))))`);
  for (const image of [blocked, spinning]) {
    await using domain = await run(host, image);
    assert.equal((await domain.exited).reason, "exit");
  }
  assertClean(host);
});

test("a pirq that host code raises reaches the guest's event channel", async () => {
  // evtchn_bind_pirq at 16: pirq, flags, port.
  const image = xenGuest(
    `(i32.store (i32.const 16) (i32.load (i32.const 0)))
     (i32.store (i32.const 20) (i32.const 0))
     (if (call $event_channel_op (i32.const 2) (i32.const 16)) (then unreachable))
     (i32.store (i32.const 40) (i32.const 1))
     (loop $again (if (i32.lt_u (i32.load (i32.const 32)) (i32.const 3)) (then (call $block) (br $again))))`,
    `(if (call $take) (then (i32.store (i32.const 32) (i32.add (i32.load (i32.const 32)) (i32.const 1)))))
     (i32.store (i32.const 48) (i32.load (i32.const 0)))
     (drop (call $physdev_op (i32.const 12) (i32.const 48)))`,
  );
  await using domain = await host.createDomain({ image });
  const interrupt = domain.interrupt(100);
  domain.write(0, Uint8Array.of(interrupt.pirq, 0, 0, 0));
  await domain.start();
  const word = (at: number): number => domain.read(at, 1)[0]!;
  await eventually(() => word(40) === 1);
  for (let count = 1; count <= 3; count += 1) {
    await eventually(() => interrupt.raise());
    await eventually(() => word(32) >= count);
  }
  assert.equal((await domain.exited).reason, "exit");
  interrupt.close();
  assert.throws(() => domain.interrupt(256), { code: "INVALID_ARGUMENT" });
  assert.throws(() => domain.interrupt(-1), { code: "INVALID_ARGUMENT" });
  assertClean(host);
});

test("dom0 receives VIRQ_DOM_EXC when a domain ends", async () => {
  let exceptions = 0;
  const port = host.events.bindVirq(VIRQ_DOM_EXC, () => {
    exceptions += 1;
  });
  await using domain = await run(host, program("unreachable"));
  await domain.exited;
  await eventually(() => exceptions > 0);
  host.events.close(port);
  assertClean(host);
});

test("a watchdog that is not reset ends its domain", async () => {
  // sched_watchdog at 0: id 0 (new), 1 second; then loops without a hypercall.
  const image = program(
    "(i64.store (i32.const 0) (i64.const 0x100000000)) (if (i32.ne (call $sched_op (i32.const 6) (i32.const 0)) (i32.const 1)) (then unreachable)) (loop $again (br $again))",
  );
  await using domain = await run(host, image);
  const exit = await domain.exited;
  assert.equal(exit.reason, "watchdog");
  assert.equal(exit.crashed, true);
});
