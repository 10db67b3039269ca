import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { prelude, Workbench } from "./xl-harness.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

const fine = `(module ${prelude} (func (export "_start")))`;

describe("xl run: bad arguments exit with 125 and say what is wrong", () => {
  const rows: readonly (readonly [string, readonly string[], RegExp])[] = [
    ["a size of zero", ["--memory", "0"], /size "0".*\[INVALID_SIZE\]/],
    ["a negative size", ["--memory=-1M"], /size "-1M".*\[INVALID_SIZE\]/],
    ["a size that is no number", ["--memory", "lots"], /size "lots".*\[INVALID_SIZE\]/],
    ["a size above the address space", ["--maxmem", "5G"], /size "5G".*4 GiB.*\[INVALID_SIZE\]/],
    ["a maxmem below memory", ["--memory", "2M", "--maxmem", "1M"], /maxmem "1M" is below memory "2M"/],
    ["no vCPU", ["--vcpus", "0"], /vcpus is "0".*1 to 32/],
    ["33 vCPUs", ["--vcpus", "33"], /vcpus is "33".*1 to 32/],
    ["a timeout of zero", ["--timeout", "0"], /duration "0"/],
    ["a directory without a guest name", ["--dir", "/tmp"], /directory "\/tmp" is not of the form HOST::GUEST/],
    ["a variable without a value", ["--env", "NAME"], /variable "NAME" is not of the form NAME=VALUE/],
    ["an unknown option", ["--frobnicate"], /unknown option/],
  ];
  for (const [what, words, message] of rows) {
    it(what, async () => {
      const run = await bench.xl(["run", ...words, await bench.image("fine.wasm", fine)]);
      assert.equal(run.code, 125);
      assert.match(run.stderr, message);
      assert.equal(run.stdout, "");
    });
  }
  it("the control: the same image without them exits with 0", async () => {
    assert.equal((await bench.xl(["run", await bench.image("fine.wasm", fine)])).code, 0);
  });
});

describe("xl run: bad images exit with 125 and say what is wrong", () => {
  it("a file that is not there", async () => {
    const run = await bench.xl(["run", "nowhere.wasm"]);
    assert.equal(run.code, 125);
    assert.match(run.stderr, /nowhere\.wasm.*\[FILE_NOT_FOUND\]/);
  });
  it("a file that is no module", async () => {
    const run = await bench.xl(["run", bench.file("text.wasm", "not a module")]);
    assert.equal(run.code, 125);
    assert.match(run.stderr, /\[MODULE_INVALID\]/);
  });
  it("all unknown imports are listed at once, with what was expected", async () => {
    const text = `(module (import "env" "one" (func)) (import "env" "two" (func (param i32)))
      (import "xen" "memory_op" (func (param i64))) (func (export "_start")))`;
    const run = await bench.xl(["run", await bench.image("imports.wasm", text)]);
    assert.equal(run.code, 125);
    assert.match(run.stderr, /env\.one/);
    assert.match(run.stderr, /env\.two/);
    assert.match(run.stderr, /xen\.memory_op.*expected \(i32, i32\) -> \(i32\)/);
    assert.match(run.stderr, /\[IMPORT_UNKNOWN\]/);
  });
  for (const [what, text] of [
    ["two memories", `(module (memory 1) (memory 1) (func (export "_start")))`],
    ["a 64-bit memory", `(module (memory i64 1) (func (export "_start")))`],
  ] as const) {
    it(`${what} are refused by the name of the feature`, async () => {
      const run = await bench.xl(["run", await bench.image("feature.wasm", text)]);
      assert.equal(run.code, 125);
      assert.match(run.stderr, /\[MODULE_UNSUPPORTED\]/);
    });
  }
});

describe("xl image inspect and xl info", () => {
  it("inspect tells kind, memory, imports and what is rewritten", async () => {
    const text = `(module ${prelude} (func (export "_start") (memory.fill (i32.const 0) (i32.const 0) (i32.const 64))))`;
    const run = await bench.xl(["image", "inspect", await bench.image("inspected.wasm", text)]);
    assert.equal(run.code, 0);
    assert.match(run.stdout, /^kind +WASI command/m);
    assert.match(run.stdout, /wasi_snapshot_preview1\.proc_exit \(i32\) -> \(\)/);
    assert.match(run.stdout, /^rewritten +.*memory\.fill/m);
  });
  it("inspect --json is JSON with the same facts", async () => {
    const run = await bench.xl(["image", "inspect", "--json", await bench.image("fine.wasm", fine)]);
    const { manifest } = JSON.parse(run.stdout) as { manifest: { kind: string } };
    assert.equal(manifest.kind, "command");
  });
  it("inspect describes a module that would not boot, and says why", async () => {
    const image = await bench.image("foreign.wasm", `(module (import "env" "f" (func)) (func (export "_start")))`);
    const run = await bench.xl(["image", "inspect", image]);
    assert.equal(run.code, 0);
    assert.match(run.stdout, /env\.f/);
  });
  it("info --json lists capabilities with state, detail and remedy", async () => {
    const run = await bench.xl(["info", "--json"]);
    const { capabilities } = JSON.parse(run.stdout) as { capabilities: readonly Record<string, unknown>[] };
    assert.equal(run.code, 0);
    for (const capability of capabilities) assert.match(String(capability["state"]), /^(available|degraded|missing)$/);
  });
});

describe("xl: help", () => {
  it("--help exits with 0 and names the commands", async () => {
    const run = await bench.xl(["--help"]);
    assert.equal(run.code, 0);
    for (const command of ["run", "info", "image"]) assert.match(run.stdout, new RegExp(`^  ${command}`, "m"));
  });
  it("run --help teaches sizes, exit codes and examples", async () => {
    const run = await bench.xl(["run", "--help"]);
    assert.match(run.stdout, /134 the domain crashed/);
    assert.match(run.stdout, /Examples:/);
  });
  it("without a command it shows help and fails", async () => {
    assert.equal((await bench.xl([])).code, 125);
  });
});
