import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { populateRun } from "../src/memory-populate.ts";
import { GrantMachine, HOST, pair, READ_ONLY, RO } from "./grant-kit.ts";
import { poke } from "./machine.ts";

const { GNTST_okay, GNTST_general_error, GNTST_bad_domain, GNTST_bad_gntref } = abi;

describe("map_grant_ref, lists", () => {
  it("D3: entries are done in order, each has its status, and later ones run whatever became of earlier ones", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    machine.grant(granter, 9, mapper, 2);
    const list = machine.mapAll(mapper, granter, [
      { ref: 8, gfn: 64 },
      { ref: 600, gfn: 65 },
      { ref: 9, gfn: 66 },
      { ref: 8, gfn: 67, flags: READ_ONLY },
      { ref: 8, gfn: 68, dom: 0x55 },
      { ref: 8, gfn: 69, flags: HOST | READ_ONLY },
      { ref: 8, gfn: 2000 },
      { ref: 9, gfn: 70 },
    ]);
    const expected = [
      GNTST_okay,
      GNTST_bad_gntref,
      GNTST_okay,
      GNTST_bad_gntref,
      GNTST_bad_domain,
      GNTST_okay,
      GNTST_general_error,
      GNTST_okay,
    ];
    assert.deepEqual(
      list.map(({ status }) => status),
      expected,
    );
    assert.equal(list[0]!.result, 0);
  });

  it("neighbours become one change of the page table", () => {
    const { machine, granter, mapper } = pair();
    for (let index = 0; index < 7; index += 1) machine.grant(granter, 8 + index, mapper, index);
    const before = machine.parts.mmu.calls.length;
    const list = machine.mapAll(
      mapper,
      granter,
      Array.from({ length: 7 }, (_, index) => ({ ref: 8 + index, gfn: 80 + index })),
    );
    assert.ok(list.every(({ status }) => status === GNTST_okay));
    assert.deepEqual(machine.parts.mmu.calls.slice(before), [{ kind: "map", first: 80, count: 7 }]);
    const unmapped = machine.unmapAll(
      mapper,
      list.map(({ handle }, index) => ({ handle, host: (80 + index) * 4096 })),
    );
    assert.ok(unmapped.every((status) => status === GNTST_okay));
    assert.deepEqual(machine.parts.mmu.calls.slice(before + 1), [{ kind: "unmap", first: 80, count: 7 }]);
  });

  it("D4: a mapping whose handle cannot be written back is undone, and so are those after it; the call fails", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, RO);
    machine.grant(granter, 9, mapper, 2);
    const memory = mapper.cpu.memory;
    const copyToGuest = memory.copyToGuest.bind(memory);
    const bytes = new Uint8Array(32 * 3);
    const view = new DataView(bytes.buffer);
    for (let index = 0; index < 3; index += 1) {
      abi.gnttab_map_grant_ref.host_addr.set(view, index * 32, (90 + index) * 4096);
      abi.gnttab_map_grant_ref.flags.set(view, index * 32, HOST);
      abi.gnttab_map_grant_ref.ref.set(view, index * 32, 9);
      abi.gnttab_map_grant_ref.dom.set(view, index * 32, granter.domid);
    }
    // The third entry lies in a page that the guest may not write any more when the result comes.
    poke(mapper, 0x7000 - 64, bytes);
    memory.copyToGuest = (address, source) =>
      address + source.length > 0x7000 ? -abi.EFAULT : copyToGuest(address, source);
    assert.equal(machine.op(mapper, abi.GNTTABOP_map_grant_ref, 0x7000 - 64, 3), -abi.EFAULT);
    assert.equal(machine.frameAt(mapper, 90), machine.frame(granter, 2));
    assert.equal(machine.frameAt(mapper, 91), machine.frame(granter, 2));
    assert.equal(machine.frameAt(mapper, 92), -1);
    assert.equal(machine.refs(machine.frame(granter, 2)), 3);
  });

  it("D4: a list that is readable in part is done up to there; the call fails", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const bytes = new Uint8Array(64);
    const view = new DataView(bytes.buffer);
    for (const at of [0, 32]) {
      abi.gnttab_map_grant_ref.host_addr.set(view, at, (90 + at) * 4096);
      abi.gnttab_map_grant_ref.flags.set(view, at, HOST);
      abi.gnttab_map_grant_ref.ref.set(view, at, 8);
      abi.gnttab_map_grant_ref.dom.set(view, at, granter.domid);
    }
    poke(mapper, 0x8000 - 64, bytes);
    assert.equal(machine.op(mapper, abi.GNTTABOP_map_grant_ref, 0x8000 - 64, 3), -abi.EFAULT);
    assert.equal(machine.frameAt(mapper, 90), machine.frame(granter, 1));
    assert.equal(machine.frameAt(mapper, 122), machine.frame(granter, 1));
  });

  it("a run over own RAM unhooks all of it", () => {
    const { machine, granter, mapper } = pair();
    for (let index = 0; index < 3; index += 1) machine.grant(granter, 8 + index, mapper, index);
    const list = machine.mapAll(
      mapper,
      granter,
      [0, 1, 2].map((index) => ({ ref: 8 + index, gfn: 3 + index })),
    );
    assert.ok(list.every(({ status }) => status === GNTST_okay));
    assert.equal(machine.hypervisor.domains.totPages[mapper.slot], 8);
  });

  it("512 entries in one call", () => {
    const machine = new GrantMachine({ framesPerBank: 1024, machineFrames: 2000 });
    const granter = machine.guest();
    const mapper = machine.guest();
    const { hypervisor } = machine;
    for (const { slot } of [granter, mapper]) {
      hypervisor.domains.maxPages[slot] = 900;
      populateRun(hypervisor, slot, 8, slot === granter.slot ? 500 : 8, { count: 0, blockedGfn: -1, error: 0 });
    }
    for (let index = 0; index < 504; index += 1) machine.grant(granter, 8 + index, mapper, index);
    const wishes = Array.from({ length: 504 }, (_, index) => ({ ref: 8 + index, gfn: 200 + index }));
    const list = machine.mapAll(mapper, granter, wishes, 0x8000);
    assert.ok(list.every(({ status }) => status === GNTST_okay));
    assert.equal(new Set(list.map(({ handle }) => handle)).size, 504);
  });
});
