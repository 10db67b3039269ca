import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { assignPages, outstandingClaims, replaceClaim, unassignPages } from "../src/accounting.ts";
import { allocateFrames, freeFrameCount, freeFrames } from "../src/buddy.ts";
import { beginDestroy, continueDestroy, setMaxPages } from "../src/index.ts";
import {
  addGuest,
  createWorld,
  decrease,
  memoryOp,
  ownedPages,
  populate,
  range,
  readArgument,
  reserve,
  settle,
  SYSTEM_PAGES,
  writeArgument,
  writeList,
} from "./memory-fixture.ts";
import type { Extents, Guest, World } from "./memory-fixture.ts";

const claim = (world: World, guest: Guest, pages: number, extents: Extents = {}): number =>
  reserve(world.dom0, abi.XENMEM_claim_pages, [], { list: 0, count: pages, domid: guest.domid, ...extents });

const podTarget = (guest: Guest, command: number, target: { domid: number; pages: number }): number => {
  writeArgument(guest, abi.xen_pod_target.sizeBytes, (view) => {
    abi.xen_pod_target.target_pages.set(view, 0, target.pages);
    abi.xen_pod_target.domid.set(view, 0, target.domid);
  });
  return memoryOp(guest, command);
};

describe("claim_pages", () => {
  it("sets aside what the domain does not own yet, and its allocations use the claim up", () => {
    const world = createWorld();
    const guest = addGuest(world, 100);
    assert.equal(claim(world, guest, SYSTEM_PAGES + 50), 0);
    assert.equal(outstandingClaims(world.hypervisor), 50);
    assert.equal(populate(guest, range(0, 20)), 20);
    assert.equal(outstandingClaims(world.hypervisor), 30);
    assert.equal(decrease(guest, range(0, 20)), 20);
    assert.equal(outstandingClaims(world.hypervisor), 30);
    settle(world);
  });
  it("can be replaced in one step: by more, by less, by what the domain owns already; a refusal leaves the old one", () => {
    const world = createWorld({ machineFrames: 100, framesPerBank: 128, bankCount: 1 });
    const [one, two] = [addGuest(world, 60), addGuest(world, 100)];
    const { hypervisor } = world;
    const free = freeFrameCount(hypervisor);
    const steps = [
      [SYSTEM_PAGES + 10, 0, 10],
      [SYSTEM_PAGES + 30, 0, 30],
      [SYSTEM_PAGES + 20, 0, 20],
      [SYSTEM_PAGES + 61, -abi.EINVAL, 20],
      [-1, -abi.EINVAL, 20],
      [Number.NaN, -abi.EINVAL, 20],
      [SYSTEM_PAGES, 0, 0],
      [SYSTEM_PAGES + 20, 0, 20],
      [0, 0, 0],
      [SYSTEM_PAGES + 20, 0, 20],
    ] as const;
    for (const [pages, result, claimed] of steps) {
      assert.equal(replaceClaim(hypervisor, one.slot, pages), result, `${pages}`);
      assert.equal(outstandingClaims(hypervisor), claimed, `${pages}`);
    }
    const rest = free - 20;
    assert.equal(replaceClaim(hypervisor, two.slot, SYSTEM_PAGES + rest + 1), -abi.ENOMEM);
    assert.equal(replaceClaim(hypervisor, two.slot, SYSTEM_PAGES + rest), 0);
    assert.equal(replaceClaim(hypervisor, one.slot, SYSTEM_PAGES + 21), -abi.ENOMEM);
    assert.equal(outstandingClaims(hypervisor), free);
    beginDestroy(hypervisor, two.slot);
    assert.equal(replaceClaim(hypervisor, two.slot, SYSTEM_PAGES + 1), -abi.EINVAL);
    assert.equal(outstandingClaims(hypervisor), 20);
    settle(world);
  });
  it("keeps others from what is set aside, the hypervisor too", () => {
    const world = createWorld({ machineFrames: 100, framesPerBank: 128, bankCount: 1 });
    const [one, two] = [addGuest(world, 60), addGuest(world, 100)];
    assert.equal(claim(world, one, SYSTEM_PAGES + 60), 0);
    const left = freeFrameCount(world.hypervisor) - 60;
    assert.equal(populate(two, range(0, 70)), left);
    assert.equal(allocateFrames(world.hypervisor, 0), -1);
    assert.equal(populate(one, range(0, 60)), 60);
    settle(world);
  });
  it("is refused in every way that the specification names, and is made otherwise", () => {
    const world = createWorld();
    const guest = addGuest(world, 100);
    assert.equal(claim(world, guest, 20, { list: 4 }), -abi.EINVAL);
    assert.equal(claim(world, guest, 20, { order: 1 }), -abi.EINVAL);
    assert.equal(claim(world, guest, 20, { flags: 1 }), -abi.EINVAL);
    assert.equal(claim(world, guest, 20, { domid: abi.DOMID_SELF }), -abi.EINVAL);
    assert.equal(claim(world, guest, 20, { domid: 99 }), -abi.EINVAL);
    assert.equal(claim(world, guest, SYSTEM_PAGES), -abi.EINVAL);
    assert.equal(claim(world, guest, SYSTEM_PAGES + 101), -abi.EINVAL);
    assert.equal(reserve(guest, abi.XENMEM_claim_pages, [], { list: 0, count: 20, domid: guest.domid }), -abi.EPERM);
    assert.equal(claim(world, guest, 20), 0);
    assert.equal(claim(world, guest, 30), -abi.EINVAL);
    assert.equal(claim(world, guest, 0), 0);
    assert.equal(outstandingClaims(world.hypervisor), 0);
    settle(world);
  });
  it("of more than is free and unclaimed is -ENOMEM", () => {
    const world = createWorld();
    const [one, two] = [addGuest(world, 490), addGuest(world, 490)];
    const free = freeFrameCount(world.hypervisor);
    assert.equal(claim(world, one, SYSTEM_PAGES + free), 0);
    assert.equal(claim(world, two, SYSTEM_PAGES + 1), -abi.ENOMEM);
    settle(world);
  });
  it("ends with the domain", () => {
    const world = createWorld();
    const guest = addGuest(world, 100);
    assert.equal(claim(world, guest, SYSTEM_PAGES + 50), 0);
    assert.equal(beginDestroy(world.hypervisor, guest.slot), 0);
    continueDestroy(world.hypervisor, guest.slot);
    assert.equal(outstandingClaims(world.hypervisor), 0);
    settle(world);
  });
});

describe("accounting", () => {
  it("enters pages within max_pages only, and none for a dying domain", () => {
    const world = createWorld();
    const guest = addGuest(world, 10);
    const { hypervisor } = world;
    assert.equal(assignPages(hypervisor, guest.slot, 11), -abi.E2BIG);
    assert.equal(assignPages(hypervisor, guest.slot, 10), 0);
    assert.equal(setMaxPages(hypervisor, guest.slot, 5), 0);
    assert.equal(assignPages(hypervisor, guest.slot, 1), -abi.EPERM);
    unassignPages(hypervisor, guest.slot, 10);
    assert.equal(setMaxPages(hypervisor, guest.slot, 50), 0);
    assert.equal(assignPages(hypervisor, guest.slot, 1), 0);
    unassignPages(hypervisor, guest.slot, 1);
    assert.equal(beginDestroy(hypervisor, guest.slot), 0);
    assert.equal(assignPages(hypervisor, guest.slot, 1), -abi.EINVAL);
    assert.equal(populate(world.dom0, [1], { domid: guest.domid }), 0);
    settle(world);
  });
  it("does not count the hypervisor's own frames", () => {
    const world = createWorld();
    const guest = addGuest(world, 10);
    const mfn = allocateFrames(world.hypervisor, 2);
    assert.equal(ownedPages(world, guest), 0);
    settle(world);
    freeFrames(world.hypervisor, mfn, 2);
    settle(world);
  });
});

describe("populate-on-demand targets", () => {
  it("are for the control domain, and bounded by max_pages", () => {
    const world = createWorld();
    const guest = addGuest(world, 10);
    const max = SYSTEM_PAGES + 10;
    const set = abi.XENMEM_set_pod_target;
    assert.equal(podTarget(guest, set, { domid: guest.domid, pages: 1 }), -abi.EPERM);
    assert.equal(podTarget(world.dom0, set, { domid: 99, pages: 1 }), -abi.ESRCH);
    for (const pages of [max + 1, 2 ** 40]) {
      assert.equal(podTarget(world.dom0, set, { domid: guest.domid, pages }), -abi.EINVAL);
    }
    assert.equal(podTarget(world.dom0, set, { domid: guest.domid, pages: max }), 0);
    assert.equal(podTarget(world.dom0, abi.XENMEM_get_pod_target, { domid: guest.domid, pages: 0 }), 0);
    const answer = readArgument(world.dom0, abi.xen_pod_target.sizeBytes);
    assert.equal(abi.xen_pod_target.tot_pages.get(answer, 0), SYSTEM_PAGES);
    assert.equal(abi.xen_pod_target.pod_cache_pages.get(answer, 0), 0);
  });
});

describe("memory maps", () => {
  const ENTRY = abi.e820entry.sizeBytes;
  const setMap = (guest: Guest, domid: number, count: number, buffer: number): number => {
    writeArgument(guest, abi.xen_foreign_memory_map.sizeBytes, (view) => {
      abi.xen_foreign_memory_map.domid.set(view, 0, domid);
      abi.xen_foreign_memory_map.map.nr_entries.set(view, 0, count);
      abi.xen_foreign_memory_map.map.buffer.set(view, 0, buffer);
    });
    return memoryOp(guest, abi.XENMEM_set_memory_map);
  };
  const getMap = (guest: Guest, command: number, count: number, buffer: number): [number, number] => {
    writeArgument(guest, abi.xen_memory_map.sizeBytes, (view) => {
      abi.xen_memory_map.nr_entries.set(view, 0, count);
      abi.xen_memory_map.buffer.set(view, 0, buffer);
    });
    const result = memoryOp(guest, command);
    return [result, abi.xen_memory_map.nr_entries.get(readArgument(guest, abi.xen_memory_map.sizeBytes), 0)];
  };
  it("are given as far as there is room, once one was set", () => {
    const world = createWorld();
    const guest = addGuest(world, 1);
    assert.equal(getMap(guest, abi.XENMEM_memory_map, 4, guest.list)[0], -abi.ENOSYS);
    const words = Array.from({ length: (3 * ENTRY) / 4 }, (_, index) => index + 1);
    writeList(world.dom0, words);
    assert.equal(setMap(world.dom0, guest.domid, 3, world.dom0.list), 0);
    assert.deepEqual(getMap(guest, abi.XENMEM_memory_map, 9, guest.list), [0, 3]);
    assert.deepEqual(
      words.map((_, index) => guest.cpu.memory.readU32(guest.list + index * 4)),
      words,
    );
    assert.deepEqual(getMap(guest, abi.XENMEM_memory_map, 2, guest.list), [0, 2]);
    assert.equal(getMap(guest, abi.XENMEM_memory_map, 3, 0)[0], -abi.EFAULT);
  });
  it("are refused when too long, empty, unreadable or of another domain", () => {
    const world = createWorld();
    const guest = addGuest(world, 1);
    assert.equal(setMap(world.dom0, guest.domid, 33, world.dom0.list), -abi.E2BIG);
    assert.equal(setMap(world.dom0, guest.domid, 0, world.dom0.list), -abi.EINVAL);
    assert.equal(setMap(world.dom0, guest.domid, 1, 0), -abi.EFAULT);
    assert.equal(setMap(guest, world.dom0.domid, 1, guest.list), -abi.EPERM);
    assert.equal(setMap(world.dom0, guest.domid, 32, world.dom0.list), 0);
  });
  it("of the machine are for the control domain", () => {
    const world = createWorld();
    const guest = addGuest(world, 1);
    assert.equal(getMap(guest, abi.XENMEM_machine_memory_map, 1, guest.list)[0], -abi.EPERM);
    assert.deepEqual(getMap(world.dom0, abi.XENMEM_machine_memory_map, 9, world.dom0.list), [0, 1]);
    assert.equal(world.dom0.cpu.memory.readU32(world.dom0.list + 8), world.hypervisor.geometry.machineFrames * 4096);
  });
});
