import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { GATE_PAUSE, requestGate, withdrawGate } from "../src/gate.ts";
import { otherThread } from "./advisories-kit.ts";
import {
  copies,
  encodeCopies,
  fill,
  granted,
  makeReadOnly,
  REF,
  flagsOf,
  grant,
  grantOp,
  PAGE,
  pair,
  UNTOUCHED,
} from "./grant-op-kit.ts";
import type { Copy } from "./grant-op-kit.ts";
import { Machine, peek, poke } from "./machine.ts";

const { GTF_permit_access } = abi;

describe("a batch of copies", () => {
  it("D3: goes on behind one that fails, in order, each with its own status", () => {
    const { machine, granter, caller, remote } = granted();
    const { domid } = granter;
    const list: readonly Copy[] = [
      { from: remote(), to: { gfn: 3 } },
      { from: { ref: 512, domid }, to: { gfn: 3 } },
      { from: { gfn: 1, domid: 5 }, to: { gfn: 3 } },
      { from: { gfn: 3 }, to: remote() },
      { from: { gfn: 3, offset: 4095 }, to: remote() },
      { from: { gfn: 3 }, to: { gfn: 4 }, length: 0 },
      { from: { ref: REF, domid: 77 }, to: { gfn: 3 } },
      { from: { gfn: 3 }, to: { gfn: 900 } },
      { from: remote(), to: { gfn: 3 } },
    ];
    assert.deepEqual(copies(machine, caller, list), [0, -3, -8, 0, -10, 0, -2, -9, 0]);
  });

  it("D3: an operation sees what those before it wrote, also where whole pages are moved together", () => {
    const { machine, caller } = pair();
    const contents = [0, 1, 2, 3, 4].map((gfn) => fill(caller, gfn * PAGE, gfn + 1));
    const step = (from: number): Copy => ({ from: { gfn: from }, to: { gfn: from + 1 }, length: PAGE });
    assert.deepEqual(copies(machine, caller, [step(0), step(1), step(2)]), [0, 0, 0]);
    for (const gfn of [0, 1, 2, 3]) assert.deepEqual(peek(caller, gfn * PAGE, PAGE), contents[0]);
    assert.deepEqual(peek(caller, 4 * PAGE, PAGE), contents[4]);
    const back = (from: number): Copy => ({ from: { gfn: from }, to: { gfn: from - 1 }, length: PAGE });
    contents.forEach((bytes, gfn) => poke(caller, gfn * PAGE, bytes));
    assert.deepEqual(copies(machine, caller, [back(1), back(2), back(3)]), [0, 0, 0]);
    for (const gfn of [0, 1, 2]) assert.deepEqual(peek(caller, gfn * PAGE, PAGE), contents[gfn + 1]);
  });

  it("moves neighbouring pages at once, and pages of two banks one by one, with the same outcome", () => {
    const machine = new Machine({ framesPerBank: 64, bankCount: 8 });
    const [granter, caller] = [machine.guest(), machine.guest()];
    for (const gfn of [0, 1, 2, 3, 4, 5]) {
      fill(granter, gfn * PAGE, gfn + 40);
      grant(machine, granter, REF + gfn, { to: caller.domid, gfn });
    }
    const { hypervisor } = machine;
    const calls: number[] = [];
    const original = hypervisor.directMap.copyBetween.bind(hypervisor.directMap);
    hypervisor.directMap.copyBetween = (...values) => {
      calls.push(values[4]);
      original(...values);
    };
    const list = [0, 1, 2, 3, 4, 5].map((gfn): Copy => ({
      from: { ref: REF + gfn, domid: granter.domid },
      to: { gfn },
      length: PAGE,
    }));
    assert.deepEqual(copies(machine, caller, list), [0, 0, 0, 0, 0, 0]);
    assert.ok(calls.length < 6, `${calls.length} copies`);
    for (const gfn of [0, 1, 2, 3, 4, 5]) {
      assert.deepEqual(peek(caller, gfn * PAGE, PAGE), peek(granter, gfn * PAGE, PAGE));
      assert.equal(flagsOf(machine, granter, REF + gfn), GTF_permit_access);
    }
  });

  it("D4: writes statuses and nothing else, also into an array that it copied over, at any place", () => {
    const { machine, granter, caller } = granted();
    const template = { from: { ref: REF, domid: granter.domid }, to: { gfn: 7 }, length: 16 };
    for (const shift of [0, 1, 2, PAGE - 21, PAGE - 20, PAGE - 22, PAGE - 23, PAGE - 5]) {
      const bytes = encodeCopies([template, template, template]);
      new DataView(bytes.buffer).setUint16(22, 0xbeef, true);
      const at = 5 * PAGE + shift;
      poke(caller, at, bytes);
      assert.equal(machine.call(caller, abi.__HYPERVISOR_grant_table_op, abi.GNTTABOP_copy, at, 3), 0);
      for (const index of [0, 1, 2]) new DataView(bytes.buffer).setInt16(index * 24 + 20, 0, true);
      assert.deepEqual(peek(caller, at, bytes.length), bytes, `at ${shift}`);
    }
    const over = encodeCopies([{ from: { ref: REF, domid: granter.domid }, to: { gfn: 5 }, length: PAGE }]);
    poke(caller, 5 * PAGE, over);
    assert.equal(machine.call(caller, abi.__HYPERVISOR_grant_table_op, abi.GNTTABOP_copy, 5 * PAGE, 1), 0);
    const expected = peek(granter, 2 * PAGE, PAGE);
    expected.set([0, 0], 20);
    assert.deepEqual(peek(caller, 5 * PAGE, PAGE), expected);
  });

  it("D4: ends with -EFAULT where an operation cannot be read or answered; those before it are made", () => {
    const { machine, granter, caller } = granted();
    const { domid } = granter;
    const list = [0, 1, 2].map((index): Copy => ({ from: { ref: REF, domid }, to: { gfn: 1, offset: index * 64 } }));
    const bytes = encodeCopies(list);
    // Two operations, and the third behind the end of the memory.
    const at = 8 * PAGE - 48;
    poke(caller, at, bytes.subarray(0, 48));
    poke(caller, PAGE, new Uint8Array(PAGE));
    assert.equal(machine.call(caller, abi.__HYPERVISOR_grant_table_op, abi.GNTTABOP_copy, at, 3), -abi.EFAULT);
    assert.deepEqual(
      peek(caller, PAGE, 128),
      new Uint8Array([...peek(granter, 2 * PAGE, 64), ...peek(granter, 2 * PAGE, 64)]),
    );
    assert.deepEqual(peek(caller, at + 20, 2), new Uint8Array(2));
    makeReadOnly(machine, caller, 7);
    assert.equal(machine.call(caller, abi.__HYPERVISOR_grant_table_op, abi.GNTTABOP_copy, at, 2), -abi.EFAULT);
    assert.equal(machine.call(caller, abi.__HYPERVISOR_grant_table_op, abi.GNTTABOP_copy, 20 * PAGE, 1), -abi.EFAULT);
    assert.equal(flagsOf(machine, granter, REF), GTF_permit_access);
  });

  it("D6: lets its caller be paused between two slices, and goes on where it was", () => {
    const { machine, granter, caller } = granted();
    const { vcpus } = machine.hypervisor;
    const list = Array.from({ length: 300 }, (_, index): Copy => ({
      from: { ref: REF, domid: granter.domid, offset: index },
      to: { gfn: 1, offset: index * 8 },
      length: 8,
    }));
    let parks = 0;
    machine.parts.platform.onWait = () => {
      parks += 1;
      withdrawGate(vcpus.gate, caller.cpu.index, GATE_PAUSE, machine.parts.platform);
    };
    const { directMap } = machine.hypervisor;
    const original = directMap.copyBetween.bind(directMap);
    directMap.copyBetween = (...values) => {
      directMap.copyBetween = original;
      requestGate(vcpus.gate, caller.cpu.index, GATE_PAUSE);
      original(...values);
    };
    assert.deepEqual(new Set(copies(machine, caller, list)), new Set([0]));
    assert.equal(parks, 1);
    const source = peek(granter, 2 * PAGE, PAGE);
    assert.deepEqual(peek(caller, PAGE + 299 * 8, 8), source.subarray(299, 307));
  });

  for (const [whose, pick] of [
    ["the caller's", "caller"],
    ["the granter's", "granter"],
  ] as const) {
    it(`lets in who sleeps on ${whose} lock before it takes it again for the rest of the list`, () => {
      const world = granted();
      const { machine, granter, caller } = world;
      const { directMap, locks } = machine.hypervisor;
      const lock = locks.id("p2m", world[pick].slot);
      const other = otherThread(machine.parts).locks;
      const moves: string[] = [];
      const copied = directMap.copyBetween.bind(directMap);
      directMap.copyBetween = (...values) => {
        if (moves.length === 0) {
          assert.throws(() => other.acquire(lock), /asleep/);
          machine.parts.platform.sleepers = 1;
        }
        moves.push("copy");
        copied(...values);
      };
      machine.parts.platform.onWait = ({ expected }) => {
        moves.push(expected === 0 ? "let in" : "sleep");
        if (expected !== 0) throw new Error("asleep");
        machine.parts.platform.sleepers = 0;
        other.acquire(lock);
        other.release(lock);
      };
      const length = 8;
      const list = Array.from({ length: 340 }, (_, index): Copy => ({
        from: { ref: REF, domid: granter.domid, offset: index },
        to: { gfn: 1, offset: (index % 512) * length },
        length,
      }));
      assert.deepEqual(new Set(copies(machine, caller, list)), new Set([0]));
      assert.equal(moves[0], "sleep");
      const [before, after] = [moves.indexOf("let in") - 1, moves.length - 1 - moves.indexOf("let in")];
      assert.deepEqual([before, after], [256, 340 - 256]);
      assert.equal(moves.lastIndexOf("let in"), before + 1);
    });
  }

  it("survives every extreme of every field, with a documented status each", () => {
    const { machine, granter, caller } = granted();
    const extremes = [0, 1, 0x7ff0, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    const base = encodeCopies([{ from: { ref: REF, domid: granter.domid }, to: { gfn: 3 } }]);
    for (const at of [0, 4, 6, 8, 12, 14, 16, 18, 20]) {
      for (const value of extremes) {
        const bytes = base.slice();
        const view = new DataView(bytes.buffer);
        if (at === 0 || at === 8) view.setUint32(at, value, true);
        else view.setUint16(at, value & 0xffff, true);
        const { result, view: after } = grantOp(machine, caller, abi.GNTTABOP_copy, bytes);
        const status = after.getInt16(20, true);
        assert.equal(result, 0);
        assert.ok(status <= 0 && status >= -13, `status ${status}`);
        assert.notEqual(status, UNTOUCHED);
      }
    }
    assert.equal(flagsOf(machine, granter, REF), GTF_permit_access);
  });
});
