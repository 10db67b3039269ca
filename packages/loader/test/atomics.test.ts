import assert from "node:assert/strict";
import { describe, it } from "node:test";

import fc from "fast-check";

import { bindServices, rewriteModule } from "../src/index.ts";
import { assembleWat, boot, bootBoth, callExport, outcome, plainServices } from "./support.ts";

const forms = [
  ["i32", "", ""],
  ["i64", "", ""],
  ["i32", "8", "_u"],
  ["i32", "16", "_u"],
  ["i64", "8", "_u"],
  ["i64", "16", "_u"],
  ["i64", "32", "_u"],
] as const;

interface Tried {
  readonly name: string;
  readonly type: "i32" | "i64";
}

const tried: Tried[] = forms.flatMap(([type, bits, suffix]) =>
  ["add", "sub", "and", "or", "xor", "xchg"].map((operation) => ({
    name: `${type}.atomic.rmw${bits}.${operation}${suffix}`,
    type,
  })),
);

const functions = tried.map(
  ({ name, type }) =>
    `(func (export "${name}") (param i32 ${type}) (result ${type}) (${name} offset=8 (local.get 0) (local.get 1)))`,
);

describe("atomic read-modify-write instructions", () => {
  const { native, booted, image } = bootBoth(`(module (memory (export "memory") 1 1 shared) ${functions.join("\n")})`);
  const nativeWords = new BigInt64Array((native["memory"] as WebAssembly.Memory).buffer, 0, 8);
  const rewrittenWords = new BigInt64Array(booted.memory.buffer, 0, 8);

  for (const { name, type } of tried) {
    it(`${name} gives the old value and leaves the new one, as the native instruction does`, () => {
      const operand = type === "i32" ? fc.integer() : fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
      const before = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
      const address = fc.integer({ min: 0, max: 16 });
      fc.assert(
        fc.property(before, operand, address, (word, value, at) => {
          nativeWords.fill(word);
          rewrittenWords.fill(word);
          const expected = outcome(() => callExport(native, name, at, value));
          assert.equal(
            outcome(() => callExport(booted.exports, name, at, value)),
            expected,
          );
          assert.deepEqual(rewrittenWords, nativeWords);
        }),
      );
    });
  }

  it("trap when address and offset together reach past 2^32", () => {
    for (const { name, type } of tried.filter((entry) => !entry.name.includes("xchg"))) {
      const call = () => callExport(booted.exports, name, -8, type === "i32" ? 1 : 1n);
      assert.throws(call, { message: /memory access out of bounds/ }, name);
    }
  });

  it("are replaced, except exchanges, and make the image one that needs TurboFan", () => {
    assert.equal(Object.keys(image.manifest.replaced).length, 35);
    assert.equal(image.manifest.usesAtomics, true);
    const plain = rewriteModule(
      assembleWat(`(module (memory 1) (func (i32.store (i32.const 0) (i32.const 1)) atomic.fence))`),
    );
    assert.equal(plain.manifest.usesAtomics, false);
  });

  it("lose no update when several threads run them at once", async () => {
    const { Worker } = await import("node:worker_threads");
    const memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
    const counting = rewriteModule(
      assembleWat(`(module (memory 1 1 shared) (func (export "run") (local i32)
        (loop (drop (i32.atomic.rmw.add (i32.const 64) (i32.const 1)))
              (drop (i64.atomic.rmw8.sub_u (i32.const 72) (i64.const 1)))
          (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 100000))))))`),
    );
    const program = `const { workerData: { module, memory } } = require("node:worker_threads");
      new WebAssembly.Instance(new WebAssembly.Module(module), { xen: { memory } }).exports.run();`;
    const workers = [1, 2].map(
      () => new Worker(program, { eval: true, workerData: { module: counting.module, memory } }),
    );
    await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once("exit", resolve))));
    assert.equal(new Int32Array(memory.buffer)[16], 200_000);
    assert.equal(new Uint8Array(memory.buffer)[72], -200_000 & 0xff);
  });
});

describe("memory.atomic.wait and notify", () => {
  const text = `(module (memory 1 1 shared)
    (func (export "wait32") (param i32 i32 i64) (result i32)
      (memory.atomic.wait32 offset=16 (local.get 0) (local.get 1) (local.get 2)))
    (func (export "wait64") (param i32 i64 i64) (result i32)
      (memory.atomic.wait64 offset=16 (local.get 0) (local.get 1) (local.get 2)))
    (func (export "notify") (param i32 i32) (result i32)
      (memory.atomic.notify offset=16 (local.get 0) (local.get 1))))`;

  it("ask the hypervisor, with the offset added to the address and every operand as given", () => {
    const image = rewriteModule(assembleWat(text));
    const asked: unknown[][] = [];
    const { exports } = boot(image, {}, (own) => ({
      ...own,
      atomic_wait32: (...operands) => asked.push(["wait32", ...operands]) && 2,
      atomic_wait64: (...operands) => asked.push(["wait64", ...operands]) && 1,
      atomic_notify: (...operands) => asked.push(["notify", ...operands]) && 7,
    }));
    assert.equal(callExport(exports, "wait32", -32, 5, -1n), 2);
    assert.equal(callExport(exports, "wait64", 8, 2n ** 40n, 1_000n), 1);
    assert.equal(callExport(exports, "notify", 4, -1), 7);
    assert.deepEqual(asked, [
      ["wait32", -16, 5, -1n],
      ["wait64", 24, 2n ** 40n, 1_000n],
      ["notify", 20, -1],
    ]);
    assert.deepEqual(image.manifest.services, ["atomic_wait32", "atomic_wait64", "atomic_notify"]);
    assert.equal(image.manifest.usesAtomics, false);
  });

  it("trap without asking when the address is not aligned or too high", () => {
    const { exports } = boot(rewriteModule(assembleWat(text)), {}, (own) => ({
      ...own,
      atomic_wait32: () => assert.fail("asked"),
      atomic_wait64: () => assert.fail("asked"),
      atomic_notify: () => assert.fail("asked"),
    }));
    for (const address of [1, 2, 3, -16, -13]) {
      assert.throws(() => callExport(exports, "wait32", address, 0, 0n), WebAssembly.RuntimeError);
      assert.throws(() => callExport(exports, "notify", address, 0), WebAssembly.RuntimeError);
    }
    for (const address of [4, 12, -16, -8]) {
      assert.throws(() => callExport(exports, "wait64", address, 0n, 0n), WebAssembly.RuntimeError);
    }
  });
});

describe("the service table", () => {
  it("gives services their exact types, whatever JavaScript returns", () => {
    const image = rewriteModule(assembleWat(`(module (memory 1) (func (export "size") (result i32) (memory.size)))`));
    const { exports } = boot(image, {}, (own) => ({ ...own, memory_size: () => 2 ** 32 + 3 }));
    assert.equal(callExport(exports, "size"), 3);
  });

  it("holds the needed services only, and traps until they are bound", () => {
    const image = rewriteModule(assembleWat(`(module (memory 1) (func (export "size") (result i32) (memory.size)))`));
    const memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(image.module), { xen: { memory } });
    assert.throws(() => callExport(exports, "size"), WebAssembly.RuntimeError);
    bindServices(image, exports, plainServices(image, memory, { current: 4 }));
    assert.equal(callExport(exports, "size"), 4);
    const table = exports["xenolith.services"] as WebAssembly.Table;
    assert.equal(table.length, 8);
    assert.equal(table.get(1), null);
  });

  it("is absent from images that need no service", () => {
    const image = rewriteModule(assembleWat(`(module (memory 1) (func (export "f")))`));
    assert.deepEqual(Object.keys(boot(image).exports), ["f"]);
  });
});
