import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { GATE_PAUSE, requestGate, withdrawGate } from "../src/gate.ts";
import {
  PAGE,
  addGuest,
  createWorld,
  memoryOp,
  ownedPages,
  populate,
  range,
  removePage,
  settle,
  writeArgument,
  writeList,
} from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

interface Page {
  readonly space: number;
  readonly idx?: number;
  readonly gpfn: number;
  readonly size?: number;
  readonly domid?: number;
}

const add = (guest: Guest, page: Page): number => {
  writeArgument(guest, abi.xen_add_to_physmap.sizeBytes, (view) => {
    abi.xen_add_to_physmap.domid.set(view, 0, page.domid ?? abi.DOMID_SELF);
    abi.xen_add_to_physmap.size.set(view, 0, page.size ?? 0);
    abi.xen_add_to_physmap.space.set(view, 0, page.space);
    abi.xen_add_to_physmap.idx.set(view, 0, page.idx ?? 0);
    abi.xen_add_to_physmap.gpfn.set(view, 0, page.gpfn);
  });
  return memoryOp(guest, abi.XENMEM_add_to_physmap);
};

interface Batch {
  readonly space: number;
  readonly idxs: readonly number[];
  readonly gpfns: readonly number[];
  readonly foreign?: number;
  readonly errs?: number;
}

const ERRORS_AT = 8192;

const addBatch = (guest: Guest, batch: Batch): number => {
  const idxs = writeList(guest, batch.idxs);
  const gpfns = writeList(guest, batch.gpfns, 4096);
  writeArgument(guest, abi.xen_add_to_physmap_batch.sizeBytes, (view) => {
    abi.xen_add_to_physmap_batch.domid.set(view, 0, abi.DOMID_SELF);
    abi.xen_add_to_physmap_batch.space.set(view, 0, batch.space);
    abi.xen_add_to_physmap_batch.size.set(view, 0, batch.idxs.length);
    abi.xen_add_to_physmap_batch.u.foreign_domid.set(view, 0, batch.foreign ?? 0);
    abi.xen_add_to_physmap_batch.idxs.set(view, 0, idxs);
    abi.xen_add_to_physmap_batch.gpfns.set(view, 0, gpfns);
    abi.xen_add_to_physmap_batch.errs.set(view, 0, batch.errs ?? guest.list + ERRORS_AT);
  });
  return memoryOp(guest, abi.XENMEM_add_to_physmap_batch);
};

const errorsOf = (guest: Guest, count: number): number[] =>
  range(0, count).map((item) => guest.cpu.memory.readU32(guest.list + ERRORS_AT + item * 4) | 0);

const gmfn = abi.XENMAPSPACE_gmfn;
const sharedInfo = abi.XENMAPSPACE_shared_info;

const world8 = (): { world: World; guest: Guest } => {
  const world = createWorld();
  return { world, guest: addGuest(world, 8) };
};

describe("add_to_physmap of shared_info", () => {
  it("shows the page at the gfn asked for; asked again it moves and leaves a hole", () => {
    const { world, guest } = world8();
    const frame = world.hypervisor.domains.sharedInfo[guest.slot]! - 1;
    world.hypervisor.directMap.bytes(frame * PAGE + 100, 1)[0] = 42;
    assert.equal(add(guest, { space: sharedInfo, gpfn: 5 }), 0);
    assert.equal(world.mmu.read(guest.base, 5 * PAGE + 100), 42);
    assert.equal(world.hypervisor.domains.sharedInfoGfn[guest.slot], 6);
    assert.equal(add(guest, { space: sharedInfo, gpfn: 9 }), 0);
    assert.equal(world.mmu.read(guest.base, 9 * PAGE + 100), 42);
    assert.equal(world.mmu.read(guest.base, 5 * PAGE), -1);
    assert.equal(add(guest, { space: sharedInfo, gpfn: 9 }), 0);
    assert.equal(ownedPages(world, guest), 0);
    settle(world);
  });
  it("frees the RAM that stood there", () => {
    const { world, guest } = world8();
    assert.equal(populate(guest, [5, 6]), 2);
    assert.ok(world.mmu.write(guest.base, 5 * PAGE, 1));
    assert.equal(add(guest, { space: sharedInfo, gpfn: 5 }), 0);
    assert.equal(ownedPages(world, guest), 1);
    settle(world);
  });
  it("refuses another index, and a gfn that does not exist", () => {
    const { world, guest } = world8();
    assert.equal(add(guest, { space: sharedInfo, idx: 1, gpfn: 5 }), -abi.EINVAL);
    for (const gpfn of [1024, 2 ** 20, 2 ** 31, 2 ** 32 - 1]) {
      assert.equal(add(guest, { space: sharedInfo, gpfn }), -abi.EINVAL);
    }
    assert.equal(add(guest, { space: sharedInfo, gpfn: 1015 }), 0);
    settle(world);
  });
});

describe("add_to_physmap of gmfn", () => {
  it("moves a page with its contents, frees the RAM at the target and leaves a hole at the source", () => {
    const { world, guest } = world8();
    assert.equal(populate(guest, [3, 4]), 2);
    assert.ok(world.mmu.write(guest.base, 3 * PAGE + 7, 0x5a));
    assert.equal(add(guest, { space: gmfn, idx: 3, gpfn: 4 }), 0);
    assert.equal(world.mmu.read(guest.base, 4 * PAGE + 7), 0x5a);
    assert.equal(world.mmu.read(guest.base, 3 * PAGE), -1);
    assert.equal(ownedPages(world, guest), 1);
    settle(world);
  });
  it("onto itself changes nothing", () => {
    const { world, guest } = world8();
    assert.equal(populate(guest, [3]), 1);
    assert.ok(world.mmu.write(guest.base, 3 * PAGE, 1));
    assert.equal(add(guest, { space: gmfn, idx: 3, gpfn: 3 }), 0);
    assert.equal(world.mmu.read(guest.base, 3 * PAGE), 1);
    settle(world);
  });
  it("onto shared_info unhooks that page, which can be hooked elsewhere afterwards", () => {
    const { world, guest } = world8();
    assert.equal(populate(guest, [3]), 1);
    assert.equal(add(guest, { space: sharedInfo, gpfn: 5 }), 0);
    assert.equal(add(guest, { space: gmfn, idx: 3, gpfn: 5 }), 0);
    assert.equal(world.hypervisor.domains.sharedInfoGfn[guest.slot], 0);
    settle(world);
    assert.equal(add(guest, { space: sharedInfo, gpfn: 7 }), 0);
    settle(world);
  });
  it("refuses a hole, a gfn that does not exist and a special page as source", () => {
    const { world, guest } = world8();
    assert.equal(add(guest, { space: sharedInfo, gpfn: 5 }), 0);
    assert.equal(add(guest, { space: gmfn, idx: 1, gpfn: 2 }), -abi.EINVAL);
    assert.equal(add(guest, { space: gmfn, idx: 2 ** 31, gpfn: 2 }), -abi.EINVAL);
    assert.equal(add(guest, { space: gmfn, idx: 5, gpfn: 2 }), -abi.EACCES);
    settle(world);
  });
  it("as a range moves page by page up to the first that fails", () => {
    const { world, guest } = world8();
    assert.equal(populate(guest, [0, 1, 2, 4]), 4);
    assert.equal(add(guest, { space: abi.XENMAPSPACE_gmfn_range, idx: 0, gpfn: 20, size: 3 }), 0);
    assert.equal(add(guest, { space: abi.XENMAPSPACE_gmfn_range, idx: 3, gpfn: 30, size: 2 }), -abi.EINVAL);
    assert.deepEqual(
      range(20, 3).map((gfn) => world.mmu.read(guest.base, gfn * PAGE)),
      [0, 0, 0],
    );
    settle(world);
  });
});

describe("add_to_physmap of what does not exist here", () => {
  it("is answered with the error of its space", () => {
    const { world, guest } = world8();
    assert.equal(add(guest, { space: abi.XENMAPSPACE_gmfn_foreign, gpfn: 1 }), -abi.ENOSYS);
    assert.equal(add(guest, { space: abi.XENMAPSPACE_dev_mmio, gpfn: 1 }), -abi.EPERM);
    assert.equal(add(guest, { space: 6, gpfn: 1 }), -abi.ENOSYS);
    assert.equal(add(guest, { space: sharedInfo, gpfn: 1, domid: 99 }), -abi.ESRCH);
    assert.equal(add(guest, { space: sharedInfo, gpfn: 1, domid: 0 }), -abi.EPERM);
    assert.equal(memoryOp(guest, abi.XENMEM_add_to_physmap, 0), -abi.EFAULT);
    assert.equal(add(guest, { space: sharedInfo, gpfn: 1 }), 0);
    settle(world);
  });
});

describe("add_to_physmap_batch", () => {
  it("gives each page its own result", () => {
    const { world, guest } = world8();
    assert.equal(populate(guest, [0, 1]), 2);
    assert.equal(addBatch(guest, { space: gmfn, idxs: [0, 9, 1], gpfns: [10, 11, 4096] }), 0);
    assert.deepEqual(errorsOf(guest, 3), [0, -abi.EINVAL, -abi.EINVAL]);
    settle(world);
  });
  it("refuses ranges, foreign pages that the caller has no authority over, and its own as foreign", () => {
    const { world, guest } = world8();
    const other = addGuest(world, 1);
    const foreign = abi.XENMAPSPACE_gmfn_foreign;
    assert.equal(addBatch(guest, { space: abi.XENMAPSPACE_gmfn_range, idxs: [0], gpfns: [1] }), -abi.EOPNOTSUPP);
    assert.equal(addBatch(guest, { space: foreign, idxs: [0], gpfns: [1], foreign: other.domid }), -abi.EPERM);
    assert.equal(addBatch(world.dom0, { space: foreign, idxs: [0], gpfns: [1], foreign: 0 }), -abi.EINVAL);
    assert.equal(addBatch(world.dom0, { space: foreign, idxs: [0], gpfns: [1], foreign: 99 }), -abi.ESRCH);
    settle(world);
  });
  it("does nothing when a result could not be written", () => {
    const { world, guest } = world8();
    assert.equal(populate(guest, [0]), 1);
    assert.equal(addBatch(guest, { space: gmfn, idxs: [0], gpfns: [10], errs: 0xffff_fffe }), -abi.EFAULT);
    assert.equal(addBatch(guest, { space: gmfn, idxs: [0], gpfns: [10], errs: 20 * PAGE }), -abi.EFAULT);
    assert.equal(world.mmu.read(guest.base, 0), 0);
    settle(world);
  });
});

describe("remove_from_physmap", () => {
  it("makes a hole and keeps the RAM in the accounts", () => {
    const { world, guest } = world8();
    assert.equal(populate(guest, [3]), 1);
    assert.equal(removePage(guest, 3), 0);
    assert.equal(world.mmu.read(guest.base, 3 * PAGE), -1);
    assert.equal(ownedPages(world, guest), 1);
    assert.equal(removePage(guest, 3), -abi.ENOENT);
    assert.equal(removePage(guest, 2 ** 32 - 1), -abi.ENOENT);
    settle(world);
  });
  it("of shared_info lets it be hooked again", () => {
    const { world, guest } = world8();
    assert.equal(add(guest, { space: sharedInfo, gpfn: 5 }), 0);
    assert.equal(removePage(guest, 5), 0);
    assert.equal(world.hypervisor.domains.sharedInfoGfn[guest.slot], 0);
    assert.equal(add(guest, { space: sharedInfo, gpfn: 6 }), 0);
    settle(world);
  });
});

describe("a long batch", () => {
  it("lets its caller be paused between pages, and goes on where it was", () => {
    const world = createWorld();
    const guest = addGuest(world, 200);
    const { hypervisor, platform, mmu } = world;
    const { gate } = hypervisor.vcpus;
    assert.equal(populate(guest, range(0, 200)), 200);
    let parks = 0;
    mmu.onCall = () => {
      mmu.onCall = undefined;
      assert.equal(requestGate(gate, guest.cpu.index, GATE_PAUSE), false);
    };
    platform.onWait = () => {
      parks += 1;
      assert.equal(gate[guest.cpu.index], GATE_PAUSE);
      withdrawGate(gate, guest.cpu.index, GATE_PAUSE, platform);
    };
    assert.equal(add(guest, { space: abi.XENMAPSPACE_gmfn_range, idx: 0, gpfn: 300, size: 200 }), 0);
    assert.equal(parks, 1);
    settle(world);
  });
});
