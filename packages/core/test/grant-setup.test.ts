import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { createDomain } from "../src/domain-create.ts";
import { setTarget } from "../src/domain-ops.ts";
import { addToPhysmap } from "../src/memory-physmap.ts";
import { flagsOf, grant, grantOp, mapEntry, OPERATIONS, PAGE, pair, structure, unmapEntry } from "./grant-op-kit.ts";
import { Machine, peekWord, poke, pokeWords } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { DOMID_SELF, EFAULT, EINVAL, ENOSYS } = abi;
/** Where lists of frames stand. */
const LIST = 4 * PAGE;

const call = (machine: Machine, guest: Guest, command: number, array = OPERATIONS, count = 1): number =>
  machine.call(guest, abi.__HYPERVISOR_grant_table_op, command, array, count);

const setUp = (machine: Machine, guest: Guest, frames: number, about: { dom?: number; list?: number } = {}): number => {
  const { gnttab_setup_table: layout } = abi;
  const bytes = structure(
    layout.sizeBytes,
    [layout.dom, about.dom ?? DOMID_SELF],
    [layout.nr_frames, frames],
    [layout.frame_list, about.list ?? LIST],
  );
  const { result, view } = grantOp(machine, guest, abi.GNTTABOP_setup_table, bytes);
  assert.equal(result, 0);
  return layout.status.get(view, 0);
};

/** Status, frames and most frames of the table of `dom`. */
const query = (machine: Machine, guest: Guest, dom: number = DOMID_SELF): number[] => {
  const { gnttab_query_size: layout } = abi;
  const { result, view } = grantOp(
    machine,
    guest,
    abi.GNTTABOP_query_size,
    structure(layout.sizeBytes, [layout.dom, dom]),
  );
  assert.equal(result, 0);
  return [layout.status.get(view, 0), layout.nr_frames.get(view, 0), layout.max_nr_frames.get(view, 0)];
};

const swap = (machine: Machine, guest: Guest, a: number, b: number): number => {
  const { gnttab_swap_grant_ref: layout } = abi;
  const bytes = structure(layout.sizeBytes, [layout.ref_a, a], [layout.ref_b, b]);
  const { result, view } = grantOp(machine, guest, abi.GNTTABOP_swap_grant_ref, bytes);
  assert.equal(result, 0);
  return layout.status.get(view, 0);
};

/** A device model of the granter, and a stranger. */
const cast = () => {
  const { machine, granter } = pair();
  const [model, stranger] = [machine.guest(), machine.guest()];
  assert.equal(setTarget(machine.hypervisor, model.slot, granter.slot), 0);
  return { machine, granter, model, stranger };
};

describe("grant_table_op", () => {
  it("D1: more than 2^31 - 1 entries, then reserved bits of the command, then an array beyond the address space", () => {
    const { machine, caller } = pair();
    for (const count of [0x8000_0000, 0xffff_ffff]) {
      for (const command of [abi.GNTTABOP_copy, 99, 0x1000]) {
        assert.equal(call(machine, caller, command, OPERATIONS, count), -EINVAL);
      }
    }
    for (const command of [0x1000, 0x1000 | abi.GNTTABOP_copy, 0x1fff, 0x8000_0005, 0xffff_ffff]) {
      assert.equal(call(machine, caller, command), -EINVAL);
    }
    const end = machine.hypervisor.p2m.gfnCount * PAGE;
    for (const [array, count] of [
      [OPERATIONS, 0x7fff_ffff],
      [end - 23, 1],
      [end, 1],
      [0xffff_ffff, 1],
      [0xffff_ffe8, 1],
    ] as const) {
      assert.equal(call(machine, caller, abi.GNTTABOP_copy, array, count), -EFAULT);
    }
    assert.equal(call(machine, caller, abi.GNTTABOP_copy, end, 0), 0);
    assert.equal(call(machine, caller, abi.GNTTABOP_copy, OPERATIONS, 1), 0);
  });

  it("D2: an unknown command, dump_table and cache_flush do not exist", () => {
    const { machine, caller } = pair();
    for (const command of [abi.GNTTABOP_dump_table, abi.GNTTABOP_cache_flush, 17, 18, 99, 0xfff]) {
      assert.equal(call(machine, caller, command), -ENOSYS);
    }
    assert.equal(call(machine, caller, abi.GNTTABOP_copy, OPERATIONS, 0), 0);
  });

  it("D3: what fails in entries is their status, and the call succeeds", () => {
    const { machine, caller } = pair();
    const { gnttab_swap_grant_ref: layout } = abi;
    const bytes = new Uint8Array([
      ...structure(layout.sizeBytes, [layout.ref_a, 512], [layout.status, 77]),
      ...structure(layout.sizeBytes, [layout.ref_b, 9], [layout.status, 77]),
    ]);
    const { result, view } = grantOp(machine, caller, abi.GNTTABOP_swap_grant_ref, bytes, 2);
    assert.equal(result, 0);
    assert.deepEqual([layout.status.get(view, 0), layout.status.get(view, 12)], [abi.GNTST_bad_gntref, abi.GNTST_okay]);
  });

  it("D5: setup_table, query_size and get_status_frames take one structure, the version's calls whatever is said", () => {
    const { machine, caller } = pair();
    for (const command of [abi.GNTTABOP_setup_table, abi.GNTTABOP_query_size, abi.GNTTABOP_get_status_frames]) {
      for (const count of [0, 2, 0x7fff_ffff]) assert.equal(call(machine, caller, command, OPERATIONS, count), -EINVAL);
      assert.equal(call(machine, caller, command, 20 * PAGE), -EFAULT);
      poke(caller, OPERATIONS, new Uint8Array(16));
      pokeWords(caller, OPERATIONS, DOMID_SELF);
      assert.equal(call(machine, caller, command), 0);
    }
    for (const count of [0, 1, 7]) {
      pokeWords(caller, OPERATIONS, 1);
      assert.equal(call(machine, caller, abi.GNTTABOP_set_version, OPERATIONS, count), 0);
      pokeWords(caller, OPERATIONS, DOMID_SELF);
      assert.equal(call(machine, caller, abi.GNTTABOP_get_version, OPERATIONS, count), 0);
    }
  });

  it("D7: a domain that is not there comes before one that is not the caller's, and this before its table", () => {
    const { machine, granter, stranger } = cast();
    assert.equal(setUp(machine, stranger, 0xffff_ffff, { dom: 77 }), abi.GNTST_bad_domain);
    assert.equal(setUp(machine, stranger, 0xffff_ffff, { dom: granter.domid }), abi.GNTST_permission_denied);
    assert.equal(setUp(machine, granter, 0xffff_ffff), abi.GNTST_general_error);
  });
});

describe("the creation of grant tables", () => {
  it("gives a domain one frame, and the limits that it was created with", () => {
    const machine = new Machine();
    assert.deepEqual(query(machine, machine.guest()), [0, 1, 4]);
    const guest = machine.guest({ grantFramesMax: 2, maptrackFramesMax: 0 });
    assert.deepEqual(query(machine, guest), [0, 1, 2]);
    assert.equal(machine.hypervisor.maptrack.frameMax[guest.slot], 0);
    assert.deepEqual(query(machine, machine.dom0), [0, 1, 4]);
  });

  it("refuses a table of no frames, and limits above what there is", () => {
    const machine = new Machine();
    for (const grantFramesMax of [0, -1, 5, 1.5, Number.NaN]) {
      assert.equal(createDomain(machine.hypervisor, { vcpus: 1, grantFramesMax }), -EINVAL);
    }
    for (const maptrackFramesMax of [-1, 5, 0.5]) {
      assert.equal(createDomain(machine.hypervisor, { vcpus: 1, maptrackFramesMax }), -EINVAL);
    }
    machine.check();
  });

  it("gives everything back when there is no frame for the table", () => {
    const machine = new Machine({ machineFrames: 12 });
    assert.equal(createDomain(machine.hypervisor, { vcpus: 1 }), -abi.ENOMEM);
    machine.check();
  });
});

describe("GNTTABOP_setup_table", () => {
  it("grows the table, never shrinks it, and says where its frames stand: nowhere yet", () => {
    const { machine, granter } = pair();
    pokeWords(granter, LIST, 1, 2, 3, 4);
    assert.equal(setUp(machine, granter, 3), abi.GNTST_okay);
    assert.deepEqual(
      [0, 4, 8, 12].map((at) => peekWord(granter, LIST + at)),
      [-1, -1, -1, 4],
    );
    assert.deepEqual(query(machine, granter), [0, 3, 4]);
    assert.equal(setUp(machine, granter, 0), abi.GNTST_okay);
    assert.equal(setUp(machine, granter, 1), abi.GNTST_okay);
    assert.deepEqual(query(machine, granter), [0, 3, 4]);
    assert.equal(addToPhysmap(machine.hypervisor, granter.slot, abi.XENMAPSPACE_grant_table, 1, 30), 0);
    assert.equal(setUp(machine, granter, 2), abi.GNTST_okay);
    assert.deepEqual(
      [0, 4].map((at) => peekWord(granter, LIST + at)),
      [-1, 30],
    );
  });

  it("refuses more frames than there may be with general_error, and also when there is no memory", () => {
    const { machine, granter } = pair();
    for (const frames of [5, 0x7fff_ffff, 0xffff_ffff])
      assert.equal(setUp(machine, granter, frames), abi.GNTST_general_error);
    assert.deepEqual(query(machine, granter), [0, 1, 4]);
    const poor = new Machine({ machineFrames: 22 });
    const guest = poor.guest();
    assert.equal(setUp(poor, guest, 4), abi.GNTST_general_error);
  });

  it("answers bad_virt_addr when the list cannot be written", () => {
    const { machine, granter } = pair();
    for (const list of [20 * PAGE, 8 * PAGE - 4, 0xffff_ffff]) {
      assert.equal(setUp(machine, granter, 2, { list }), abi.GNTST_bad_virt_addr);
    }
    assert.equal(setUp(machine, granter, 0, { list: 20 * PAGE }), abi.GNTST_okay);
    assert.equal(setUp(machine, granter, 2, { list: 8 * PAGE - 8 }), abi.GNTST_okay);
  });

  it("is for the domain itself, its device model and the control domain", () => {
    const { machine, granter, model, stranger } = cast();
    const dom = granter.domid;
    assert.equal(setUp(machine, stranger, 1, { dom }), abi.GNTST_permission_denied);
    assert.equal(query(machine, stranger, dom)[0], abi.GNTST_permission_denied);
    assert.equal(query(machine, stranger, 77)[0], abi.GNTST_bad_domain);
    for (const caller of [granter, model, machine.dom0]) {
      assert.equal(setUp(machine, caller, 1, { dom }), abi.GNTST_okay);
      assert.equal(query(machine, caller, dom)[0], abi.GNTST_okay);
    }
    assert.equal(setUp(machine, granter, 1, { dom: model.domid }), abi.GNTST_permission_denied);
  });
});

describe("the version of a grant table", () => {
  it("is 1: setting it clears nothing, 2 is refused, others do not exist, and what it is is written back", () => {
    const { machine, granter } = pair();
    grant(machine, granter, 9, { to: 5, gfn: 3 });
    for (const [wanted, result] of [
      [1, 0],
      [2, -ENOSYS],
      [0, -EINVAL],
      [3, -EINVAL],
      [0xffff_ffff, -EINVAL],
    ] as const) {
      pokeWords(granter, OPERATIONS, wanted);
      assert.equal(call(machine, granter, abi.GNTTABOP_set_version), result);
      assert.equal(peekWord(granter, OPERATIONS), 1);
    }
    assert.equal(flagsOf(machine, granter, 9), abi.GTF_permit_access);
    assert.equal(call(machine, granter, abi.GNTTABOP_set_version, 20 * PAGE), -EFAULT);
  });

  it("is told to those who may ask: -ESRCH for no domain, -EPERM for another's", () => {
    const { machine, granter, model, stranger } = cast();
    const ask = (caller: Guest, dom: number): number => {
      pokeWords(caller, OPERATIONS, dom, 99);
      return call(machine, caller, abi.GNTTABOP_get_version);
    };
    assert.equal(ask(stranger, 77), -abi.ESRCH);
    assert.equal(ask(stranger, granter.domid), -abi.EPERM);
    for (const caller of [granter, model, machine.dom0]) {
      assert.equal(ask(caller, granter.domid), 0);
      assert.equal(peekWord(caller, OPERATIONS + 4), 1);
    }
    assert.equal(ask(granter, DOMID_SELF), 0);
  });

  it("has no status frames: any number of them but 0 is general_error", () => {
    const { machine, granter, stranger } = cast();
    const { gnttab_get_status_frames: layout } = abi;
    const ask = (caller: Guest, dom: number, frames: number): number => {
      const bytes = structure(
        layout.sizeBytes,
        [layout.dom, dom],
        [layout.nr_frames, frames],
        [layout.frame_list, LIST],
      );
      const { result, view } = grantOp(machine, caller, abi.GNTTABOP_get_status_frames, bytes);
      assert.equal(result, 0);
      return layout.status.get(view, 0);
    };
    assert.equal(ask(granter, DOMID_SELF, 0), abi.GNTST_okay);
    for (const frames of [1, 8, 0x8000_0000]) assert.equal(ask(granter, DOMID_SELF, frames), abi.GNTST_general_error);
    assert.equal(ask(stranger, granter.domid, 0), abi.GNTST_permission_denied);
    assert.equal(ask(stranger, 77, 0), abi.GNTST_bad_domain);
  });
});

describe("GNTTABOP_swap_grant_ref", () => {
  it("exchanges two whole entries that nobody uses", () => {
    const { machine, granter } = pair();
    const { grants, directMap } = machine.hypervisor;
    grant(machine, granter, 9, { to: 5, gfn: 3 });
    grant(machine, granter, 511, { to: 6, gfn: 4, flags: abi.GTF_permit_access | abi.GTF_readonly });
    const words = (ref: number): number[] =>
      [0, 4].map((at) => directMap.loadU32(grants.entryAddress(granter.slot, ref) + at));
    const [first, second] = [words(9), words(511)];
    assert.equal(swap(machine, granter, 9, 511), abi.GNTST_okay);
    assert.deepEqual([words(9), words(511)], [second, first]);
    assert.equal(swap(machine, granter, 9, 9), abi.GNTST_okay);
    assert.deepEqual(words(9), second);
  });

  it("answers eagain while one of them is in use", () => {
    const { machine, granter, caller } = pair();
    grant(machine, granter, 9, { to: caller.domid, gfn: 3 });
    const handle = mapEntry(machine, caller, { granter, ref: 9, gfn: 20, flags: abi.GNTMAP_host_map });
    assert.equal(swap(machine, granter, 9, 10), abi.GNTST_eagain);
    assert.equal(swap(machine, granter, 10, 9), abi.GNTST_eagain);
    assert.equal(swap(machine, granter, 9, 9), abi.GNTST_okay);
    unmapEntry(machine, caller, handle, 20);
    assert.equal(swap(machine, granter, 9, 10), abi.GNTST_okay);
    assert.equal(flagsOf(machine, granter, 10), abi.GTF_permit_access);
  });

  it("ends with -EFAULT where an entry cannot be read", () => {
    const { machine, granter } = pair();
    assert.equal(call(machine, granter, abi.GNTTABOP_swap_grant_ref, 8 * PAGE - 12, 2), -EFAULT);
    assert.equal(call(machine, granter, abi.GNTTABOP_swap_grant_ref, 8 * PAGE - 12, 1), 0);
  });
});

describe("GNTTABOP_transfer", () => {
  it("is not offered, for the whole call, and no page changes hands", () => {
    const { machine, granter, caller } = pair();
    const { gnttab_transfer: layout } = abi;
    const bytes = structure(layout.sizeBytes, [layout.mfn, 3], [layout.domid, caller.domid]);
    const owned = machine.hypervisor.domains.totPages[granter.slot];
    assert.equal(grantOp(machine, granter, abi.GNTTABOP_transfer, bytes).result, -abi.EOPNOTSUPP);
    assert.equal(machine.hypervisor.domains.totPages[granter.slot], owned);
  });
});
