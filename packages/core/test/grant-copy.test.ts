import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { copyGrantOp } from "../src/grant-copy.ts";
import { beginDestroy, continueDestroy } from "../src/domain-reap.ts";
import {
  copies,
  copy,
  encodeCopies,
  fill,
  granted,
  makeReadOnly,
  REF,
  flagsOf,
  grant,
  mapEntry,
  OPERATIONS,
  PAGE,
  pair,
  unmapEntry,
} from "./grant-op-kit.ts";
import type { Copy } from "./grant-op-kit.ts";
import { peek, poke } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { GTF_permit_access, GTF_readonly, GTF_reading, GTF_writing } = abi;

/** Makes the one copy at OPERATIONS, on a machine that is not in order. */
const copyUnaudited = (caller: Guest): number => {
  return copyGrantOp(caller.cpu, OPERATIONS, 1);
};

describe("GNTTABOP_copy", () => {
  it("copy 1: of no bytes is okay, and nothing is checked", () => {
    const { machine, caller } = pair();
    const nonsense: Copy = { from: { ref: 0xffff_ffff, domid: 77 }, to: { gfn: 99_999, domid: 5, offset: 65_535 } };
    assert.equal(copy(machine, caller, { ...nonsense, length: 0 }), abi.GNTST_okay);
    assert.notEqual(copy(machine, caller, { ...nonsense, length: 1 }), abi.GNTST_okay);
  });

  for (const side of ["from", "to"] as const) {
    const around = (end: Copy["from"]): Copy =>
      side === "from" ? { from: end, to: { gfn: 3 } } : { from: { gfn: 3 }, to: end };

    it(`C2: the frame side ${side} must be the caller's, named as itself`, () => {
      const { machine, granter, caller } = granted();
      for (const domid of [caller.domid, granter.domid, 0, 77, abi.DOMID_IO]) {
        assert.equal(copy(machine, caller, around({ gfn: 1, domid })), abi.GNTST_permission_denied);
      }
      assert.equal(copy(machine, caller, around({ gfn: 1 })), abi.GNTST_okay);
    });

    it(`C3: the reference side ${side} is a domain that there is; itself is one`, () => {
      const { machine, granter, caller } = granted();
      for (const domid of [77, abi.DOMID_IO, abi.DOMID_XEN, abi.DOMID_INVALID, 0x7fff, 0xffff]) {
        assert.equal(copy(machine, caller, around({ ref: REF, domid })), abi.GNTST_bad_domain);
      }
      assert.equal(copy(machine, caller, around({ ref: REF, domid: granter.domid })), abi.GNTST_okay);
      grant(machine, caller, REF, { to: caller.domid, gfn: 1 });
      assert.equal(copy(machine, caller, around({ ref: REF })), abi.GNTST_okay);
      assert.equal(copy(machine, caller, around({ ref: REF, domid: caller.domid })), abi.GNTST_okay);
    });

    it(`C5: a reference ${side} is below the size of the table`, () => {
      const { machine, granter, caller } = granted();
      for (const ref of [512, 513, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
        assert.equal(copy(machine, caller, around({ ref, domid: granter.domid })), abi.GNTST_bad_gntref);
      }
      grant(machine, granter, 511, { to: caller.domid, gfn: 2 });
      assert.equal(copy(machine, caller, around({ ref: 511, domid: granter.domid })), abi.GNTST_okay);
    });

    it(`C6: an entry ${side} permits access to the caller`, () => {
      const { machine, granter, caller } = granted();
      const one = around({ ref: REF, domid: granter.domid });
      const refused = [
        abi.GTF_invalid,
        abi.GTF_accept_transfer,
        abi.GTF_transitive,
        GTF_permit_access | abi.GTF_sub_page,
        ...(side === "to" ? [GTF_permit_access | GTF_readonly] : []),
      ];
      for (const flags of refused) {
        grant(machine, granter, REF, { to: caller.domid, gfn: 2, flags });
        assert.equal(copy(machine, caller, one), abi.GNTST_general_error);
        assert.equal(flagsOf(machine, granter, REF), flags);
      }
      for (const to of [granter.domid, 0, abi.DOMID_SELF, 0xffff]) {
        grant(machine, granter, REF, { to, gfn: 2 });
        assert.equal(copy(machine, caller, one), abi.GNTST_general_error);
      }
      const readonly = side === "from" ? GTF_readonly : 0;
      for (const flags of [readonly, abi.GTF_PWT | abi.GTF_PCD, abi.GTF_revokable, 0xf000]) {
        grant(machine, granter, REF, { to: caller.domid, gfn: 2, flags: GTF_permit_access | flags });
        assert.equal(copy(machine, caller, one), abi.GNTST_okay);
        assert.equal(flagsOf(machine, granter, REF), GTF_permit_access | flags);
      }
    });

    it(`C7: what is granted ${side} is RAM of the granter's`, () => {
      const { machine, granter, caller } = granted();
      const one = around({ ref: REF, domid: granter.domid });
      for (const gfn of [8, 1023, 1024, 0x0fff_ffff, 0xffff_ffff]) {
        grant(machine, granter, REF, { to: caller.domid, gfn });
        assert.equal(copy(machine, caller, one), abi.GNTST_bad_page);
        assert.equal(flagsOf(machine, granter, REF), GTF_permit_access);
      }
      grant(machine, caller, 3, { to: granter.domid, gfn: 4 });
      const handle = mapEntry(machine, granter, { granter: caller, ref: 3, gfn: 20, flags: abi.GNTMAP_host_map });
      grant(machine, granter, REF, { to: caller.domid, gfn: 20 });
      assert.equal(copy(machine, caller, one), abi.GNTST_bad_page, "what was granted to the granter is not its own");
      unmapEntry(machine, granter, handle, 20);
      grant(machine, granter, REF, { to: caller.domid, gfn: 7 });
      assert.equal(copy(machine, caller, one), abi.GNTST_okay);
    });

    it(`C8: the frame ${side} is RAM of the caller's`, () => {
      const { machine, granter, caller } = granted();
      const handle = mapEntry(machine, caller, { granter, ref: REF, gfn: 20, flags: abi.GNTMAP_host_map });
      for (const gfn of [8, 20, 1023, 1024, 0x0fff_ffff, 0xffff_ffff]) {
        assert.equal(copy(machine, caller, around({ gfn })), abi.GNTST_bad_page);
      }
      unmapEntry(machine, caller, handle, 20);
      assert.equal(copy(machine, caller, around({ gfn: 5 })), abi.GNTST_okay);
    });
  }

  it("copy 9: what is copied to may be written", () => {
    const { machine, granter, caller } = granted();
    const { domid } = granter;
    makeReadOnly(machine, caller, 4);
    makeReadOnly(machine, granter, 2);
    assert.equal(copy(machine, caller, { from: { gfn: 3 }, to: { gfn: 4 } }), abi.GNTST_general_error);
    assert.equal(copy(machine, caller, { from: { gfn: 3 }, to: { ref: REF, domid } }), abi.GNTST_general_error);
    assert.equal(flagsOf(machine, granter, REF), GTF_permit_access);
    assert.equal(copy(machine, caller, { from: { gfn: 4 }, to: { gfn: 3 } }), abi.GNTST_okay);
    assert.equal(copy(machine, caller, { from: { ref: REF, domid }, to: { gfn: 3 } }), abi.GNTST_okay);
    const handle = mapEntry(machine, caller, {
      granter,
      ref: REF,
      gfn: 20,
      flags: abi.GNTMAP_host_map | abi.GNTMAP_readonly,
    });
    assert.equal(copy(machine, caller, { from: { gfn: 3 }, to: { ref: REF, domid } }), abi.GNTST_general_error);
    assert.equal(flagsOf(machine, granter, REF), GTF_permit_access | GTF_reading);
    unmapEntry(machine, caller, handle, 20);
  });

  it("copy 10: neither end leaves its page, which is looked at after both are known to be good", () => {
    const { machine, caller, remote } = granted();
    const ends: readonly (readonly [number, number, number])[] = [
      [1, 0, 4096],
      [0, 1, 4096],
      [4095, 0, 2],
      [0, 4095, 2],
      [4096, 0, 1],
      [65_535, 65_535, 65_535],
      [0, 0, 4097],
    ];
    for (const [from, to, length] of ends) {
      assert.equal(
        copy(machine, caller, { from: remote(from), to: { gfn: 3, offset: to }, length }),
        abi.GNTST_bad_copy_arg,
      );
      assert.equal(
        copy(machine, caller, { from: { gfn: 3, offset: from }, to: remote(to), length }),
        abi.GNTST_bad_copy_arg,
      );
    }
    assert.equal(copy(machine, caller, { from: { gfn: 99 }, to: { gfn: 3 }, length: 5000 }), abi.GNTST_bad_page);
    assert.equal(copy(machine, caller, { from: { gfn: 3 }, to: { gfn: 99 }, length: 5000 }), abi.GNTST_bad_page);
    assert.equal(copy(machine, caller, { from: remote(4095), to: { gfn: 3 }, length: 1 }), abi.GNTST_okay);
    assert.equal(copy(machine, caller, { from: remote(), to: { gfn: 3 }, length: 4096 }), abi.GNTST_okay);
  });

  it("copy 11: there are no parts of pages in version 1: an entry that says so is refused", () => {
    const { machine, caller, remote } = granted(GTF_permit_access | abi.GTF_sub_page);
    assert.equal(copy(machine, caller, { from: remote(), to: { gfn: 3 } }), abi.GNTST_general_error);
  });

  it("moves the bytes that were asked for and no other, whichever side is granted", () => {
    const { machine, granter, caller, theirs, own, remote } = granted();
    assert.equal(copy(machine, caller, { from: remote(101), to: { gfn: 3, offset: 7 }, length: 333 }), abi.GNTST_okay);
    own.set(theirs.subarray(101, 434), 7);
    assert.deepEqual(peek(caller, 3 * PAGE, PAGE), own);
    assert.equal(copy(machine, caller, { from: { gfn: 3, offset: 1 }, to: remote(4000), length: 96 }), abi.GNTST_okay);
    theirs.set(own.subarray(1, 97), 4000);
    assert.deepEqual(peek(granter, 2 * PAGE, PAGE), theirs);
    assert.equal(copy(machine, caller, { from: { gfn: 3 }, to: { gfn: 4 }, length: PAGE }), abi.GNTST_okay);
    assert.deepEqual(peek(caller, 4 * PAGE, PAGE), own);
    assert.equal(copy(machine, caller, { from: { gfn: 3 }, to: { gfn: 3, offset: 8 }, length: 100 }), abi.GNTST_okay);
  });

  it("between references of two domains, in either order of their slots, and of one domain", () => {
    const { machine, granter, caller, theirs, remote } = granted();
    const third = machine.guest();
    fill(third, 5 * PAGE, 3);
    grant(machine, third, 20, { to: caller.domid, gfn: 5 });
    grant(machine, granter, 10, { to: caller.domid, gfn: 4 });
    const last = { ref: 20, domid: third.domid };
    assert.equal(copy(machine, caller, { from: remote(), to: last, length: PAGE }), abi.GNTST_okay);
    assert.deepEqual(peek(third, 5 * PAGE, PAGE), theirs);
    assert.equal(
      copy(machine, caller, { from: last, to: { ref: 10, domid: granter.domid }, length: PAGE }),
      abi.GNTST_okay,
    );
    assert.deepEqual(peek(granter, 4 * PAGE, PAGE), theirs);
    const inOne: Copy = { from: remote(), to: { ref: 10, domid: granter.domid, offset: 9 }, length: 9 };
    assert.equal(copy(machine, caller, inOne), abi.GNTST_okay);
    assert.equal(copy(machine, caller, { from: remote(), to: remote(2048), length: 2048 }), abi.GNTST_okay);
    assert.deepEqual(peek(granter, 2 * PAGE + 2048, 2048), theirs.subarray(0, 2048));
    for (const ref of [REF, 10]) assert.equal(flagsOf(machine, granter, ref), GTF_permit_access);
    assert.equal(flagsOf(machine, third, 20), GTF_permit_access);
  });

  it("copy 6: the owner sees its entry in use while bytes are moved, and not afterwards", () => {
    for (const [isRead, bits] of [
      [true, GTF_reading],
      [false, GTF_reading | GTF_writing],
    ] as const) {
      const { machine, granter, caller, remote } = granted();
      const { directMap } = machine.hypervisor;
      const original = directMap.copyBetween.bind(directMap);
      const seen: number[] = [];
      directMap.copyBetween = (...values) => {
        seen.push(flagsOf(machine, granter, REF));
        original(...values);
      };
      const one = isRead ? { from: remote(), to: { gfn: 3 } } : { from: { gfn: 3 }, to: remote() };
      assert.deepEqual(copies(machine, caller, [one, { ...one, length: 4096 }, one]), [0, 0, 0]);
      assert.deepEqual(
        seen,
        [bits, bits, bits].map((each) => each | GTF_permit_access),
      );
      assert.equal(flagsOf(machine, granter, REF), GTF_permit_access);
    }
  });

  it("copy 6: of a pinned entry the frame counts that it was pinned with", () => {
    const { machine, granter, caller, theirs, remote } = granted();
    const flags = abi.GNTMAP_host_map | abi.GNTMAP_readonly;
    const handle = mapEntry(machine, caller, { granter, ref: REF, gfn: 20, flags });
    fill(granter, 4 * PAGE, 9);
    grant(machine, granter, REF, { to: granter.domid, gfn: 4, flags: GTF_permit_access | GTF_reading | GTF_readonly });
    assert.equal(copy(machine, caller, { from: remote(), to: { gfn: 3 }, length: PAGE }), abi.GNTST_okay);
    assert.deepEqual(peek(caller, 3 * PAGE, PAGE), theirs);
    assert.equal(copy(machine, caller, { from: { gfn: 3 }, to: remote() }), abi.GNTST_general_error);
    const other = machine.guest();
    assert.equal(copy(machine, other, { from: remote(), to: { gfn: 3 } }), abi.GNTST_general_error);
    grant(machine, granter, REF, { to: granter.domid, gfn: 4, flags: GTF_permit_access | GTF_reading });
    assert.equal(copy(machine, caller, { from: { gfn: 1 }, to: remote() }), abi.GNTST_okay, "it may be written now");
    assert.deepEqual(peek(granter, 2 * PAGE, 64), peek(caller, PAGE, 64));
    assert.equal(flagsOf(machine, granter, REF), GTF_permit_access | GTF_reading);
    unmapEntry(machine, caller, handle, 20);
    assert.equal(flagsOf(machine, granter, REF), GTF_permit_access);
  });

  it("copy 6: a counter that is full refuses a copy too", () => {
    const { machine, granter, caller, remote } = granted();
    const { grants } = machine.hypervisor;
    const handle = mapEntry(machine, caller, { granter, ref: REF, gfn: 20, flags: abi.GNTMAP_host_map });
    const row = grants.row(granter.slot, REF);
    const pin = grants.pin[row]!;
    const bytes = encodeCopies([{ from: remote(), to: { gfn: 3 } }]);
    poke(caller, OPERATIONS, bytes);
    grants.pin[row] = pin | 0x8000;
    const { memory } = caller.cpu;
    assert.equal(copyUnaudited(caller), 0);
    assert.equal(memory.readU16(OPERATIONS + 20), abi.GNTST_general_error & 0xffff);
    grants.pin[row] = pin;
    assert.equal(copy(machine, caller, { from: remote(), to: { gfn: 3 } }), abi.GNTST_okay);
    unmapEntry(machine, caller, handle, 20);
  });

  it("of a granter that dies: general_error, bad_domain once it was pinned, bad_gntref when its table is gone", () => {
    const { machine, granter, caller, remote } = granted();
    const { hypervisor } = machine;
    grant(machine, granter, 10, { to: caller.domid, gfn: 3 });
    const handle = mapEntry(machine, caller, { granter, ref: 10, gfn: 20, flags: abi.GNTMAP_host_map });
    const pinned = { ref: 10, domid: granter.domid };
    assert.deepEqual(
      copies(machine, caller, [
        { from: remote(), to: { gfn: 3 } },
        { from: pinned, to: { gfn: 3 } },
      ]),
      [0, 0],
    );
    assert.equal(beginDestroy(hypervisor, granter.slot), 0);
    const both: readonly Copy[] = [
      { from: remote(), to: { gfn: 3 } },
      { from: pinned, to: { gfn: 3 } },
    ];
    assert.deepEqual(copies(machine, caller, both), [abi.GNTST_general_error, abi.GNTST_bad_domain]);
    assert.equal(continueDestroy(hypervisor, granter.slot), true);
    assert.deepEqual(copies(machine, caller, both), [abi.GNTST_bad_gntref, abi.GNTST_bad_gntref]);
    unmapEntry(machine, caller, handle, 20);
    while (hypervisor.domains.slotOf(granter.domid) >= 0) continueDestroy(hypervisor, granter.slot);
    assert.deepEqual(copies(machine, caller, both), [abi.GNTST_bad_domain, abi.GNTST_bad_domain]);
  });
});
