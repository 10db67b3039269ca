// The control domain's own address spaces: nothing in them faults, whatever is taken away from under a view.
import assert from "node:assert/strict";
import { test } from "node:test";
import { dmaSlot, depopulateRun, hookRun, P2M_EXTENT_RO, populateRun, unhookRun } from "@xenolith/core";
import { auditSpaces } from "../src/audit-spaces.ts";
import type { Host } from "../src/index.ts";
import { GfnAllocator } from "../src/gfn-allocator.ts";
import { assertClean, openHost } from "./support.ts";

const populated = (host: Host, gfn: number, count: number): void => {
  const outcome = { count: 0, blockedGfn: -1, error: 0 };
  populateRun(host.hypervisor, 0, gfn, count, outcome);
  assert.equal(outcome.count, count);
};

/** The frame at a gfn of dom0. */
const frameAt = (host: Host, gfn: number): number => host.hypervisor.p2m.get(0, gfn) >>> 4;

test("next fit: runs have a spare gfn behind them, and what comes back is used again last", () => {
  const gfns = new GfnAllocator(1, 30);
  assert.deepEqual([gfns.take(4), gfns.take(4), gfns.take(4)], [1, 6, 11]);
  gfns.give(6, 4);
  assert.equal(gfns.take(4), 16);
  assert.equal(gfns.take(9), -1);
  assert.equal(gfns.take(3), 21);
  assert.equal(gfns.take(4), 25);
  assert.equal(gfns.take(1), 6);
  assert.equal(gfns.take(4), -1);
  assert.equal(gfns.take(2), 8);
  for (const [gfn, count] of [
    [1, 4],
    [11, 4],
    [6, 1],
    [16, 4],
    [8, 2],
    [25, 4],
    [21, 3],
  ] as const)
    gfns.give(gfn, count);
  assert.equal(gfns.take(28), 1);
});

test("random runs never overlap and all come back", () => {
  const seed = 20_261_121;
  let state = seed;
  const random = (below: number): number => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % below;
  const gfns = new GfnAllocator(1, 1000);
  const taken = new Map<number, number>();
  for (let step = 0; step < 5000; step += 1) {
    const count = 1 + random(40);
    const gfn = random(3) > 0 ? gfns.take(count) : -1;
    if (gfn >= 0) {
      for (const [other, length] of taken) assert.ok(gfn + count < other || other + length < gfn, `seed ${seed}`);
      assert.ok(gfn >= 1 && gfn + count < 1000);
      taken.set(gfn, count);
    } else {
      const [first] = taken;
      if (first === undefined) continue;
      taken.delete(first[0]);
      gfns.give(...first);
    }
  }
  for (const run of taken) gfns.give(...run);
  assert.equal(gfns.take(998), 1);
});

test("a view of dom0's own memory shows the machine's frames", async () => {
  await using host = await openHost();
  const { window } = host;
  const gfn = window.take(4);
  populated(host, gfn, 4);
  const view = window.bytes(gfn, 4 * 4096);
  view.fill(7);
  const { hypervisor } = host;
  assert.equal(hypervisor.directMap.bytes(frameAt(host, gfn + 2) * 4096, 1)[0], 7);
  assertClean(host);
  assert.equal(depopulateRun(hypervisor, 0, gfn, 4), 4);
  window.give(gfn, 4);
  assertClean(host);
});

test("a view of memory that was taken away reads zeros, and what it writes nobody else sees", async () => {
  await using host = await openHost();
  const { window } = host;
  const gfn = window.take(3);
  populated(host, gfn, 3);
  const stale = window.bytes(gfn, 3 * 4096).fill(9);
  assert.equal(depopulateRun(host.hypervisor, 0, gfn + 1, 1), 1);
  assert.deepEqual([stale[0], stale[4096], stale[8192]], [9, 0, 9]);
  stale[4096] = 5;
  assert.equal(stale[4096], 5);
  assertClean(host);
  // The next owner of the addresses gets zeroed memory, and the stale view shows just that.
  populated(host, gfn + 1, 1);
  assert.equal(stale[4096], 0);
  assertClean(host);
  depopulateRun(host.hypervisor, 0, gfn, 3);
  window.give(gfn, 3);
  assertClean(host);
});

test("a write to what is there for reading changes nothing but the writer's view, and does not fault", async () => {
  await using host = await openHost();
  const { dmaView, window } = host;
  const { hypervisor } = host;
  const slot = dmaSlot(hypervisor.domains);
  const own = window.take(2);
  populated(host, own, 2);
  window.bytes(own, 8192).fill(3);
  const gfn = dmaView.take(2);
  const lock = hypervisor.locks.id("p2m", slot);
  hypervisor.locks.acquire(lock);
  assert.equal(hookRun(hypervisor, slot, gfn, frameAt(host, own), 2, P2M_EXTENT_RO), 0);
  hypervisor.locks.release(lock);
  const view = dmaView.bytes(gfn, 8192);
  window.bytes(own, 1)[0] = 4;
  assert.deepEqual([view[0], view[4096]], [4, 3]);
  view[0] = 99;
  assert.equal(window.bytes(own, 1)[0], 4);
  assert.deepEqual(auditSpaces(hypervisor, []), []);
  hypervisor.locks.acquire(lock);
  assert.equal(unhookRun(hypervisor, slot, gfn, 2), 0);
  hypervisor.locks.release(lock);
  assert.equal(view[4096], 0);
  dmaView.give(gfn, 2);
  depopulateRun(hypervisor, 0, own, 2);
  assertClean(host);
});

test("views outlive the host", async () => {
  const host = await openHost();
  const { window } = host;
  const gfn = window.take(1);
  populated(host, gfn, 1);
  const view = window.bytes(gfn, 4096).fill(1);
  await host.close();
  assert.equal(view[0], 0);
  view[0] = 2;
  assert.equal(view[0], 2);
});
