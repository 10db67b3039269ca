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
const link = (modules: Readonly<Record<string, string>>): ReturnType<typeof linkProgram> => {
  for (const [name, text] of Object.entries(modules)) writeFileSync(join(directory, name), text);
  return linkProgram(pathToFileURL(join(directory, Object.keys(modules)[0]!)));
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

for (const [what, modules] of [
  [
    "modules that import each other",
    {
      "a.js": `import { b } from "./b.js";\nexport const a = b;\n`,
      "b.js": `import { a } from "./a.js";\nexport const b = 1;\nexport const c = () => a;\n`,
    },
  ],
  ["an export that the linker does not know", { "c.js": `export default 1;\n` }],
  ["a module that waits at its top level", { "d.js": `export const d = await Promise.resolve(1);\n` }],
] as const) {
  test(`${what} make the linker give up, and threads load modules one by one`, () => {
    assert.equal(link(modules), undefined);
  });
}
