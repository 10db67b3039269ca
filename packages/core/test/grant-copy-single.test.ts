import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { GATE_READ } from "../src/gate.ts";
import { copySingle } from "../src/grant-copy-single.ts";
import { resetGrants } from "../src/grant-reset.ts";
import { revokeGrant } from "../src/grant-revoke.ts";
import { hypercall } from "../src/hypercall.ts";
import { interleave, otherThread, watchAtomics } from "./advisories-kit.ts";
import {
  copy,
  encodeCopies,
  fill,
  flagsOf,
  grant,
  granted,
  grantOp,
  makeReadOnly,
  mapEntry,
  OPERATIONS,
  PAGE,
  REF,
  structure,
  unmapEntry,
} from "./grant-op-kit.ts";
import type { Copy } from "./grant-op-kit.ts";
import { peek, poke } from "./machine.ts";
import type { Guest } from "./machine.ts";

const NUMBER = abi.__HYPERVISOR_grant_table_op;
type World = ReturnType<typeof granted>;

/** A usual copy, `from` the granter or `to` it. */
const usual = (side: "from" | "to") => {
  const world = granted();
  const { granter, caller } = world;
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
  return { ...world, one, attempt };
};

/** What of the granter may have been copied to the caller at the end. */
const arrived = (caller: Guest): number => peek(caller, 3 * PAGE + 100, 1)[0]!;

describe("a single copy where all is as it should be", () => {
  for (const side of ["from", "to"] as const) {
    it(`moves the bytes ${side} the granter, says so, and leaves no bit set`, () => {
      const { granter, caller, one, attempt, machine } = usual(side);
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
      const { granter, caller, one, attempt, machine } = usual(side);
      const isRefused = (about: Copy, status: number): void => {
        const [own, theirs] = [peek(caller, 3 * PAGE, PAGE), peek(granter, 2 * PAGE, PAGE)];
        const flags = flagsOf(machine, granter, REF);
        assert.equal(attempt(about), false);
        assert.equal(copy(machine, caller, about), status);
        assert.equal(flagsOf(machine, granter, REF), flags);
        assert.deepEqual([peek(caller, 3 * PAGE, PAGE), peek(granter, 2 * PAGE, PAGE)], [own, theirs]);
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
      const { granter, caller, one, attempt, machine } = usual(side);
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
    const { caller, one, attempt, machine } = usual("from");
    assert.ok(attempt(one()));
    makeReadOnly(machine, caller, OPERATIONS / PAGE);
    assert.equal(copySingle(caller.cpu, OPERATIONS), false);
    assert.equal(copySingle(caller.cpu, 0xffff_f000), false);
  });

  it("an entry that says it is in use is left alone: who unpinned it may be about to clear that", () => {
    const { machine, granter, caller, one, attempt } = usual("from");
    for (const bits of [abi.GTF_reading, abi.GTF_writing, abi.GTF_reading | abi.GTF_writing]) {
      grant(machine, granter, REF, { to: caller.domid, gfn: 2, flags: abi.GTF_permit_access | bits });
      assert.equal(attempt(one()), false);
      assert.equal(copy(machine, caller, one()), abi.GNTST_okay);
    }
  });

  it("does not wait for the granter's lock: then the call is made as any other, which does", () => {
    const { machine, granter, caller, one, attempt } = usual("from");
    const other = otherThread(machine.parts);
    const lock = other.locks.id("p2m", granter.slot);
    other.locks.acquire(lock);
    assert.equal(attempt(one()), false);
    let waits = 0;
    machine.parts.platform.onWait = () => {
      waits += 1;
      assert.equal(machine.hypervisor.vcpus.gate[caller.cpu.index]! & GATE_READ, 0, "it holds nobody up meanwhile");
      other.locks.release(lock);
    };
    assert.equal(copy(machine, caller, one()), abi.GNTST_okay);
    assert.equal(waits, 1);
  });

  it("an entry that is changed at any step: what is copied is what it named when its bits were set, or nothing", () => {
    const seen = new Set<number>();
    interleave(() => {
      const { machine, granter, caller, one } = usual("from");
      const { directMap, grants } = machine.hypervisor;
      const address = grants.entryAddress(granter.slot, REF);
      const [at2, at4] = [fill(granter, 2 * PAGE, 1)[8]!, fill(granter, 4 * PAGE, 3)[8]!];
      poke(caller, OPERATIONS, encodeCopies([one()]));
      return {
        hypervisor: machine.hypervisor,
        isLockFree: true,
        victim: () => assert.equal(hypercall(caller.cpu, NUMBER, abi.GNTTABOP_copy, OPERATIONS, 1, 0, 0), 0),
        adversary: () => directMap.storeU32(address + 4, 4),
        verify: () => {
          assert.ok([at2, at4].includes(arrived(caller)));
          seen.add(arrived(caller));
          assert.equal(flagsOf(machine, granter, REF), abi.GTF_permit_access);
        },
      };
    });
    assert.equal(seen.size, 2, "before and after it was decided");
  });

  it("the owner sees its entry in use while it is made, and not afterwards", () => {
    for (const side of ["from", "to"] as const) {
      const { machine, granter, one, attempt } = usual(side);
      const seen = new Set<number>();
      watchAtomics(
        () => assert.ok(attempt(one())),
        () => seen.add(flagsOf(machine, granter, REF)),
      );
      const bits = side === "from" ? abi.GTF_reading : abi.GTF_reading | abi.GTF_writing;
      assert.deepEqual([...seen], [abi.GTF_permit_access, abi.GTF_permit_access | bits]);
      assert.equal(flagsOf(machine, granter, REF), abi.GTF_permit_access);
    }
  });
});

describe("who has to know that no copy goes on", () => {
  for (const [name, act] of Object.entries({
    revoke: ({ machine, granter }: World) => revokeGrant(machine.hypervisor, granter.slot, REF),
    reset: ({ machine, granter }: World) => resetGrants(machine.hypervisor, granter.slot),
    swap: ({ machine, granter }: World) => {
      const { gnttab_swap_grant_ref: layout } = abi;
      const bytes = structure(layout.sizeBytes, [layout.ref_a, REF], [layout.ref_b, REF + 1]);
      return grantOp(machine, granter, abi.GNTTABOP_swap_grant_ref, bytes).result;
    },
  })) {
    it(`${name} waits for a copy of the granter's page`, () => {
      const world = granted();
      const { machine, granter } = world;
      // The copier has been found in the middle: it has the lock, and has set the bit.
      const other = otherThread(machine.parts);
      const lock = other.locks.id("p2m", granter.slot);
      const address = other.grants.entryAddress(granter.slot, REF);
      other.locks.acquire(lock);
      other.directMap.orU32(address, abi.GTF_reading);
      let waits = 0;
      machine.parts.platform.onWait = () => {
        waits += 1;
        assert.equal(flagsOf(machine, granter, REF) & abi.GTF_reading, abi.GTF_reading);
        other.directMap.andU32(address, ~abi.GTF_reading >>> 0);
        other.locks.release(lock);
      };
      assert.equal(act(world), 0);
      assert.equal(waits, 1);
    });
  }
});
