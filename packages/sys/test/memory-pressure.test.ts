import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, describe, it } from "node:test";
import { controlGroupMemory, memoryPressure, parsePressure } from "../src/index.ts";

const root = mkdtempSync(path.join(tmpdir(), "xenolith-cgroup-"));
after(() => rmSync(root, { recursive: true }));

const group = (at: string, files: Record<string, string>): void => {
  mkdirSync(path.join(root, at), { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(root, at, name), `${text}\n`);
};

describe("memory pressure", () => {
  it("is read in both lines; text that is none is undefined, as is a file that is not there", () => {
    const text =
      "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=99\n";
    assert.deepEqual(parsePressure(text), {
      some: { average10s: 1.5, average60s: 0.25, average300s: 0, totalUs: 12_345 },
      full: { average10s: 0.1, average60s: 0, average300s: 0, totalUs: 99 },
    });
    assert.equal(parsePressure("some avg10=1.50"), undefined);
    assert.equal(memoryPressure("/proc/self/no-such-file"), undefined);
  });

  it("of this machine can be read, or is not measured", () => {
    const found = memoryPressure();
    if (found !== undefined) assert.ok(found.some.average10s >= 0 && found.full.totalUs <= found.some.totalUs);
  });
});

describe("a control group's memory", () => {
  it("version 2: the limit of a group above counts when it is tighter", () => {
    group("two/slice", {
      "memory.current": "3000",
      "memory.stat": "anon 1500\nfile 1500\ninactive_file 1200\nactive_file 300",
      "memory.max": "8192",
      "memory.high": "6000",
      "memory.events": "low 0\nhigh 4\nmax 2\noom 1\noom_kill 1",
    });
    group("two/slice/job", {
      "memory.current": "1000",
      "memory.max": "max",
      "memory.high": "max",
      "memory.events": "high 0",
    });
    assert.deepEqual(controlGroupMemory({ membership: "0::/slice/job\n", root: path.join(root, "two") }), {
      version: 2,
      currentBytes: 3000,
      reclaimableBytes: 1200,
      maxBytes: 8192,
      highBytes: 6000,
      events: { high: 4, max: 2, oomKill: 1 },
    });
  });

  it("version 1: no limit is a huge number there", () => {
    group("one/memory/job", {
      "memory.usage_in_bytes": "500",
      "memory.limit_in_bytes": "9223372036854771712",
      "memory.failcnt": "7",
      // The counters are read one after the other, and may not agree.
      "memory.stat": "inactive_file 1\ntotal_inactive_file 501",
    });
    const membership = "5:cpu,cpuacct:/\n4:memory:/job\n0::/\n";
    assert.deepEqual(controlGroupMemory({ membership, root: path.join(root, "one") }), {
      version: 1,
      currentBytes: 500,
      reclaimableBytes: 500,
      maxBytes: Number.POSITIVE_INFINITY,
      highBytes: Number.POSITIVE_INFINITY,
      events: { high: 0, max: 7, oomKill: 0 },
    });
  });

  it("is undefined where there is none", () => {
    assert.equal(controlGroupMemory({ membership: "", root }), undefined);
    assert.equal(controlGroupMemory({ membership: "0::/elsewhere\n", root }), undefined);
  });
});
