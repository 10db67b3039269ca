import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { setTarget } from "../src/domain-ops.ts";
import { beginDestroy, continueDestroy, reapDomains } from "../src/domain-reap.ts";
import { freeFrameCount } from "../src/buddy.ts";
import { P2M_FOREIGN, P2M_HOLE, P2M_SPECIAL, p2mType } from "../src/p2m.ts";
import { flagsOf, PAGE, pair, structure } from "./grant-op-kit.ts";
import { peekWord, poke, pokeWords } from "./machine.ts";
import type { Guest, Machine } from "./machine.ts";

const ARGUMENT = 5 * PAGE;
const LIST = 4 * PAGE;
const { EFAULT, EINVAL, EOPNOTSUPP, EPERM, ESRCH } = abi;

const memoryOp = (machine: Machine, guest: Guest, command: number, bytes: Uint8Array): number => {
  poke(guest, ARGUMENT, bytes);
  return machine.call(guest, abi.__HYPERVISOR_memory_op, command, ARGUMENT);
};

const add = (machine: Machine, guest: Guest, idx: number, gpfn: number, domid: number = abi.DOMID_SELF): number => {
  const { xen_add_to_physmap: layout } = abi;
  const bytes = structure(
    layout.sizeBytes,
    [layout.domid, domid],
    [layout.space, abi.XENMAPSPACE_grant_table],
    [layout.idx, idx],
    [layout.gpfn, gpfn],
  );
  return memoryOp(machine, guest, abi.XENMEM_add_to_physmap, bytes);
};

const remove = (machine: Machine, guest: Guest, gpfn: number): number => {
  const { xen_remove_from_physmap: layout } = abi;
  const bytes = structure(layout.sizeBytes, [layout.domid, abi.DOMID_SELF], [layout.gpfn, gpfn]);
  return memoryOp(machine, guest, abi.XENMEM_remove_from_physmap, bytes);
};

const typeAt = (machine: Machine, guest: Guest, gfn: number): number =>
  p2mType(machine.hypervisor.p2m.get(guest.slot, gfn));

describe("add_to_physmap of a grant table's frames", () => {
  it("lets the guest write entries that the hypervisor reads, and see what the hypervisor writes", () => {
    const { machine, granter } = pair();
    assert.equal(add(machine, granter, 0, 30), 0);
    pokeWords(granter, 30 * PAGE + 9 * 8, (5 << 16) | 1, 3);
    assert.equal(flagsOf(machine, granter, 9), abi.GTF_permit_access);
    const { grants, directMap } = machine.hypervisor;
    directMap.orU32(grants.entryAddress(granter.slot, 9), abi.GTF_reading);
    assert.equal(peekWord(granter, 30 * PAGE + 9 * 8) & 0xffff, abi.GTF_permit_access | abi.GTF_reading);
  });

  it("grows the table as far as the frame, and no further than it may", () => {
    const { machine, granter } = pair();
    const { grants } = machine.hypervisor;
    assert.equal(add(machine, granter, 2, 30), 0);
    assert.equal(grants.frameCount[granter.slot], 3);
    for (const index of [4, 5, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff])
      assert.equal(add(machine, granter, index, 31), -EINVAL);
    assert.equal(grants.frameCount[granter.slot], 3);
    assert.equal(add(machine, granter, 3, 31), 0);
    assert.deepEqual(
      [30, 31].map((gfn) => typeAt(machine, granter, gfn)),
      [P2M_SPECIAL, P2M_SPECIAL],
    );
  });

  it("moves a frame that has a gfn, frees the RAM at the new one, and unhooks a special page there", () => {
    const { machine, granter } = pair();
    const { domains } = machine.hypervisor;
    const owned = domains.totPages[granter.slot]!;
    assert.equal(add(machine, granter, 0, 30), 0);
    assert.equal(add(machine, granter, 0, 3), 0);
    assert.equal(domains.totPages[granter.slot], owned - 1);
    assert.equal(typeAt(machine, granter, 30), P2M_HOLE);
    assert.equal(add(machine, granter, 1, 3), 0);
    assert.equal(add(machine, granter, 0, 30), 0);
    assert.equal(add(machine, granter, 0, 30), 0);
    assert.equal(domains.totPages[granter.slot], owned - 1);
    assert.equal(add(machine, granter, 0, 1024), -EINVAL);
  });

  it("is taken back by remove_from_physmap; the frame stays the table's", () => {
    const { machine, granter } = pair();
    assert.equal(add(machine, granter, 0, 30), 0);
    assert.equal(remove(machine, granter, 30), 0);
    assert.equal(remove(machine, granter, 30), -abi.ENOENT);
    assert.equal(add(machine, granter, 0, 31), 0);
  });

  it("is for the domain itself and those with authority over it", () => {
    const { machine, granter, caller } = pair();
    assert.equal(add(machine, caller, 0, 30, granter.domid), -EPERM);
    assert.equal(add(machine, caller, 0, 30, 77), -ESRCH);
    assert.equal(setTarget(machine.hypervisor, caller.slot, granter.slot), 0);
    assert.equal(add(machine, caller, 0, 30, granter.domid), 0);
    assert.equal(typeAt(machine, granter, 30), P2M_SPECIAL);
  });

  it("does not find a table whose domain is dying, and gives every frame back at its end", () => {
    const { machine, granter } = pair();
    const { hypervisor } = machine;
    const free = freeFrameCount(hypervisor);
    const doomed = machine.guest();
    assert.equal(add(machine, doomed, 3, 30), 0);
    assert.equal(beginDestroy(hypervisor, doomed.slot), 0);
    assert.equal(add(machine, machine.dom0, 0, 31, doomed.domid), -ESRCH);
    assert.equal(continueDestroy(hypervisor, doomed.slot), true);
    assert.equal(hypervisor.grants.frameCount[doomed.slot], 0);
    assert.equal(reapDomains(hypervisor), 0);
    assert.equal(freeFrameCount(hypervisor), free);
    machine.check();
    assert.equal(add(machine, granter, 0, 30), 0);
  });
});

interface Wanted {
  readonly domid: number;
  readonly type?: number;
  readonly id?: number;
  readonly frames?: number;
  readonly first?: number;
  readonly pad?: number;
  readonly list?: number;
}

const acquire = (machine: Machine, guest: Guest, wanted: Wanted): number => {
  const { xen_mem_acquire_resource: layout } = abi;
  const bytes = structure(
    layout.sizeBytes,
    [layout.domid, wanted.domid],
    [layout.type, wanted.type ?? abi.XENMEM_resource_grant_table],
    [layout.id, wanted.id ?? abi.XENMEM_resource_grant_table_id_shared],
    [layout.nr_frames, wanted.frames ?? 1],
    [layout.pad, wanted.pad ?? 0],
    [layout.frame, wanted.first ?? 0],
    [layout.frame_list, wanted.list ?? LIST],
  );
  return memoryOp(machine, guest, abi.XENMEM_acquire_resource, bytes);
};

/** A target, its device model, and a stranger. */
const cast = () => {
  const { machine, granter: target, caller: model } = pair();
  const stranger = machine.guest();
  assert.equal(setTarget(machine.hypervisor, model.slot, target.slot), 0);
  return { machine, target, model, stranger };
};

describe("acquire_resource of a grant table", () => {
  it("is for other domains than the caller, its target or any for a privileged one", () => {
    const { machine, target, model, stranger } = cast();
    pokeWords(model, LIST, 40);
    pokeWords(machine.dom0, LIST, 40);
    assert.equal(acquire(machine, target, { domid: target.domid }), -EPERM);
    assert.equal(acquire(machine, target, { domid: abi.DOMID_SELF }), -EPERM);
    assert.equal(acquire(machine, stranger, { domid: target.domid }), -EPERM);
    assert.equal(acquire(machine, model, { domid: stranger.domid }), -EPERM);
    assert.equal(acquire(machine, model, { domid: 77 }), -ESRCH);
    assert.equal(acquire(machine, model, { domid: target.domid }), 0);
    assert.equal(acquire(machine, machine.dom0, { domid: target.domid }), 0);
  });

  it("refuses padding, other resources, other parts and frames beyond the end", () => {
    const { machine, target, model } = cast();
    const { domid } = target;
    pokeWords(model, LIST, 40, 41, 42, 43, 44);
    assert.equal(acquire(machine, model, { domid, pad: 1 }), -EINVAL);
    assert.equal(acquire(machine, model, { domid, type: abi.XENMEM_resource_ioreq_server }), -EOPNOTSUPP);
    assert.equal(acquire(machine, model, { domid, type: 0xffff }), -EOPNOTSUPP);
    assert.equal(acquire(machine, model, { domid, id: 1 }), -EINVAL);
    assert.equal(acquire(machine, model, { domid, frames: 5 }), -EINVAL);
    assert.equal(acquire(machine, model, { domid, first: 4 }), -EINVAL);
    assert.equal(acquire(machine, model, { domid, first: 2 ** 52 }), -EINVAL);
    assert.equal(acquire(machine, model, { domid, frames: 0xffff_ffff }), -EINVAL);
    assert.equal(acquire(machine, model, { domid, list: 20 * PAGE }), -EFAULT);
    assert.equal(acquire(machine, model, { domid, frames: 0 }), 0);
    assert.equal(acquire(machine, model, { domid, frames: 4 }), 0);
  });

  it("tells without a list how many frames there can be", () => {
    const { machine, target, model } = cast();
    const { domid } = target;
    assert.equal(acquire(machine, model, { domid, list: 0, frames: 1 }), -EINVAL);
    assert.equal(acquire(machine, model, { domid, list: 0, frames: 0 }), 0);
    assert.equal(peekWord(model, ARGUMENT + abi.xen_mem_acquire_resource.nr_frames.offset), 4);
    assert.equal(machine.hypervisor.grants.frameCount[target.slot], 1);
  });

  it("lets the caller write entries for its target, until it removes the page; the table grows for it", () => {
    const { machine, target, model } = cast();
    pokeWords(model, LIST, 40, 50);
    assert.equal(acquire(machine, model, { domid: target.domid, frames: 2, first: 1 }), 0);
    assert.equal(machine.hypervisor.grants.frameCount[target.slot], 3);
    pokeWords(model, 50 * PAGE + 8, (3 << 16) | abi.GTF_permit_access, 2);
    assert.equal(flagsOf(machine, target, 1025), abi.GTF_permit_access);
    for (const gfn of [40, 50]) {
      assert.equal(typeAt(machine, model, gfn), P2M_FOREIGN);
      assert.equal(remove(machine, model, gfn), 0);
      assert.equal(typeAt(machine, model, gfn), P2M_HOLE);
    }
  });

  it("hooks all frames or none, at holes only", () => {
    const { machine, target, model } = cast();
    const { domid } = target;
    for (const list of [
      [40, 3],
      [40, 40],
      [40, 1024],
      [40, 0xffff_ffff],
    ]) {
      pokeWords(model, LIST, ...list);
      assert.equal(acquire(machine, model, { domid, frames: 2 }), -EINVAL);
      assert.equal(typeAt(machine, model, 40), P2M_HOLE);
    }
    for (const call of [1, 2]) {
      pokeWords(model, LIST, 40, 50);
      machine.parts.mmu.failAt(call);
      assert.equal(acquire(machine, model, { domid, frames: 2 }), -abi.ENOMEM);
      assert.deepEqual(
        [40, 50].map((gfn) => typeAt(machine, model, gfn)),
        [P2M_HOLE, P2M_HOLE],
      );
    }
    assert.equal(acquire(machine, model, { domid, frames: 2 }), 0);
  });

  for (const first of ["target", "model"] as const) {
    it(`leaves no frame behind when the ${first} dies first`, () => {
      const { machine, target, model } = cast();
      const { hypervisor } = machine;
      pokeWords(model, LIST, 40, 41, 50, 51);
      assert.equal(acquire(machine, model, { domid: target.domid, frames: 4 }), 0);
      const order = first === "target" ? [target, model] : [model, target];
      for (const { slot } of order) {
        assert.equal(beginDestroy(hypervisor, slot), 0);
        assert.equal(continueDestroy(hypervisor, slot), true);
        machine.check();
      }
      assert.equal(reapDomains(hypervisor), 0);
      machine.check();
      for (const { domid } of order) assert.equal(hypervisor.domains.slotOf(domid), -1);
    });
  }
});
