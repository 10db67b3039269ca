import assert from "node:assert/strict";
import { after, test } from "node:test";
import { assertClean, guest, openHost, program, run } from "./support.ts";

const host = await openHost();
after(() => host.close());

const library = guest(`(module
  (memory (export "memory") 1)
  (global $counter (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $counter (i32.const 100)))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "add64") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1)))
  (func (export "half") (param f64) (result f64) (f64.div (local.get 0) (f64.const 2)))
  (func (export "pair") (param i32) (result i32 i64) (local.get 0) (i64.extend_i32_s (local.get 0)))
  (func (export "next") (result i32)
    (global.set $counter (i32.add (global.get $counter) (i32.const 1)))
    (global.get $counter))
  (func (export "nothing"))
  (func (export "vector") (result v128) (v128.const i32x4 0 0 0 0))
  (func (export "trap") unreachable)
  (func (export "spin") (loop $again (br $again)))
  (func (export "sum") (param $at i32) (param $count i32) (result i32) (local $sum i32)
    (block $done
      (loop $again
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $again)))
    (local.get $sum))
  (func (export "__proto__") (result i32) (i32.const 5))
  (func (export "then") (result i32) (i32.const 6))
  (func (export "constructor") (result i32) (i32.const 7)))`);

test("a reactor is initialised once and keeps its state between calls", async () => {
  await using domain = await run(host, library);
  assert.equal(await domain.call("next"), 101);
  assert.equal(await domain.call("next"), 102);
});

test("values cross as the export's types say", async () => {
  await using domain = await run(host, library);
  assert.equal(await domain.call("add", 2, 3), 5);
  assert.equal(await domain.call("add", 2n, -3n), -1);
  assert.equal(await domain.call("add", 4_294_967_295, 0), -1);
  assert.equal(await domain.call("add64", 2n ** 40n, 1), 2n ** 40n + 1n);
  assert.equal(await domain.call("half", 5), 2.5);
  assert.deepEqual(await domain.call("pair", -9), [-9, -9n]);
  assert.equal(await domain.call("nothing"), undefined);
});

test("calls run one after the other, in order", async () => {
  await using domain = await run(host, library);
  const values = await Promise.all(Array.from({ length: 20 }, () => domain.call("next")));
  assert.deepEqual(
    values,
    Array.from({ length: 20 }, (_, index) => 101 + index),
  );
});

test("arguments lie in memory that host code wrote", async () => {
  await using domain = await run(host, library);
  domain.write(1000, Uint8Array.of(1, 2, 3, 250));
  assert.equal(await domain.call("sum", 1000, 4), 256);
});

for (const [name, values] of [
  ["add", [1]],
  ["add", [1, 2, 3]],
  ["add", [1.5, 2]],
  ["add", [2 ** 32, 0]],
  ["add", [Number.NaN, 0]],
  ["add64", [0.5, 1]],
  ["add64", [2n ** 64n, 1]],
  ["half", [1n]],
  ["vector", []],
] as const) {
  test(`a call of ${name}(${values.join(", ")}) is refused before it reaches the guest`, async () => {
    await using domain = await run(host, library);
    await assert.rejects(domain.call(name, ...values), { code: "INVALID_ARGUMENT" });
    assert.equal(await domain.call("add", 1, 1), 2);
  });
}

for (const name of ["missing", "memory", "toString", ""]) {
  test(`a call of ${JSON.stringify(name)} is refused: no such function`, async () => {
    await using domain = await run(host, library);
    await assert.rejects(domain.call(name), { code: "EXPORT_NOT_FOUND" });
  });
}

test("exports named like members of JavaScript objects are functions like any other (W09)", async () => {
  await using domain = await run(host, library);
  assert.equal(await domain.call("__proto__"), 5);
  assert.equal(await domain.call("then"), 6);
  assert.equal(await domain.call("constructor"), 7);
});

test("a call that traps rejects with reason and place, and so do those behind it", async () => {
  await using domain = await run(host, library);
  const first = domain.call("trap");
  const second = domain.call("next");
  await assert.rejects(first, { code: "DOMAIN_CRASHED", message: /unreachable.*wasm-function\[\d+\]:0x/ });
  await assert.rejects(second, { code: "DOMAIN_CRASHED" });
  assert.equal((await domain.exited).crashed, true);
  await assert.rejects(domain.call("next"), { code: "DOMAIN_STATE" });
  assertClean(host);
});

test("a call that takes too long crashes its domain, another domain goes on", async () => {
  await using other = await run(host, library);
  await using domain = await run(host, library);
  await assert.rejects(domain.callWith({ timeoutMs: 20 }, "spin"), { code: "TIMEOUT" });
  const exit = await domain.exited;
  assert.equal(exit.crashed, true);
  assert.match(exit.reason, /given up/);
  assert.equal(await other.call("next"), 101);
});

test("a call is refused before the start, after the end, and in a program that runs by itself", async () => {
  const unstarted = await host.createDomain({ image: library });
  await assert.rejects(unstarted.call("next"), { code: "DOMAIN_STATE" });
  await unstarted.destroy();
  await assert.rejects(unstarted.call("next"), { code: "DOMAIN_STATE" });
  await using command = await run(host, program(""));
  await assert.rejects(command.call("_start"), { code: "DOMAIN_STATE" });
});

test("a reactor that traps in its initialisation does not start", async () => {
  const broken = guest(`(module (memory (export "memory") 1)
    (func $setup (i32.store (i32.const -8) (i32.const 0)))
    (func (export "_initialize") (call $setup)))`);
  await using domain = await host.createDomain({ image: broken });
  await assert.rejects(domain.start(), { code: "DOMAIN_CRASHED", message: /out of bounds: setup/ });
});

test("a start function runs first, after everything is in place (W07)", async () => {
  const image = guest(`(module
    (import "xen" "memory_op" (func $memory_op (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\\f0\\7f\\00\\00")
    (global $pages (mut i32) (i32.const 0))
    (func $setup (global.set $pages (call $memory_op (i32.const 3) (i32.const 0))))
    (start $setup)
    (func (export "pages") (result i32) (global.get $pages)))`);
  await using domain = await run(host, image);
  assert.equal(await domain.call("pages"), 16);
});

for (const [what, body] of [
  ["traps", "unreachable"],
  ["loops for ever", "(loop $again (br $again))"],
  ["grows its memory", "(drop (memory.grow (i32.const 100000)))"],
] as const) {
  test(`a start function that ${what} leaves nothing behind (W07)`, async () => {
    const image = guest(
      `(module (memory (export "memory") 1) (func $setup ${body}) (start $setup) (func (export "nothing")))`,
    );
    const free = host.info().memoryFreeBytes;
    const domain = await host.createDomain({ image });
    await domain.start({ timeoutMs: 50 }).catch(() => {});
    await domain.destroy();
    assert.equal(host.info().memoryFreeBytes, free);
    assertClean(host);
  });
}
