/**
 * Advisories about the life of a page: who holds it, when it is freed, what is in it then (docs/advisories.md, section 3).
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hookRun, unhookRun } from "../src/address-space.ts";
import { freeFrameCount } from "../src/buddy.ts";
import { createDomain } from "../src/domain-create.ts";
import { setTarget } from "../src/domain-ops.ts";
import { beginDestroy, continueDestroy, reapDomains } from "../src/domain-reap.ts";
import { isPending, setPending } from "../src/event-delivery.ts";
import { bindIpi } from "../src/event-ports.ts";
import { ParkedError } from "../src/fake-platform.ts";
import { FRAME_REFS_MAX } from "../src/frame-table.ts";
import { addReference, getFrame, putFrame } from "../src/frame-reference.ts";
import { addToPhysmap, removeFromPhysmap } from "../src/memory-physmap.ts";
import { depopulateRun, populateRun } from "../src/memory-populate.ts";
import { P2M_FOREIGN, P2M_GRANT_RO, P2M_GRANT_RW, P2M_HOLE, P2M_RAM, P2M_RAM_RO, P2M_SPECIAL } from "../src/p2m.ts";
import { setEoiPage } from "../src/pirq.ts";
import { registerVcpuInfo } from "../src/vcpu-areas.ts";
import * as kit from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

const { EBUSY, EINVAL } = abi;
const { PAGE, range } = kit;

/** A guest with RAM at 0-15 and shared_info at 30, all of its RAM filled with 0xc3. */
const setUp = (): { world: World; guest: Guest } => {
  const world = kit.createWorld();
  const guest = kit.addGuest(world, 64);
  assert.equal(kit.populate(guest, range(0, 16)), 16);
  assert.equal(addToPhysmap(world.hypervisor, guest.slot, abi.XENMAPSPACE_shared_info, 0, 30), 0);
  fill(guest, range(0, 16));
  return { world, guest };
};

const fill = (guest: Guest, gfns: readonly number[]): void => {
  const bytes = new Uint8Array(PAGE).fill(0xc3);
  for (const gfn of gfns) assert.equal(guest.cpu.memory.copyToGuest(gfn * PAGE, bytes), 0);
};

/** Gives a new guest every frame that is free and asserts that it finds zeros only. */
const assertNewOwnerSeesZeros = (world: World): void => {
  const count = freeFrameCount(world.hypervisor) - kit.SYSTEM_PAGES - 2;
  const heir = kit.addGuest(world, count);
  assert.equal(kit.populate(heir, range(0, count)), count);
  const bytes = new Uint8Array(PAGE);
  for (const gfn of range(0, count)) {
    assert.equal(heir.cpu.memory.copyFromGuest(gfn * PAGE, bytes), 0);
    assert.ok(
      bytes.every((byte) => byte === 0),
      `gfn ${gfn} of the new owner is not zero`,
    );
  }
  kit.settle(world);
};

const destroy = (world: World, guest: Guest): void => {
  assert.equal(beginDestroy(world.hypervisor, guest.slot), 0);
  while (!continueDestroy(world.hypervisor, guest.slot)) assert.fail("it waits for something");
};

/** Replaces what stands at `gfn` by another domain's frame, as a grant or a foreign mapping will. */
const borrow = (world: World, guest: Guest, gfn: number, type: number): void => {
  const { locks } = world.hypervisor;
  const lock = locks.id("p2m", guest.slot);
  locks.acquire(lock);
  const frame = world.hypervisor.p2m.get(0, world.dom0.argument / PAGE) >>> 4;
  assert.equal(hookRun(world.hypervisor, guest.slot, gfn, frame, 1, type), 0);
  if (type === P2M_FOREIGN) assert.ok(addReference(world.hypervisor, frame));
  locks.release(lock);
};

describe("frames: what a new owner finds", () => {
  const ways: Readonly<Record<string, (world: World, guest: Guest) => void>> = {
    decrease_reservation: (_world, guest) => assert.equal(kit.decrease(guest, range(0, 16)), 16),
    "decrease_reservation of an extent": (_world, guest) => assert.equal(kit.decrease(guest, [0], { order: 4 }), 1),
    "a move over it": (world, guest) => {
      for (let gfn = 0; gfn < 8; gfn += 1) {
        assert.equal(addToPhysmap(world.hypervisor, guest.slot, abi.XENMAPSPACE_gmfn, gfn, gfn + 8), 0);
      }
    },
    "removal, then the end of its domain": (world, guest) => {
      for (let gfn = 0; gfn < 16; gfn += 1) assert.equal(removeFromPhysmap(world.hypervisor, guest.slot, gfn), 0);
      destroy(world, guest);
    },
    "being populated over, then the end of its domain": (world, guest) => {
      assert.equal(kit.populate(guest, range(0, 16)), 16);
      fill(guest, range(0, 16));
      destroy(world, guest);
    },
    "the end of its domain, shared_info with it": (world, guest) => {
      fill(guest, [30]);
      destroy(world, guest);
    },
    "the end of its domain as a vcpu_info": (world, guest) => {
      assert.equal(registerVcpuInfo(guest.cpu, guest.cpu.index, 5, 64), 0);
      fill(guest, [5]);
      destroy(world, guest);
    },
    "the last user's letting go": (world, guest) => {
      const held = getFrame(world.hypervisor, guest.slot, 4);
      assert.equal(kit.decrease(guest, range(0, 16)), 16);
      putFrame(world.hypervisor, held);
    },
  };
  for (const [name, way] of Object.entries(ways)) {
    it(`M09: zeros, when the page was freed by ${name} (XSA-100, XSA-364, XSA-372)`, () => {
      const { world, guest } = setUp();
      way(world, guest);
      assertNewOwnerSeesZeros(world);
    });
    it(`M09: zeros, when the host refused to take it back after ${name}`, () => {
      const { world, guest } = setUp();
      world.mmu.discard = () => -abi.ENOMEM;
      way(world, guest);
      Reflect.deleteProperty(world.mmu, "discard");
      assertNewOwnerSeesZeros(world);
    });
  }

  it("M26, M15: a page leaves the page table before it goes back to the host, or it does not go (XSA-480, XSA-222)", () => {
    const { world, guest } = setUp();
    const from = world.mmu.calls.length;
    assert.equal(kit.decrease(guest, range(0, 4)), 4);
    assert.equal(addToPhysmap(world.hypervisor, guest.slot, abi.XENMAPSPACE_gmfn, 5, 6), 0);
    const kinds = world.mmu.calls.slice(from).map(({ kind }) => kind);
    assert.deepEqual(kinds, ["unmap", "discard", "unmap", "map", "discard"]);
    const frame = world.mmu.frameAt(guest.base, 10);
    world.mmu.failAt(1);
    assert.equal(kit.decrease(guest, [10]), 0);
    assert.equal(world.mmu.frameAt(guest.base, 10), frame);
    assert.equal(world.mmu.read(guest.base, 10 * PAGE), 0xc3);
    assert.equal(world.hypervisor.frames.owner[frame], guest.slot + 1);
    kit.settle(world);
    destroy(world, guest);
    assertNewOwnerSeesZeros(world);
  });

  it("M25: pages moved in a batch over others leave no way back to what they displaced (XSA-346, XSA-355)", () => {
    for (const count of [1, 2, 63, 64, 65]) {
      const world = kit.createWorld();
      const [guest, heir] = [kit.addGuest(world, 160), kit.addGuest(world, 160)];
      assert.equal(kit.populate(guest, range(0, 2 * count)), 2 * count);
      fill(guest, range(0, 2 * count));
      const displaced = new Set(range(count, count).map((gfn) => world.mmu.frameAt(guest.base, gfn)));
      kit.writeArgument(guest, abi.xen_add_to_physmap.sizeBytes, (view) => {
        abi.xen_add_to_physmap.domid.set(view, 0, abi.DOMID_SELF);
        abi.xen_add_to_physmap.size.set(view, 0, count);
        abi.xen_add_to_physmap.space.set(view, 0, abi.XENMAPSPACE_gmfn_range);
        abi.xen_add_to_physmap.gpfn.set(view, 0, count);
      });
      assert.equal(kit.memoryOp(guest, abi.XENMEM_add_to_physmap), 0);
      assert.equal(kit.populate(heir, range(0, 2 * count)), 2 * count);
      for (let gfn = 0; gfn < 1024; gfn += 1)
        assert.ok(!displaced.has(world.mmu.frameAt(guest.base, gfn)), `gfn ${gfn}`);
      for (const gfn of range(0, count)) assert.equal(world.mmu.read(guest.base, gfn * PAGE), -1);
      for (const gfn of range(0, 2 * count)) assert.equal(world.mmu.read(heir.base, gfn * PAGE), 0);
      kit.settle(world);
    }
  });

  it("M36: what was removed cannot be reached, whether or not it was ever touched or attached (XSA-393)", () => {
    const { world, guest } = setUp();
    assert.equal(kit.populate(guest, [40, 41]), 2);
    assert.equal(world.mmu.read(guest.base, 40 * PAGE), 0);
    for (const gfn of [40, 41, 0, 30]) {
      assert.equal(removeFromPhysmap(world.hypervisor, guest.slot, gfn), 0);
      assert.equal(world.mmu.read(guest.base, gfn * PAGE), -1);
      assert.equal(world.mmu.write(guest.base, gfn * PAGE, 1), false);
      assert.equal(guest.cpu.memory.readU32(gfn * PAGE), -1);
      assert.equal(guest.cpu.memory.writeU32(gfn * PAGE, 1), false);
      assert.equal(getFrame(world.hypervisor, guest.slot, gfn), -1);
    }
    kit.settle(world);
  });
});

describe("frames: who holds them", () => {
  it("M28: a page that a transfer is still going into waits for its end, whatever becomes of its domain (XSA-302, XSA-306)", () => {
    for (const isDestroyed of [false, true]) {
      const { world, guest } = setUp();
      const { hypervisor } = world;
      const frame = getFrame(hypervisor, guest.slot, 4);
      const generation = hypervisor.domains.generation[guest.slot];
      if (isDestroyed) destroy(world, guest);
      else assert.equal(kit.decrease(guest, range(0, 16)), 16);
      const heir = kit.addGuest(world, 420);
      const placed = kit.populate(heir, range(0, 420));
      for (const gfn of range(0, placed)) assert.notEqual(world.mmu.frameAt(heir.base, gfn), frame);
      // The transfer completes late: its data goes where nobody looks.
      hypervisor.directMap.bytes(frame * PAGE, PAGE).fill(0x77);
      assert.equal(reapDomains(hypervisor), isDestroyed ? 1 : 0);
      if (isDestroyed) assert.equal(hypervisor.domains.generation[guest.slot], generation);
      putFrame(hypervisor, frame);
      assert.equal(reapDomains(hypervisor), 0);
      for (const gfn of range(0, placed)) assert.equal(world.mmu.read(heir.base, gfn * PAGE), 0);
      assert.equal(kit.populate(heir, range(placed, 1)), placed < 420 ? 1 : 0);
      kit.settle(world);
    }
  });

  it("M19, M18, M42: pages that the hypervisor uses have references of their own, and freeing them is the guest's loss (XSA-276, XSA-252, XSA-507)", () => {
    const { world, guest } = setUp();
    const { hypervisor } = world;
    assert.equal(registerVcpuInfo(guest.cpu, guest.cpu.index, 5, 0), 0);
    assert.equal(setEoiPage(hypervisor, guest.slot, 6, false), 0);
    const frames = [5, 6].map((gfn) => world.mmu.frameAt(guest.base, gfn));
    const shared = world.mmu.frameAt(guest.base, 30);
    const port = bindIpi(hypervisor, guest.slot, 0);
    assert.equal(kit.decrease(guest, [30]), 0, "shared_info is not RAM");
    assert.equal(kit.decrease(guest, range(30, 1), { order: 0 }), 0);
    assert.equal(world.mmu.frameAt(guest.base, 30), shared);
    const owned = kit.ownedPages(world, guest);
    assert.equal(kit.decrease(guest, [5, 6]), 2);
    assert.equal(kit.ownedPages(world, guest), owned, "held pages stay in the accounts");
    kit.settle(world);
    setPending(hypervisor, guest.slot, port);
    assert.ok(isPending(hypervisor, guest.slot, port));
    const heir = kit.addGuest(world, 300);
    assert.equal(kit.populate(heir, range(0, 300)), 300);
    for (const gfn of range(0, 300)) assert.ok(![...frames, shared].includes(world.mmu.frameAt(heir.base, gfn)));
    destroy(world, guest);
    assert.equal(reapDomains(hypervisor), 0);
    for (const frame of [...frames, shared]) assert.equal(hypervisor.frames.refs[frame], 0);
    kit.settle(world);
  });

  it("M30: a frame with as many references as can be counted gives no more, and nothing is installed (XSA-249, XSA-250)", () => {
    const { world, guest } = setUp();
    const { hypervisor } = world;
    const frame = world.mmu.frameAt(guest.base, 5);
    hypervisor.frames.refs[frame] = FRAME_REFS_MAX;
    const info = hypervisor.vcpus.vcpuInfo[guest.cpu.index];
    assert.equal(getFrame(hypervisor, guest.slot, 5), -1);
    assert.equal(registerVcpuInfo(guest.cpu, guest.cpu.index, 5, 0), -EINVAL);
    assert.equal(setEoiPage(hypervisor, guest.slot, 5, true), -EINVAL);
    assert.equal(hypervisor.frames.refs[frame], FRAME_REFS_MAX);
    assert.equal(hypervisor.vcpus.vcpuInfo[guest.cpu.index], info);
    assert.equal(hypervisor.pirqs.eoiFrame[guest.slot], 0);
    hypervisor.frames.refs[frame] = 1;
    assert.equal(registerVcpuInfo(guest.cpu, guest.cpu.index, 5, 0), 0);
    assert.equal(setEoiPage(hypervisor, guest.slot, 5, true), 0);
    assert.equal(setEoiPage(hypervisor, guest.slot, 6, true), -EBUSY);
    kit.settle(world);
  });

  it("M31: a chain of device models as long as the machine has domains ends without recursion (XSA-240)", () => {
    const count = 1000;
    const world = kit.createWorld({
      domainCountMax: 1024,
      framesPerBank: 2048,
      bankCount: 1,
      machineFrames: 2048,
      gfnCount: 64,
      portsPerDomain: 32,
    });
    const { hypervisor } = world;
    const free = freeFrameCount(hypervisor);
    const slots = range(0, count).map(() => hypervisor.domains.slotOf(createDomain(hypervisor, { vcpus: 1 })));
    for (let index = 1; index < count; index += 1)
      assert.equal(setTarget(hypervisor, slots[index]!, slots[index - 1]!), 0);
    assert.equal(beginDestroy(hypervisor, slots[0]!), 0);
    assert.equal(reapDomains(hypervisor), 1, "its device model still names it");
    for (const slot of slots) assert.equal(beginDestroy(hypervisor, slot), 0);
    let rounds = 0;
    while (reapDomains(hypervisor) > 0) rounds += 1;
    assert.ok(rounds <= count + 1, `${rounds} rounds`);
    assert.equal(freeFrameCount(hypervisor), free);
    kit.settle(world);
  });
});

describe("frames: what stands where", () => {
  interface Expected {
    readonly decrease: number;
    readonly remove: number;
    readonly moveFrom: number;
    readonly moveOnto: number;
    readonly crashes: boolean;
    readonly takesReference: boolean;
  }
  const ram = { decrease: 1, remove: 0, moveFrom: 0, moveOnto: 0, crashes: false, takesReference: true };
  const borrowed = {
    decrease: 0,
    remove: -EINVAL,
    moveFrom: -abi.EACCES,
    moveOnto: -EINVAL,
    crashes: true,
    takesReference: false,
  };
  const table: Readonly<Record<number, Expected>> = {
    [P2M_HOLE]: { ...ram, decrease: 0, remove: -abi.ENOENT, moveFrom: -EINVAL, takesReference: false },
    [P2M_RAM]: ram,
    [P2M_RAM_RO]: { ...ram, moveFrom: -abi.EACCES },
    [P2M_SPECIAL]: { ...ram, decrease: 0, moveFrom: -abi.EACCES, crashes: true, takesReference: false },
    [P2M_GRANT_RW]: borrowed,
    [P2M_GRANT_RO]: borrowed,
    [P2M_FOREIGN]: { ...borrowed, remove: 0 },
  };

  const worldWith = (type: number): { world: World; guest: Guest } => {
    const { world, guest } = setUp();
    if (type === P2M_HOLE) assert.equal(kit.decrease(guest, [9]), 1);
    else if (type === P2M_SPECIAL)
      assert.equal(addToPhysmap(world.hypervisor, guest.slot, abi.XENMAPSPACE_shared_info, 0, 9), 0);
    else if (type === P2M_RAM_RO) makeReadOnly(world, guest, 9);
    else if (type !== P2M_RAM) {
      assert.equal(kit.decrease(guest, [9]), 1);
      borrow(world, guest, 9, type);
    }
    return { world, guest };
  };

  for (const [key, expected] of Object.entries(table)) {
    it(`M44, M20: of a page of type ${key} only the listed things may be made, and the rest changes nothing (XSA-92, XSA-277)`, () => {
      const type = Number(key);
      const attempts: readonly ((world: World, guest: Guest) => readonly [number, number])[] = [
        (_world, guest) => [kit.decrease(guest, [9]), expected.decrease],
        ({ hypervisor }, { slot }) => [removeFromPhysmap(hypervisor, slot, 9), expected.remove],
        ({ hypervisor }, { slot }) => [addToPhysmap(hypervisor, slot, abi.XENMAPSPACE_gmfn, 9, 50), expected.moveFrom],
        ({ hypervisor }, { slot }) => [addToPhysmap(hypervisor, slot, abi.XENMAPSPACE_gmfn, 3, 9), expected.moveOnto],
        ({ hypervisor }, { slot }) => [
          Math.min(0, setEoiPage(hypervisor, slot, 9, false)),
          expected.takesReference ? 0 : -EINVAL,
        ],
      ];
      for (const attempt of attempts) {
        const { world, guest } = worldWith(type);
        const before = world.hypervisor.p2m.entries.slice();
        const [result, wanted] = attempt(world, guest);
        assert.equal(result, wanted);
        if (wanted < 0) assert.deepEqual(world.hypervisor.p2m.entries, before);
        kit.settle(world);
        assert.equal(kit.populate(guest, [60]), 1, "the domain goes on");
      }
      const { world, guest } = worldWith(type);
      if (expected.crashes) assert.throws(() => kit.populate(guest, [9]), ParkedError);
      else assert.equal(kit.populate(guest, [9]), 1);
      assert.equal(world.hypervisor.domains.stateOf(guest.slot), expected.crashes ? "shutdown" : "running");
      kit.settle(world);
    });
  }

  const makeReadOnly = (world: World, guest: Guest, gfn: number): void => {
    const { hypervisor } = world;
    const lock = hypervisor.locks.id("p2m", guest.slot);
    hypervisor.locks.acquire(lock);
    const frame = hypervisor.p2m.get(guest.slot, gfn) >>> 4;
    assert.equal(unhookRun(hypervisor, guest.slot, gfn, 1), 0);
    assert.equal(hookRun(hypervisor, guest.slot, gfn, frame, 1, P2M_RAM_RO), 0);
    hypervisor.locks.release(lock);
  };

  it("M23: frames freed by an end that is interrupted after each belong to who gets them next (XSA-299, XSA-310, XSA-58)", () => {
    const world = kit.createWorld();
    const [guest, heir] = [kit.addGuest(world, 200), kit.addGuest(world, 440)];
    assert.equal(kit.populate(guest, range(0, 200)), 200);
    for (let gfn = 0; gfn < 200; gfn += 7) assert.equal(removeFromPhysmap(world.hypervisor, guest.slot, gfn), 0);
    fill(guest, [1, 2, 3]);
    let taken = kit.populate(heir, range(0, 440));
    fill(heir, range(0, taken));
    assert.equal(beginDestroy(world.hypervisor, guest.slot), 0);
    while (!continueDestroy(world.hypervisor, guest.slot, 1)) {
      const more = { count: 0, blockedGfn: -1, error: 0 };
      populateRun(world.hypervisor, heir.slot, taken, 1, more);
      if (more.count === 1) fill(heir, [taken]);
      taken += more.count;
    }
    for (const gfn of range(0, taken)) {
      for (const at of [0, PAGE - 1]) assert.equal(world.mmu.read(heir.base, gfn * PAGE + at), 0xc3, `gfn ${gfn}`);
    }
    assert.equal(depopulateRun(world.hypervisor, heir.slot, 0, taken), taken);
    kit.settle(world);
  });
});
