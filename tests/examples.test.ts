/** The examples are programs that work: each runs to its end by itself. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");
const EXAMPLES = ["demo/demo.mjs", "library/plugin.mjs", "copy-engine/run.mjs"];

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
      assert.ok(guide.includes(stdout), stdout);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
