import assert from "node:assert/strict";
import { after, test } from "node:test";
import { crashDomain } from "@xenolith/core";
import { assertClean, eventually, guest, openHost, program, run } from "./support.ts";

const host = await openHost();
after(() => host.close());

for (const [module, name] of [
  ["constructor", "constructor"],
  ["env", "constructor"],
  ["env", "toString"],
  ["__proto__", "valueOf"],
  ["xen", "constructor"],
  ["xen", "__proto__"],
  ["xen", "toString"],
  ["wasi_snapshot_preview1", "hasOwnProperty"],
  ["xen", "memory_op2"],
] as const) {
  test(`an import of ${module}.${name} is refused (W08)`, async () => {
    const image = guest(
      `(module (import "${module}" "${name}" (func (param i32) (result i32))) (memory 1) (func (export "_start")))`,
    );
    await assert.rejects(host.createDomain({ image }), { code: "IMPORT_UNKNOWN", message: new RegExp(name) });
    assertClean(host);
  });
}

test("all imports that are not offered are listed at once, with what was expected", async () => {
  const image = guest(`(module
    (import "env" "one" (func (param i32)))
    (import "xen" "memory_op" (func (param i64) (result i32)))
    (import "env" "two" (func))
    (memory 1) (func (export "_start")))`);
  await assert.rejects(host.createDomain({ image }), {
    code: "IMPORT_UNKNOWN",
    message: /env\.one.*xen\.memory_op.*expected \(i32, i32\) -> \(i32\).*env\.two/,
  });
});

const catching = (body: string): Uint8Array =>
  guest(`(module
    (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
    (import "xen" "xen_version" (func $xen_version (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start")
      (loop $again
        (try (do ${body}) (catch_all (i32.store (i32.const 0) (i32.const 1))))
        (i32.store (i32.const 4) (i32.add (i32.load (i32.const 4)) (i32.const 1)))
        (br $again))))`);

test("a guest that catches everything cannot survive its own exit (W06)", async () => {
  await using domain = await run(host, catching("(call $proc_exit (i32.const 3))"));
  assert.equal((await domain.exited).code, 3);
  assert.deepEqual(domain.read(0, 8), new Uint8Array(8));
});

test("a guest that catches everything is refused every hypercall once it was crashed (W06)", async () => {
  await using domain = await run(host, catching("(drop (call $xen_version (i32.const 0) (i32.const 0)))"));
  const counter = (): number => new DataView(domain.read(4, 4).buffer).getUint32(0, true);
  await eventually(() => counter() > 0);
  crashDomain(host.hypervisor, host.hypervisor.domains.slotOf(domain.domid), "for the test");
  assert.equal((await domain.exited).reason, "for the test");
  assertClean(host);
});

test("traps and stack overflows cannot be caught by the guest", async () => {
  await using trapping = await run(host, catching("unreachable"));
  assert.equal((await trapping.exited).reason, "unreachable");
  assert.deepEqual(trapping.read(0, 4), new Uint8Array(4));
});

test("an exception that nobody catches is a crash", async () => {
  const image = guest(
    `(module (tag $e (param i32)) (memory 1) (func $thrower (throw $e (i32.const 1))) (func (export "_start") (call $thrower)))`,
  );
  await using domain = await run(host, image);
  const exit = await domain.exited;
  assert.equal(exit.crashed, true);
  assert.match(exit.reason, /exception/);
});

test("hypercalls from near the end of the stack either happen or do not (W11)", async () => {
  // Recurses to the end of the stack, trying a hypercall at each depth on the way back is not possible after a
  // RangeError, so each depth below the limit is tried on the way down.
  const image = program(
    "(call $deeper)",
    `(func $deeper (local i64 i64 i64 i64)
       (drop (call $memory_op (i32.const 3) (i32.const 0)))
       (drop (memory.grow (i32.const 0)))
       (call $deeper))`,
  );
  for (let round = 0; round < 5; round += 1) {
    await using domain = await run(host, image);
    assert.equal((await domain.exited).reason, "stack overflow");
    assertClean(host);
  }
});

test("random hypercalls with hostile arguments harm nobody", async () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`seed ${seed}`);
  const image = program(
    `(local $i i32)
     (loop $again
       (drop (call $hypercall (i32.rem_u (call $random) (i32.const 64)) (call $argument) (call $argument) (call $argument) (call $argument) (call $argument)))
       (local.set $i (i32.add (local.get $i) (i32.const 1)))
       (br_if $again (i32.lt_u (local.get $i) (i32.const 20000))))`,
    `(global $state (mut i32) (i32.const ${seed | 1}))
     (func $random (result i32)
       (global.set $state (i32.xor (global.get $state) (i32.shl (global.get $state) (i32.const 13))))
       (global.set $state (i32.xor (global.get $state) (i32.shr_u (global.get $state) (i32.const 17))))
       (global.set $state (i32.xor (global.get $state) (i32.shl (global.get $state) (i32.const 5))))
       (global.get $state))
     (func $argument (result i32) (local $kind i32)
       (local.set $kind (i32.and (call $random) (i32.const 7)))
       (if (result i32) (i32.lt_u (local.get $kind) (i32.const 4))
         (then (i32.rem_u (call $random) (i32.const 32)))
         (else (if (result i32) (i32.eq (local.get $kind) (i32.const 4))
           (then (i32.const -1))
           (else (if (result i32) (i32.eq (local.get $kind) (i32.const 5))
             (then (i32.and (call $random) (i32.const 0xffff)))
             (else (call $random))))))))`,
  );
  await using other = await run(host, program("(drop (call $sched_op (i32.const 1) (i32.const 0)))"));
  const domain = await run(host, image);
  // It may block or shut itself down: both are its own business.
  await Promise.race([domain.exited, new Promise((resolve) => setTimeout(resolve, 1500))]);
  await domain.destroy();
  assert.notEqual(other.state, "free");
  await other.shutdown();
  assertClean(host);
});

test("a table that fills the heap of the vCPU's thread ends that domain only (W13)", async () => {
  const image = guest(`(module
    (table $t 1 externref) (table $u 1 externref) (table $v 1 externref) (table $w 1 externref)
    (memory 1)
    (func (export "_start")
      (drop (table.grow $t (ref.null extern) (i32.const 9999999)))
      (drop (table.grow $u (ref.null extern) (i32.const 9999999)))
      (drop (table.grow $v (ref.null extern) (i32.const 9999999)))
      (drop (table.grow $w (ref.null extern) (i32.const 9999999)))))`);
  await using other = await run(
    host,
    program("(loop $again (drop (call $sched_op (i32.const 1) (i32.const 0))) (br $again))"),
  );
  const domain = await host.createDomain({ image }).catch(() => undefined);
  if (domain !== undefined) {
    await domain.start();
    await domain.exited;
    await domain.destroy();
  }
  assert.equal(other.state, "running");
  assertClean(host);
});
