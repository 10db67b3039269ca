import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { XenolithError } from "@xenolith/abi";

import type { FunctionImport, Limits } from "../src/index.ts";
import { inspectImage, paravirtualise, rewriteModule } from "../src/index.ts";
import { assembleWat } from "./support.ts";

const refusal = (code: XenolithError["code"], message: RegExp) => ({ name: "XenolithError", code, message });

/** A module with one function of type () -> () whose body is given as bytes. */
function withBody(...code: number[]): Uint8Array {
  const body = [0x00, ...code, 0x0b];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...[0x01, 0x04, 0x01, 0x60, 0x00, 0x00],
    ...[0x03, 0x02, 0x01, 0x00],
    ...[0x05, 0x03, 0x01, 0x00, 0x01],
    ...[0x0a, body.length + 2, 0x01, body.length, ...body],
  ]);
}

const header = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];

describe("features outside the accepted set", () => {
  it("are refused by name", () => {
    const refused: readonly (readonly [module: string, message: RegExp])[] = [
      [`(module (memory 1) (memory 1))`, /^multi-memory \(more than one memory\) is not supported/],
      [`(module (memory i64 1))`, /^memory64 \(a memory with 64-bit addresses\) is not supported/],
      [`(module (import "a" "b" (memory i64 1)))`, /memory64/],
    ];
    for (const [text, message] of refused) {
      assert.throws(() => rewriteModule(assembleWat(text)), refusal("MODULE_UNSUPPORTED", message));
    }
    rewriteModule(assembleWat(`(module (memory 1))`));
  });

  it("are refused by name where they appear as instructions", () => {
    const refused: readonly (readonly [message: RegExp, ...code: number[]])[] = [
      [/multi-memory \(an access that names its memory\)/, 0x41, 0, 0x28, 0x42, 0, 0, 0x1a],
      [/multi-memory \(a memory index other than 0\)/, 0x3f, 1, 0x1a],
      [/multi-memory/, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 10, 0, 1],
      [/typed function references/, 0x14, 0],
      [/typed function references/, 0x15, 0],
      [/typed function references or garbage collection/, 0xd4],
      [/typed function references \(type 0x64\)/, 0x02, 0x64, 0x00, 0x0b],
      [/garbage collection or stringref/, 0xfb, 0x00, 0x00, 0x1a],
      [/stack switching/, 0xe0, 0x00],
      [/vector instruction 0xfd 0x9a/, 0xfd, 0x9a, 0x01],
      [/vector instruction 0xfd 0x120/, 0xfd, 0xa0, 0x02],
      [/instruction 0xfc 0x13/, 0xfc, 0x13],
      [/atomic instruction 0xfe 0x4/, 0xfe, 0x04, 0x00],
      [/atomic instruction 0xfe 0x4f/, 0xfe, 0x4f, 0x02, 0x00],
      [/an unknown feature/, 0x27],
    ];
    for (const [message, ...code] of refused) {
      assert.throws(() => rewriteModule(withBody(...code)), refusal("MODULE_UNSUPPORTED", message));
    }
    rewriteModule(withBody(0x41, 0, 0x28, 0x02, 0, 0x1a, 0x3f, 0, 0x1a));
  });

  it("are refused by name where they appear as types, tables, globals, sections or versions", () => {
    const refused: readonly (readonly [message: RegExp, ...bytes: number[]])[] = [
      [/type form 0x5f \(garbage collection\)/, ...header, 1, 3, 1, 0x5f, 0],
      [/type form 0x4e/, ...header, 1, 3, 1, 0x4e, 0],
      [/garbage-collected types \(type 0x6e\)/, ...header, 1, 5, 1, 0x60, 1, 0x6e, 0],
      [/tables with an initial value/, ...header, 4, 9, 1, 0x40, 0, 0x70, 0, 1, 0xd0, 0x70, 0x0b],
      [/shared tables/, ...header, 4, 5, 1, 0x70, 3, 0, 1],
      [/memory64 \(a table/, ...header, 4, 4, 1, 0x70, 4, 0],
      [/custom page sizes/, ...header, 5, 4, 1, 8, 0, 0],
      [/shared globals/, ...header, 6, 6, 1, 0x7f, 2, 0x41, 0, 0x0b],
      [/section 14/, ...header, 14, 1, 0],
      [/component model/, 0, 0x61, 0x73, 0x6d, 0x0d, 0, 1, 0],
    ];
    for (const [message, ...bytes] of refused) {
      assert.throws(() => rewriteModule(Uint8Array.from(bytes)), refusal("MODULE_UNSUPPORTED", message));
    }
    rewriteModule(Uint8Array.from(header));
  });
});

describe("names that the loader adds", () => {
  it("may not be taken by the module", () => {
    const taken = `(module (func (export "xenolith.start")))`;
    assert.throws(
      () => rewriteModule(assembleWat(taken)),
      refusal("MODULE_UNSUPPORTED", /export "xenolith\.start".*rewritten before/),
    );
    const once = rewriteModule(
      assembleWat(`(module (memory 1) (func (export "f") (result i32) (memory.size)))`),
    ).module;
    assert.throws(() => rewriteModule(once), refusal("MODULE_UNSUPPORTED", /xenolith\.services/));
  });
});

const offered: readonly FunctionImport[] = [
  { module: "xen", name: "sched_op", params: ["i32", "i32"], results: ["i32"] },
  { module: "wasi_snapshot_preview1", name: "proc_exit", params: ["i32"], results: [] },
];

describe("imports", () => {
  const wrong = assembleWat(`(module
    (import "env" "puts" (func (param i32) (result i32)))
    (import "xen" "sched_op" (func (param i32 i32) (result i32)))
    (import "xen" "no_such" (func))
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i64)))
    (import "env" "base" (global i32))
    (import "env" "table" (table 1 funcref))
    (import "env" "tag" (tag))
    (import "constructor" "constructor" (func (param externref) (result externref)))
    (import "any" "memory" (memory 1)))`);

  it("that the host does not offer are listed all at once, with what was expected", () => {
    const expected = [
      "the image cannot be linked: global env.base: expected functions and one memory only",
      "table env.table: expected functions and one memory only",
      "tag env.tag: expected functions and one memory only",
      "function env.puts (i32) -> (i32): expected a function of wasi_snapshot_preview1, xen",
      "function xen.no_such () -> (): no such function",
      "function wasi_snapshot_preview1.proc_exit (i64) -> (): expected (i32) -> ()",
      "function constructor.constructor (externref) -> (externref): expected a function of wasi_snapshot_preview1, xen",
    ].join("; ");
    assert.throws(() => paravirtualise(wrong, { imports: offered }), { code: "IMPORT_UNKNOWN", message: expected });
  });

  it("that the host offers are accepted", () => {
    const right = assembleWat(`(module (import "xen" "sched_op" (func (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (import "any" "memory" (memory 1)))`);
    assert.equal(paravirtualise(right, { imports: offered }).manifest.imports.length, 2);
  });

  it("are reported by an inspection, which refuses none of them", () => {
    assert.equal(inspectImage(wrong, { imports: offered }).importProblems.length, 7);
    assert.equal(inspectImage(wrong).importProblems.length, 3);
  });

  it("cannot put control characters or endless text into a message", () => {
    const name = `\\1b[2J\\r\\n${"x".repeat(1_000)}`;
    const bytes = assembleWat(`(module (import "env" "${name}" (func)))`);
    assert.throws(
      () => paravirtualise(bytes, { imports: offered }),
      (error: Error) => {
        return !/[\u0000-\u001f]/.test(error.message) && error.message.length < 500;
      },
    );
  });
});

describe("data segments", () => {
  it("that end beyond the declared memory are refused with end and limit", () => {
    const text = (address: number) => `(module (memory 1) (data (i32.const ${address}) "four"))`;
    assert.throws(
      () => rewriteModule(assembleWat(text(65_533))),
      refusal("MODULE_INVALID", /ends at address 65537, the memory's declared size is 65536 bytes/),
    );
    assert.throws(() => rewriteModule(assembleWat(text(-1))), refusal("MODULE_INVALID", /ends at address 4294967299/));
    rewriteModule(assembleWat(text(65_532)));
  });
});

describe("limits", () => {
  it("are enforced with the value and the limit in the message", () => {
    const cases: readonly (readonly [Partial<Limits>, module: string, message: RegExp])[] = [
      [
        { moduleSizeBytes: 40 },
        `(module (func) (func) (func) (data "${"x".repeat(40)}"))`,
        /module size in bytes is \d\d, the limit is 40/,
      ],
      [{ typeCount: 1 }, `(module (type (func)) (type (func (param i32))))`, /type count is 2, the limit is 1/],
      [
        { importCount: 1 },
        `(module (import "a" "b" (func)) (import "a" "c" (func)))`,
        /import count is 2, the limit is 1/,
      ],
      [{ functionCount: 2 }, `(module (import "a" "b" (func)) (func) (func))`, /function count is 3, the limit is 2/],
      [{ localCount: 3 }, `(module (func (local i32 i64 f32 f64)))`, /local count .* is 4, the limit is 3/],
      [
        { bodySizeBytes: 9 },
        `(module (func (drop (i64.const 0x7fffffffffffffff))))`,
        /body at offset \d+ is 14, the limit is 9/,
      ],
      [{ tableCount: 1 }, `(module (table 1 funcref) (table 1 funcref))`, /table count is 2, the limit is 1/],
      [
        { tableEntryCount: 9 },
        `(module (table 5 funcref) (table 5 funcref))`,
        /table entry count is 10, the limit is 9/,
      ],
      [
        { globalCount: 1 },
        `(module (global i32 (i32.const 0)) (global i32 (i32.const 0)))`,
        /global count is 2, the limit is 1/,
      ],
      [{ exportCount: 1 }, `(module (func (export "a") (export "b")))`, /export count is 2, the limit is 1/],
      [{ dataSegmentCount: 1 }, `(module (data "a") (data "b"))`, /data segment count is 2, the limit is 1/],
      [
        { elementSegmentCount: 1 },
        `(module (table 1 funcref) (elem func) (elem func))`,
        /element segment count is 2, the limit is 1/,
      ],
      [{ nameSizeBytes: 3 }, `(module (func (export "abcd")))`, /export name length is 4, the limit is 3/],
      [{ sectionCount: 2 }, `(module (func) (memory 1))`, /section count is 3, the limit is 2/],
    ];
    for (const [limits, text, message] of cases) {
      const bytes = assembleWat(text);
      rewriteModule(bytes);
      assert.throws(() => rewriteModule(bytes, { limits }), refusal("MODULE_TOO_LARGE", message));
    }
  });

  it("bound what rewriting adds", () => {
    const loops = `(module (func ${"(loop)".repeat(200)}))`;
    const bytes = assembleWat(loops);
    rewriteModule(bytes, { limits: { bodySizeBytes: 1_000 } });
    assert.throws(
      () => rewriteModule(bytes, { poll: true, limits: { bodySizeBytes: 1_000 } }),
      refusal("MODULE_TOO_LARGE", /body/),
    );
    assert.throws(
      () => rewriteModule(bytes, { poll: true, limits: { outputSizeBytes: 1_000 } }),
      refusal("MODULE_TOO_LARGE", /size of the rewritten module/),
    );
  });
});
