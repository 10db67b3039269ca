import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { crashDomain } from "../src/domain-ops.ts";
import { hypercall } from "../src/hypercall.ts";
import { admitted } from "../src/rate-limit.ts";
import { TRACE_BURST, TRACE_PER_SECOND, TRACE_RECORDS_MAX } from "../src/trace-table.ts";
import { Machine } from "./machine.ts";

describe("notes about guests", () => {
  it("a refused call and one that does not exist are noted with what was called", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const { trace } = machine.hypervisor.domains;
    machine.parts.platform.nowNs = 5;
    machine.call(guest, 63, 1);
    machine.call(guest, 12, 24);
    crashDomain(machine.hypervisor, guest.slot, "test");
    assert.deepEqual(trace.take(guest.slot), [
      { event: "unknown-hypercall", first: 63, second: 1, timeNs: 5 },
      { event: "denied", first: 12, second: 24, timeNs: 5 },
      { event: "crashed", first: 0, second: 0, timeNs: 5 },
    ]);
    assert.deepEqual(trace.take(guest.slot), []);
  });

  it("H23: a million bad calls leave as many notes as the rate allows, and those of others stay", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const other = machine.guest();
    const { trace } = machine.hypervisor.domains;
    machine.call(other, 63);
    let taken = 0;
    for (let count = 0; count < 1_000_000; count += 1) {
      hypercall(guest.cpu, 63, 0, 0, 0, 0, 0);
      if (count % 100_000 !== 0) continue;
      machine.parts.platform.nowNs += 1e9;
      taken += trace.take(guest.slot).length;
    }
    taken += trace.take(guest.slot).length;
    assert(taken <= TRACE_BURST + 10 * TRACE_PER_SECOND, `${taken} notes`);
    assert(taken >= 10);
    assert.equal(trace.suppressed[guest.slot], 1_000_000 - taken);
    assert.equal(trace.take(other.slot).length, 1);
    machine.check();
  });

  it("notes that nobody took are overwritten by newer ones", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const { trace } = machine.hypervisor.domains;
    for (let second = 0; second < 40; second += 1) {
      machine.parts.platform.nowNs += 1e9;
      machine.call(guest, 63, second);
    }
    const kept = trace.take(guest.slot).map((record) => record.second);
    assert.deepEqual(
      kept,
      Array.from({ length: TRACE_RECORDS_MAX }, (_, index) => 40 - TRACE_RECORDS_MAX + index),
    );
  });
});

describe("rate limit", () => {
  const bucket = (): { tokens: Float64Array; refilledNs: Float64Array; row: number } => ({
    tokens: Float64Array.of(4),
    refilledNs: Float64Array.of(0),
    row: 0,
  });
  const limit = { burst: 4, perSecond: 2 };

  it("passes the burst, then the rate, and never more than the burst after a long time", () => {
    const row = bucket();
    const passed = (now: number): number => {
      let count = 0;
      while (admitted(row, 1, now, limit)) count += 1;
      return count;
    };
    assert.equal(passed(0), 4);
    assert.equal(passed(0.5e9), 1);
    assert.equal(passed(1.5e9), 2);
    assert.equal(passed(1e15), 4);
  });

  it("a clock that goes back gives nothing", () => {
    const row = bucket();
    assert.equal(admitted(row, 4, 1e9, limit), true);
    assert.equal(admitted(row, 1, 0, limit), false);
  });

  it("what costs more than there is takes nothing", () => {
    const row = bucket();
    assert.equal(admitted(row, 5, 0, limit), false);
    assert.equal(admitted(row, 4, 0, limit), true);
  });
});
