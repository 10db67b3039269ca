/**
 * `--request-key`: keys that guests ask for are built by a program.
 */
import assert from "node:assert/strict";
import { chmodSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { XENKEY_read, XENKEY_request, XENKEYF_callout, XENKEYF_ordinary_memory } from "@xenolith/abi";
import { closeDescriptor, createSecretMemfd } from "@xenolith/sys";
import { DaemonBench } from "./daemon-bench.ts";
import { Workbench, type XlRun } from "./xl-harness.ts";

const words = (...values: readonly number[]): string =>
  [...new Uint8Array(Int32Array.from(values).buffer)].map((byte) => `\\${byte.toString(16).padStart(2, "0")}`).join("");

/** Asks for the key "db:orders" with the callout "now", and prints its payload, or exits with 1. */
const ASKS = `(module
  (import "xen" "key_op" (func $key_op (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "${words(256, 4, 272, 9, 288, 3, XENKEYF_callout, 0)}")
  (data (i32.const 64) "${words(0, 1024, 1024, XENKEYF_ordinary_memory)}")
  (data (i32.const 96) "${words(1024, 0)}")
  (data (i32.const 256) "user")
  (data (i32.const 272) "db:orders")
  (data (i32.const 288) "now")
  (func (export "_start") (local $key i32)
    (local.set $key (call $key_op (i32.const ${XENKEY_request}) (i32.const 0)))
    (if (i32.lt_s (local.get $key) (i32.const 0)) (then (call $proc_exit (i32.const 1))))
    (i32.store (i32.const 64) (local.get $key))
    (i32.store (i32.const 100) (call $key_op (i32.const ${XENKEY_read}) (i32.const 64)))
    (drop (call $fd_write (i32.const 1) (i32.const 96) (i32.const 1) (i32.const 104)))))`;

/** xl keeps secrets where the kernel itself cannot read them, or nowhere. */
const withoutSecretMemory = ((): string | false => {
  try {
    closeDescriptor(createSecretMemfd(4096));
    return false;
  } catch (error) {
    return `this kernel gives no secret memory: ${String(error)}`;
  }
})();

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

const program = (name: string, script: string): string => {
  const file = bench.file(name, `#!/bin/sh\n${script}\n`);
  chmodSync(file, 0o755);
  return file;
};

describe("xl run --request-key", { skip: withoutSecretMemory }, () => {
  it("has a guest's keys built by the program", async () => {
    const image = await bench.image("asks.wasm", ASKS);
    program("builds", 'printf "%s for %s, said %s" "$XENOLITH_KEY_DESCRIPTION" "$XENOLITH_DOMAIN_NAME" "$(cat)"');
    const { code, stdout, stderr } = await bench.xl(["run", "--name", "shop", "--request-key", "./builds", image]);
    assert.deepEqual([code, stdout], [0, "db:orders for shop, said now"], stderr);
  });

  it("says what went wrong when it cannot be started, and the guest is refused", async () => {
    const image = await bench.image("asks.wasm", ASKS);
    const { code, stderr } = await bench.xl(["run", "--request-key", "./nowhere", image]);
    assert.equal(code, 1);
    assert.match(stderr, /a key was not built: spawn .*nowhere ENOENT/);
  });

  it("gives up a program that takes too long", async () => {
    const image = await bench.image("asks.wasm", ASKS);
    const file = program("hangs", "exec sleep 1000");
    const { code } = await bench.xl(["run", "--request-key", file, "--request-key-timeout", "200ms", image]);
    assert.equal(code, 1);
    const wrong = await bench.xl(["run", "--request-key", file, "--request-key-timeout", "soon", image]);
    assert.match(wrong.stderr, /duration "soon"/);
  });
});

describe("xl daemon --request-key", { skip: withoutSecretMemory }, () => {
  const at = new DaemonBench();
  before(async () => {
    await at.start([
      "--memory",
      "256M",
      "--request-key",
      program("serves", 'printf "%s of %s\n" "$XENOLITH_KEY_DESCRIPTION" "$XENOLITH_DOMAIN_NAME"'),
    ]);
  });
  after(() => at[Symbol.asyncDispose]());

  it("has keys of all its domains built by the program", async () => {
    const image = await at.bench.image("asks.wasm", ASKS);
    const { code, stdout, stderr } = await at.xl(["create", "-c", "name=asks", `kernel=${image}`, "memory=16"]);
    assert.match(stdout, /db:orders of asks\n/, stderr);
    assert.equal(code, 0, stderr);
  });

  it("gives a domain the keys of its configuration, and asks nobody for them", async () => {
    const image = await at.bench.image("asks.wasm", ASKS);
    at.bench.file("orders.key", "out of a file");
    const create = async (key: string): Promise<XlRun> => {
      const text = `name = "given"\nkernel = "${image}"\nmemory = 16\n[keys]\n"db:orders" = "${key}"\n`;
      return await at.xl(["create", "-c", at.bench.file("given.toml", text)]);
    };
    const { code, stdout, stderr } = await create("orders.key");
    assert.match(stdout, /out of a file/, stderr);
    assert.equal(code, 0, stderr);
    for (const wrong of ["nowhere.key", "/dev/zero", "."]) {
      const refused = await create(wrong);
      assert.match(refused.stderr, /the key "db:orders": .* is no file .*\[FILE_NOT_FOUND\]/);
      assert.equal(refused.code, 1);
    }
  });
});
