/** What the memory manager reads of the host, and what it makes of a control group. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hostReadings } from "../src/memory-manager/readings.ts";

const group = (
  limitHits: number,
  { maxBytes = 1000, highBytes = Number.POSITIVE_INFINITY, currentBytes = 400 } = {},
) => ({
  version: 2 as const,
  currentBytes,
  reclaimableBytes: 0,
  maxBytes,
  highBytes,
  events: { high: 0, max: limitHits, oomKill: 0 },
});

describe("readings of the host", () => {
  it("are numbers on this machine, whatever its kernel tells", () => {
    const { someAverage10s, fullAverage10s, availableBytes, groupLeftBytes, groupLimitHit } = hostReadings()();
    assert.ok(someAverage10s >= 0 && someAverage10s <= 100 && fullAverage10s >= 0 && fullAverage10s <= 100);
    assert.ok(availableBytes > 0 && groupLeftBytes >= 0);
    assert.equal(groupLimitHit, false);
  });

  it("tell each event of the control group once, and none that was before", () => {
    let hits = 7;
    const read = hostReadings(() => group(hits));
    const told = [7, 7, 8, 8, 10].map((now) => {
      hits = now;
      return read().groupLimitHit;
    });
    assert.deepEqual(told, [false, false, true, false, true]);
  });

  it("leave what the tighter of both limits leaves, and never less than nothing", () => {
    const left = (limits: Parameters<typeof group>[1]): number => hostReadings(() => group(0, limits))().groupLeftBytes;
    assert.equal(left({}), 600);
    assert.equal(left({ highBytes: 500 }), 100);
    assert.equal(left({ currentBytes: 2000 }), 0);
    assert.equal(left({ maxBytes: Number.POSITIVE_INFINITY }), Number.POSITIVE_INFINITY);
    assert.equal(hostReadings(() => undefined)().groupLeftBytes, Number.POSITIVE_INFINITY);
  });
});
