import assert from "node:assert/strict";
import { after, test } from "node:test";
import { assertClean, eventually, guest, openHost, run } from "./support.ts";

const host = await openHost();
after(() => host.close());

const THREADS = `(import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))`;

test("threads of a WASI program share its memory and meet by atomic waits", async () => {
  // Two threads hand a counter to each other: even values are the main thread's turn, odd ones the other's.
  const image = guest(`(module
    ${THREADS}
    (memory (export "memory") 1 1 shared)
    (func $await_turn (param $odd i32) (local $seen i32)
      (loop $again
        (local.set $seen (i32.atomic.load (i32.const 0)))
        (if (i32.ne (i32.and (local.get $seen) (i32.const 1)) (local.get $odd))
          (then
            (drop (memory.atomic.wait32 (i32.const 0) (local.get $seen) (i64.const -1)))
            (br $again)))))
    (func $pass
      (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))
      (drop (memory.atomic.notify (i32.const 0) (i32.const 1))))
    (func $play (param $odd i32) (local $i i32)
      (loop $again
        (call $await_turn (local.get $odd))
        (call $pass)
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const 500)))))
    (func (export "wasi_thread_start") (param $tid i32) (param $argument i32)
      (i32.store (i32.const 8) (local.get $tid))
      (i32.store (i32.const 12) (local.get $argument))
      (call $play (i32.const 1)))
    (func (export "_start")
      (i32.store (i32.const 16) (call $spawn (i32.const 4711)))
      (call $play (i32.const 0))
      (call $await_turn (i32.const 0))))`);
  await using domain = await run(host, image, { vcpus: 2 });
  assert.equal((await domain.exited).reason, "exit");
  const words = new Int32Array(domain.read(0, 20).buffer);
  assert.deepEqual([words[0], words[2], words[3], words[4]], [1000, 1, 4711, 1]);
  assertClean(host);
});

test("a thread that no vCPU is left for is refused, and a vCPU is free again when its thread ends", async () => {
  // Spawns until refused; the threads end at once; spawns again until it works.
  const image = guest(`(module
    ${THREADS}
    (memory (export "memory") 1 1 shared)
    (func (export "wasi_thread_start") (param $tid i32) (param $argument i32)
      (drop (memory.atomic.wait32 (i32.const 32) (i32.const 0) (i64.const -1)))
      (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1))))
    (func (export "_start")
      (i32.store (i32.const 4) (call $spawn (i32.const 0)))
      (i32.store (i32.const 8) (call $spawn (i32.const 0)))
      (i32.store (i32.const 12) (call $spawn (i32.const 0)))
      (i32.atomic.store (i32.const 32) (i32.const 1))
      (drop (memory.atomic.notify (i32.const 32) (i32.const -1)))
      (loop $until_ended (br_if $until_ended (i32.ne (i32.atomic.load (i32.const 0)) (i32.const 2))))
      (loop $until_free
        (i32.store (i32.const 16) (call $spawn (i32.const 0)))
        (br_if $until_free (i32.lt_s (i32.load (i32.const 16)) (i32.const 0))))
      (loop $until_ended (br_if $until_ended (i32.ne (i32.atomic.load (i32.const 0)) (i32.const 3))))))`);
  await using domain = await run(host, image, { vcpus: 3 });
  assert.equal((await domain.exited).reason, "exit");
  const words = new Int32Array(domain.read(0, 20).buffer);
  assert.deepEqual([...words.subarray(1, 4)], [1, 2, -11]);
  assert.ok(words[4]! === 1 || words[4]! === 2);
  assertClean(host);
});

test("a domain with one vCPU has no threads", async () => {
  const image = guest(`(module ${THREADS} (memory (export "memory") 1)
    (func (export "_start") (i32.store (i32.const 0) (call $spawn (i32.const 0)))))`);
  await using domain = await run(host, image);
  await domain.exited;
  assert.equal(new Int32Array(domain.read(0, 4).buffer)[0], -11);
});

test("a Xen-style guest brings up its other vCPUs with vcpu_op", async () => {
  // vcpu_hvm_context at 64: mode 0; eax at 72, esp at 88, eip at 104. VCPUOP_initialise 0, VCPUOP_up 1, is_up 3.
  const image = guest(`(module
    (import "xen" "vcpu_op" (func $vcpu_op (param i32 i32 i32) (result i32)))
    (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
    (memory (export "memory") 1 1 shared)
    (global $stack (export "__stack_pointer") (mut i32) (i32.const 1))
    (func (export "xen_vcpu_start") (param $vcpu i32) (param $argument i32)
      (i32.store (i32.add (i32.const 128) (i32.mul (local.get $vcpu) (i32.const 16))) (local.get $argument))
      (i32.store (i32.add (i32.const 132) (i32.mul (local.get $vcpu) (i32.const 16))) (global.get $stack))
      (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))
      (loop $again (drop (call $sched_op (i32.const 1) (i32.const 0))) (br $again)))
    (func $up (param $vcpu i32)
      (i32.store (i32.const 64) (i32.const 0))
      (i32.store (i32.const 72) (i32.add (i32.const 1000) (local.get $vcpu)))
      (i32.store (i32.const 88) (i32.mul (i32.const 4096) (local.get $vcpu)))
      (if (call $vcpu_op (i32.const 0) (local.get $vcpu) (i32.const 64)) (then unreachable))
      (if (call $vcpu_op (i32.const 1) (local.get $vcpu) (i32.const 0)) (then unreachable)))
    (func (export "xen_start") (param i32)
      (call $up (i32.const 1))
      (call $up (i32.const 2))
      (call $up (i32.const 3))
      (loop $until (br_if $until (i32.ne (i32.atomic.load (i32.const 0)) (i32.const 3))))
      (i32.store (i32.const 4) (call $vcpu_op (i32.const 3) (i32.const 2) (i32.const 0)))))`);
  await using domain = await run(host, image, { vcpus: 4 });
  assert.equal((await domain.exited).reason, "exit");
  const words = new Int32Array(domain.read(0, 256).buffer);
  assert.equal(words[1], 1);
  for (const vcpu of [1, 2, 3])
    assert.deepEqual([words[32 + vcpu * 4], words[33 + vcpu * 4]], [1000 + vcpu, 4096 * vcpu]);
  assertClean(host);
});

test("a trap of any vCPU crashes the domain, the others stop", async () => {
  const image = guest(`(module
    ${THREADS}
    (memory (export "memory") 1 1 shared)
    (func (export "wasi_thread_start") (param i32 i32) unreachable)
    (func (export "_start") (drop (call $spawn (i32.const 0))) (loop $again (br $again))))`);
  await using domain = await run(host, image, { vcpus: 2 });
  const exit = await domain.exited;
  assert.deepEqual([exit.crashed, exit.reason], [true, "unreachable"]);
  await domain.destroy();
  assertClean(host);
});

test("a domain whose vCPUs wait for each other, loop and block can be destroyed", async () => {
  const image = guest(`(module
    ${THREADS}
    (memory (export "memory") 1 1 shared)
    (func (export "wasi_thread_start") (param $tid i32) (param $kind i32)
      (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))
      (if (local.get $kind)
        (then (loop $again (br $again)))
        (else (drop (memory.atomic.wait32 (i32.const 8) (i32.const 0) (i64.const -1))))))
    (func (export "_start")
      (drop (call $spawn (i32.const 0)))
      (drop (call $spawn (i32.const 1)))
      (drop (memory.atomic.wait64 (i32.const 8) (i64.const 0) (i64.const -1)))))`);
  const free = host.info().memoryFreeBytes;
  const domain = await run(host, image, { vcpus: 3 });
  await eventually(() => domain.read(0, 1)[0] === 2);
  await domain.destroy();
  assert.equal(host.info().memoryFreeBytes, free);
  assertClean(host);
});

test("a wait ends when its time is over", async () => {
  const image = guest(`(module (memory (export "memory") 1 1 shared)
    (func (export "_start")
      (i32.store (i32.const 4) (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 2000000)))
      (i32.store (i32.const 8) (memory.atomic.wait32 (i32.const 0) (i32.const 1) (i64.const -1)))))`);
  await using domain = await run(host, image);
  await domain.exited;
  assert.deepEqual([...new Int32Array(domain.read(4, 8).buffer)], [2, 1]);
});

for (const [type, expected] of [
  ["(mut i64) (i64.const 1)", "__stack_pointer is no global of type (mut i32)"],
  ["i32 (i32.const 1)", "__stack_pointer is no global of type (mut i32)"],
  ["(mut i32) (i32.const 1)", "exit"],
] as const) {
  test(`a further vCPU of a guest whose __stack_pointer is ${type}: ${expected}`, async () => {
    const image = guest(`(module
      (import "xen" "vcpu_op" (func $vcpu_op (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1 1 shared)
      (global (export "__stack_pointer") ${type})
      (func (export "xen_vcpu_start") (param i32 i32) (i32.atomic.store (i32.const 0) (i32.const 1)))
      (func (export "xen_start") (param i32)
        (i32.store (i32.const 88) (i32.const 4096))
        (if (call $vcpu_op (i32.const 0) (i32.const 1) (i32.const 64)) (then unreachable))
        (if (call $vcpu_op (i32.const 1) (i32.const 1) (i32.const 0)) (then unreachable))
        (loop $until (br_if $until (i32.eqz (i32.atomic.load (i32.const 0)))))))`);
    await using domain = await run(host, image, { vcpus: 2 });
    assert.equal((await domain.exited).reason, expected);
    await domain.destroy();
    assertClean(host);
  });
}
