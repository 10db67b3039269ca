import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { crashReason } from "../src/domain-ops.ts";
import { beginDestroy } from "../src/domain-reap.ts";
import { FRAME_REFS_MAX } from "../src/frame-table.ts";
import { PIN_HOST_READ, PIN_HOST_WRITE } from "../src/grant-table.ts";
import { addToPhysmap } from "../src/memory-physmap.ts";
import { DEVICE, GrantMachine, HOLE, HOST, pair, READ_ONLY, RO, RW } from "./grant-kit.ts";
import { poke } from "./machine.ts";

const { GNTST_okay, GNTST_general_error, GNTST_bad_domain, GNTST_bad_gntref, GNTST_no_space, GNTST_bad_page } = abi;

describe("map_grant_ref, rule by rule", () => {
  it("map 1: a mapping that is neither for the host nor for a device: bad_gntref", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    assert.equal(machine.map(mapper, granter, { flags: READ_ONLY }).status, GNTST_bad_gntref);
    assert.equal(machine.map(mapper, 0x7777, { flags: 0 }).status, GNTST_bad_gntref, "before M3");
    assert.equal(machine.map(mapper, granter).status, GNTST_okay);
  });

  it("map 2: device_map, application_map and contains_pte of a guest: general_error", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    for (const flag of [abi.GNTMAP_device_map, abi.GNTMAP_application_map, abi.GNTMAP_contains_pte]) {
      assert.equal(machine.map(mapper, granter, { flags: HOST | flag }).status, GNTST_general_error);
      assert.equal(machine.map(mapper, 0x7777, { flags: HOST | flag }).status, GNTST_general_error, "before M3");
    }
    assert.equal(machine.map(mapper, granter).status, GNTST_okay);
  });

  it("map 3: a granter that does not exist, DOMID_SELF and every reserved domid: bad_domain", () => {
    const { machine, mapper } = pair();
    for (const dom of [0x123, 0x7fef, abi.DOMID_SELF, abi.DOMID_IO, abi.DOMID_XEN, abi.DOMID_COW, abi.DOMID_INVALID]) {
      assert.equal(machine.map(mapper, dom, { ref: 0xffff_ffff }).status, GNTST_bad_domain, `${dom}`);
    }
  });

  it("map 3: the caller's own number is allowed: a domain may map its own grant", () => {
    const { machine, mapper } = pair();
    machine.grant(mapper, 8, mapper, 1);
    const mapped = machine.map(mapper, mapper);
    assert.equal(mapped.status, GNTST_okay);
    assert.equal(machine.frameAt(mapper, HOLE), machine.frameAt(mapper, 1));
    assert.equal(machine.unmap(mapper, mapped.handle, HOLE), GNTST_okay);
  });

  it("map 4: the default policy refuses nobody a mapping of what it was granted", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    machine.grant(granter, 9, 0, 1);
    assert.equal(machine.map(mapper, granter).status, GNTST_okay);
    assert.equal(machine.map(machine.dom0, granter, { ref: 9 }).status, GNTST_okay);
  });

  it("map 5: no handle left: no_space, before the reference is looked at", () => {
    const machine = new GrantMachine();
    const granter = machine.guest();
    const mapper = machine.guest({ maptrackFramesMax: 1 });
    machine.grant(granter, 8, mapper, 1);
    machine.hypervisor.domains.maxPages[mapper.slot] = 400;
    const room = Array.from({ length: 120 }, (_, index) => ({ gfn: HOLE + index }));
    const first = machine.mapAll(mapper, granter, room);
    assert.ok(first.every(({ status }) => status === GNTST_okay));
    machine.grant(granter, 9, mapper, 2);
    machine.grant(granter, 10, mapper, 3);
    for (const ref of [9, 10]) {
      const more = machine.mapAll(
        mapper,
        granter,
        Array.from({ length: 68 }, (_, index) => ({ ref, gfn: 100 + ref * 80 + index })),
      );
      assert.ok(more.every(({ status }) => status === GNTST_okay));
    }
    assert.equal(machine.map(mapper, granter, { ref: 0xffff_ffff, gfn: 63 }).status, GNTST_no_space);
    assert.equal(machine.unmap(mapper, first[0]!.handle, HOLE), GNTST_okay);
    assert.equal(machine.map(mapper, granter, { gfn: HOLE }).status, GNTST_okay);
  });

  it("map 5: an entry of a list that fails leaves its handle to the next one", () => {
    const machine = new GrantMachine();
    const granter = machine.guest();
    const mapper = machine.guest({ maptrackFramesMax: 1 });
    machine.grant(granter, 8, mapper, 1);
    machine.grant(granter, 9, mapper, 2);
    for (const ref of [8, 9]) {
      const wishes = Array.from({ length: ref === 8 ? 127 : 128 }, (_, index) => ({
        ref,
        gfn: ref * 130 - 1000 + 64 + index,
      }));
      assert.ok(machine.mapAll(mapper, granter, wishes.slice(0, 120)).every(({ status }) => status === GNTST_okay));
      assert.ok(machine.mapAll(mapper, granter, wishes.slice(120)).every(({ status }) => status === GNTST_okay));
    }
    machine.grant(granter, 10, mapper, 3);
    const list = machine.mapAll(mapper, granter, [
      { ref: 11, gfn: 900 },
      { ref: 10, gfn: 900 },
      { ref: 10, gfn: 901 },
    ]);
    assert.deepEqual(
      list.map(({ status }) => status),
      [GNTST_general_error, GNTST_okay, GNTST_no_space],
    );
  });

  it("map 6: a reference beyond the granter's table: bad_gntref", () => {
    const { machine, granter, mapper } = pair();
    for (const ref of [512, 513, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
      assert.equal(machine.map(mapper, granter, { ref }).status, GNTST_bad_gntref);
    }
    machine.grant(granter, 511, mapper, 1);
    assert.equal(machine.map(mapper, granter, { ref: 511 }).status, GNTST_okay);
  });

  it("map 7: an entry in use by another grantee: general_error, whatever the entry says now", () => {
    const { machine, granter, mapper } = pair();
    const other = machine.guest();
    machine.grant(granter, 8, mapper, 1);
    assert.equal(machine.map(mapper, granter).status, GNTST_okay);
    machine.grant(granter, 8, other, 1);
    assert.equal(machine.map(other, granter).status, GNTST_general_error);
    assert.equal(machine.map(mapper, granter, { gfn: HOLE + 1 }).status, GNTST_okay);
  });

  it("map 7: at most 128 mappings of one kind of one reference", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const wishes = Array.from({ length: 128 }, (_, index) => ({ gfn: HOLE + index, flags: HOST | READ_ONLY }));
    assert.ok(machine.mapAll(mapper, granter, wishes.slice(0, 64)).every(({ status }) => status === GNTST_okay));
    const rest = machine.mapAll(mapper, granter, wishes.slice(64));
    assert.ok(rest.every(({ status }) => status === GNTST_okay));
    assert.equal(machine.map(mapper, granter, { gfn: 300, flags: HOST | READ_ONLY }).status, GNTST_general_error);
    assert.equal(machine.map(mapper, granter, { gfn: 300 }).status, GNTST_general_error, "of any kind");
    assert.equal(machine.unmap(mapper, rest[0]!.handle, HOLE + 64), GNTST_okay);
    assert.equal(machine.map(mapper, granter, { gfn: 300 }).status, GNTST_okay);
  });

  it("map 8: an entry that permits no access, or somebody else: general_error", () => {
    const { machine, granter, mapper } = pair();
    const types = [abi.GTF_invalid, abi.GTF_accept_transfer, abi.GTF_transitive, RW | abi.GTF_sub_page];
    for (const type of types) {
      machine.grant(granter, 8, mapper, 1, type);
      assert.equal(machine.map(mapper, granter).status, GNTST_general_error);
      assert.equal(machine.use(granter, 8), "");
    }
    machine.grant(granter, 8, granter, 1);
    assert.equal(machine.map(mapper, granter).status, GNTST_general_error);
    machine.grant(granter, 8, mapper, 1, RO);
    assert.equal(machine.map(mapper, granter).status, GNTST_general_error, "for writing");
    assert.equal(machine.use(granter, 8), "");
    assert.equal(machine.map(mapper, granter, { flags: HOST | READ_ONLY }).status, GNTST_okay);
  });

  it("map 8: the first writable mapping of an entry mapped for reading looks at its flags again", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    assert.equal(machine.map(mapper, granter, { flags: HOST | READ_ONLY }).status, GNTST_okay);
    machine.grant(granter, 8, mapper, 1, RO | abi.GTF_reading);
    assert.equal(machine.map(mapper, granter, { gfn: 70 }).status, GNTST_general_error);
    machine.grant(granter, 8, mapper, 1, abi.GTF_invalid | abi.GTF_reading);
    assert.equal(machine.map(mapper, granter, { gfn: 70 }).status, GNTST_general_error, "the type too");
    machine.grant(granter, 8, 0x123, 1, RW | abi.GTF_reading);
    assert.equal(machine.map(mapper, granter, { gfn: 70 }).status, GNTST_okay, "not the domid");
    assert.equal(machine.use(granter, 8), "rw");
  });

  it("map 9: a gfn that is a hole, beyond the end, special or another domain's: bad_page, and no bit stays set", () => {
    const { machine, granter, mapper } = pair();
    const { hypervisor } = machine;
    assert.equal(addToPhysmap(hypervisor, granter.slot, abi.XENMAPSPACE_shared_info, 0, 40), 0);
    machine.grant(mapper, 8, granter, 1);
    assert.equal(machine.map(granter, mapper, { gfn: 41 }).status, GNTST_okay);
    for (const gfn of [HOLE, 40, 41, hypervisor.p2m.gfnCount, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
      machine.grant(granter, 9, mapper, gfn);
      assert.equal(machine.map(mapper, granter, { ref: 9, gfn: 70 }).status, GNTST_bad_page, `gfn ${gfn}`);
      assert.equal(machine.use(granter, 9), "");
    }
    machine.grant(granter, 9, mapper, 1);
    assert.equal(machine.map(mapper, granter, { ref: 9, gfn: 70 }).status, GNTST_okay);
  });

  it("map 10: no gfn is ever paged out: eagain does not occur, bad_page does", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, HOLE);
    assert.equal(machine.map(mapper, granter).status, GNTST_bad_page);
  });

  it("map 11: a dying granter: general_error", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    machine.grant(granter, 9, mapper, 2);
    assert.equal(machine.map(mapper, granter).status, GNTST_okay);
    assert.equal(beginDestroy(machine.hypervisor, granter.slot), 0);
    assert.equal(machine.map(mapper, granter, { ref: 9, gfn: 70 }).status, GNTST_general_error);
    assert.equal(
      machine.map(mapper, granter, { ref: 8, gfn: 70 }).status,
      GNTST_general_error,
      "of a pinned entry too",
    );
    assert.equal(machine.use(granter, 9), "");
  });

  it("map 11: a frame with as many references as it can have: general_error, and no bit stays set", () => {
    const { machine, granter, mapper } = pair();
    const { frames } = machine.hypervisor;
    const mfn = machine.frame(granter, 1);
    machine.grant(granter, 8, mapper, 1);
    frames.refs[mfn] = FRAME_REFS_MAX;
    poke(mapper, 0x7000, new Uint8Array(32));
    machine.check = (): void => undefined;
    assert.equal(machine.map(mapper, granter).status, GNTST_general_error);
    assert.equal(machine.use(granter, 8), "");
    frames.refs[mfn] = 1;
    assert.equal(machine.map(mapper, granter).status, GNTST_okay);
    GrantMachine.prototype.check.call(machine);
  });

  it("map 12: unknown flags, or an address beyond the end: general_error, and everything is undone", () => {
    const { machine, granter, mapper } = pair();
    const mfn = machine.frame(granter, 1);
    machine.grant(granter, 8, mapper, 1);
    const end = machine.hypervisor.p2m.gfnCount * 4096;
    for (const wish of [
      { flags: HOST | 0x20 },
      { flags: HOST | 0x8000 },
      { hostAddress: end },
      { hostAddress: 2 ** 32 },
      { hostAddress: 2 ** 52 },
    ]) {
      assert.equal(machine.map(mapper, granter, wish).status, GNTST_general_error);
      assert.equal(machine.use(granter, 8), "");
      assert.equal(machine.refs(mfn), 1);
      assert.equal(machine.map(mapper, 0x77, wish).status, GNTST_bad_domain, "M3 comes first");
    }
    assert.equal(machine.map(mapper, granter, { hostAddress: end - 1 }).status, GNTST_okay);
  });

  it("map 12: what the page table refuses is general_error, what the budget of mappings does not allow no_space", () => {
    const machine = new GrantMachine();
    const granter = machine.guest();
    const mapper = machine.guest({ vmaBudget: 8 });
    for (let ref = 8; ref < 20; ref += 1) machine.grant(granter, ref, mapper, ref % 7);
    machine.parts.mmu.failAt(1);
    assert.equal(machine.map(mapper, granter, { ref: 8 }).status, GNTST_general_error);
    assert.equal(machine.use(granter, 8), "");
    const wishes = Array.from({ length: 8 }, (_, index) => ({ ref: 8 + index, gfn: 100 + index * 2 }));
    const statuses = machine.mapAll(mapper, granter, wishes).map(({ status }) => status);
    assert.equal(statuses[0], GNTST_okay);
    assert.equal(statuses.at(-1), GNTST_no_space);
    assert.ok(statuses.every((status) => status === GNTST_okay || status === GNTST_no_space));
  });

  it("map 13: okay: the same frame stands in both domains, and stores are seen at once both ways", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { status, handle, deviceAddress } = machine.map(mapper, granter);
    assert.deepEqual([status, handle, deviceAddress], [GNTST_okay, 0, 0], "handles begin at 0");
    assert.equal(machine.load(mapper, HOLE * 4096), 0xa1);
    assert.ok(machine.store(mapper, HOLE * 4096 + 5, 77));
    assert.equal(machine.load(granter, 4096 + 5), 77);
    assert.equal(machine.use(granter, 8), "rw");
    assert.equal(machine.refs(machine.frame(granter, 1)), 2);
    assert.equal(machine.hypervisor.frames.writable[machine.frame(granter, 1)], 1);
  });
});

describe("map_grant_ref, the details", () => {
  it("a read-only mapping cannot be written, sets READING alone and counts as a reader", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, RO);
    assert.equal(machine.map(mapper, granter, { flags: HOST | READ_ONLY }).status, GNTST_okay);
    assert.equal(machine.store(mapper, HOLE * 4096, 1), false);
    assert.equal(machine.use(granter, 8), "r");
    const { grants } = machine.hypervisor;
    assert.equal(grants.pin[grants.row(granter.slot, 8)], PIN_HOST_READ);
    assert.equal(mapper.cpu.memory.copyToGuest(HOLE * 4096, Uint8Array.of(1)), -abi.EFAULT, "nor by the hypervisor");
  });

  it("an entry that is pinned is not read again: later mappings get the frame of the first", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    machine.map(mapper, granter);
    machine.grant(granter, 8, 0x321, 2, RW | abi.GTF_reading | abi.GTF_writing);
    assert.equal(machine.map(mapper, granter, { gfn: 70 }).status, GNTST_okay);
    assert.equal(machine.frameAt(mapper, 70), machine.frame(granter, 1));
    const { grants } = machine.hypervisor;
    assert.equal(grants.pin[grants.row(granter.slot, 8)], 2 * PIN_HOST_WRITE);
  });

  it("the low bits of host_addr are ignored: gfn 0 is mapped and unmapped by address 1", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { status, handle } = machine.map(mapper, granter, { hostAddress: 4095 });
    assert.equal(status, GNTST_okay);
    assert.equal(machine.load(mapper, 0), 0xa1);
    assert.deepEqual(machine.unmapAll(mapper, [{ handle, host: 1 }]), [GNTST_okay]);
  });

  it("own RAM at the address is unhooked, and stays owned and counted", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const before = machine.hypervisor.domains.totPages[mapper.slot];
    const { handle } = machine.map(mapper, granter, { gfn: 2 });
    assert.equal(machine.load(mapper, 0x2000), 0xa1);
    assert.equal(machine.unmap(mapper, handle, 2), GNTST_okay);
    assert.equal(machine.load(mapper, 0x2000), -1, "it does not come back");
    assert.equal(machine.hypervisor.domains.totPages[mapper.slot], before);
  });

  it("over another mapping: general_error, and the caller is crashed, not the granter", () => {
    const { machine, granter, mapper } = pair();
    const other = machine.guest();
    const { hypervisor } = machine;
    machine.grant(granter, 8, mapper, 1);
    machine.grant(granter, 9, mapper, 2);
    machine.map(mapper, granter);
    machine.keepAwake();
    assert.ok(crashReason(hypervisor, mapper.slot) === "");
    machine.map(mapper, granter, { ref: 9 });
    assert.match(crashReason(hypervisor, mapper.slot), /gfn 64/);
    assert.equal(crashReason(hypervisor, granter.slot), "");
    assert.equal(machine.use(granter, 9), "");
    assert.equal(addToPhysmap(hypervisor, other.slot, abi.XENMAPSPACE_shared_info, 0, 40), 0);
    machine.grant(granter, 10, other, 1);
    machine.map(other, granter, { ref: 10, gfn: 40 });
    assert.match(crashReason(hypervisor, other.slot), /gfn 40/, "a special page");
  });

  it("the flags of the last request are kept, with the bits that are the guest's", () => {
    const { machine, granter, mapper } = pair();
    const { maptrack } = machine.hypervisor;
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter, { flags: HOST | 0xabcd_0000 });
    assert.equal(maptrack.flags[maptrack.row(mapper.slot, handle)], (HOST | 0xabcd_0000) >>> 0);
  });

  it("a failed entry has its status only: handle and bus address stay as they were", () => {
    const { machine, granter, mapper } = pair();
    const { status, handle, deviceAddress } = machine.map(mapper, granter, { ref: 600, deviceAddress: 0x1234 });
    assert.deepEqual([status, handle, deviceAddress], [GNTST_bad_gntref, 0xeeee_eeee, 0x1234]);
  });

  it("guests get bus address 0: no machine address is told to them", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    assert.equal(machine.map(mapper, granter, { deviceAddress: 0x5000 }).deviceAddress, 0);
  });

  it("a mapped page cannot be granted on", () => {
    const { machine, granter, mapper } = pair();
    const third = machine.guest();
    machine.grant(granter, 8, mapper, 1);
    machine.map(mapper, granter);
    machine.grant(mapper, 8, third, HOLE);
    assert.equal(machine.map(third, mapper).status, GNTST_bad_page);
  });

  it("the control domain maps for devices too: both halves, and only what it asked for", () => {
    const { machine, granter } = pair();
    const { dom0 } = machine;
    const view = machine.hypervisor.domains.slotCount - 1;
    machine.grant(granter, 8, 0, 1);
    const mapped = machine.map(dom0, granter, { flags: HOST | DEVICE, deviceAddress: 0x9000 });
    assert.deepEqual([mapped.status, mapped.deviceAddress], [GNTST_okay, 0x9000]);
    assert.equal(machine.frameAt(view, 9), machine.frame(granter, 1));
    assert.equal(machine.frameAt(dom0, HOLE), machine.frame(granter, 1));
    const device = machine.map(dom0, granter, { flags: DEVICE | READ_ONLY, deviceAddress: 0xa000 });
    assert.equal(device.status, GNTST_okay);
    assert.equal(machine.store(view, 0xa000, 1), false);
    assert.equal(
      machine.map(dom0, granter, { flags: DEVICE, deviceAddress: 0xa000 }).status,
      GNTST_general_error,
      "taken",
    );
    assert.equal(machine.map(dom0, granter, { flags: DEVICE }).status, GNTST_general_error, "address 0 means none");
    assert.equal(machine.refs(machine.frame(granter, 1)), 3);
  });
});
