import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { functionName, rewriteModule } from "../src/index.ts";
import { assembleWat } from "./support.ts";

/** A module with two functions, the second of which is rewritten, and a name section with the given content. */
function withNames(...content: number[]): Uint8Array {
  const plain = assembleWat(`(module (memory 1) (func) (func (result i32) (memory.size)))`);
  const end = plain.lastIndexOf(Buffer.from("name")[0]!) - 3;
  assert.equal(plain[end], 0);
  const length = content.length + 5;
  return Buffer.concat([
    plain.subarray(0, end),
    // The length as a number of two bytes, which the format allows for a short one too.
    Uint8Array.of(0, (length & 0x7f) | 0x80, length >> 7, 4, ...Buffer.from("name"), ...content),
  ]);
}

/** Content of the name section of a rewritten module. */
function namesOf(module: Uint8Array): number[] {
  const [section] = WebAssembly.Module.customSections(new WebAssembly.Module(module), "name");
  return [...new Uint8Array(section!)];
}

const added = [2, 20, ...Buffer.from("xenolith.memory.size")];

describe("the name section of an image", () => {
  it("gets the added functions behind its own, and keeps its other parts", () => {
    const parts = [
      [0, 2, 1, 0x6d],
      [1, 7, 2, 0, 1, 0x61, 1, 1, 0x62],
      [2, 3, 1, 0, 0],
    ];
    const { module } = rewriteModule(withNames(...parts.flat()));
    const functions = [1, 7 + added.length, 3, 0, 1, 0x61, 1, 1, 0x62, ...added];
    assert.deepEqual(namesOf(module), [...parts[0]!, ...functions, ...parts[2]!]);
    assert.deepEqual(
      [0, 1, 2].map((index) => functionName(module, index)),
      ["a", "b", "xenolith.memory.size"],
    );
  });

  it("gets a part for functions, in its place, if it has none", () => {
    const functions = [1, 1 + added.length, 1, ...added];
    const before = rewriteModule(withNames(2, 3, 1, 0, 0)).module;
    assert.deepEqual(namesOf(before), [...functions, 2, 3, 1, 0, 0]);
    const behind = rewriteModule(withNames(0, 2, 1, 0x6d)).module;
    assert.deepEqual(namesOf(behind), [0, 2, 1, 0x6d, ...functions]);
  });

  it("loses the names of data segments, which an image does not have", () => {
    const { module } = rewriteModule(withNames(9, 5, 1, 0, 2, 0x64, 0x64));
    assert.deepEqual(namesOf(module), [1, 1 + added.length, 1, ...added]);
  });

  it("loses its own names when it is malformed, since engines read such a section as far as they can", () => {
    const good = [1, 4, 1, 0, 1, 0x61];
    const malformed = [
      [1, 99, 1],
      [1],
      [7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
      [1, 0],
      [...good, 2, 9],
      [1, 5, 1, 0, 1, 0x61, 0],
    ];
    for (const content of malformed) {
      const { module } = rewriteModule(withNames(...content));
      assert.deepEqual(namesOf(module), [1, 1 + added.length, 1, ...added]);
      assert.equal(functionName(module, 0), undefined);
    }
    assert.equal(functionName(rewriteModule(withNames(...good)).module, 0), "a");
  });

  it("loses its own names when one is too long for a stack trace: of a function, or of the module", () => {
    const leb = (value: number): number[] => [(value & 0x7f) | 0x80, value >> 7];
    const functionPart = (length: number): number[] => [
      1,
      ...leb(length + 4),
      1,
      0,
      ...leb(length),
      ...Array<number>(length).fill(0x61),
    ];
    const modulePart = (length: number): number[] => [
      0,
      ...leb(length + 2),
      ...leb(length),
      ...Array<number>(length).fill(0x61),
    ];
    for (const part of [functionPart, modulePart]) {
      const [long, short] = [4_097, 4_096].map((length) => rewriteModule(withNames(...part(length))).module);
      assert.deepEqual(namesOf(long!), [1, 1 + added.length, 1, ...added]);
      assert.ok(namesOf(short!).length > 4_096);
    }
  });

  it("is dropped when it is the second one", () => {
    const twice = Buffer.concat([
      withNames(1, 4, 1, 0, 1, 0x61),
      Uint8Array.of(0, 11, 4, ...Buffer.from("name"), 1, 4, 1, 0, 1, 0x62),
    ]);
    const { module } = rewriteModule(twice);
    assert.equal(WebAssembly.Module.customSections(new WebAssembly.Module(module), "name").length, 1);
    assert.equal(functionName(module, 0), "a");
  });

  it("is made if the module has none and functions are added", () => {
    const plain = withNames();
    const { module } = rewriteModule(plain.subarray(0, plain.length - 8));
    assert.deepEqual(namesOf(module), [1, 1 + added.length, 1, ...added]);
  });
});

describe("functionName", () => {
  it("gives nothing for functions without a name and bytes that are no module", () => {
    assert.equal(functionName(withNames(1, 4, 1, 1, 1, 0x62), 0), undefined);
    assert.equal(functionName(withNames(1, 4, 1, 1, 1, 0x62), 1), "b");
    assert.equal(functionName(Uint8Array.of(1, 2, 3), 0), undefined);
    assert.equal(functionName(new Uint8Array(100), 0), undefined);
  });
});
