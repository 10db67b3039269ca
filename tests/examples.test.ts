/** The examples are programs that work: each runs to its end by itself. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { before, describe, it } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");
const EXAMPLES = ["library/plugin.mjs", "copy-engine/run.mjs", "device-model/run.mjs"];
const MIB = 2 ** 20;

/** What the demo reports with `--json`, as far as it is looked at here. */
interface DemoFacts {
  readonly programs: { readonly rows: string; readonly hostile: readonly { readonly name: string }[] };
  readonly share: {
    readonly guests: number;
    readonly found: readonly number[];
    readonly dataBytes: number;
    readonly residentBytes: number;
    readonly copiesResidentBytes: number | null;
  };
  readonly revoke: { readonly wordAfter: number; readonly othersRight: number };
  readonly granter: { readonly mappers: number; readonly mappersAlive: number };
  readonly channel: {
    readonly rounds: readonly { readonly sentWords: number; readonly gotWords: number }[];
    readonly wrongWords: number;
    readonly gotWordsBeforeKill: number;
  };
  readonly end: { readonly findings: readonly string[]; readonly before: object; readonly after: object };
}

const runDemo = async (): Promise<DemoFacts> => {
  const { stdout } = await run(process.execPath, [path.join(root, "examples/demo/demo.mjs"), "--json"]);
  return JSON.parse(stdout) as DemoFacts;
};

describe("the report of the demo", () => {
  const lines = async (isTTY: boolean, isJson: boolean): Promise<string> => {
    // From the compiled test's place the module is one folder further away than the compiler thinks.
    const { createReport } = (await import(path.join(root, "examples/demo/report.mjs"))) as {
      createReport: (options: object) => { good: (text: string) => void; end: () => void; facts: object };
    };
    let written = "";
    const stream = { isTTY, write: (text: string) => (written += text) };
    const report = createReport({ isJson, stream });
    report.good("held");
    Object.assign(report.facts, { held: true });
    report.end();
    return written;
  };

  it("has colours on a terminal only", async () => {
    assert.equal(await lines(false, false), "  held\n");
    if (process.env["NO_COLOR"] === undefined) assert.match(await lines(true, false), /\u001B\[32mheld/);
  });

  it("is one object with --json", async () => {
    assert.deepEqual(JSON.parse(await lines(true, true)), { held: true });
  });
});

describe("the demo", () => {
  let facts: DemoFacts;
  before(async () => {
    facts = await runDemo();
  });

  it("runs published programs beside hostile guests", () => {
    assert.equal(facts.programs.rows, "100000 rows, 120 years");
    assert.deepEqual(
      facts.programs.hostile.map(({ name }) => name),
      ["grow-without-end", "fill-absent-page", "loop-for-ever"],
    );
  });

  it("has one data set of 64 MiB in 16 guests, resident once, and each finds what is there", () => {
    const { guests, found, dataBytes, residentBytes, copiesResidentBytes } = facts.share;
    assert.deepEqual([guests, dataBytes], [16, 64 * MIB]);
    assert.ok(found.length === 16 && found.every((count) => count > 0));
    assert.ok(residentBytes >= dataBytes && residentBytes < 1.02 * dataBytes, `${residentBytes} bytes`);
    if (copiesResidentBytes !== null) assert.ok(copiesResidentBytes >= 16 * dataBytes, `${copiesResidentBytes} bytes`);
  });

  it("takes the data from one guest in mid-search: it reads zeros, the others find everything", () => {
    assert.equal(facts.revoke.wordAfter, 0);
    assert.equal(facts.revoke.othersRight, 15);
  });

  it("kills a guest whose memory the others read: all of them live", () => {
    assert.deepEqual(facts.granter, { mappers: 16, mappersAlive: 16 });
  });

  it("revokes a vchan under load: the reader gets a prefix, in order, and the end", () => {
    const { rounds, wrongWords, gotWordsBeforeKill } = facts.channel;
    assert.equal(rounds.length, 5);
    for (const { sentWords, gotWords } of rounds) assert.ok(gotWords > 0 && gotWords <= sentWords);
    assert.equal(wrongWords, 0);
    assert.ok(gotWordsBeforeKill > 0);
  });

  it("ends with a clean auditor, and mappings, threads and open files as at the start", () => {
    assert.deepEqual(facts.end.findings, []);
    assert.deepEqual(facts.end.after, facts.end.before);
  });
});

describe("examples", () => {
  for (const example of EXAMPLES) {
    it(`${example} ends with exit code 0`, async () => {
      const { stdout } = await run(process.execPath, [path.join(root, "examples", example)]);
      assert.notEqual(stdout, "");
    });
  }
});

describe("the first guest of the guide", () => {
  it("is built and run by the commands that the guide gives", async () => {
    const guide = readFileSync(path.join(root, "docs/guide/first-guest.md"), "utf8");
    const program = /```c\n(#include <xenolith\/guest\.h>[^]*?)```/.exec(guide)?.[1];
    assert.ok(program !== undefined && guide.includes("node guest/xencc.mjs hello.c -o hello.wasm"));
    const directory = mkdtempSync(path.join(tmpdir(), "xenolith-guide-"));
    try {
      writeFileSync(path.join(directory, "hello.c"), program);
      await run(process.execPath, [path.join(root, "guest/xencc.mjs"), "hello.c", "-o", "hello.wasm"], {
        cwd: directory,
      });
      const xl = path.join(root, "packages/toolstack/bin/xl.js");
      const { stdout } = await run(process.execPath, [xl, "run", "hello.wasm"], { cwd: directory });
      // How many pages the image needs is the library's affair.
      const withoutNumbers = (text: string): string => text.replaceAll(/\d+ pages/g, "N pages");
      assert.ok(withoutNumbers(guide).includes(withoutNumbers(stdout)), stdout);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
