import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { getFrame, putFrame } from "../src/frame-reference.ts";
import {
  addGuest,
  createWorld,
  fillReservation,
  memoryOp,
  ownedPages,
  PAGE,
  populate,
  range,
  readArgument,
  settle,
  writeArgument,
  writeList,
} from "./memory-fixture.ts";
import type { Extents, Guest, World } from "./memory-fixture.ts";

interface Exchange {
  readonly in: readonly number[];
  readonly out: readonly number[];
  readonly inOf?: Extents;
  readonly outOf?: Extents;
  readonly start?: number;
}

const SIZE = abi.xen_memory_exchange.sizeBytes;

/** Result and nr_exchanged. */
const exchange = (guest: Guest, wanted: Exchange): [number, number] => {
  const inList = wanted.inOf?.list ?? writeList(guest, wanted.in);
  const outList = wanted.outOf?.list ?? writeList(guest, wanted.out, 4096);
  writeArgument(guest, SIZE, (view) => {
    const { in: given, out: taken, nr_exchanged: done } = abi.xen_memory_exchange;
    fillReservation(
      view,
      given.offsetBytes,
      { list: inList, count: wanted.inOf?.count ?? wanted.in.length },
      wanted.inOf ?? {},
    );
    fillReservation(
      view,
      taken.offsetBytes,
      { list: outList, count: wanted.outOf?.count ?? wanted.out.length },
      wanted.outOf ?? {},
    );
    done.set(view, 0, wanted.start ?? 0);
  });
  const result = memoryOp(guest, abi.XENMEM_exchange);
  return [result, abi.xen_memory_exchange.nr_exchanged.get(readArgument(guest, SIZE), 0)];
};

const setUp = (pages: number): { world: World; guest: Guest } => {
  const world = createWorld();
  const guest = addGuest(world, pages);
  assert.equal(populate(guest, range(0, pages)), pages);
  for (const gfn of range(0, pages)) assert.ok(world.mmu.write(guest.base, gfn * PAGE, gfn + 1));
  return { world, guest };
};

describe("exchange", () => {
  it("gives new zeroed frames for old ones at the same gfns, the accounts unchanged", () => {
    const { world, guest } = setUp(6);
    const before = world.mmu.frameAt(guest.base, 2);
    assert.deepEqual(exchange(guest, { in: [2, 3], out: [2, 3] }), [0, 2]);
    assert.notEqual(world.mmu.frameAt(guest.base, 2), before);
    assert.equal(world.mmu.read(guest.base, 2 * PAGE), 0);
    assert.equal(world.mmu.read(guest.base, PAGE), 2);
    assert.equal(ownedPages(world, guest), 6);
    settle(world);
  });
  it("makes one contiguous extent of single pages, and single pages of one extent", () => {
    const { world, guest } = setUp(8);
    assert.deepEqual(exchange(guest, { in: [1, 3, 5, 7], out: [100], outOf: { order: 2 } }), [0, 4]);
    const first = world.mmu.frameAt(guest.base, 100);
    assert.equal(first % 4, 0);
    assert.deepEqual(
      range(100, 4).map((gfn) => world.mmu.frameAt(guest.base, gfn)),
      range(first, 4),
    );
    settle(world);
    assert.deepEqual(exchange(guest, { in: [100], inOf: { order: 2 }, out: [1, 3, 5, 7] }), [0, 1]);
    assert.equal(ownedPages(world, guest), 8);
    settle(world);
  });
  it("works at the limit of max_pages", () => {
    const { world, guest } = setUp(4);
    assert.deepEqual(exchange(guest, { in: range(0, 4), out: range(0, 4) }), [0, 4]);
    settle(world);
  });
  it("tells how far it came when a later chunk fails", () => {
    const { world, guest } = setUp(4);
    assert.deepEqual(exchange(guest, { in: [0, 1, 9, 2], out: [20, 21, 22, 23] }), [-abi.EINVAL, 2]);
    assert.equal(world.mmu.read(guest.base, 2 * PAGE), 3);
    settle(world);
    assert.deepEqual(exchange(guest, { in: [0, 1, 2, 3], out: [20, 21, 22, 23], start: 2 }), [0, 4]);
    settle(world);
  });
  it("does not take a page that others hold, nor one twice", () => {
    const { world, guest } = setUp(4);
    const frame = getFrame(world.hypervisor, guest.slot, 1);
    assert.deepEqual(exchange(guest, { in: [1], out: [1] }), [-abi.EINVAL, 0]);
    putFrame(world.hypervisor, frame);
    assert.deepEqual(exchange(guest, { in: [1, 1], out: [20], outOf: { order: 1 } }), [-abi.EINVAL, 0]);
    assert.deepEqual(exchange(guest, { in: [0, 1], out: [20], outOf: { order: 1 } }), [0, 2]);
    settle(world);
  });
  it("does not put two frames at one gfn, nor one over a page that stays", () => {
    const { world, guest } = setUp(5);
    assert.deepEqual(exchange(guest, { in: [0], inOf: { order: 2 }, out: [9, 8, 9, 10] }), [-abi.EINVAL, 0]);
    assert.deepEqual(exchange(guest, { in: [0], out: [4] }), [-abi.EINVAL, 0]);
    assert.deepEqual(
      range(0, 5).map((gfn) => world.mmu.read(guest.base, gfn * PAGE)),
      [1, 2, 3, 4, 5],
    );
    settle(world);
  });
  it("refuses orders, sizes, domains, flags and lists that cannot be", () => {
    const { world, guest } = setUp(4);
    assert.deepEqual(exchange(guest, { in: [0], inOf: { order: 10 }, out: [0], outOf: { order: 10 } }), [
      -abi.EPERM,
      0,
    ]);
    assert.deepEqual(exchange(guest, { in: [0, 1], out: [0] }), [-abi.EINVAL, 0]);
    assert.deepEqual(exchange(guest, { in: [0], out: [0], outOf: { domid: 5 } }), [-abi.EINVAL, 0]);
    const missing = { domid: 99 };
    assert.deepEqual(exchange(guest, { in: [0], out: [0], inOf: missing, outOf: missing }), [-abi.ESRCH, 0]);
    assert.deepEqual(exchange(guest, { in: [0], out: [0], outOf: { flags: 5 << 8 } }), [-abi.EINVAL, 0]);
    assert.deepEqual(exchange(guest, { in: [0], out: [0], inOf: { list: 0xffff_fffe, count: 1 } }), [-abi.EFAULT, 0]);
    assert.deepEqual(exchange(guest, { in: [0], out: [0] }), [0, 1]);
    settle(world);
  });
  it("answers -ENOMEM when the machine has no such extent, and changes nothing", () => {
    const world = createWorld({ machineFrames: 26, framesPerBank: 32, bankCount: 1 });
    const guest = addGuest(world, 4);
    assert.equal(populate(guest, range(0, 4)), 4);
    assert.deepEqual(exchange(guest, { in: range(0, 4), out: [0], outOf: { order: 2 } }), [-abi.ENOMEM, 0]);
    assert.equal(ownedPages(world, guest), 4);
    settle(world);
  });
});
