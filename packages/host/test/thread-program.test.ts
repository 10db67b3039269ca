import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { Script } from "node:vm";
import { linkProgram } from "../src/thread-program.ts";

const directory = mkdtempSync(join(tmpdir(), "xenolith-link-"));
after(() => rmSync(directory, { recursive: true }));

/** Writes modules and links the first one. */
const link = (modules: Readonly<Record<string, string>>, late: readonly string[] = []) => {
  for (const [name, text] of Object.entries(modules)) writeFileSync(join(directory, name), text);
  return linkProgram(pathToFileURL(join(directory, Object.keys(modules)[0]!)), { late });
};

/** What the linked program's entry exports. */
const execute = (program: ReturnType<typeof linkProgram>): Record<string, unknown> => {
  assert.ok(program !== undefined);
  return new Script(program.source).runInThisContext()(createRequire(program.filename));
};

test("the program of vCPU threads can be linked into one script", () => {
  const program = linkProgram(new URL("../src/vcpu-worker.js", import.meta.url));
  assert.ok(program !== undefined);
  assert.match(program.source, /const attachThread/);
});

test("imports, renamed imports, namespaces and passed on exports mean in the script what they mean in modules", () => {
  const program = link({
    "entry.js": `import { one, two as second } from "./barrel.js";
import * as all from "./numbers.js";
import assert, { ok } from "node:assert/strict";
export const sum = one + second + all.three;
export function same() {
    return assert.ok === ok;
}
export { second as renamed } from "./barrel2.js";
`,
    "barrel.js": `// passes on\nexport { one, deux as two } from "./numbers.js";\n`,
    "barrel2.js": `export { one as second } from "./numbers.js";\n`,
    "numbers.js": `export const one = 1;\nconst deux = 2;\nexport const three = 3;\nexport { deux };\n`,
  });
  const { sum, same, renamed } = execute(program) as { sum: number; same: () => boolean; renamed: number };
  assert.deepEqual([sum, same(), renamed], [6, true, 1]);
});

/** Modules that note when they run, in a list of the test's own. */
const noting = (list: string): Readonly<Record<string, string>> => ({
  "starter.js": `import { used } from "./passing.js";
import * as all from "./passing.js";
import { work } from "./worker.js";
export const fromStart = [...used, all.LIMIT, all.MASK];
export const start = (...values) => work(...values);
`,
  "passing.js": `export { used } from "./used.js";\nexport { LIMIT, MASK, unused } from "./numbers-only.js";\n`,
  "used.js": `globalThis.${list}.push("used");\nexport const used = [1];\n`,
  "numbers-only.js": `globalThis.${list}.push("numbers");
export const LIMIT = 0x1_000;
export const MASK = (1 << 3) | 1;
export const unused = {};
`,
  "worker.js": `globalThis.${list}.push("worker");\nexport const work = (a, b, c) => a + b + c;\n`,
});

test("a module of which only numbers are imported never runs, one that is imported late runs at the first call", () => {
  const ran: string[] = [];
  Object.assign(globalThis, { ranLate: ran });
  const exported = execute(link(noting("ranLate"), ["work"]));
  const { fromStart, start } = exported as { fromStart: number[]; start: (...values: number[]) => number };
  assert.deepEqual([fromStart, ran], [[1, 4096, 9], ["used"]]);
  assert.deepEqual([start(1, 2, 3), start(2, 3, 4), ran], [6, 9, ["used", "worker"]]);
});

test("an import that is not late runs its module at once, and `runAll` runs every module once", () => {
  const ran: string[] = [];
  Object.assign(globalThis, { ranAll: ran });
  const { start, runAll } = execute(link(noting("ranAll"))) as Record<string, (...values: number[]) => number>;
  assert.deepEqual(ran.toSorted(), ["used", "worker"]);
  runAll!();
  runAll!();
  assert.deepEqual([start!(1, 2, 3), ran.toSorted()], [6, ["used", "worker"]]);
});

for (const [what, modules] of [
  [
    "modules that import each other",
    {
      "a.js": `import { b } from "./b.js";\nexport const a = b;\n`,
      "b.js": `import { a } from "./a.js";\nexport const b = () => a;\n`,
    },
  ],
  ["an export that the linker does not know", { "c.js": `export default 1;\n` }],
  ["a module that waits at its top level", { "d.js": `export const d = await Promise.resolve(1);\n` }],
] as const) {
  test(`${what} make the linker give up, and threads load modules one by one`, () => {
    assert.equal(link(modules), undefined);
  });
}
