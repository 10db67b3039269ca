import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { crashReason } from "../src/domain-ops.ts";
import { ZERO_FRAME } from "../src/frame-table.ts";
import { resetGrants } from "../src/grant-reset.ts";
import { revokeGrant } from "../src/grant-revoke.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { P2M_LOCAL_RO, P2M_LOCAL_RW, P2M_RAM, p2mType } from "../src/p2m.ts";
import {
  DEVICE,
  GrantMachine,
  HOLE,
  HOST,
  pair,
  PROVIDED,
  READ_ONLY,
  REVOKABLE,
  REVOKABLE_RO,
  RW,
} from "./grant-kit.ts";
import { poke } from "./machine.ts";

const { GNTST_okay, GNTST_general_error, GNTST_permission_denied, GNTST_bad_page, GNTST_no_space, GNTST_bad_gntref } =
  abi;
const AT = HOLE * 4096;

describe("map_revokable", () => {
  it("GTF_revokable: map_grant_ref is permission_denied, map_revokable is okay, also while it is in use", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    assert.equal(machine.map(mapper, granter).status, GNTST_permission_denied);
    assert.equal(machine.use(granter, 8), "");
    assert.equal(machine.mapRevokable(mapper, granter).status, GNTST_okay);
    assert.equal(machine.map(mapper, granter, { gfn: 70 }).status, GNTST_permission_denied);
    assert.equal(machine.load(mapper, AT), 0xa1);
    assert.equal(machine.use(granter, 8), "rw");
  });

  it("of a plain entry: general_error, also while it is in use", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    assert.equal(machine.mapRevokable(mapper, granter).status, GNTST_general_error);
    machine.map(mapper, granter);
    machine.grant(granter, 8, mapper, 1, REVOKABLE | abi.GTF_reading | abi.GTF_writing);
    assert.equal(
      machine.mapRevokable(mapper, granter, { gfn: 70 }).status,
      GNTST_general_error,
      "the first pin decides",
    );
    assert.equal(machine.map(mapper, granter, { gfn: 70 }).status, GNTST_okay);
  });

  it("at most two mappings of one reference: the third is general_error until one ends", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    const first = machine.mapRevokable(mapper, granter);
    assert.equal(machine.mapRevokable(mapper, granter, { gfn: 65, flags: HOST | READ_ONLY }).status, GNTST_okay);
    assert.equal(machine.mapRevokable(mapper, granter, { gfn: 66 }).status, GNTST_general_error);
    assert.equal(machine.unmap(mapper, first.handle, HOLE), GNTST_okay);
    assert.equal(machine.mapRevokable(mapper, granter, { gfn: 66 }).status, GNTST_okay);
  });

  it("each mapping looks at the entry again: none is made when access was ended meanwhile", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    machine.mapRevokable(mapper, granter);
    machine.denyAccess(granter, 8);
    assert.equal(machine.mapRevokable(mapper, granter, { gfn: 65 }).status, GNTST_general_error);
    machine.grant(granter, 8, 0x55, 1, REVOKABLE | abi.GTF_reading | abi.GTF_writing);
    assert.equal(machine.mapRevokable(mapper, granter, { gfn: 65 }).status, GNTST_general_error);
  });

  it("lgfn that is no RAM of the mapper's own: bad_page", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    machine.grant(granter, 9, mapper, 2);
    machine.map(mapper, granter, { ref: 9, gfn: 90 });
    for (const lgfn of [HOLE, 90, 100, 1024, 0x8000_0000, 0xffff_fffe]) {
      assert.equal(machine.mapRevokable(mapper, granter, { lgfn }).status, GNTST_bad_page, `${lgfn}`);
    }
    assert.equal(machine.mapRevokable(mapper, granter, { lgfn: 3 }).status, GNTST_okay);
    assert.equal(machine.refs(machine.frame(mapper, 3)), 2, "an extra reference for as long as the mapping lives");
  });

  it("a replacement is charged to the mapper: no_space when it may not own another page", () => {
    const { machine, granter, mapper } = pair();
    const { domains } = machine.hypervisor;
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    domains.maxPages[mapper.slot] = 8;
    const total = domains.totPages[granter.slot];
    assert.equal(machine.mapRevokable(mapper, granter).status, GNTST_no_space);
    assert.equal(
      machine.mapRevokable(mapper, granter, { flags: HOST | READ_ONLY }).status,
      GNTST_okay,
      "reading needs none",
    );
    domains.maxPages[mapper.slot] = 9;
    assert.equal(machine.mapRevokable(mapper, granter, { gfn: 65 }).status, GNTST_okay);
    assert.equal(domains.totPages[mapper.slot], 9);
    assert.equal(domains.totPages[granter.slot], total);
  });

  it("each revokable page is charged as a mapping of its own", () => {
    const machine = new GrantMachine();
    const granter = machine.guest();
    const mapper = machine.guest({ vmaBudget: 6 });
    for (let index = 0; index < 6; index += 1) machine.grant(granter, 8 + index, mapper, index, REVOKABLE);
    const statuses = [0, 1, 2, 3, 4].map(
      (index) => machine.mapRevokable(mapper, granter, { ref: 8 + index, gfn: 64 + index, lgfn: 3 }).status,
    );
    assert.deepEqual(statuses, [GNTST_okay, GNTST_okay, GNTST_okay, GNTST_okay, GNTST_no_space]);
  });
});

describe("revoke", () => {
  it("the mapper sees its lgfn at once, and never faults; the granter's page is free to be used again", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    machine.mapRevokable(mapper, granter, { lgfn: 3 });
    machine.denyAccess(granter, 8);
    const calls = machine.parts.mmu.calls.length;
    assert.equal(machine.revoke(granter, 8), GNTST_okay);
    assert.equal(machine.parts.mmu.calls.length, calls + 1, "one change of the page table");
    assert.equal(machine.load(mapper, AT), 0xb3);
    assert.ok(machine.store(mapper, AT, 0x33));
    assert.equal(machine.load(mapper, 0x3000), 0x33, "it is the page at lgfn");
    assert.equal(machine.load(granter, 0x1000), 0xa1);
    assert.equal(machine.use(granter, 8), "");
    assert.equal(machine.refs(machine.frame(granter, 1)), 1);
    assert.equal(p2mType(machine.hypervisor.p2m.get(mapper.slot, HOLE)), P2M_LOCAL_RW);
  });

  it("a read-only mapping without lgfn shows zeros, which nobody can write", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE_RO);
    const { handle } = machine.mapRevokable(mapper, granter, { flags: HOST | READ_ONLY });
    machine.denyAccess(granter, 8);
    assert.equal(machine.revoke(granter, 8), GNTST_okay);
    assert.equal(machine.load(mapper, AT), 0);
    assert.equal(machine.store(mapper, AT, 1), false);
    assert.equal(machine.frameAt(mapper, HOLE), ZERO_FRAME);
    assert.equal(p2mType(machine.hypervisor.p2m.get(mapper.slot, HOLE)), P2M_LOCAL_RO);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    assert.equal(machine.load(mapper, AT), -1);
  });

  it("a writable mapping without lgfn shows a page of zeros of the mapper's own", () => {
    const { machine, granter, mapper } = pair();
    const { domains } = machine.hypervisor;
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    const { handle } = machine.mapRevokable(mapper, granter);
    machine.denyAccess(granter, 8);
    machine.revoke(granter, 8);
    assert.equal(machine.load(mapper, AT), 0);
    assert.ok(machine.store(mapper, AT, 9));
    assert.equal(machine.load(granter, 0x1000), 0xa1);
    assert.equal(domains.totPages[mapper.slot], 9);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    assert.equal(domains.totPages[mapper.slot], 8);
  });

  it("two mappers' replacements are different pages", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    machine.mapRevokable(mapper, granter);
    machine.mapRevokable(mapper, granter, { gfn: 65 });
    machine.denyAccess(granter, 8);
    machine.revoke(granter, 8);
    machine.store(mapper, AT, 5);
    assert.equal(machine.load(mapper, AT + 4096), 0);
  });

  it("laid over: lgfn at host_addr: the mapper's own page comes back there, at revoke", () => {
    const { machine, granter, mapper } = pair();
    const own = machine.frame(mapper, 3);
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    const { handle, status } = machine.mapRevokable(mapper, granter, { gfn: 3, lgfn: 3 });
    assert.equal(status, GNTST_okay);
    assert.equal(machine.load(mapper, 0x3000), 0xa1);
    machine.denyAccess(granter, 8);
    assert.equal(machine.revoke(granter, 8), GNTST_okay);
    assert.equal(machine.load(mapper, 0x3000), 0xb3);
    assert.equal(p2mType(machine.hypervisor.p2m.get(mapper.slot, 3)), P2M_RAM);
    assert.equal(machine.refs(own), 1);
    assert.equal(machine.unmap(mapper, handle, 3), GNTST_okay, "the handle goes, the page stays");
    assert.equal(machine.load(mapper, 0x3000), 0xb3);
    assert.equal(machine.unmap(mapper, handle, 3), abi.GNTST_bad_handle);
  });

  it("laid over: the page comes back at unmap too", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    const { handle } = machine.mapRevokable(mapper, granter, { gfn: 3, lgfn: 3 });
    assert.equal(machine.unmap(mapper, handle, 3), GNTST_okay);
    assert.equal(machine.load(mapper, 0x3000), 0xb3);
    assert.equal(machine.refs(machine.frame(mapper, 3)), 1);
  });

  it("severed: unmap succeeds, drops the replacement and leaves a hole; lgfn keeps its page", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    const { handle } = machine.mapRevokable(mapper, granter, { lgfn: 3 });
    machine.denyAccess(granter, 8);
    machine.revoke(granter, 8);
    assert.deepEqual(machine.unmapAll(mapper, [{ handle }]), [GNTST_okay], "naming nothing does nothing");
    assert.equal(machine.unmap(mapper, handle, 70), GNTST_general_error);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    assert.equal(machine.load(mapper, AT), -1);
    assert.equal(machine.load(mapper, 0x3000), 0xb3);
    assert.equal(machine.refs(machine.frame(mapper, 3)), 1);
  });

  it("host and device halves are both switched", () => {
    const { machine, granter } = pair();
    const { dom0 } = machine;
    const view = machine.hypervisor.domains.slotCount - 1;
    for (const lgfn of [3, PROVIDED, HOLE - 60]) {
      const gfn = lgfn === HOLE - 60 ? lgfn : HOLE;
      machine.grant(granter, 8, 0, 1, REVOKABLE);
      const { handle, status } = machine.mapRevokable(dom0, granter, {
        gfn,
        lgfn,
        flags: HOST | DEVICE,
        deviceAddress: 0x9000,
      });
      assert.equal(status, GNTST_okay);
      machine.denyAccess(granter, 8);
      assert.equal(machine.revoke(granter, 8), GNTST_okay);
      const shown = machine.frameAt(view, 9);
      assert.notEqual(shown, machine.frame(granter, 1));
      assert.equal(machine.frameAt(dom0, gfn), shown);
      assert.equal(machine.unmap(dom0, handle, gfn, 0x9000), GNTST_okay);
      assert.equal(machine.refs(machine.frame(dom0, 3)), 1);
      assert.equal(machine.frameAt(view, 9), -1);
    }
  });

  it("one half unmapped before: the other is switched", () => {
    const { machine, granter } = pair();
    const { dom0 } = machine;
    const view = machine.hypervisor.domains.slotCount - 1;
    machine.grant(granter, 8, 0, 1, REVOKABLE);
    const { handle } = machine.mapRevokable(dom0, granter, {
      gfn: 3,
      lgfn: 3,
      flags: HOST | DEVICE,
      deviceAddress: 0x9000,
    });
    assert.equal(machine.unmap(dom0, handle, 3), GNTST_okay);
    machine.denyAccess(granter, 8);
    assert.equal(machine.revoke(granter, 8), GNTST_okay);
    assert.equal(machine.frameAt(view, 9), machine.frame(dom0, 3));
    assert.deepEqual(machine.unmapAll(dom0, [{ handle, device: 0x9000 }]), [GNTST_okay]);
  });

  it("of what is not in use: okay; beyond the table: bad_gntref; of a plain mapping: general_error, and it stays", () => {
    const { machine, granter, mapper } = pair();
    assert.equal(machine.revoke(granter, 8), GNTST_okay, "what was never granted");
    assert.equal(machine.revoke(granter, 512), GNTST_bad_gntref);
    assert.equal(machine.revoke(granter, 0xffff_ffff), GNTST_bad_gntref);
    machine.grant(granter, 8, mapper, 1);
    machine.map(mapper, granter);
    assert.equal(machine.revoke(granter, 8), GNTST_general_error);
    assert.equal(machine.load(mapper, AT), 0xa1);
  });

  it("the reference can be granted and mapped anew", () => {
    const { machine, granter, mapper } = pair();
    for (const flags of [REVOKABLE, RW, REVOKABLE]) {
      machine.grant(granter, 8, mapper, 1, flags);
      const mapped = flags === RW ? machine.map(mapper, granter) : machine.mapRevokable(mapper, granter);
      assert.equal(mapped.status, GNTST_okay);
      machine.denyAccess(granter, 8);
      assert.equal(machine.revoke(granter, 8), flags === RW ? GNTST_general_error : GNTST_okay);
      assert.equal(machine.unmap(mapper, mapped.handle, HOLE), GNTST_okay);
    }
  });

  it("needs no budget: a mapper that has spent all its mappings is switched all the same", () => {
    const machine = new GrantMachine({ vmaLimit: 20, vmaReserve: 2 });
    const granter = machine.guest();
    const mapper = machine.guest({ vmaBudget: 6 });
    poke(mapper, 0x3000, Uint8Array.of(0xb3));
    for (let index = 0; index < 4; index += 1) {
      // Frames in falling order: the kernel merges none of them, as the hypervisor charges.
      machine.grant(granter, 8 + index, mapper, 6 - index, REVOKABLE);
      machine.mapRevokable(mapper, granter, { ref: 8 + index, gfn: 64 + index, lgfn: 3 });
    }
    let total = 0;
    for (let slot = 0; slot < 9; slot += 1) total += machine.parts.mmu.vmaCount(2 ** 33 * (slot + 1));
    machine.parts.mmu.vmaLimit = total;
    for (let index = 0; index < 4; index += 1) {
      machine.denyAccess(granter, 8 + index);
      assert.equal(machine.revoke(granter, 8 + index), GNTST_okay);
      assert.equal(machine.load(mapper, AT + index * 4096), 0xb3, `page ${index}`);
    }
    assert.equal(crashReason(machine.hypervisor, mapper.slot), "");
  });

  it("a kernel that refuses even so: the mapper is crashed and loses its address space, the granter gets its page", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    machine.mapRevokable(mapper, granter);
    machine.denyAccess(granter, 8);
    poke(granter, 0x7000, Uint8Array.of(8, 0, 0, 0));
    machine.parts.mmu.failAt(1, 3);
    assert.equal(revokeGrant(machine.hypervisor, granter.slot, 8), GNTST_okay);
    machine.check();
    assert.match(crashReason(machine.hypervisor, mapper.slot), /revoked/);
    assert.equal(machine.frameAt(mapper, HOLE), -1);
    assert.equal(machine.frameAt(mapper, 0), -1);
    assert.equal(machine.use(granter, 8), "");
  });

  it("a kernel that refuses everything: general_error, the mapping is as it was and can be revoked later", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    machine.mapRevokable(mapper, granter);
    machine.denyAccess(granter, 8);
    machine.parts.mmu.failAt(1, 9);
    assert.equal(revokeGrant(machine.hypervisor, granter.slot, 8), GNTST_general_error);
    machine.parts.mmu.failAt(0);
    machine.check();
    assert.equal(machine.use(granter, 8), "rw");
    assert.equal(revokeGrant(machine.hypervisor, granter.slot, 8), GNTST_okay);
    assert.equal(machine.use(granter, 8), "");
    machine.check();
  });

  it("the mapper may balloon lgfn out meanwhile: the page stays its own until the mapping ends", () => {
    const { machine, granter, mapper } = pair();
    const { domains } = machine.hypervisor;
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    const { handle } = machine.mapRevokable(mapper, granter, { lgfn: 3 });
    assert.equal(depopulateRun(machine.hypervisor, mapper.slot, 3, 1), 1);
    machine.denyAccess(granter, 8);
    machine.revoke(granter, 8);
    assert.equal(machine.load(mapper, AT), 0xb3);
    assert.equal(domains.totPages[mapper.slot], 8);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    assert.equal(domains.totPages[mapper.slot], 7);
  });
});

describe("reset", () => {
  it("drops every mapping of the caller, severed ones too", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    machine.grant(granter, 9, mapper, 2, REVOKABLE);
    machine.map(mapper, granter);
    machine.mapRevokable(mapper, granter, { ref: 9, gfn: 3, lgfn: 3 });
    machine.grant(granter, 10, mapper, 2, REVOKABLE);
    machine.mapRevokable(mapper, granter, { ref: 10, gfn: 70, lgfn: 4 });
    machine.denyAccess(granter, 10);
    machine.revoke(granter, 10);
    assert.equal(machine.op(mapper, abi.GNTTABOP_reset), 0);
    assert.deepEqual(
      [8, 9, 10].map((ref) => machine.use(granter, ref)),
      ["", "", ""],
    );
    assert.equal(machine.hypervisor.maptrack.liveCount[mapper.slot], 0);
    assert.equal(machine.load(mapper, 0x3000), 0xb3, "the page that was laid over is back");
    assert.equal(machine.load(mapper, 70 * 4096), -1);
  });

  it("revokes what is revokable, ends what is not used, and tells of what others still use", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 1, mapper, 0);
    machine.grant(granter, 8, mapper, 1);
    machine.grant(granter, 9, mapper, 2, REVOKABLE);
    machine.grant(granter, 10, mapper, 3);
    machine.mapRevokable(mapper, granter, { ref: 9, gfn: 65, lgfn: 3 });
    const plain = machine.map(mapper, granter, { ref: 10, gfn: 66 });
    assert.equal(machine.op(granter, abi.GNTTABOP_reset), -abi.EBUSY);
    assert.equal(machine.load(mapper, 65 * 4096), 0xb3);
    assert.equal(machine.load(mapper, 66 * 4096), 0xa3);
    assert.equal(machine.flags(granter, 8), 0);
    assert.equal(machine.flags(granter, 9), 0);
    assert.equal(machine.flags(granter, 1), RW, "the toolstack's references stay");
    assert.equal(machine.map(mapper, granter, { ref: 8, gfn: 70 }).status, GNTST_general_error);
    assert.equal(machine.unmap(mapper, plain.handle, 66), GNTST_okay);
    assert.equal(resetGrants(machine.hypervisor, granter.slot), 0);
    assert.equal(machine.flags(granter, 10), 0);
  });
});
