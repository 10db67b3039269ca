import assert from "node:assert/strict";
import { test } from "node:test";
import { describeCrash } from "../src/crash-report.ts";

const thrown = (error: Error, ...frames: string[]): Error => {
  error.stack = [String(error), ...frames.map((frame) => `    at ${frame}`)].join("\n");
  return error;
};

test("a trap is described by V8's message and the innermost guest frame", () => {
  const error = thrown(
    new WebAssembly.RuntimeError("unreachable"),
    "xenolith.memory.fill (wasm://wasm/0a1b2c3d:wasm-function[99]:0x1234)",
    "std::vec::Vec<T>::push (wasm://wasm/0a1b2c3d:wasm-function[7]:0x1a3)",
    "main (wasm://wasm/0a1b2c3d:wasm-function[3]:0x22)",
  );
  assert.deepEqual(describeCrash(error), {
    reason: "unreachable",
    where: "std::vec::Vec<T>::push (wasm-function[7]:0x1a3)",
    internal: false,
  });
});

test("a function without a name is described by its index", () => {
  const error = thrown(new WebAssembly.RuntimeError("x"), "wasm://wasm/name-0a1b2c3d:wasm-function[7]:0x1a3");
  assert.equal(describeCrash(error).where, "wasm-function[7]:0x1a3");
});

test("running out of stack is the guest's mistake, any other exception of JavaScript is ours", () => {
  const overflow = describeCrash(thrown(new RangeError("Maximum call stack size exceeded"), "f (file:///x.js:1:1)"));
  assert.deepEqual(overflow, { reason: "stack overflow", where: "", internal: false });
  const bug = describeCrash(new TypeError("x is not a function"));
  assert.deepEqual([bug.internal, bug.reason], [true, "internal error: TypeError: x is not a function"]);
  assert.equal(describeCrash(undefined).internal, true);
});
