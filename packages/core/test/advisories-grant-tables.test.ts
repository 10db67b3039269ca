/**
 * Published advisories about grant tables and copies, as tests; see docs/advisories.md. Those about mappings stand in
 * another file.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { createCpu, hypercall } from "../src/hypercall.ts";
import type { Hypervisor } from "../src/hypervisor.ts";
import { interleave, otherThread, watchAtomics } from "./advisories-kit.ts";
import {
  copies,
  copy,
  encodeCopies,
  fill,
  flagsOf,
  grant,
  granted,
  grantOp,
  mapEntry,
  OPERATIONS,
  PAGE,
  pair,
  REF,
  structure,
  UNTOUCHED,
  unmapEntry,
} from "./grant-op-kit.ts";
import type { Copy } from "./grant-op-kit.ts";
import { peek, peekWord, poke, pokeWords } from "./machine.ts";
import type { Guest, Machine } from "./machine.ts";

const { GTF_permit_access, GTF_reading } = abi;
const NUMBER = abi.__HYPERVISOR_grant_table_op;
const STRUCT_BYTES = 48;

const swap = (machine: Machine, guest: Guest, a: number, b: number): number => {
  const { gnttab_swap_grant_ref: layout } = abi;
  const bytes = structure(layout.sizeBytes, [layout.ref_a, a], [layout.ref_b, b]);
  const { result, view } = grantOp(machine, guest, abi.GNTTABOP_swap_grant_ref, bytes);
  assert.equal(result, 0);
  return layout.status.get(view, 0);
};

const addTableFrame = (machine: Machine, guest: Guest, idx: number, gpfn: number): number => {
  const { xen_add_to_physmap: layout } = abi;
  const bytes = structure(
    layout.sizeBytes,
    [layout.domid, abi.DOMID_SELF],
    [layout.space, abi.XENMAPSPACE_grant_table],
    [layout.idx, idx],
    [layout.gpfn, gpfn],
  );
  poke(guest, OPERATIONS, bytes);
  return machine.call(guest, abi.__HYPERVISOR_memory_op, abi.XENMEM_add_to_physmap, OPERATIONS);
};

describe("grant tables", () => {
  it("G01: references to swap are compared with the table before they are indices (XSA-18)", () => {
    const { machine, granter } = pair();
    const before = machine.hypervisor.grants.pin.slice();
    for (const bad of [512, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
      for (const [a, b] of [
        [0, bad],
        [bad, 0],
        [bad, bad],
      ] as const) {
        assert.equal(swap(machine, granter, a, b), abi.GNTST_bad_gntref);
      }
    }
    assert.deepEqual(machine.hypervisor.grants.pin, before);
    assert.equal(swap(machine, granter, 0, 511), abi.GNTST_okay);
  });

  it("G02: every operation works or is refused before a table was ever set up (XSA-134)", () => {
    for (let command = 0; command <= abi.GNTTABOP_unmap_notify + 1; command += 1) {
      for (const fillByte of [0, 1, 0x7f, 0xff]) {
        const { machine, caller } = pair();
        poke(caller, OPERATIONS, new Uint8Array(STRUCT_BYTES).fill(fillByte));
        const result = machine.call(caller, NUMBER, command, OPERATIONS, 1);
        assert.ok(Number.isInteger(result) && result <= 0 && result > -120, `command ${command}: ${result}`);
      }
    }
  });

  it("G03: a batch comes to its end, whatever its length and whichever element fails first (XSA-24)", () => {
    for (const count of [0, 1, 127, 128, 129, 169]) {
      const { machine, granter, caller } = granted();
      const list = Array.from({ length: count }, (_, index): Copy => ({
        from: { ref: index === 0 ? 999 : REF, domid: granter.domid },
        to: { gfn: 3 },
      }));
      const expected = list.map((_, index) => (index === 0 ? abi.GNTST_bad_gntref : abi.GNTST_okay));
      assert.deepEqual(copies(machine, caller, list), expected);
    }
  });

  it("G05: copies in opposite directions and references to each other take locks in one order (XSA-73, XSA-74)", () => {
    const { machine, granter, caller } = granted();
    grant(machine, caller, REF, { to: granter.domid, gfn: 4 });
    // The lock table fails at once when a lock is taken out of order.
    for (const [by, from, to] of [
      [caller, granter, caller],
      [granter, caller, granter],
      [machine.guest(), granter, caller],
    ] as const) {
      grant(machine, granter, 20, { to: by.domid, gfn: 5 });
      grant(machine, caller, 20, { to: by.domid, gfn: 5 });
      const ends = [from, to].map(({ domid }) => ({ ref: 20, domid }));
      assert.equal(copy(machine, by, { from: ends[0]!, to: ends[1]!, length: PAGE }), abi.GNTST_okay);
      assert.equal(copy(machine, by, { from: ends[1]!, to: ends[0]!, length: PAGE }), abi.GNTST_okay);
      assert.equal(copy(machine, by, { from: ends[1]!, to: { gfn: 3 } }), abi.GNTST_okay);
      assert.equal(copy(machine, by, { from: { gfn: 3 }, to: ends[1]! }), abi.GNTST_okay);
    }
  });

  it("G06: setup returns frames or all ones, and no byte of what was there before (XSA-101)", () => {
    const { machine, granter } = pair();
    const { gnttab_setup_table: layout } = abi;
    for (let at = 0; at < 4096; at += 1) granter.cpu.memory.scratch.setUint8(at, 0xa5);
    pokeWords(granter, 4 * PAGE, ...Array.from({ length: 5 }, () => 0xa5a5_a5a5));
    const bytes = structure(
      layout.sizeBytes,
      [layout.dom, abi.DOMID_SELF],
      [layout.nr_frames, 4],
      [layout.frame_list, 4 * PAGE],
    );
    assert.equal(grantOp(machine, granter, abi.GNTTABOP_setup_table, bytes).result, 0);
    for (const index of [0, 1, 2, 3]) assert.equal(peekWord(granter, 4 * PAGE + index * 4), -1);
    assert.equal(peekWord(granter, 4 * PAGE + 16) >>> 0, 0xa5a5_a5a5);
    const { grants, frames } = machine.hypervisor;
    for (const ref of [0, 600, 1200, 2047]) {
      assert.equal(flagsOf(machine, granter, ref), 0, "a new frame of a table is zero");
      assert.notEqual(frames.owner[Math.floor(grants.entryAddress(granter.slot, ref) / PAGE)], 0);
    }
  });

  it("G15: a domain that is no domain is an error, in every operation that names one (XSA-232)", () => {
    const { machine, caller } = pair();
    const bad = [abi.DOMID_IO, abi.DOMID_XEN, abi.DOMID_COW, abi.DOMID_INVALID, abi.DOMID_IDLE, 77, 0x8000, 0xffff];
    for (const domid of bad) {
      assert.equal(copy(machine, caller, { from: { ref: 0, domid }, to: { gfn: 3 } }), abi.GNTST_bad_domain);
      for (const [command, layout] of [
        [abi.GNTTABOP_setup_table, abi.gnttab_setup_table],
        [abi.GNTTABOP_query_size, abi.gnttab_query_size],
        [abi.GNTTABOP_get_status_frames, abi.gnttab_get_status_frames],
      ] as const) {
        const { view } = grantOp(machine, caller, command, structure(layout.sizeBytes, [layout.dom, domid]));
        assert.equal(layout.status.get(view, 0), abi.GNTST_bad_domain);
      }
      poke(caller, OPERATIONS, structure(8, [abi.gnttab_get_version.dom, domid]));
      assert.equal(machine.call(caller, NUMBER, abi.GNTTABOP_get_version, OPERATIONS, 1), -abi.ESRCH);
    }
    assert.equal(copy(machine, caller, { from: { gfn: 1 }, to: { gfn: 3 } }), abi.GNTST_okay);
  });

  it("G17: a physmap change that fails gives its locks back (XSA-235)", () => {
    const { machine, granter } = pair();
    const { mmu } = machine.parts;
    assert.equal(addTableFrame(machine, granter, 0xffff_ffff, 30), -abi.EINVAL);
    assert.equal(addTableFrame(machine, granter, 4, 30), -abi.EINVAL);
    assert.equal(addTableFrame(machine, granter, 0, 0xffff_ffff), -abi.EINVAL);
    assert.equal(addTableFrame(machine, granter, 0, 30), 0);
    for (const nth of [1, 2]) {
      mmu.failAt(nth);
      assert.equal(addTableFrame(machine, granter, 0, 31), -abi.ENOMEM);
    }
    assert.equal(addTableFrame(machine, granter, 0, 31), 0);
    assert.equal(addTableFrame(machine, granter, 0, 30), 0);
  });

  it("G20: version 2 is refused at the door (XSA-268)", () => {
    const { machine, granter } = pair();
    pokeWords(granter, OPERATIONS, 2);
    assert.equal(machine.call(granter, NUMBER, abi.GNTTABOP_set_version, OPERATIONS, 1), -abi.ENOSYS);
    for (const index of [0, 1, 8]) {
      const status = (abi.XENMAPIDX_grant_table_status | index) >>> 0;
      assert.equal(addTableFrame(machine, granter, status, 30), -abi.EINVAL);
    }
    assert.equal(addTableFrame(machine, granter, 0, 30), 0);
  });
});

describe("grant copies", () => {
  it("G14: an entry that is mapped stays in use when a copy of it ends (XSA-230)", () => {
    const { machine, granter, caller, remote } = granted();
    const handle = mapEntry(machine, caller, {
      granter,
      ref: REF,
      gfn: 20,
      flags: abi.GNTMAP_host_map | abi.GNTMAP_readonly,
    });
    const inUse = GTF_permit_access | GTF_reading;
    assert.equal(copy(machine, caller, { from: remote(), to: { gfn: 3 } }), abi.GNTST_okay);
    assert.equal(flagsOf(machine, granter, REF), inUse);
    assert.equal(copy(machine, caller, { from: { gfn: 3 }, to: remote() }), abi.GNTST_okay);
    assert.equal(flagsOf(machine, granter, REF), inUse);
    assert.equal(copy(machine, caller, { from: { gfn: 3 }, to: remote(4000), length: 200 }), abi.GNTST_bad_copy_arg);
    assert.equal(flagsOf(machine, granter, REF), inUse);
    unmapEntry(machine, caller, handle, 20);
    assert.equal(flagsOf(machine, granter, REF), GTF_permit_access);
  });

  it("G24: a granter that changes its entry at every step delays a copy by five tries at most (XSA-295)", () => {
    const { machine, granter, caller, remote } = granted();
    const { grants, directMap } = machine.hypervisor;
    const address = grants.entryAddress(granter.slot, REF);
    poke(caller, OPERATIONS, encodeCopies([{ from: remote(), to: { gfn: 3 } }]));
    let steps = 0;
    const run = (): number => hypercall(caller.cpu, NUMBER, abi.GNTTABOP_copy, OPERATIONS, 1, 0, 0);
    watchAtomics(
      () => assert.equal(run(), 0),
      () => {
        steps += 1;
        directMap.storeU32(address, (directMap.loadU32(address) ^ abi.GTF_PWT) >>> 0);
      },
    );
    assert.ok(steps < 100, `${steps} atomic operations`);
    assert.equal(caller.cpu.memory.readU16(OPERATIONS + 20), abi.GNTST_general_error & 0xffff);
    machine.check();
    assert.equal(copy(machine, caller, { from: remote(), to: { gfn: 3 } }), abi.GNTST_okay);
  });

  it("G26: every element of a batch gets one status, and is made once (XSA-318)", () => {
    const { machine, granter, caller } = granted();
    poke(caller, PAGE, new Uint8Array(PAGE));
    const list = Array.from({ length: 300 }, (_, index): Copy => ({
      from: { ref: index % 7 === 0 ? 9999 : REF, domid: granter.domid },
      to: { gfn: 1, offset: index },
      length: 1,
    }));
    const statuses = copies(machine, caller, list);
    assert.ok(!statuses.includes(UNTOUCHED));
    for (const [index, status] of statuses.entries()) {
      assert.equal(status, index % 7 === 0 ? abi.GNTST_bad_gntref : abi.GNTST_okay);
    }
  });

  it("G35: while an entry is pinned, a copy uses what it was pinned with, wherever the granter changes it (XSA-500)", () => {
    const machineOf = () => {
      const world = granted();
      const { machine, granter, caller, remote } = world;
      fill(granter, 4 * PAGE, 77);
      mapEntry(machine, caller, { granter, ref: REF, gfn: 20, flags: abi.GNTMAP_host_map | abi.GNTMAP_readonly });
      poke(caller, OPERATIONS, encodeCopies([{ from: remote(), to: { gfn: 3 }, length: PAGE }]));
      return world;
    };
    interleave(() => {
      const world = machineOf();
      const { machine, granter, caller, theirs } = world;
      const { hypervisor } = machine;
      return {
        hypervisor,
        victim: () => assert.equal(hypercall(caller.cpu, NUMBER, abi.GNTTABOP_copy, OPERATIONS, 1, 0, 0), 0),
        adversary: () => {
          const flags = GTF_permit_access | GTF_reading | abi.GTF_sub_page;
          grant(machine, granter, REF, { to: 0, gfn: 4, flags });
        },
        verify: () => {
          assert.equal(caller.cpu.memory.readU16(OPERATIONS + 20), 0);
          assert.deepEqual(peek(caller, 3 * PAGE, PAGE), theirs);
        },
        isLockFree: true,
      };
    });
  });

  it("G18: pages that others take away meanwhile are copied while they are there, or not at all (XSA-236)", () => {
    interleave(() => {
      const { machine, granter, caller, remote } = granted();
      const { hypervisor } = machine;
      poke(caller, OPERATIONS, encodeCopies([{ from: remote(), to: { gfn: 3 }, length: PAGE }]));
      const theirs: Hypervisor = otherThread(machine.parts);
      const granterCpu = createCpu(theirs, granter.slot, 0);
      return {
        hypervisor,
        victim: () => assert.equal(hypercall(caller.cpu, NUMBER, abi.GNTTABOP_copy, OPERATIONS, 1, 0, 0), 0),
        adversary: () => {
          const { xen_memory_reservation: layout } = abi;
          const bytes = structure(
            layout.sizeBytes,
            [layout.nr_extents, 1],
            [layout.domid, abi.DOMID_SELF],
            [layout.extent_start, 4 * PAGE],
          );
          assert.equal(granterCpu.memory.writeU32(4 * PAGE, 2), true);
          assert.equal(granterCpu.memory.copyToGuest(5 * PAGE, bytes), 0);
          assert.equal(
            hypercall(granterCpu, abi.__HYPERVISOR_memory_op, abi.XENMEM_decrease_reservation, 5 * PAGE, 0, 0, 0),
            1,
          );
        },
        verify: () => {
          const status = caller.cpu.memory.readU16(OPERATIONS + 20);
          assert.ok(status === 0 || status === (abi.GNTST_bad_page & 0xffff), `status ${status}`);
          assert.equal(flagsOf(machine, granter, REF), GTF_permit_access);
        },
      };
    });
  });
});

describe("pages that change hands", () => {
  it("G23: a page that somebody else maps, or copies from, is not exchanged away (XSA-214, XSA-217)", () => {
    const { machine, granter, caller, theirs } = granted();
    const { xen_memory_exchange: layout } = abi;
    const exchange = (): number => {
      const bytes = new Uint8Array(layout.sizeBytes);
      const view = new DataView(bytes.buffer);
      for (const [part, list] of [
        [layout.in, 4 * PAGE],
        [layout.out, 4 * PAGE + 8],
      ] as const) {
        part.extent_start.set(view, 0, list);
        part.nr_extents.set(view, 0, 1);
        part.domid.set(view, 0, abi.DOMID_SELF);
      }
      pokeWords(granter, 4 * PAGE, 2, 0, 2);
      poke(granter, OPERATIONS, bytes);
      return machine.call(granter, abi.__HYPERVISOR_memory_op, abi.XENMEM_exchange, OPERATIONS);
    };
    const handle = mapEntry(machine, caller, { granter, ref: REF, gfn: 20, flags: abi.GNTMAP_host_map });
    assert.notEqual(exchange(), 0);
    assert.deepEqual(peek(caller, 20 * PAGE, PAGE), theirs);
    unmapEntry(machine, caller, handle, 20);
    assert.equal(exchange(), 0);
    assert.deepEqual(peek(granter, 2 * PAGE, PAGE), new Uint8Array(PAGE));
  });
});
