import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { setMaxPages } from "../src/index.ts";
import { getFrame, putFrame } from "../src/frame-reference.ts";
import {
  addGuest,
  createWorld,
  decrease,
  memoryOp,
  ownedPages,
  PAGE,
  populate,
  range,
  reserve,
  settle,
  SYSTEM_PAGES,
  writeList,
} from "./memory-fixture.ts";

const callsOf = (world: ReturnType<typeof createWorld>, kind: string): number =>
  world.mmu.calls.filter((call) => call.kind === kind).length;

describe("populate_physmap", () => {
  it("places zeroed pages at the gfns listed and returns how many", () => {
    const world = createWorld();
    const guest = addGuest(world, 10);
    assert.equal(populate(guest, [3, 9, 200]), 3);
    assert.equal(ownedPages(world, guest), 3);
    for (const gfn of [3, 9, 200]) assert.equal(world.mmu.read(guest.base, gfn * PAGE), 0);
    assert.equal(world.mmu.read(guest.base, 4 * PAGE), -1);
    settle(world);
  });
  it("makes neighbouring single extents one mapping with one call", () => {
    const world = createWorld();
    const guest = addGuest(world, 200);
    const before = callsOf(world, "map");
    const vmas = world.mmu.vmaCount(guest.base);
    assert.equal(populate(guest, range(16, 128)), 128);
    assert.equal(callsOf(world, "map"), before + 1);
    assert.equal(world.mmu.vmaCount(guest.base), vmas + 2);
    settle(world);
  });
  it("stops at max_pages and counts the extents completed before it", () => {
    const world = createWorld();
    const guest = addGuest(world, 5);
    assert.equal(populate(guest, range(0, 8)), 5);
    assert.equal(populate(guest, [100]), 0);
    assert.equal(ownedPages(world, guest), 5);
    settle(world);
  });
  it("completes whole extents only: the rest of one that did not fit is given back", () => {
    const world = createWorld();
    const guest = addGuest(world, 7);
    assert.equal(populate(guest, [0, 4, 8], { order: 2 }), 1);
    assert.equal(ownedPages(world, guest), 4);
    settle(world);
  });
  it("leaves the RAM that it replaces owned and counted until the domain dies", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    assert.equal(populate(guest, [1, 2]), 2);
    assert.ok(world.mmu.write(guest.base, PAGE, 7));
    assert.equal(populate(guest, [1, 2]), 2);
    assert.equal(ownedPages(world, guest), 4);
    assert.equal(world.mmu.read(guest.base, PAGE), 0);
    assert.equal(populate(guest, [3]), 0);
    settle(world);
  });
  it("over a special page crashes the domain; over a hole it does not", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    const { hypervisor } = world;
    assert.equal(reserveSharedInfo(guest, 5), 0);
    assert.equal(populate(guest, [4]), 1);
    assert.equal(hypervisor.domains.stateOf(guest.slot), "running");
    try {
      assert.equal(populate(guest, [6, 5, 7]), 1);
    } catch (error) {
      assert.equal((error as Error).name, "ParkedError");
    }
    assert.notEqual(hypervisor.domains.stateOf(guest.slot), "running");
    assert.equal(hypervisor.p2m.get(guest.slot, 7), 0);
    settle(world);
  });
  it("returns 0, not an error, for a bad address, domain, order or flag", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    assert.equal(memoryOp(guest, abi.XENMEM_populate_physmap, 0), 0);
    assert.equal(populate(guest, [1], { list: 0 }), 0);
    assert.equal(populate(guest, [1], { list: 0xffff_fffe }), 0);
    assert.equal(populate(guest, [1], { domid: 77 }), 0);
    assert.equal(populate(guest, [1], { domid: world.dom0.domid }), 0);
    assert.equal(populate(guest, [0], { order: 10 }), 0);
    assert.equal(populate(guest, [1], { flags: abi.XENMEMF_populate_on_demand }), 0);
    assert.equal(populate(guest, [2 ** 20, 1024, 2 ** 32 - 1]), 0);
    assert.equal(ownedPages(world, guest), 0);
    assert.equal(populate(guest, [1]), 1);
    settle(world);
  });
  it("completes what a list holds before the page where it cannot be read", () => {
    const world = createWorld();
    const guest = addGuest(world, 40);
    const end = guest.argument + SYSTEM_PAGES * PAGE;
    assert.equal(end, world.hypervisor.geometry.gfnCount * PAGE);
    assert.equal(populate(guest, [100]), 1);
    const list = 101 * PAGE - 8;
    assert.equal(guest.cpu.memory.copyToGuest(list, new Uint8Array(Uint32Array.of(5, 6).buffer)), 0);
    assert.equal(populate(guest, [], { list, count: 4 }), 2);
    settle(world);
  });
  it("by a privileged domain reaches another domain's memory, within that one's limit", () => {
    const world = createWorld();
    const guest = addGuest(world, 3);
    assert.equal(populate(world.dom0, range(0, 5), { domid: guest.domid }), 3);
    assert.equal(ownedPages(world, guest), 3);
    settle(world);
  });
});

const reserveSharedInfo = (guest: Parameters<typeof memoryOp>[0], gfn: number): number => {
  const bytes = new Uint8Array(abi.xen_add_to_physmap.sizeBytes);
  const view = new DataView(bytes.buffer);
  abi.xen_add_to_physmap.domid.set(view, 0, abi.DOMID_SELF);
  abi.xen_add_to_physmap.space.set(view, 0, abi.XENMAPSPACE_shared_info);
  abi.xen_add_to_physmap.gpfn.set(view, 0, gfn);
  assert.equal(guest.cpu.memory.copyToGuest(guest.argument, bytes), 0);
  return memoryOp(guest, abi.XENMEM_add_to_physmap);
};

describe("decrease_reservation", () => {
  it("frees the pages, which are zero for whoever gets them next", () => {
    const world = createWorld();
    const guest = addGuest(world, 10);
    assert.equal(populate(guest, range(0, 10)), 10);
    assert.ok(world.mmu.write(guest.base, 3 * PAGE + 5, 0xc3));
    assert.equal(decrease(guest, range(0, 10)), 10);
    assert.equal(ownedPages(world, guest), 0);
    assert.equal(world.mmu.read(guest.base, 3 * PAGE + 5), -1);
    settle(world);
  });
  it("takes a contiguous run away with one unmap and one discard", () => {
    const world = createWorld();
    const guest = addGuest(world, 200);
    assert.equal(populate(guest, range(0, 128)), 128);
    const before = { unmap: callsOf(world, "unmap"), discard: callsOf(world, "discard") };
    assert.equal(decrease(guest, range(0, 128)), 128);
    assert.equal(callsOf(world, "unmap"), before.unmap + 1);
    assert.equal(callsOf(world, "discard"), before.discard + 1);
    settle(world);
  });
  it("stops at the first gfn that is a hole, and beyond the address space", () => {
    const world = createWorld();
    const guest = addGuest(world, 10);
    assert.equal(populate(guest, [0, 1, 3]), 3);
    assert.equal(decrease(guest, [0, 1, 2, 3]), 2);
    assert.equal(decrease(guest, [1024, 3]), 0);
    assert.equal(decrease(guest, [3]), 1);
    settle(world);
  });
  it("of an extent with a hole frees the pages before it and does not count it", () => {
    const world = createWorld();
    const guest = addGuest(world, 10);
    assert.equal(populate(guest, [0, 1, 3]), 3);
    assert.equal(decrease(guest, [0], { order: 2 }), 0);
    assert.equal(ownedPages(world, guest), 1);
    settle(world);
  });
  it("of a page that others hold keeps it in the accounts until they let go", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    assert.equal(populate(guest, [1]), 1);
    const frame = getFrame(world.hypervisor, guest.slot, 1);
    assert.ok(frame >= 0);
    assert.ok(world.mmu.write(guest.base, PAGE, 9));
    assert.equal(decrease(guest, [1]), 1);
    assert.equal(ownedPages(world, guest), 1);
    assert.equal(world.hypervisor.directMap.bytes(frame * PAGE, 1)[0], 9);
    putFrame(world.hypervisor, frame);
    assert.equal(ownedPages(world, guest), 0);
    settle(world);
  });
});

describe("increase_reservation", () => {
  it("allocates frames without a gfn and writes the first of each extent to the list", () => {
    const world = createWorld();
    const guest = addGuest(world, 8);
    assert.equal(reserve(guest, abi.XENMEM_increase_reservation, [0, 0], { order: 1 }), 2);
    assert.equal(ownedPages(world, guest), 4);
    const [first, second] = [guest.cpu.memory.readU32(guest.list), guest.cpu.memory.readU32(guest.list + 4)];
    assert.notEqual(first, second);
    assert.equal(first % 2, 0);
    assert.equal(world.hypervisor.frames.owner[first + 1], guest.slot + 1);
    settle(world);
  });
  it("writes nothing without a list, and stops at max_pages", () => {
    const world = createWorld();
    const guest = addGuest(world, 3);
    assert.equal(reserve(guest, abi.XENMEM_increase_reservation, [], { list: 0, count: 9 }), 3);
    settle(world);
  });
  it("gives an extent back whose frame it cannot report", () => {
    const world = createWorld();
    const guest = addGuest(world, 3);
    assert.equal(reserve(guest, abi.XENMEM_increase_reservation, [], { list: 4, count: 1 }), 0);
    assert.equal(ownedPages(world, guest), 0);
    settle(world);
  });
});

describe("lowering max_pages below what is owned", () => {
  it("takes nothing away, and allows no allocation until enough was given back", () => {
    const world = createWorld();
    const guest = addGuest(world, 8);
    assert.equal(populate(guest, range(0, 8)), 8);
    assert.equal(setMaxPages(world.hypervisor, guest.slot, SYSTEM_PAGES + 6), 0);
    assert.equal(ownedPages(world, guest), 8);
    assert.equal(decrease(guest, [0, 1]), 2);
    assert.equal(populate(guest, [0]), 0);
    assert.equal(decrease(guest, [2]), 1);
    assert.equal(populate(guest, [0]), 1);
    settle(world);
  });
});

describe("queries", () => {
  const ask = (guest: Parameters<typeof memoryOp>[0], command: number, domid: number): number =>
    memoryOp(guest, command, writeList(guest, [domid]));
  it("report the frames owned, allowed and highest, and the highest gfn", () => {
    const world = createWorld();
    const guest = addGuest(world, 8);
    assert.equal(ask(guest, abi.XENMEM_current_reservation, abi.DOMID_SELF), SYSTEM_PAGES);
    assert.equal(ask(guest, abi.XENMEM_maximum_reservation, guest.domid), SYSTEM_PAGES + 8);
    assert.equal(ask(guest, abi.XENMEM_maximum_gpfn, abi.DOMID_SELF), world.hypervisor.geometry.gfnCount - 1);
    assert.equal(memoryOp(guest, abi.XENMEM_maximum_ram_page, 0), world.hypervisor.geometry.machineFrames - 1);
    assert.equal(memoryOp(guest, abi.XENMEM_current_reservation, 0), -abi.EFAULT);
  });
  it("of another domain are refused, of a missing one say so; the control domain may ask", () => {
    const world = createWorld();
    const [guest, other] = [addGuest(world, 8), addGuest(world, 9)];
    assert.equal(ask(guest, abi.XENMEM_current_reservation, other.domid), -abi.EPERM);
    assert.equal(ask(guest, abi.XENMEM_maximum_reservation, 99), -abi.ESRCH);
    assert.equal(ask(world.dom0, abi.XENMEM_maximum_reservation, other.domid), SYSTEM_PAGES + 9);
  });
  it("give a positive 32-bit number whatever max_pages is", () => {
    const world = createWorld();
    const guest = addGuest(world, 8);
    assert.equal(setMaxPages(world.hypervisor, guest.slot, 0xffff_fffe), 0);
    assert.equal(ask(guest, abi.XENMEM_maximum_reservation, abi.DOMID_SELF), 0x7fff_ffff);
  });
});

describe("memory_op", () => {
  it("has no command beyond its table, and no cursor in the command", () => {
    const world = createWorld();
    const guest = addGuest(world, 1);
    for (const command of [5, 8, 12, 20, 21, 22, 25, 29, 63]) assert.equal(memoryOp(guest, command), -abi.ENOSYS);
    assert.equal(memoryOp(guest, abi.XENMEM_maximum_ram_page | 64), -abi.EINVAL);
    assert.ok(memoryOp(guest, abi.XENMEM_maximum_ram_page) > 0);
  });
});
