import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { removeFromPhysmap, addToPhysmap } from "../src/memory-physmap.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { DEVICE, GrantMachine, HOLE, HOST, pair, READ_ONLY } from "./grant-kit.ts";
import { poke } from "./machine.ts";

const { GNTST_okay, GNTST_general_error, GNTST_bad_handle, GNTST_bad_dev_addr, GNTST_no_space } = abi;

describe("unmap_grant_ref, rule by rule", () => {
  it("U1: a handle that was never given out, or was given back: bad_handle", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    for (const handle of [0, 1, 255, 256, 0x7fff_ffff, 0xffff_ffff]) {
      assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_bad_handle);
    }
    const { handle } = machine.map(mapper, granter);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_bad_handle);
    assert.deepEqual(machine.unmapAll(mapper, [{ handle }]), [GNTST_bad_handle], "before both addresses are 0");
  });

  it("U2: the granter of a live mapping cannot be gone: it stays, dying, until the last one ends", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    machine.destroy(granter);
    const { domains } = machine.hypervisor;
    assert.equal(domains.slotOf(granter.domid), granter.slot);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    machine.destroy(machine.guest());
  });

  it("U3: the default policy refuses nobody the end of its own mapping", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    assert.equal(machine.unmap(granter, handle, HOLE), GNTST_bad_handle, "another domain's handle names nothing");
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
  });

  it("U4: a handle named twice in one list: the second time bad_handle", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    const host = HOLE * 4096;
    assert.deepEqual(
      machine.unmapAll(mapper, [
        { handle, host },
        { handle, host },
      ]),
      [GNTST_okay, GNTST_bad_handle],
    );
  });

  it("U5: another bus address than the mapping's: bad_dev_addr", () => {
    const { machine, granter } = pair();
    const { dom0 } = machine;
    machine.grant(granter, 8, 0, 1);
    const { handle } = machine.map(dom0, granter, { flags: HOST | DEVICE, deviceAddress: 0x9000 });
    assert.equal(machine.unmap(dom0, handle, HOLE, 0xa000), GNTST_bad_dev_addr);
    assert.equal(machine.unmap(dom0, handle, HOLE, 0x9001), GNTST_bad_dev_addr);
    assert.equal(machine.use(granter, 8), "rw");
    assert.equal(machine.unmap(dom0, handle, HOLE, 0x9000), GNTST_okay);
    assert.equal(machine.use(granter, 8), "");
  });

  it("U6: another page stands at the address, or the mapping stands elsewhere: general_error", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const first = machine.map(mapper, granter);
    const second = machine.map(mapper, granter, { gfn: 70, flags: HOST | READ_ONLY });
    for (const gfn of [1, 65, 70, 1023, 1024, 2 ** 20, 2 ** 40]) {
      assert.equal(machine.unmap(mapper, first.handle, gfn), GNTST_general_error, `gfn ${gfn}`);
    }
    assert.equal(machine.unmap(mapper, second.handle, HOLE), GNTST_general_error);
    assert.equal(machine.unmap(mapper, first.handle, HOLE), GNTST_okay);
    assert.equal(machine.unmap(mapper, second.handle, 70), GNTST_okay);
  });

  it("U7: okay: the gfn is a hole, the granter's bits are clear, the reference is gone", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    assert.equal(machine.endAccess(granter, 8), false);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    assert.equal(machine.load(mapper, HOLE * 4096), -1);
    assert.equal(machine.refs(machine.frame(granter, 1)), 1);
    assert.equal(machine.endAccess(granter, 8), true);
  });
});

describe("unmap_grant_ref, the details", () => {
  it("both addresses zero: okay, and nothing happens", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    for (let round = 0; round < 3; round += 1) assert.deepEqual(machine.unmapAll(mapper, [{ handle }]), [GNTST_okay]);
    assert.deepEqual(machine.unmapAll(mapper, [{ handle, device: 0x5000 }]), [GNTST_okay], "a half that is not mapped");
    assert.equal(machine.use(granter, 8), "rw");
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
  });

  it("WRITING goes with the last writer, READING with the last mapping", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const handles = [0, 1, 2, 3].map(
      (index) => machine.map(mapper, granter, { gfn: 64 + index, flags: HOST | (index < 2 ? 0 : READ_ONLY) }).handle,
    );
    const seen: string[] = [];
    for (const [index, handle] of handles.entries()) {
      assert.equal(machine.unmap(mapper, handle, 64 + index), GNTST_okay);
      seen.push(machine.use(granter, 8));
    }
    assert.deepEqual(seen, ["rw", "r", "r", ""]);
  });

  it("the halves go one by one, and the handle with the last of them", () => {
    const { machine, granter } = pair();
    const { dom0 } = machine;
    const mfn = machine.frame(granter, 1);
    machine.grant(granter, 8, 0, 1);
    for (const deviceFirst of [true, false]) {
      const { handle } = machine.map(dom0, granter, { flags: HOST | DEVICE, deviceAddress: 0x9000 });
      const halves = [
        { handle, device: 0x9000 },
        { handle, host: HOLE * 4096 },
      ];
      if (!deviceFirst) halves.reverse();
      assert.deepEqual(machine.unmapAll(dom0, [halves[0]!]), [GNTST_okay]);
      assert.equal(machine.use(granter, 8), "rw");
      assert.deepEqual(machine.unmapAll(dom0, [halves[0]!]), [GNTST_okay], "not mapped any more: nothing happens");
      assert.equal(machine.refs(mfn), 2);
      assert.deepEqual(machine.unmapAll(dom0, [halves[1]!]), [GNTST_okay]);
      assert.equal(machine.use(granter, 8), "");
      assert.equal(machine.refs(mfn), 1);
      assert.deepEqual(machine.unmapAll(dom0, [halves[1]!]), [GNTST_bad_handle]);
    }
  });

  it("freed handles are used again, the lowest first", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const list = machine.mapAll(
      mapper,
      granter,
      [0, 1, 2, 3].map((index) => ({ gfn: 64 + index })),
    );
    assert.deepEqual(
      list.map(({ handle }) => handle),
      [0, 1, 2, 3],
    );
    machine.unmapAll(
      mapper,
      [1, 2].map((handle) => ({ handle, host: (64 + handle) * 4096 })),
    );
    assert.deepEqual(
      machine
        .mapAll(
          mapper,
          granter,
          [1, 2].map((index) => ({ gfn: 64 + index })),
        )
        .map(({ handle }) => handle),
      [1, 2],
    );
  });

  it("only the status of an entry is written", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    const bytes = new Uint8Array(24 * 2).fill(0xee);
    const view = new DataView(bytes.buffer);
    abi.gnttab_unmap_grant_ref.host_addr.set(view, 0, HOLE * 4096);
    abi.gnttab_unmap_grant_ref.handle.set(view, 0, handle);
    poke(mapper, 0x7000, bytes);
    assert.equal(machine.op(mapper, abi.GNTTABOP_unmap_grant_ref, 0x7000, 2), 0);
    abi.gnttab_unmap_grant_ref.status.set(view, 0, GNTST_okay);
    abi.gnttab_unmap_grant_ref.status.set(view, 24, GNTST_bad_handle);
    const after = new Uint8Array(48);
    mapper.cpu.memory.copyFromGuest(0x7000, after);
    assert.deepEqual(after, bytes);
  });

  it("statuses of a list that crosses a page, aligned or not, all arrive", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    for (const address of [0x7000 - 24 * 3, 0x7000 - 21, 0x7000 - 23, 0x7000 - 22]) {
      poke(mapper, address, new Uint8Array(24 * 6).fill(0xee));
      assert.equal(machine.op(mapper, abi.GNTTABOP_unmap_grant_ref, address, 6), 0);
      for (let index = 0; index < 6; index += 1) {
        assert.equal(mapper.cpu.memory.readU16(address + index * 24 + 20), GNTST_bad_handle & 0xffff);
      }
    }
  });

  it("-EFAULT when a status cannot be written; what was unmapped stays so", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    machine.grant(granter, 9, mapper, 2);
    const bytes = new Uint8Array(24);
    const view = new DataView(bytes.buffer);
    abi.gnttab_unmap_grant_ref.host_addr.set(view, 0, HOLE * 4096);
    abi.gnttab_unmap_grant_ref.handle.set(view, 0, handle);
    poke(granter, 0x2000, bytes);
    assert.equal(machine.map(mapper, granter, { ref: 9, gfn: 90, flags: HOST | READ_ONLY }).status, GNTST_okay);
    assert.equal(machine.op(mapper, abi.GNTTABOP_unmap_grant_ref, 90 * 4096, 1), -abi.EFAULT);
    assert.equal(machine.frameAt(mapper, HOLE), -1);
  });

  it("to leave more holes than its budget of mappings allows: no_space, and the mapping stays", () => {
    const machine = new GrantMachine();
    const granter = machine.guest();
    const mapper = machine.guest({ vmaBudget: 4 });
    for (let index = 0; index < 5; index += 1) machine.grant(granter, 8 + index, mapper, index);
    const list = machine.mapAll(
      mapper,
      granter,
      [0, 1, 2, 3, 4].map((index) => ({ ref: 8 + index, gfn: 64 + index })),
    );
    assert.equal(machine.unmap(mapper, list[2]!.handle, 66), GNTST_no_space);
    assert.equal(machine.load(mapper, 66 * 4096), machine.load(granter, 2 * 4096));
    assert.equal(machine.unmap(mapper, list[4]!.handle, 68), GNTST_okay, "from the end it needs none");
    machine.parts.mmu.failAt(1);
    assert.equal(machine.unmap(mapper, list[3]!.handle, 67), GNTST_general_error);
    assert.equal(machine.unmap(mapper, list[3]!.handle, 67), GNTST_okay);
  });

  it("ballooning and physmap changes do not remove a mapping", () => {
    const { machine, granter, mapper } = pair();
    const { hypervisor } = machine;
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    assert.equal(depopulateRun(hypervisor, mapper.slot, HOLE, 1), 0);
    assert.equal(removeFromPhysmap(hypervisor, mapper.slot, HOLE), -abi.EINVAL);
    assert.equal(addToPhysmap(hypervisor, mapper.slot, abi.XENMAPSPACE_gmfn, 3, HOLE), -abi.EINVAL);
    machine.check();
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
  });
});

describe("unmap_and_replace", () => {
  const replace = (
    machine: GrantMachine,
    mapper: Parameters<GrantMachine["unmap"]>[0],
    handle: number,
    gfn: number,
    device = 0,
  ): number => machine.unmapAll(mapper, [{ handle, host: gfn * 4096, device }], abi.GNTTABOP_unmap_and_replace)[0]!;

  it("with new_addr 0 it is an unmapping", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    assert.equal(replace(machine, mapper, handle, HOLE), GNTST_okay);
    assert.equal(machine.load(mapper, HOLE * 4096), -1);
  });

  it("with any other new_addr: general_error, after the handle was checked, and the mapping stays", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    for (const address of [1, 0x1000, 2 ** 32]) {
      assert.equal(replace(machine, mapper, handle, HOLE, address), GNTST_general_error);
      assert.equal(replace(machine, mapper, 77, HOLE, address), GNTST_bad_handle);
    }
    assert.equal(machine.use(granter, 8), "rw");
  });

  it("takes dev_bus_addr as 0: a device half stays", () => {
    const { machine, granter } = pair();
    const { dom0 } = machine;
    machine.grant(granter, 8, 0, 1);
    const { handle } = machine.map(dom0, granter, { flags: HOST | DEVICE, deviceAddress: 0x9000 });
    assert.equal(replace(machine, dom0, handle, HOLE), GNTST_okay);
    assert.equal(machine.use(granter, 8), "rw");
    assert.deepEqual(machine.unmapAll(dom0, [{ handle, device: 0x9000 }]), [GNTST_okay]);
  });
});
