import assert from "node:assert/strict";
import { test } from "node:test";
import wabt from "wabt";
import { paravirtualise } from "../src/index.ts";

const assembler = await wabt();
const load = (text: string) =>
  paravirtualise(assembler.parseWat("entry.wat", text).toBinary({}).buffer, { imports: [] });

test("functions that the host calls must have the type that it calls them with", () => {
  for (const [name, type, expected] of [
    ["_start", "(param i64)", "() -> ()"],
    ["_start", "(result i32)", "() -> ()"],
    ["_initialize", "(param i32)", "() -> ()"],
    ["xen_start", "", "(i32) -> ()"],
    ["xen_upcall", "(param v128)", "() -> ()"],
    ["xen_vcpu_start", "(param i32)", "(i32, i32) -> ()"],
    ["wasi_thread_start", "(param i64 i64)", "(i32, i32) -> ()"],
  ] as const) {
    assert.throws(() => load(`(module (func (export "${name}") ${type} unreachable))`), {
      code: "MODULE_UNSUPPORTED",
      message: new RegExp(`export ${name} is a function .*, it must be ${expected.replaceAll(/[()]/g, "\\$&")}`),
    });
  }
});

test("the control: with the right types they are accepted, and other exports may have any", () => {
  const text = `(module (func (export "xen_start") (param i32)) (func (export "xen_upcall")) (func (export "toString") (param i64)))`;
  assert.equal(load(text).manifest.kind, "xen");
});
