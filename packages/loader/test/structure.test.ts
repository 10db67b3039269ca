import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";

import { functionName, rewriteModule, segmentBytes } from "../src/index.ts";
import {
  assembleWat,
  bodies,
  boot,
  callExport,
  customSection,
  disassemble,
  offerAll,
  sourceDirectory,
} from "./support.ts";

const extendedConst = `(module (memory 1)
  (data (i32.add (i32.const 100) (i32.mul (i32.const 7) (i32.sub (i32.const 5) (i32.const 2)))) "x"))`;

const golden = {
  nothing: `(module (func $untouched (export "f") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1))))`,
  memory: `(module $named
    (memory $ram (export "memory") 2 9)
    (global $stack (mut i32) (i32.const 1024))
    (global $constant i32 (i32.const 7))
    (data (i32.const 8) "active")
    (func $size (result i32) (memory.size))
    (func $grow (param $delta i32) (result i32) (memory.grow (local.get $delta))))`,
  threads: `(module
    (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
    (import "env" "memory" (memory $ram 1 4 shared))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (table $dispatch 2 funcref)
    (elem (i32.const 0) $main $count)
    (data $tls "thread local")
    (func $main (memory.init $tls (i32.const 0) (i32.const 0) (i32.const 12)) (data.drop $tls))
    (func $count (param $at i32) (result i32) (i32.atomic.rmw.add offset=4 (local.get $at) (i32.const 1)))
    (start $main))`,
};

describe("the rewritten text", () => {
  for (const [name, text] of Object.entries(golden)) {
    it(`of "${name}" is the golden one`, () => {
      const path = join(sourceDirectory, `golden-${name}.wat`);
      const actual = disassemble(rewriteModule(assembleWat(text)).module);
      if (process.env["UPDATE_GOLDEN"] !== undefined || !existsSync(path)) writeFileSync(path, actual);
      assert.equal(actual, readFileSync(path, "utf8"));
    });
  }
});

describe("an image", () => {
  it("keeps bodies without an affected instruction byte for byte", () => {
    const bytes = assembleWat(`(module (memory 1)
      (func (param i64 f64) (result i32) (block (result i32) (br_table 0 0 0 (i32.const 3) (i32.const 1))))
      (func (result i32) (memory.size))
      (func (local v128 i32) (local.set 0 (v128.const i64x2 5 6)) (i32.store offset=70000 (i32.const 1) (i32.const 2)))
      (func (result i32) (memory.grow (i32.const 1)))
      (func (result f32) (f32.const 3.5)))`);
    const [before, after] = [bodies(bytes), bodies(rewriteModule(bytes).module)];
    assert.equal(before.length, 5);
    for (const untouched of [0, 2, 4]) assert.deepEqual(after[untouched], before[untouched]);
    assert.notDeepEqual(after[1], before[1]);
    assert.equal(after.length, 7);
  });

  it("moves no index: functions, globals, tables and types keep their numbers", () => {
    const image = rewriteModule(
      assembleWat(`(module
        (import "a" "one" (func (result i32)))
        (memory 1)
        (table (export "table") 2 funcref)
        (elem (i32.const 0) $second $first)
        (type $get (func (result i32)))
        (func $first (result i32) (memory.size))
        (func $second (result i32) (i32.const 22))
        (func (export "call") (param i32) (result i32) (call_indirect (type $get) (local.get 0)))
        (func (export "import") (result i32) (call 0)))`),
    );
    const { exports } = boot(image, { a: { one: () => 11 } });
    assert.deepEqual(
      [callExport(exports, "call", 0), callExport(exports, "call", 1), callExport(exports, "import")],
      [22, 1, 11],
    );
  });

  it("imports one shared memory of 0 to 65,536 pages, whatever the module declared", () => {
    const declarations = [
      `(memory 3)`,
      `(memory (export "ram") (export "again") 3 7)`,
      `(memory 3 7 shared)`,
      `(import "env" "anything" (memory 3))`,
      `(import "xen" "memory" (memory 0 65536 shared))`,
    ];
    for (const declaration of declarations) {
      const image = rewriteModule(
        assembleWat(`(module ${declaration} (func (export "f") (drop (i32.load (i32.const 0)))))`),
      );
      const module = new WebAssembly.Module(image.module);
      assert.deepEqual(WebAssembly.Module.imports(module), [{ module: "xen", name: "memory", kind: "memory" }]);
      const exported = WebAssembly.Module.exports(module).filter(({ kind }) => kind === "memory");
      assert.deepEqual(
        exported.map(({ name }) => name),
        image.manifest.memory?.exportNames,
      );
      const tooSmall = new WebAssembly.Memory({ initial: 0, maximum: 65_536 });
      assert.throws(() => new WebAssembly.Instance(module, { xen: { memory: tooSmall } }), WebAssembly.LinkError);
      boot(image);
    }
  });

  it("reports the memory as it was declared", () => {
    const declared = (text: string) => rewriteModule(assembleWat(`(module ${text})`)).manifest.memory;
    assert.deepEqual(declared(`(memory (export "m") 3 7)`), {
      minimumPages: 3,
      maximumPages: 7,
      shared: false,
      imported: false,
      exportNames: ["m"],
    });
    assert.equal(declared(`(import "a" "b" (memory 1 2 shared))`)?.imported, true);
    assert.equal(declared(""), null);
  });

  it("has no memory if the module has none", () => {
    const image = rewriteModule(assembleWat(`(module (func (export "f")))`));
    assert.deepEqual(WebAssembly.Module.imports(new WebAssembly.Module(image.module)), []);
  });

  it("runs no code at instantiation: the start function is exported instead", () => {
    const bytes = assembleWat(`(module (memory 1) (global $ran (export "ran") (mut i32) (i32.const 0))
      (func $init (global.set $ran (i32.add (global.get $ran) (i32.const 1)))) (start $init))`);
    const image = rewriteModule(bytes);
    assert.equal(image.manifest.hasStart, true);
    const memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(image.module), { xen: { memory } });
    assert.equal((exports["ran"] as WebAssembly.Global<number>).value, 0);
    callExport(exports, "xenolith.start");
    assert.equal((exports["ran"] as WebAssembly.Global<number>).value, 1);
  });

  it("exports every mutable global and every table, once, for saving", () => {
    const image = rewriteModule(
      assembleWat(`(module
        (global (mut i32) (i32.const 1)) (global i32 (i32.const 2)) (global (export "g") (mut i64) (i64.const 3))
        (global (mut v128) (v128.const i64x2 0 0))
        (table 1 funcref) (table (export "t") 2 funcref) (table 3 externref))`),
    );
    assert.deepEqual(Object.keys(boot(image).exports).toSorted(), [
      "g",
      "t",
      "xenolith.global.0",
      "xenolith.table.0",
      "xenolith.table.2",
    ]);
    assert.deepEqual(
      image.manifest.globals.map(({ exportName }) => exportName),
      ["xenolith.global.0", "g"],
    );
    assert.deepEqual(
      image.manifest.tables.map(({ exportName }) => exportName),
      ["xenolith.table.0", "t", "xenolith.table.2"],
    );
    assert.match(image.manifest.obstacles.join("\n"), /global 3 is a mutable v128/);
  });

  it("lets no table grow beyond its share of the limit", () => {
    const text = `(module (table 5 funcref) (table 4 8 funcref)
      (func (export "grow") (param i32) (result i32) (table.grow 0 (ref.null func) (local.get 0)))
      (func (export "other") (param i32) (result i32) (table.grow 1 (ref.null func) (local.get 0))))`;
    const { exports } = boot(rewriteModule(assembleWat(text), { limits: { tableEntryCount: 40 } }));
    assert.equal(callExport(exports, "grow", 15), 5);
    assert.equal(callExport(exports, "grow", 1), -1);
    assert.equal(callExport(exports, "other", 4), 4);
    assert.equal(callExport(exports, "other", 1), -1);
  });

  it("names the functions of the module and its own, and keeps other custom sections but those about code positions", () => {
    const plain = assembleWat(`(module (memory 1) (func $alpha) (func $beta (result i32) (memory.size)))`);
    const bytes = Buffer.concat([
      plain,
      customSection("producers"),
      customSection(".debug_info"),
      customSection("metadata.code.branch_hint"),
    ]);
    const { module, manifest } = rewriteModule(bytes);
    assert.equal(functionName(module, 0), "alpha");
    assert.equal(functionName(module, 1), "beta");
    assert.equal(functionName(module, 2), "xenolith.memory.size");
    assert.equal(functionName(module, 3), undefined);
    const compiled = new WebAssembly.Module(module);
    assert.equal(WebAssembly.Module.customSections(compiled, "producers").length, 1);
    assert.equal(WebAssembly.Module.customSections(compiled, ".debug_info").length, 0);
    assert.deepEqual(manifest.droppedSections, [".debug_info", "metadata.code.branch_hint"]);
  });

  it("says which kind of guest it is", () => {
    const kind = (name: string, type = "") =>
      rewriteModule(assembleWat(`(module (func (export "${name}") ${type}))`)).manifest.kind;
    const kinds = [kind("xen_start", "(param i32)"), kind("_start"), kind("anything")];
    assert.deepEqual(kinds, ["xen", "command", "reactor"]);
  });

  it("lists imports and exports with their types", () => {
    const image = rewriteModule(
      assembleWat(`(module (import "a" "b" (func (param i32 f64) (result i64))) (export "c" (func 0)))`),
    );
    assert.deepEqual(offerAll(image), [{ module: "a", name: "b", params: ["i32", "f64"], results: ["i64"] }]);
    const signature = { params: ["i32", "f64"], results: ["i64"] };
    assert.deepEqual(image.manifest.exports, [{ name: "c", kind: "function", index: 0, signature }]);
  });

  it("describes active and passive data segments", () => {
    const image = rewriteModule(
      assembleWat(
        `(module (memory 32768 40000) (data (i32.const 65536) "") (data (i32.const 0x7fff0000) "x") (data "passive"))`,
      ),
    );
    const described = image.manifest.segments.map((segment) => [
      segment.address,
      Buffer.from(segmentBytes(image, segment)).toString(),
    ]);
    assert.deepEqual(described, [
      [65_536, ""],
      [0x7fff_0000, "x"],
      [null, "passive"],
    ]);
  });

  it("evaluates extended constant expressions", { skip: !hasExtendedConst() && "this engine has none" }, () => {
    const image = rewriteModule(assembleWat(extendedConst));
    assert.deepEqual(
      image.manifest.segments.map(({ address }) => address),
      [121],
    );
    assert.ok(image.manifest.features.includes("extended-const"));
  });
});

describe("polled loops", () => {
  const text = `(module (func (export "run") (param i32)
    (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))`;

  it("call the hypervisor as often as it asked to be called", () => {
    const image = rewriteModule(assembleWat(text), { poll: true });
    const calls = { count: 0 };
    const { exports } = boot(image, {}, (own) => ({ ...own, poll: () => (calls.count++, 100) }));
    callExport(exports, "run", 1_000);
    assert.equal(calls.count, 10);
    assert.equal(image.manifest.isPolled, true);
  });

  it("are as they were when polling is off", () => {
    const image = rewriteModule(assembleWat(text));
    assert.deepEqual(image.manifest.services, []);
    callExport(boot(image).exports, "run", 1_000);
  });

  it(
    "include recursion by tail calls, which needs no loop",
    { skip: !canTailCall() && "this engine has no tail calls" },
    () => {
      const recursion = `(module (func $run (export "run") (param i32)
      (if (i32.eqz (local.get 0)) (then return)) (return_call $run (i32.sub (local.get 0) (i32.const 1)))))`;
      const calls = { count: 0 };
      const { exports } = boot(rewriteModule(assembleWat(recursion), { poll: true }), {}, (own) => ({
        ...own,
        poll: () => (calls.count++, 10),
      }));
      callExport(exports, "run", 1_000);
      assert.equal(calls.count, 100);
    },
  );
});

function hasExtendedConst(): boolean {
  return WebAssembly.validate(assembleWat(extendedConst));
}

function canTailCall(): boolean {
  return WebAssembly.validate(assembleWat(`(module (func $f (return_call $f)))`));
}

it("as many globals as a module may have are exported, on half a stack", () => {
  const script = `
    import { rewriteModule } from ${JSON.stringify(new URL("../src/index.js", import.meta.url).href)};
    const unsigned = (value) => (value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)]);
    const count = 100_000;
    const globals = Buffer.concat([Buffer.from(unsigned(count)), Buffer.alloc(5 * count, "7f0141000b", "hex")]);
    const header = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 6, ...unsigned(globals.length)];
    const { module } = rewriteModule(Buffer.concat([Buffer.from(header), globals]));
    console.log(WebAssembly.Module.exports(new WebAssembly.Module(module)).length);
  `;
  const words = ["--stack-size=500", "--input-type=module", "-e", script];
  assert.equal(execFileSync(process.execPath, words, { encoding: "utf8" }), "100000\n");
});
