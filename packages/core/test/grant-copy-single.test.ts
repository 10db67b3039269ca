import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { copySingle } from "../src/grant-copy-single.ts";
import {
  copy,
  encodeCopies,
  fill,
  flagsOf,
  grant,
  granted,
  makeReadOnly,
  mapEntry,
  OPERATIONS,
  PAGE,
  REF,
  unmapEntry,
} from "./grant-op-kit.ts";
import type { Copy } from "./grant-op-kit.ts";
import { peek, poke } from "./machine.ts";

/** A caller that has made such copies before, so that it guesses the granter right; and one more such copy. */
const habitual = (side: "from" | "to") => {
  const world = granted();
  const { machine, granter, caller } = world;
  const one = (about: Partial<Copy> = {}, end: Partial<Copy["from"]> = {}): Copy => {
    const theirs = { ref: REF, domid: granter.domid, offset: 8, ...end } as Copy["from"];
    const own = { gfn: 3, offset: 100 };
    return { ...(side === "from" ? { from: theirs, to: own } : { from: own, to: theirs }), ...about };
  };
  /** Tries it on its own: whether it was made. */
  const attempt = (about: Copy): boolean => {
    poke(caller, OPERATIONS, encodeCopies([about]));
    return copySingle(caller.cpu, OPERATIONS);
  };
  for (let turn = 0; turn < 3; turn += 1) assert.equal(copy(machine, caller, one()), abi.GNTST_okay);
  return { ...world, one, attempt };
};

describe("a single copy of a caller that makes many", () => {
  for (const side of ["from", "to"] as const) {
    it(`moves the bytes ${side} the granter, says so, and leaves no bit set`, () => {
      const { granter, caller, one, attempt, machine } = habitual(side);
      for (const length of [1, 2, 3, 64, 1000, PAGE - 100]) {
        const theirs = fill(granter, 2 * PAGE, length);
        const own = fill(caller, 3 * PAGE, length + 1);
        assert.ok(attempt(one({ length })));
        const moved = side === "from" ? theirs.subarray(8, 8 + length) : own.subarray(100, 100 + length);
        const arrived = side === "from" ? peek(caller, 3 * PAGE, PAGE) : peek(granter, 2 * PAGE, PAGE);
        const before = side === "from" ? own : theirs;
        before.set(moved, side === "from" ? 100 : 8);
        assert.deepEqual(arrived, before);
        const status = new DataView(peek(caller, OPERATIONS, abi.gnttab_copy.sizeBytes).buffer);
        assert.equal(abi.gnttab_copy.status.get(status, 0), abi.GNTST_okay);
        assert.equal(flagsOf(machine, granter, REF), abi.GTF_permit_access);
        assert.equal(machine.hypervisor.locks.heldCount, 0);
      }
    });

    it(`${side} what is unusual is left alone, and answered as in a list`, () => {
      const { granter, caller, one, attempt, machine } = habitual(side);
      const isRefused = (about: Copy, status: number): void => {
        const [own, theirs] = [peek(caller, 3 * PAGE, PAGE), peek(granter, 2 * PAGE, PAGE)];
        const flags = flagsOf(machine, granter, REF);
        assert.equal(attempt(about), false);
        assert.equal(copy(machine, caller, about), status);
        assert.equal(flagsOf(machine, granter, REF), flags);
        assert.deepEqual([peek(caller, 3 * PAGE, PAGE), peek(granter, 2 * PAGE, PAGE)], [own, theirs]);
        for (let turn = 0; turn < 200 && !attempt(one()); turn += 1);
        assert.ok(attempt(one()), "the next usual one is made again");
      };
      const entry = { to: caller.domid, gfn: 2 };
      isRefused(one({ length: 0 }), abi.GNTST_okay);
      isRefused(one({ length: PAGE - 99 }), abi.GNTST_bad_copy_arg);
      isRefused(one({}, { domid: 77 }), abi.GNTST_bad_domain);
      for (const ref of [512, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) isRefused(one({}, { ref }), abi.GNTST_bad_gntref);
      for (const flags of [abi.GTF_invalid, abi.GTF_transitive, abi.GTF_permit_access | abi.GTF_sub_page]) {
        grant(machine, granter, REF + 1, { ...entry, flags });
        isRefused(one({}, { ref: REF + 1 }), abi.GNTST_general_error);
        assert.equal(flagsOf(machine, granter, REF + 1), flags);
      }
      grant(machine, granter, REF + 1, { ...entry, to: granter.domid });
      isRefused(one({}, { ref: REF + 1 }), abi.GNTST_general_error);
      for (const gfn of [8, 1024, 0xffff_ffff]) {
        grant(machine, granter, REF + 1, { ...entry, gfn });
        isRefused(one({}, { ref: REF + 1 }), abi.GNTST_bad_page);
        assert.equal(flagsOf(machine, granter, REF + 1), abi.GTF_permit_access);
      }
      const own = (gfn: number): Copy => (side === "from" ? { ...one(), to: { gfn } } : { ...one(), from: { gfn } });
      for (const gfn of [8, 1024, 0xffff_ffff]) isRefused(own(gfn), abi.GNTST_bad_page);
    });

    it(`${side} an entry that is mapped, or a page that may only be read, is made as in a list`, () => {
      const { granter, caller, one, attempt, machine } = habitual(side);
      const handle = mapEntry(machine, caller, { granter, ref: REF, gfn: 20, flags: abi.GNTMAP_host_map });
      assert.equal(attempt(one()), false);
      assert.equal(copy(machine, caller, one()), abi.GNTST_okay);
      unmapEntry(machine, caller, handle, 20);
      makeReadOnly(machine, granter, 2);
      assert.equal(attempt(one()), false);
      assert.equal(copy(machine, caller, one()), side === "from" ? abi.GNTST_okay : abi.GNTST_general_error);
    });
  }

  it("a list that the caller cannot write is not touched", () => {
    const { caller, one, attempt, machine } = habitual("from");
    assert.ok(attempt(one()));
    makeReadOnly(machine, caller, OPERATIONS / PAGE);
    assert.equal(copySingle(caller.cpu, OPERATIONS), false);
  });
});
