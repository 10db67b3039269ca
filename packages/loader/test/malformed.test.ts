import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { XenolithError } from "@xenolith/abi";
import fc from "fast-check";

import { rewriteModule } from "../src/index.ts";
import { assembleWat, customSection } from "./support.ts";

/** A module with something in every section and an instruction of every kind that all supported engines know. */
const rich = Buffer.concat([
  assembleWat(`(module
    (type $unary (func (param i32) (result i32)))
    (import "a" "f" (func $imported (param i32)))
    (import "a" "m" (memory 1 2 shared))
    (table $t 4 8 funcref)
    (tag $tag (param i32))
    (global $g (mut i32) (i32.const 5))
    (export "run" (func $run))
    (start $start)
    (elem (i32.const 0) $run $start)
    (data (i32.const 4) "active")
    (data $passive "passive")
    (func $start)
    (func $run (param i32) (result i32) (local i64 f32 v128)
      (block (br_table 0 0 (local.get 0)))
      (loop (br_if 0 (i32.eqz (local.get 0))))
      (drop (call_indirect (type $unary) (local.get 0) (i32.const 1)))
      (memory.copy (i32.const 0) (i32.const 1) (i32.const 2))
      (memory.fill (i32.const 0) (i32.const 1) (i32.const 2))
      (memory.init $passive (i32.const 0) (i32.const 1) (i32.const 2))
      (data.drop $passive)
      (drop (i32.atomic.rmw.add offset=300 (i32.const 0) (i32.const 1)))
      (drop (memory.atomic.wait32 (i32.const 0) (i32.const 1) (i64.const 2)))
      (drop (i32x4.extract_lane 2 (v128.load32_lane offset=9 1 (i32.const 0) (v128.const i32x4 1 2 3 4))))
      (drop (f64.add (f64.const 1) (f64.load (i32.const 8))))
      (drop (i32.trunc_sat_f32_s (f32.const 2)))
      (drop (i32.extend8_s (i32.const 200)))
      (drop (select (result i32) (i32.const 1) (i32.const 2) (i32.const 3)))
      (drop (ref.is_null (ref.null func)))
      (global.set $g (memory.grow (memory.size)))
      (i32.const 1)))`),
  customSection("producers"),
]);

/** What must hold for any bytes: a refusal of ours, or a module that is valid as the original is. */
function check(bytes: Uint8Array): "refused" | "rewritten" {
  let module: Uint8Array;
  try {
    module = rewriteModule(bytes).module;
  } catch (error) {
    assert.ok(error instanceof XenolithError, `not a refusal: ${String(error)}`);
    assert.match(error.code, /^MODULE_(INVALID|UNSUPPORTED|TOO_LARGE)$/);
    return "refused";
  }
  assert.ok(WebAssembly.validate(bytes), "an invalid module was accepted");
  assert.ok(WebAssembly.validate(module), "a valid module became invalid");
  return "rewritten";
}

const unsignedNumber = (value: number): number[] => {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 128);
  }
};
const header = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];

/** A module of one section whose content is a prefix and then many copies of an entry. */
function repeated(
  sectionId: number,
  count: number,
  entry: readonly number[],
  before: readonly number[] = [],
): Uint8Array {
  const countBytes = unsignedNumber(count);
  const contentBytes = countBytes.length + count * entry.length;
  const start = [...header, ...before, sectionId, ...unsignedNumber(contentBytes), ...countBytes];
  const module = new Uint8Array(start.length + count * entry.length);
  module.set(start);
  for (let index = 0; index < count; index++) module.set(entry, start.length + index * entry.length);
  return module;
}

describe("malformed modules", () => {
  it("are refused when cut off at any byte, except behind a whole section that may be the last", () => {
    assert.equal(check(rich), "rewritten");
    let acceptedCount = 0;
    for (let length = 0; length < rich.length; length++) {
      if (check(rich.subarray(0, length)) === "rewritten") acceptedCount++;
    }
    assert.ok(acceptedCount < 8, `${acceptedCount} cuts accepted`);
  });

  it("name the offset at which they break the format", () => {
    const cases: readonly (readonly [message: RegExp, bytes: readonly number[]])[] = [
      [/ends inside its header at offset 3/, [0, 0x61, 0x73]],
      [/not a WebAssembly module: .* at offset 0/, [1, 2, 3, 4, 5, 6, 7, 8]],
      [/unknown version 2 .* at offset 4/, [0, 0x61, 0x73, 0x6d, 2, 0, 0, 0]],
      [/section: 9 bytes expected, 1 left at offset 10/, [...header, 1, 9, 0]],
      [/number does not fit 32 bits at offset 13/, [...header, 1, 0xff, 0xff, 0xff, 0xff, 0x1f]],
      [/number does not fit 32 bits at offset 13/, [...header, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0]],
      [/type count 9 is more than the section holds at offset 10/, [...header, 1, 1, 9]],
      [/result count: unexpected end at offset 13/, [...header, 1, 3, 1, 0x60, 0]],
      [/section 1 is repeated or out of order at offset 11/, [...header, 1, 1, 0, 1, 1, 0]],
      [/type section has bytes after its last entry at offset 11/, [...header, 1, 2, 0, 0]],
      [/function type 0 of 0 at offset 11/, [...header, 3, 2, 1, 0]],
      [/1 functions are declared, 0 have a body at offset 18/, [...header, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0]],
      [/memory minimum is 65537 pages, the limit is 65536/, [...header, 5, 5, 1, 0, 0x81, 0x80, 4]],
      [/memory maximum 1 is below its minimum 2/, [...header, 5, 4, 1, 1, 2, 1]],
      [/export of function 0 of 0/, [...header, 7, 5, 1, 1, 0x61, 0, 0]],
      [/export name is not UTF-8 at offset 12/, [...header, 7, 5, 1, 1, 0xff, 0, 0]],
    ];
    for (const [message, bytes] of cases) {
      assert.throws(() => rewriteModule(Uint8Array.from(bytes)), { code: /^MODULE_/, message }, String(message));
    }
  });

  it("never become valid, nor valid ones invalid, when bytes are changed at random", () => {
    const change = fc.tuple(fc.nat(rich.length - 1), fc.nat(255));
    let rewrittenCount = 0;
    const property = fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const bytes = Uint8Array.from(rich);
      for (const [at, value] of changes) bytes[at] = value;
      if (check(bytes) === "rewritten") rewrittenCount++;
    });
    fc.assert(property, { numRuns: 20_000 });
    assert.ok(rewrittenCount > 100, `only ${rewrittenCount} changed modules were still valid`);
  });

  it("never become valid when bytes are inserted, removed or moved at random", () => {
    const place = fc.nat(rich.length - 1);
    const splice = fc.tuple(place, fc.nat(8), fc.uint8Array({ maxLength: 8 }));
    const property = fc.property(splice, ([at, removed, inserted]) => {
      check(Buffer.concat([rich.subarray(0, at), inserted, rich.subarray(at + removed)]));
    });
    fc.assert(property, { numRuns: 5_000 });
  });

  it("are refused when their start function would only become declared by the export that replaces it", () => {
    const text = `(module (memory 1) (func $start) (start $start) (func (drop (ref.func $start))))`;
    assert.equal(check(assembleWat(text)), "refused");
    assert.equal(check(assembleWat(text.replace("(start", `(export "e" (func $start)) (start`))), "rewritten");
  });
});

describe("modules made to exhaust the loader", () => {
  const types = [1, 4, 1, 0x60, 0, 0];

  it("of a million entries are refused at the count, in every section that is a list", () => {
    const million = 1_000_001;
    const segment = [1, 0];
    assert.throws(() => rewriteModule(repeated(11, million, segment)), {
      message: "data segment count is 1000001, the limit is 100000",
    });
    assert.throws(() => rewriteModule(repeated(6, million, [0x7f, 0, 0x41, 0, 0x0b])), /global count is 1000001/);
    assert.throws(() => rewriteModule(repeated(1, million, [0x60, 0, 0])), /type count is 1000001/);
    assert.throws(() => rewriteModule(repeated(3, million, [0], types)), /function count is 1000001/);
    assert.throws(() => rewriteModule(repeated(7, million, [0, 0, 0])), /export count is 1000001/);
    assert.throws(() => rewriteModule(repeated(2, million, [0, 0, 0, 0], types)), /import count is 1000001/);
    assert.throws(() => rewriteModule(repeated(4, million, [0x70, 0, 0])), /table count is 1000001/);
  });

  it("with a million locals in one function are refused", () => {
    const code = [0x0a, 8, 1, 6, 1, ...unsignedNumber(1_000_000), 0x7f, 0x0b];
    assert.equal(code[1]! + 2, code.length);
    const bytes = Uint8Array.from([...header, ...types, 3, 2, 1, 0, ...code]);
    assert.throws(() => rewriteModule(bytes), {
      code: "MODULE_TOO_LARGE",
      message: /local count .* is 1000000, the limit is 50000/,
    });
    const countless = [0x0a, 11, 1, 9, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x7f, 0x0b];
    assert.throws(
      () => rewriteModule(Uint8Array.from([...header, ...types, 3, 2, 1, 0, ...countless])),
      /MODULE_TOO_LARGE|4294967295|offset/,
    );
  });

  it("with a table of 250,001 entries are refused, those with 250,000 are not", () => {
    const table = (minimum: number) => assembleWat(`(module (table ${minimum} funcref))`);
    assert.throws(() => rewriteModule(table(250_001)), {
      message: "table entry count is 250001, the limit is 250000",
    });
    rewriteModule(table(250_000));
  });

  it("of 300 MB are read like any other", () => {
    const sizeBytes = 300_000_000;
    const name = [1, 0x78];
    const start = [...header, 0, ...unsignedNumber(sizeBytes + 2), ...name];
    const module = new Uint8Array(start.length + sizeBytes);
    module.set(start);
    assert.equal(rewriteModule(module).module.length, module.length);
    assert.throws(
      () => rewriteModule(module, { limits: { moduleSizeBytes: sizeBytes } }),
      /module size in bytes is 3000000\d\d, the limit is 300000000/,
    );
  });

  it("that announce more than they hold are refused before anything is allocated", () => {
    for (const id of [1, 2, 3, 4, 5, 6, 7, 9, 10, 11]) {
      const bytes = Uint8Array.from([...header, id, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]);
      assert.throws(() => rewriteModule(bytes), { name: "XenolithError" });
    }
    const labels = Uint8Array.from([
      ...header,
      ...types,
      3,
      2,
      1,
      0,
      0x0a,
      10,
      1,
      8,
      0,
      0x0e,
      0xff,
      0xff,
      0xff,
      0xff,
      0x0f,
      0x0b,
    ]);
    assert.throws(() => rewriteModule(labels), { name: "XenolithError" });
  });

  it("with a constant expression without end are refused", () => {
    const expression = [0x41, 0, ...Array.from({ length: 5_000 }, () => [0x41, 0, 0x6a]).flat(), 0x0b];
    const content = [1, 0x7f, 0, ...expression];
    const bytes = Uint8Array.from([...header, 6, ...unsignedNumber(content.length), ...content]);
    assert.throws(() => rewriteModule(bytes), {
      code: "MODULE_TOO_LARGE",
      message: /instruction count of global initial value is 1001/,
    });
  });
});
