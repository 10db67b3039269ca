import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { auditMemory } from "../src/audit-memory.ts";
import { allocateFrames, freeFrameCount, freeFrames, layFreeFrames, ownRun, takeRun } from "../src/buddy.ts";
import type { FrameRun } from "../src/buddy.ts";
import { createTestHypervisor } from "../src/fake-platform.ts";
import { HYPERVISOR_OWNER } from "../src/frame-table.ts";
import type { Geometry } from "../src/geometry.ts";
import type { Hypervisor } from "../src/hypervisor.ts";

const machine = (geometry: Partial<Geometry> = {}): Hypervisor => {
  const { hypervisor } = createTestHypervisor(geometry);
  layFreeFrames(hypervisor);
  return hypervisor;
};

const take = (hypervisor: Hypervisor, countMax: number): FrameRun => {
  const run = { mfn: -1, count: 0, claimed: 0 };
  const lock = hypervisor.locks.id("allocator");
  hypervisor.locks.acquire(lock);
  if (takeRun(hypervisor.frames, countMax, run)) ownRun(hypervisor.frames, run.mfn, run.count, HYPERVISOR_OWNER);
  hypervisor.locks.release(lock);
  return run;
};

describe("the frame allocator", () => {
  it("begins with all frames in as few blocks as banks and their ends allow", () => {
    const hypervisor = machine({ machineFrames: 500 });
    assert.equal(freeFrameCount(hypervisor), 500);
    const heads = hypervisor.frames.flags.reduce((sum, flag) => sum + (flag === 0 ? 0 : 1), 0);
    assert.equal(heads, 6); // 256, then 244 = 128 + 64 + 32 + 16 + 4
    assert.deepEqual(auditMemory(hypervisor), []);
  });
  it("gives aligned blocks, and none larger than a bank", () => {
    const hypervisor = machine();
    const mfn = allocateFrames(hypervisor, 4);
    assert.equal(mfn % 16, 0);
    assert.equal(freeFrameCount(hypervisor), 484);
    assert.equal(allocateFrames(hypervisor, 9), -1);
    assert.equal(allocateFrames(hypervisor, 40), -1);
    freeFrames(hypervisor, mfn, 4);
    assert.deepEqual(auditMemory(hypervisor), []);
  });
  it("gives single frames one after the other, so that neighbours can be mapped together", () => {
    const hypervisor = machine();
    const first = allocateFrames(hypervisor, 0);
    assert.deepEqual(
      [1, 2, 3].map(() => allocateFrames(hypervisor, 0)),
      [first + 1, first + 2, first + 3],
    );
  });
  it("gives a run of any length in one piece while a block is long enough, and never across banks", () => {
    const hypervisor = machine({ machineFrames: 512 });
    assert.equal(take(hypervisor, 100).count, 100);
    assert.deepEqual(auditMemory(hypervisor), []);
    assert.equal(take(hypervisor, 400).count, 256);
    assert.equal(take(hypervisor, 400).count, 128);
    assert.deepEqual(auditMemory(hypervisor), []);
  });
  it("answers -1 when nothing is left, and gives everything again when all came back", () => {
    const hypervisor = machine({ machineFrames: 3, framesPerBank: 4, bankCount: 1 });
    const taken = [0, 1, 2].map(() => allocateFrames(hypervisor, 0));
    assert.equal(allocateFrames(hypervisor, 0), -1);
    for (const mfn of taken) freeFrames(hypervisor, mfn, 0);
    assert.equal(allocateFrames(hypervisor, 1) >= 0, true);
  });
  it("merges blocks again whatever the order in which they come and go", () => {
    const step = fc.record({ order: fc.integer({ min: 0, max: 5 }), release: fc.boolean(), pick: fc.nat(1000) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const hypervisor = machine();
        const held: [number, number][] = [];
        for (const { order, release, pick } of steps) {
          if (release && held.length > 0) {
            const [[mfn, size]] = held.splice(pick % held.length, 1) as [[number, number]];
            freeFrames(hypervisor, mfn, size);
          } else {
            const mfn = allocateFrames(hypervisor, order);
            if (mfn >= 0) held.push([mfn, order]);
          }
        }
        assert.deepEqual(auditMemory(hypervisor), []);
        for (const [mfn, order] of held) freeFrames(hypervisor, mfn, order);
        assert.deepEqual(auditMemory(hypervisor), []);
        assert.equal(freeFrameCount(hypervisor), 500);
      }),
      { numRuns: 60 },
    );
  });
});
