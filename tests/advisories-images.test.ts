/**
 * Advisories about modules that are made to harm whoever loads them, and about what may stand in our own source
 * (docs/advisories.md, section 12).
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";

import { hypercalls } from "@xenolith/abi";

import { assemble, assertClean, openHost, program, run, wordAt } from "./advisory-guests.ts";

const host = await openHost();
after(() => host.close());

const HEADER = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
/** LEB128, unsigned. */
const number = (value: number): number[] => {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    bytes.push((rest % 128) | (rest >= 128 ? 128 : 0));
    if (rest < 128) return bytes;
  }
};
const section = (id: number, ...bytes: readonly number[]): number[] => [id, ...number(bytes.length), ...bytes];
const module = (...sections: readonly (readonly number[])[]): Uint8Array =>
  Uint8Array.from([...HEADER, ...sections.flat()]);

/** `count` times the same bytes behind their number. */
const repeated = (id: number, count: number, entry: readonly number[]): Uint8Array => {
  const head = number(count);
  const bytes = new Uint8Array(head.length + count * entry.length);
  bytes.set(head);
  for (let at = head.length; at < bytes.length; at += entry.length) bytes.set(entry, at);
  const size = number(bytes.length);
  const whole = new Uint8Array(HEADER.length + 1 + size.length + bytes.length);
  whole.set([...HEADER, id, ...size]);
  whole.set(bytes, HEADER.length + 1 + size.length);
  return whole;
};

describe("modules that are made to harm", () => {
  const bombs: Readonly<Record<string, () => Uint8Array>> = {
    "a million types": () => repeated(1, 1_000_001, [0x60, 0, 0]),
    "a million imports": () => repeated(2, 1_000_001, [1, 0x65, 1, 0x66, 0, 0]),
    "ten million functions": () => repeated(3, 10_000_001, [0]),
    "a million data segments": () => repeated(11, 1_000_001, [1, 0]),
    "a table of ten million and one": () => module(section(4, 1, 0x70, 0, ...number(10_000_001))),
    "a table of four thousand million": () => module(section(4, 1, 0x70, 0, ...number(2 ** 32 - 1))),
    "a gibibyte of data that is not there": () =>
      module(section(5, 1, 0, 1), [11, ...number(2 ** 30), 1, 0, 0x41, 0, 0x0b, ...number(2 ** 30)]),
    "a custom section longer than the file": () => module([0, ...number(2 ** 31), 1, 0x61]),
    "fifty thousand and one locals in one function": () =>
      module(
        section(1, 1, 0x60, 0, 0),
        section(3, 1, 0),
        section(10, 1, ...number(6), 1, ...number(50_001), 0x7f, 0x0b),
      ),
    "four thousand million locals": () =>
      module(
        section(1, 1, 0x60, 0, 0),
        section(3, 1, 0),
        section(10, 1, ...number(8), 1, ...number(2 ** 32 - 1), 0x7f, 0x0b),
      ),
    "more memory than there is address space": () => module(section(5, 1, 0, ...number(65_537))),
  };
  for (const [what, build] of Object.entries(bombs)) {
    it(`W29, T03: ${what} are refused with an error, and cost little (W-29, CVE-2019-7704, XSA-25)`, async () => {
      const image = build();
      const before = process.memoryUsage().rss;
      await assert.rejects(host.createDomain({ image }), (error: Error & { code?: string }) =>
        (error.code ?? "").startsWith("MODULE_"),
      );
      assert.ok(process.memoryUsage().rss - before < 2 ** 28, `${process.memoryUsage().rss - before} bytes`);
      assertClean(host);
    });
  }

  it("W29: a custom section of 20 MB and one of no length do no harm (W-29)", async () => {
    const small = program("(drop (memory.size))");
    const filler = new Uint8Array(20_000_000);
    const head = [0, ...number(filler.length + 2), 1, 0x61];
    const image = new Uint8Array(small.length + head.length + filler.length);
    image.set(small);
    image.set(head, small.length);
    await using domain = await run(host, image);
    assert.equal((await domain.exited).crashed, false);
  });

  it("W24: only features of WebAssembly that the loader knows are let through (W-24, CVE-2024-2887)", async () => {
    const body = (...code: readonly number[]): Uint8Array =>
      module(
        section(1, 1, 0x60, 0, 0),
        section(3, 1, 0),
        section(5, 1, 0, 1),
        section(10, 1, ...number(code.length + 2), 0, ...code, 0x0b),
      );
    const unknown: Readonly<Record<string, Uint8Array>> = {
      "a memory of 64 bits": module(section(5, 1, 4, 1)),
      "two memories": module(section(5, 2, 0, 1, 0, 1)),
      "a type of garbage-collected structs": module(section(1, 1, 0x5f, 0)),
      "an opcode of the collector": body(0xfb, 0, 0, 0x1a),
      "an opcode of nobody": body(0xff),
      "an atomic of nobody": body(0xfe, 0x7f),
      "a version of nobody": Uint8Array.from([0, 0x61, 0x73, 0x6d, 2, 0, 0, 0]),
      "a component": Uint8Array.from([0, 0x61, 0x73, 0x6d, 0x0d, 0, 1, 0]),
      "a section of nobody": module(section(14, 0)),
    };
    for (const [what, image] of Object.entries(unknown)) {
      const code = await host.loadImage(image).then(
        () => "accepted",
        (error: Error & { code?: string }) => error.code,
      );
      assert.match(String(code), /^MODULE_(?:UNSUPPORTED|INVALID)$/, what);
    }
    const [major = 0] = process.versions.node.split(".").map(Number);
    assert.ok(major >= 20, "older engines are not supported");
    await using domain = await run(host, program("(drop (memory.size))"));
    assert.equal((await domain.exited).crashed, false);
  });

  it("W20: no reference of the host's passes to a guest or back: every parameter is a number (W-20, CVE-2021-39216)", async () => {
    for (const type of ["externref", "funcref"]) {
      for (const signature of [`(param ${type} i32) (result i32)`, `(param i32 i32) (result ${type})`]) {
        const image = assemble(
          `(module (import "xen" "sched_op" (func ${signature})) (memory 1) (func (export "_start")))`,
        );
        await assert.rejects(host.createDomain({ image }), { code: "IMPORT_UNKNOWN", message: /sched_op/ });
      }
      const table = assemble(`(module (import "xen" "table" (table 1 ${type})) (memory 1) (func (export "_start")))`);
      await assert.rejects(
        host.createDomain({ image: table }),
        (error: Error & { code?: string }) => error.code !== undefined,
      );
      const call = async () => 0;
      const options = { image: table, imports: { env: { f: { params: [type], results: [], call } } } };
      await assert.rejects(host.createDomain(options as never), { code: "INVALID_ARGUMENT" });
    }
    for (const { parameters } of Object.values(hypercalls)) assert.ok(parameters.length <= 6);
    assertClean(host);
  });

  it("W10: whatever memory a module has, exports or imports, it runs on the one that the host made (W-10)", async () => {
    const store = `(i32.store (i32.const 64) (i32.const 0x1234)) (i32.store (i32.const 68) (memory.size))`;
    const forms: Readonly<Record<string, string>> = {
      "exports none": `(memory 2) (func (export "_start") ${store})`,
      "exports it under another name": `(memory (export "heap") 2 5) (func (export "_start") ${store})`,
      "exports it twice": `(memory (export "a") (export "b") 2) (func (export "_start") ${store})`,
      "has one without a maximum": `(memory (export "memory") 2) (func (export "_start") ${store})`,
      "has a shared one": `(memory (export "memory") 2 8 shared) (func (export "_start") ${store})`,
      "imports one": `(import "env" "memory" (memory 2)) (func (export "_start") ${store})`,
      "imports one by a strange name": `(import "__proto__" "constructor" (memory 2 3)) (func (export "_start") ${store})`,
    };
    for (const [what, text] of Object.entries(forms)) {
      await using domain = await run(host, assemble(`(module ${text})`));
      const exit = await domain.exited;
      assert.equal(exit.crashed, false, `${what}: ${exit.reason}`);
      assert.deepEqual([wordAt(domain, 64), wordAt(domain, 68)], [0x1234, 2], what);
      assert.throws(() => domain.read(2 * 65536, 1), { code: "GUEST_ADDRESS" }, what);
    }
    assertClean(host);
  });

  /** Control characters, and those that turn the direction of writing. */
  const unsafe = /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;
  const names = [
    "a\u001b[2J\u001b]52;c;x\u0007%s%n\u009b1m\u202e",
    "b\r\n    at evil (wasm://wasm/x:wasm-function[9]:0x9)",
  ];

  it("W26: what its functions are called writes to no terminal, and hides no crash (W-26, CVE-2012-3515)", async () => {
    for (const name of names) {
      const bytes = Buffer.from(name);
      // The name of the function that traps is patched into a module where it has another of the same length.
      const placeholder = "x".repeat(bytes.length);
      const body = `(func $${placeholder} unreachable) (func (export "_start") (call $${placeholder}))`;
      const image = assemble(`(module (memory 1) ${body})`);
      const at = Buffer.from(image).lastIndexOf(placeholder);
      assert.ok(at > 0);
      image.set(bytes, at);
      await using domain = await run(host, image);
      const { reason, where = "", crashed } = await domain.exited;
      assert.equal(crashed, true);
      for (const text of [reason, where]) assert.doesNotMatch(text, unsafe);
      assert.match(where, /wasm-function\[\d\]:0x/);
    }
  });

  it("W26, T16: what it prints is text, and the format of nothing (W-26)", async () => {
    const bytes = [...Buffer.from(names.join(" ")), 10];
    const data = bytes.map((byte) => `\\${byte.toString(16).padStart(2, "0")}`).join("");
    const print = `(drop (call $console_io (i32.const 0) (i32.const ${bytes.length}) (i32.const 8)))`;
    await using domain = await run(host, program(print, `(data (i32.const 8) "${data}")`));
    await domain.exited;
    await domain.destroy();
    const text = await domain.console.text();
    // A mark of writing direction is a letter to a terminal.
    assert.doesNotMatch(text.replaceAll("\n", "").replaceAll("\u202e", ""), unsafe);
    assert.match(text, /%s%n/);
  });
});

describe("domains as they are built", () => {
  it("T07: beside what the builder wrote a new domain's memory is zero (XSA-464)", async () => {
    const filling = program("(memory.fill (i32.const 0) (i32.const 0xa5) (i32.const 65536))");
    for (let round = 0; round < 2; round += 1) {
      await using before = await run(host, filling);
      await before.exited;
    }
    const image = assemble(
      `(module (memory (export "memory") 1) (data (i32.const 100) "text") (func (export "xen_start") (param i32)))`,
    );
    await using domain = await host.createDomain({ image, commandLine: "x" });
    const ram = domain.read(0, 65536);
    assert.deepEqual(
      [...ram.keys()].filter((at) => ram[at] !== 0),
      [100, 101, 102, 103],
    );
    const startInfo = domain.read(0xffff_d000, 4096);
    assert.ok(startInfo.subarray(82).every((byte) => byte === 0));
    assert.ok(!startInfo.includes(0xa5));
  });

  it("T09: a domain that was given nothing has nothing: no directory, no input, no environment (XSA-119)", async () => {
    const image = assemble(`(module
      (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start")
        (i32.store (i32.const 0) (call $prestat (i32.const 3) (i32.const 64)))
        (i32.store (i32.const 72) (i32.const 128)) (i32.store (i32.const 76) (i32.const 16))
        (i32.store (i32.const 4) (call $read (i32.const 0) (i32.const 72) (i32.const 1) (i32.const 8)))
        (drop (call $environ (i32.const 12) (i32.const 16)))))`);
    await using domain = await run(host, image);
    assert.equal((await domain.exited).crashed, false);
    const EBADF = 8;
    assert.deepEqual(
      [0, 4, 8, 12].map((at) => wordAt(domain, at)),
      [EBADF, 0, 0, 0],
    );
  });
});

describe("our own source", () => {
  const root = join(import.meta.dirname, "..", "..");
  const sources = readdirSync(join(root, "packages"), { recursive: true, withFileTypes: true })
    .filter(
      (entry) =>
        entry.isFile() &&
        /\/src(?:\/|$)/.test(entry.parentPath) &&
        !/\/(?:dist|node_modules)\//.test(`${entry.parentPath}/`),
    )
    .filter((entry) => entry.name.endsWith(".ts"))
    .map((entry) => join(entry.parentPath, entry.name));

  it("W16, W18: never hands out memory that it has not filled, and does not use node:wasi (W-16, W-18)", () => {
    assert.ok(sources.length > 200, `${sources.length} files`);
    for (const file of sources) {
      const text = readFileSync(file, "utf8");
      assert.doesNotMatch(text, /allocUnsafe|Buffer\.from\([^)]*\)\.buffer/, file);
      assert.doesNotMatch(text, /["']node:wasi["']/, file);
    }
  });
});
