/**
 * Modules made to end the process through the engine's JavaScript heap: an allocation that is larger than what Node lets
 * a full heap grow by is fatal to the process, not to the thread. If one of these succeeds, this test file dies with it.
 */
import assert from "node:assert/strict";
import { readdirSync, statSync } from "node:fs";
import { after, describe, it } from "node:test";

import { assemble, assertClean, openHost, run, wordAt } from "./advisory-guests.ts";

const host = await openHost();
after(() => host.close());

const unsigned = (value: number): number[] =>
  value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
const section = (id: number, content: Uint8Array): Uint8Array =>
  Buffer.concat([Uint8Array.from([id, ...unsigned(content.length)]), content]);
const text = (value: string): number[] => [value.length, ...Buffer.from(value)];

/** A program that recurses until its stack is full, in a function whose name has `sizeBytes`. */
const namedRecursion = (sizeBytes: number): Uint8Array => {
  const names = Buffer.concat([Uint8Array.from([1, 0, ...unsigned(sizeBytes)]), Buffer.alloc(sizeBytes, "A")]);
  return Buffer.concat([
    Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0),
    section(1, Uint8Array.of(1, 0x60, 0, 0)),
    section(3, Uint8Array.of(1, 0)),
    section(7, Uint8Array.from([1, ...text("_start"), 0, 0])),
    section(10, Uint8Array.of(1, 4, 0, 0x10, 0, 0x0b)),
    section(0, Buffer.concat([Uint8Array.from([...text("name"), 1, ...unsigned(names.length)]), names])),
  ]);
};

describe("the heap of a vCPU's thread", () => {
  for (const [sizeBytes, shown] of [
    [20_000_000, false],
    [40, true],
  ] as const) {
    it(`survives the stack trace of a function whose name has ${sizeBytes} bytes`, async () => {
      await using domain = await run(host, namedRecursion(sizeBytes));
      const exit = await domain.exited;
      assert.equal(exit.reason, "stack overflow");
      assert.equal(exit.where?.startsWith("AAAA"), shown);
    });
  }

  it("has room for the largest tables that a module may have, where they grow in a heap that exceptions fill", async () => {
    const types = Array.from({ length: 900 }, () => "i64").join(" ");
    const values = Array.from({ length: 900 }, () => "(i64.const 0x123456789abcdef)").join(" ");
    const image = await host.loadImage(
      assemble(`(module (table 1 funcref) (memory (export "memory") 1) (tag $t (param ${types}))
        (func $throw (throw $t ${values}))
        (func $fill (param i32)
          (if (i32.eqz (local.get 0)) (then (drop (table.grow 0 (ref.null func) (i32.const 249999))) (return)))
          (try $held (do (call $throw)) (catch_all (call $fill (i32.sub (local.get 0) (i32.const 1))) (rethrow $held))))
        (func (export "_start") (call $fill (i32.load (i32.const 0)))))`),
    );
    for (const depth of [10, 7800, 8150]) {
      await using domain = await host.createDomain({ image });
      domain.write(0, new Uint8Array(Uint32Array.of(depth).buffer));
      await domain.start();
      const exit = await domain.exited;
      assert.match(exit.reason, depth === 10 ? /uncaught exception/ : /uncaught exception|memory limit/);
    }
    assertClean(host);
  });

  it("is not so full during a change of the domain's memory that the thread could end half way", async () => {
    const types = Array.from({ length: 900 }, () => "i64").join(" ");
    const values = Array.from({ length: 900 }, () => "(i64.const 0x123456789abcdef)").join(" ");
    // At the bottom: one frame is given back and populated again, a hundred thousand times.
    const image = await host.loadImage(
      assemble(`(module
        (import "xen" "memory_op" (func $memory_op (param i32 i32) (result i32)))
        (memory (export "memory") 2) (tag $t (param ${types}))
        (func $throw (throw $t ${values}))
        (func $fill (param i32) (local $turn i32)
          (if (i32.eqz (local.get 0)) (then
            (loop $again
              (i32.store (i32.const 4) (call $memory_op (i32.const 1) (i32.const 512)))
              (drop (call $memory_op (i32.const 6) (i32.const 512)))
              (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $turn) (i32.const 100000))))
            (return)))
          (try $held (do (call $throw)) (catch_all (call $fill (i32.sub (local.get 0) (i32.const 1))) (rethrow $held))))
        (func (export "_start")
          (i32.store (i32.const 512) (i32.const 1024))
          (i32.store (i32.const 516) (i32.const 1))
          (i32.store (i32.const 528) (i32.const 0x7ff0))
          (i32.store (i32.const 1024) (i32.const 20))
          (call $fill (i32.load (i32.const 0)))))`),
    );
    // How much an exception takes differs between versions of V8: the calls go through or are refused with -ENOMEM.
    for (const [depth, results] of [
      [10, [1]],
      [7900, [1, -12]],
    ] as const) {
      await using domain = await host.createDomain({ image });
      domain.write(0, new Uint8Array(Uint32Array.of(depth).buffer));
      await domain.start();
      assert.equal((await domain.exited).reason, "uncaught exception");
      assert.ok(results.some((result) => result === (wordAt(domain, 4) | 0)));
      assertClean(host);
    }
  });

  it("is not so full while a file is opened that the thread could end before the file is known", async () => {
    const types = Array.from({ length: 900 }, () => "i64").join(" ");
    const values = Array.from({ length: 900 }, () => "(i64.const 0x123456789abcdef)").join(" ");
    // At the bottom: the directory itself is opened and closed again, ten thousand times.
    const image = await host.loadImage(
      assemble(`(module
        (import "wasi_snapshot_preview1" "path_open"
          (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
        (memory (export "memory") 2) (tag $t (param ${types})) (data (i32.const 512) ".")
        (func $throw (throw $t ${values}))
        (func $fill (param i32) (local $turn i32)
          (if (i32.eqz (local.get 0)) (then
            (loop $again
              (i32.store (i32.const 4) (call $open (i32.const 3) (i32.const 0) (i32.const 512) (i32.const 1)
                (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 8)))
              (if (i32.eqz (i32.load (i32.const 4))) (then (drop (call $close (i32.load (i32.const 8))))))
              (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $turn) (i32.const 10000))))
            (return)))
          (try $held (do (call $throw)) (catch_all (call $fill (i32.sub (local.get 0) (i32.const 1))) (rethrow $held))))
        (func (export "_start") (call $fill (i32.load (i32.const 0)))))`),
    );
    const directories = [{ host: import.meta.dirname, guest: "/" }];
    const ENOMEM = 48;
    for (const [depth, results] of [
      [10, [0]],
      [7900, [0, ENOMEM]],
    ] as const) {
      await using domain = await host.createDomain({ image, directories });
      domain.write(0, new Uint8Array(Uint32Array.of(depth).buffer));
      await domain.start();
      assert.equal((await domain.exited).reason, "uncaught exception");
      assert.ok(results.some((result) => result === wordAt(domain, 4)));
      assertClean(host);
    }
    const directory = statSync(import.meta.dirname);
    const left = readdirSync("/proc/self/fd").filter((fd) => {
      const status = statSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false });
      return status?.ino === directory.ino && status.dev === directory.dev;
    });
    assert.deepEqual(left, []);
  });

  it("refuses a module whose tables are larger", async () => {
    await assert.rejects(host.loadImage(assemble("(module (table 10000000 funcref))")), {
      code: "MODULE_TOO_LARGE",
      message: /table entry count is 10000000, the limit is 250000/,
    });
  });
});
