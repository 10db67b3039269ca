import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { prelude, Workbench } from "./xl-harness.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

const exiting = (code: number): string =>
  `(module ${prelude} (func (export "_start") (call $exit (i32.const ${code}))))`;
const greeting = `(module ${prelude} (data (i32.const 64) "hello\\0a")
  (func (export "_start") (call $write (i32.const 64) (i32.const 6))))`;
const endless = `(module ${prelude} (func (export "_start") (loop $again (br $again))))`;
const trapping = `(module ${prelude}
  (func $reach_too_far (drop (i32.load (i32.const 0x7000000))))
  (func (export "_start") (call $reach_too_far)))`;
const adder = `(module
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "add64") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1)))
  (func (export "half") (param f64) (result f64) (f64.div (local.get 0) (f64.const 2)))
  (func (export "swap") (param i32 i32) (result i32 i32) (local.get 1) (local.get 0)))`;
const growing = `(module ${prelude}
  (func (export "_start")
    (local $count i32)
    (loop $again
      (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1))
        (then (local.set $count (i32.add (local.get $count) (i32.const 1))) (br $again))))
    (call $exit (local.get $count))))`;

describe("xl run: the end of a program", () => {
  it("a program that returns exits with 0 and its output is on stdout", async () => {
    const run = await bench.xl(["run", await bench.image("greeting.wasm", greeting)]);
    assert.deepEqual(run, { code: 0, stdout: "hello\n", stderr: "" });
  });
  it("the exit code is the guest's own", async () => {
    const run = await bench.xl(["run", await bench.image("exit.wasm", exiting(42))]);
    assert.deepEqual(run, { code: 42, stdout: "", stderr: "" });
  });
  it("a crash exits with 134 and names function and address", async () => {
    const run = await bench.xl(["run", await bench.image("trap.wasm", trapping)]);
    assert.equal(run.code, 134);
    assert.match(
      run.stderr,
      /^xl: domain 1 crashed: memory access out of bounds: reach_too_far \(wasm-function\[\d+\]:0x[0-9a-f]+\)\n$/,
    );
  });
  it("a program runs the same with --preemptible", async () => {
    const run = await bench.xl(["run", "--preemptible", await bench.image("greeting.wasm", greeting)]);
    assert.deepEqual(run, { code: 0, stdout: "hello\n", stderr: "" });
  });
  it("a timeout exits with 124", async () => {
    const run = await bench.xl(["run", "--timeout", "200ms", await bench.image("endless.wasm", endless)]);
    assert.equal(run.code, 124);
    assert.match(run.stderr, /stopped after 200ms/);
  });
});

describe("xl run: limits", () => {
  it("--memory bounds what memory.grow gives: 1 MiB is 16 pages, one of them there at start", async () => {
    const run = await bench.xl(["run", "--memory", "1M", await bench.image("grow.wasm", growing)]);
    assert.equal(run.code, 15);
  });
  it("--maxmem lets it grow further than --memory", async () => {
    const run = await bench.xl(["run", "--memory", "1M", "--maxmem", "2M", await bench.image("grow.wasm", growing)]);
    assert.equal(run.code, 31);
  });
  it("an image that needs more than --memory is refused, naming both", async () => {
    const big = await bench.image("big.wasm", `(module (memory 32) (func (export "_start")))`);
    const run = await bench.xl(["run", "--memory", "1M", big]);
    assert.equal(run.code, 125);
    assert.match(run.stderr, /needs 2048 KiB of memory, the domain may have 1024 KiB \[MEMORY_LIMIT\]/);
  });
});

describe("xl run: what the guest is given", () => {
  const echo = `(module
    (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
    ${prelude}
    (func (export "_start")
      (drop (call $args_get (i32.const 256) (i32.const 1024)))
      (drop (call $environ_get (i32.const 512) (i32.const 4096)))
      (call $write (i32.load (i32.const 260)) (i32.const 5))
      (call $write (i32.const 4096) (i32.const 4))))`;
  it("arguments after -- and the environment reach it", async () => {
    const image = await bench.image("echo.wasm", echo);
    const run = await bench.xl(["run", "--env", "A=bc", image, "--", "first", "second"]);
    assert.deepEqual(run, { code: 0, stdout: "firstA=bc", stderr: "" });
  });
  it("a directory that does not exist is refused by name", async () => {
    const image = await bench.image("greeting.wasm", greeting);
    const run = await bench.xl(["run", "--dir", "/nowhere/at/all::/data", image]);
    assert.equal(run.code, 125);
    assert.match(run.stderr, /"\/nowhere\/at\/all".*\[DIRECTORY_NOT_FOUND\]/);
  });
});

describe("xl run --invoke: calls of a reactor", () => {
  const rows: readonly (readonly [string, readonly string[], string])[] = [
    ["add", ["2", "40"], "42\n"],
    ["add", ["--", "-1", "1"], "0\n"],
    ["add64", ["9223372036854775806", "1"], "9223372036854775807\n"],
    ["half", ["2.5"], "1.25\n"],
    ["swap", ["1", "2"], "2\n1\n"],
  ];
  for (const [name, values, output] of rows) {
    it(`${name} ${values.join(" ")} prints ${JSON.stringify(output)}`, async () => {
      const image = await bench.image("adder.wasm", adder);
      const words = values[0] === "--" ? values : ["--", ...values];
      assert.deepEqual(await bench.xl(["run", "--invoke", name, image, ...words]), {
        code: 0,
        stdout: output,
        stderr: "",
      });
    });
  }
  it("an export that is not there is refused", async () => {
    const run = await bench.xl(["run", "--invoke", "nothing", await bench.image("adder.wasm", adder)]);
    assert.equal(run.code, 125);
    assert.match(run.stderr, /no function "nothing" \[EXPORT_NOT_FOUND\]/);
  });
  it("a reactor without --invoke says what to do", async () => {
    const run = await bench.xl(["run", await bench.image("adder.wasm", adder)]);
    assert.equal(run.code, 125);
    assert.match(run.stderr, /--invoke EXPORT/);
  });
});

describe("xl run: figures", () => {
  it("--stats says what the domain used, on stderr", async () => {
    const run = await bench.xl(["run", "--stats", await bench.image("greeting.wasm", greeting)]);
    assert.equal(run.stdout, "hello\n");
    for (const name of [
      "memory now",
      "memory peak",
      "memory limit",
      "mappings",
      "hypercalls",
      "events",
      "CPU seconds",
    ]) {
      assert.match(run.stderr, new RegExp(`^${name} +\\S`, "m"));
    }
  });
  it("--json reports the end as one line on stderr", async () => {
    const run = await bench.xl(["run", "--json", await bench.image("trap.wasm", trapping)]);
    const report = JSON.parse(run.stderr.trim().split("\n").at(-1)!) as Record<string, unknown>;
    assert.equal(report["code"], 134);
    assert.equal(report["crashed"], true);
    assert.match(String(report["where"]), /reach_too_far/);
  });
});
