// The program that opens a host has modules of its own, compiled and run before.
import assert from "node:assert/strict";
import { test } from "node:test";
import { assertClean, guest, openHost, run } from "./support.ts";

const CALLS = 10_000_000;

/** `run(n, which)` adds up what function `which` of a table and a plain one give, and tells its import. */
const module = (): WebAssembly.Module =>
  new WebAssembly.Module(
    guest(`(module
      (import "host" "tell" (func $tell))
      (type $unary (func (param i32) (result i32)))
      (table 2 funcref) (elem (i32.const 0) $one $two)
      (func $one (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
      (func $two (param i32) (result i32) (i32.add (local.get 0) (i32.const 2)))
      (func (export "run") (param $n i32) (param $which i32) (result i32) (local $sum i32)
        (loop $again
          (local.set $sum (call_indirect (type $unary) (call $one (local.get $sum)) (local.get $which)))
          (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        (call $tell)
        (local.get $sum)))`),
  );

const instantiate = (from: WebAssembly.Module): ((count: number, which: number) => number) => {
  const { run: exported } = new WebAssembly.Instance(from, { host: { tell: () => {} } }).exports;
  return exported as (count: number, which: number) => number;
};

test("modules that were compiled before the first host, and instances of them, go on as before", async () => {
  const early = module();
  const first = instantiate(early);
  assert.equal(first(10, 0), 20);
  await using host = await openHost();
  assert.equal(instantiate(early)(10, 1), 30);
  const atomic = await run(
    host,
    guest(`(module (memory (export "memory") 1) (func (export "add") (param i32) (result i32)
      (i32.atomic.rmw.add (i32.const 64) (local.get 0))))`),
  );
  await atomic.call("add", 5);
  assert.equal(await atomic.call("add", 5), 5);
  // From here on only the optimising compiler runs.
  for (const instance of [first, instantiate(early), instantiate(module())]) {
    for (const which of [0, 1, 0]) assert.equal(instance(CALLS, which), CALLS * (which + 2));
  }
  await atomic.destroy();
  assertClean(host);
});
