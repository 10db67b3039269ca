import assert from "node:assert/strict";
import { test } from "node:test";
import { HostClock } from "../src/clock.ts";
import { LinuxMmu } from "../src/mmu.ts";
import { ThreadPlatform } from "../src/platform.ts";

const createPlatform = (whileWaiting?: () => void): ThreadPlatform =>
  new ThreadPlatform({
    mmu: new LinuxMmu([], []),
    epochNs: process.hrtime.bigint(),
    ringDoorbell: () => {},
    canPark: false,
    ...(whileWaiting === undefined ? {} : { whileWaiting }),
  });

test("a wait for ever of the control domain's thread returns so that locks of dead threads can be freed (W28)", () => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  let looks = 0;
  const platform = createPlatform(() => {
    looks += 1;
  });
  platform.wait(words, 0, 0, Infinity);
  assert.equal(looks, 1);
  platform.wait(words, 0, 1, Infinity);
  assert.equal(looks, 1);
});

test("the control domain's thread is never parked", () => {
  assert.throws(() => createPlatform().parkForever(), /never parks/);
});

for (const isHurried of [false, true]) {
  test(`time begins at the epoch and never goes back, with a clock started ${isHurried ? "in a hurry" : "at leisure"}`, () => {
    const clock = new HostClock(process.hrtime.bigint() - 5_000_000_000n, isHurried);
    let before = clock.now();
    assert.ok(before >= 5e9 && before < 65e9);
    for (let round = 0; round < 1000; round += 1) {
      const now = clock.now();
      assert.ok(now >= before);
      before = now;
    }
    const other = new HostClock(process.hrtime.bigint() - 5_000_000_000n).now();
    assert.ok(before < other + 1e9 && other < before + 60e9);
  });
}

test("the wall clock is the system's", () => {
  const clock = new HostClock(process.hrtime.bigint());
  const differenceNs = clock.wallClock() - BigInt(Date.now()) * 1_000_000n;
  assert.ok(differenceNs > -100_000_000n && differenceNs < 100_000_000n);
});
