import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import path from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);
const program = path.join(import.meta.dirname, "..", "..", "bench", "dist", "run.js");
const benches = [
  "api",
  "balloon",
  "boot",
  "copy",
  "event",
  "grant",
  "guest-keys",
  "hypercall",
  "keyd",
  "manager",
  "keys",
  "memory",
  "rewrite",
  "secrets",
  "share",
  "vchan",
];

interface Report {
  readonly bench: string;
  readonly results: readonly Readonly<Record<string, unknown>>[];
}

describe("benches", () => {
  for (const bench of benches) {
    it(`${bench} measures each figure beside its floor`, async () => {
      const { stdout } = await run(process.execPath, ["--expose-gc", program, bench, "--small", "--json"]);
      const report = JSON.parse(stdout) as Report;
      assert.equal(report.bench, bench);
      assert.ok(report.results.length > 0);
      for (const { id, unit, value, floor, ratio } of report.results) {
        assert.ok(typeof id === "string" && typeof unit === "string");
        for (const figure of [value, floor, ratio]) assert.ok(Number.isFinite(figure), `${id}: ${String(figure)}`);
      }
      assert.equal(new Set(report.results.map(({ id }) => id)).size, report.results.length);
    });
  }

  it("a name that no bench has is refused", async () => {
    await assert.rejects(run(process.execPath, [program, "no-such-bench"]), { code: 2 });
  });
});
