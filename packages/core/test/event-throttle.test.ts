import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  DELAY_FIRST_NS,
  DELAY_MAX_NS,
  EventThrottle,
  lateEoiDelayNs,
  SPURIOUS_FREE_COUNT,
} from "../src/event-throttle.ts";

describe("late EOI", () => {
  it("the first events without work are free, then the delay doubles up to a second", () => {
    assert.equal(lateEoiDelayNs(SPURIOUS_FREE_COUNT), 0);
    const delays = [1, 2, 3, 4].map((excess) => lateEoiDelayNs(SPURIOUS_FREE_COUNT + excess));
    assert.deepEqual(
      delays,
      [1, 2, 4, 8].map((factor) => factor * DELAY_FIRST_NS),
    );
    assert.equal(lateEoiDelayNs(100), DELAY_MAX_NS);
    assert.equal(lateEoiDelayNs(0xffff_ffff), DELAY_MAX_NS);
  });

  it("a port that brings work is unmasked as soon as it was handled", () => {
    const throttle = new EventThrottle(8);
    for (let round = 0; round < 1000; round += 1) {
      throttle.begin(3);
      assert.equal(throttle.isHeld(3), true);
      assert.equal(throttle.end(3, true, round), true);
      assert.equal(throttle.isHeld(3), false);
    }
    assert.equal(throttle.nextDueNs(), Infinity);
  });

  it("work pays off the debt at once", () => {
    const throttle = new EventThrottle(8);
    let now = 0;
    for (let round = 0; round < 5; round += 1) {
      throttle.begin(1);
      if (throttle.end(1, false, now)) continue;
      now = throttle.nextDueNs();
      assert.equal(throttle.takeDue(now), 1);
    }
    throttle.begin(1);
    assert.equal(throttle.end(1, true, now), true);
    throttle.begin(1);
    assert.equal(throttle.end(1, false, now), true, "the first one without work is free again");
  });

  it("E16 XSA-332 XSA-391: a million events without work are handled about a dozen times in a second, others at once", () => {
    const throttle = new EventThrottle(8);
    const storm = 2;
    const quiet = 5;
    let handled = 0;
    for (let now = 0; now < 1_000_000_000; now += 1_000) {
      if (throttle.takeDue(now) >= 0) assert.equal(throttle.isHeld(storm), false);
      if (!throttle.isHeld(storm)) {
        throttle.begin(storm);
        throttle.end(storm, false, now);
        handled += 1;
      }
      if (now % 1_000_000 !== 0) continue;
      assert.equal(throttle.isHeld(quiet), false);
      throttle.begin(quiet);
      assert.equal(throttle.end(quiet, true, now), true);
    }
    assert.ok(handled < 20, `${handled} times`);
  });

  it("a port that is closed is forgotten", () => {
    const throttle = new EventThrottle(8);
    for (let round = 0; round < 2; round += 1) {
      throttle.begin(4);
      throttle.end(4, false, 0);
    }
    throttle.reset(4);
    assert.deepEqual([throttle.isHeld(4), throttle.nextDueNs(), throttle.takeDue(1e12)], [false, Infinity, -1]);
  });
});
