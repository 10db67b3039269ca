import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { functionName, rewriteModule } from "../src/index.ts";
import { assembleWat } from "./support.ts";

/** A module with two functions, the second of which is rewritten, and a name section with the given content. */
function withNames(...content: number[]): Uint8Array {
  const plain = assembleWat(`(module (memory 1) (func) (func (result i32) (memory.size)))`);
  const end = plain.lastIndexOf(Buffer.from("name")[0]!) - 3;
  assert.equal(plain[end], 0);
  return Buffer.concat([
    plain.subarray(0, end),
    Uint8Array.of(0, content.length + 5, 4, ...Buffer.from("name"), ...content),
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

  it("is left as it is when it is malformed, which no engine minds", () => {
    for (const content of [[1, 99, 1], [1], [7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [1, 0]]) {
      const { module } = rewriteModule(withNames(...content));
      assert.deepEqual(namesOf(module), content);
      assert.equal(functionName(module, 0), undefined);
    }
  });

  it("is made if the module has none and functions are added", () => {
    const plain = withNames();
    const { module } = rewriteModule(plain.subarray(0, plain.length - 7));
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
