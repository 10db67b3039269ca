import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Feature } from "../src/index.ts";
import { inspectImage, rewriteModule } from "../src/index.ts";
import { assembleWat, boot, callExport } from "./support.ts";

/** A function `run` of type () -> i32 that uses a feature next to a rewritten instruction, and what it returns. */
const samples: readonly (readonly [feature: Feature, result: number, text: string])[] = [
  ["sign-extension", -1, `(func (export "run") (result i32) (i32.extend8_s (i32.sub (i32.const 256) (memory.size))))`],
  [
    "saturating-float-to-int",
    7,
    `(func (export "run") (result i32) (i32.add (i32.trunc_sat_f32_s (f32.const 6.5)) (memory.size)))`,
  ],
  [
    "bulk-memory",
    120,
    `(func (export "run") (result i32) (memory.fill (i32.const 9) (i32.const 120) (i32.const 40)) (i32.load8_u (i32.const 48)))`,
  ],
  [
    "reference-types",
    3,
    `(table $t 2 funcref) (elem declare func $size) (func $size (result i32) (memory.size))
     (func (export "run") (result i32) (table.set $t (i32.const 1) (ref.func $size))
       (i32.add (call_indirect $t (result i32) (i32.const 1))
         (select (result i32) (table.size $t) (i32.const 9) (ref.is_null (table.get $t (i32.const 0))))))`,
  ],
  [
    "multi-value",
    11,
    `(func $pair (result i32 i32) (memory.size) (i32.const 10))
     (func (export "run") (result i32) (call $pair) (block (param i32 i32) (result i32) (i32.add)))`,
  ],
  [
    "simd",
    6,
    `(func (export "run") (result i32) (i32.store (i32.const 0) (memory.size))
       (i32x4.extract_lane 2 (i32x4.add (v128.load32_lane 2 (i32.const 0) (v128.const i32x4 1 2 3 4))
         (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (v128.const i32x4 5 5 5 5) (v128.const i32x4 0 0 0 0)))))`,
  ],
  [
    "threads",
    8,
    `(func (export "run") (result i32) (atomic.fence) (drop (i32.atomic.rmw.add (i32.const 4) (i32.const 8))) (i32.atomic.load (i32.const 4)))`,
  ],
  [
    "tail-calls",
    1,
    `(table funcref (elem $size)) (func $size (result i32) (memory.size))
     (func $direct (result i32) (return_call $size)) (func (export "run") (result i32) (drop (call $direct)) (return_call_indirect (result i32) (i32.const 0)))`,
  ],
  [
    "legacy-exceptions",
    6,
    `(tag $e (param i32)) (func $throw (throw $e (i32.add (i32.const 4) (memory.size))))
     (func $rethrow (try (do (call $throw)) (catch_all (rethrow 0))))
     (func (export "run") (result i32) (i32.add (memory.size) (try (result i32)
       (do (try (do (call $rethrow)) (delegate 0)) (i32.const 0)) (catch $e))))`,
  ],
  [
    "mutable-globals",
    1,
    `(global $g (export "g") (mut i32) (i32.const 0)) (func (export "run") (result i32) (global.set $g (memory.size)) (global.get $g))`,
  ],
];

describe("modules with a feature of WebAssembly", () => {
  for (const [feature, result, text] of samples) {
    const bytes = assembleWat(`(module (memory 1) ${text})`);
    const isKnown = WebAssembly.validate(bytes);
    it(`are accepted, run as before and say so: ${feature}`, { skip: !isKnown && "this engine lacks it" }, () => {
      const native = new WebAssembly.Instance(new WebAssembly.Module(bytes), {}).exports;
      assert.equal(callExport(native, "run"), result);
      for (const poll of [false, true]) {
        const image = rewriteModule(bytes, { poll });
        assert.equal(callExport(boot(image).exports, "run"), result);
        assert.ok(image.manifest.features.includes(feature), image.manifest.features.join());
      }
    });
  }

  it("are refused with the engine's reason where the engine lacks the feature", () => {
    for (const [feature, , text] of samples) {
      const bytes = assembleWat(`(module (memory 1) ${text})`);
      if (WebAssembly.validate(bytes)) continue;
      assert.throws(() => rewriteModule(bytes), { code: "MODULE_INVALID", message: /^module is not valid: / }, feature);
    }
    const mistyped = Uint8Array.from(assembleWat(`(module (func (result i32) (i32.const 1)))`));
    mistyped[mistyped.lastIndexOf(0x41)] = 0x42;
    assert.throws(() => rewriteModule(mistyped), { code: "MODULE_INVALID", message: /^module is not valid: .*i64/ });
  });

  const throwRef = Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...[1, 8, 2, 0x60, 0, 1, 0x7f, 0x60, 0, 0],
    ...[3, 2, 1, 0],
    ...[5, 3, 1, 0, 1],
    ...[13, 3, 1, 0, 1],
    ...[7, 7, 1, 3, 0x72, 0x75, 0x6e, 0, 0],
    // block; try_table (catch 0 to the block); throw 0; end; end; memory.size
    ...[10, 18, 1, 16, 0, 0x02, 0x40, 0x1f, 0x40, 1, 0, 0, 0, 0x08, 0, 0x0b, 0x0b, 0x3f, 0, 0x0b],
  ]);

  it(
    "are accepted, run as before and say so: exceptions",
    { skip: !WebAssembly.validate(throwRef) && "this engine lacks it" },
    () => {
      const image = rewriteModule(throwRef);
      assert.equal(callExport(boot(image).exports, "run"), 1);
      assert.ok(image.manifest.features.includes("exceptions"));
      assert.match(image.manifest.obstacles.join(), /exnref/);
    },
  );
});

describe("an inspection", () => {
  it("says what would stop a guest from being saved or moved", () => {
    const obstacles = (text: string) => inspectImage(assembleWat(`(module ${text})`)).manifest.obstacles;
    const canUnwind = `(func (export "asyncify_start_unwind") (param i32))`;
    assert.deepEqual(obstacles(canUnwind), []);
    assert.match(obstacles("").join(), /asyncify_start_unwind/);
    assert.match(
      obstacles(`${canUnwind} (global (mut v128) (v128.const i64x2 0 0))`).join(),
      /^global 0 is a mutable v128/,
    );
    assert.match(obstacles(`${canUnwind} (table 1 funcref) (elem func) (func (elem.drop 0))`).join(), /^elem\.drop/);
  });
});
