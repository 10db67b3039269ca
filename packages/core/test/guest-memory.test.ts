import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import fc from "fast-check";
import { hookRun } from "../src/address-space.ts";
import { GuestMemory, SCRATCH_BYTES } from "../src/guest-memory.ts";
import { createSecretExtent, mapSecret } from "../src/secret-extent.ts";
import { p2mMfn, P2M_GRANT_RO, P2M_GRANT_RW, P2M_RAM_RO } from "../src/p2m.ts";
import { addGuest, createWorld, PAGE, populate, range, SYSTEM_PAGES } from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

/** A guest with pages at gfns 0-3 (contiguous) and 8, whose bytes count up. */
const setUp = (): { world: World; guest: Guest; memory: GuestMemory } => {
  const world = createWorld();
  const guest = addGuest(world, 16);
  assert.equal(populate(guest, [...range(0, 4), 8]), 5);
  const memory = new GuestMemory(world.hypervisor, guest.slot);
  assert.equal(
    memory.copyToGuest(
      0,
      Uint8Array.from({ length: 4 * PAGE }, (_, index) => index % 251),
    ),
    0,
  );
  return { world, guest, memory };
};

const hookAs = (world: World, guest: Guest, gfn: number, mfn: number, type: number): void => {
  const { hypervisor } = world;
  const lock = hypervisor.locks.id("p2m", guest.slot);
  hypervisor.locks.acquire(lock);
  assert.equal(hookRun(hypervisor, guest.slot, gfn, mfn, 1, type), 0);
  hypervisor.locks.release(lock);
};

describe("guest memory", () => {
  it("reads and writes numbers of 8, 16 and 32 bits at any alignment, also across pages", () => {
    const { memory, world, guest } = setUp();
    for (const address of [0, 1, 2, 3, 4093, 4094, 4095, 8191]) {
      assert.ok(memory.writeU32(address, 0xdead_beef));
      assert.equal(memory.readU32(address), 0xdead_beef);
      assert.equal(world.mmu.read(guest.base, address), 0xef);
      assert.ok(memory.writeU16(address, 0x8001));
      assert.equal(memory.readU16(address), 0x8001);
      assert.ok(memory.writeU8(address, 0xff));
      assert.equal(memory.readU8(address), 0xff);
    }
  });
  it("fetches a struct to scratch and stores it from there; single numbers do not disturb it", () => {
    const { memory } = setUp();
    assert.ok(memory.fetch(10, 20));
    assert.equal(memory.scratch.getUint8(19), 29);
    assert.equal(memory.readU32(100), 0x6766_6564);
    assert.equal(memory.scratch.getUint8(0), 10);
    assert.ok(memory.fetchAt(PAGE - 4, 8, 100));
    assert.equal(memory.scratch.getUint8(104), PAGE % 251);
    assert.ok(memory.fetch(0, SCRATCH_BYTES));
    memory.scratch.setUint8(0, 77);
    assert.ok(memory.store(8 * PAGE, 1));
    assert.equal(memory.readU8(8 * PAGE), 77);
  });
  it("fetches and stores words of one page, and leaves what is not that to others", () => {
    const { memory, world, guest } = setUp();
    const words = new Uint32Array(4).fill(7);
    assert.ok(memory.fetchWords(PAGE - 8, words, 2));
    const bytes = Uint8Array.from({ length: 8 }, (_, index) => (PAGE - 8 + index) % 251);
    assert.deepEqual(words, Uint32Array.of(...new Uint32Array(bytes.buffer), 7, 7));
    assert.ok(memory.storeWords(8 * PAGE, words, 3));
    assert.deepEqual(
      [0, 4, 8, 12].map((at) => memory.readU32(8 * PAGE + at)),
      [words[0], words[1], 7, 0],
    );
    hookAs(world, guest, 1, p2mMfn(world.hypervisor.p2m.get(guest.slot, 1)), P2M_RAM_RO);
    const before = memory.readU32(PAGE);
    for (const address of [2, PAGE - 4, 4 * PAGE, 2 ** 32, -4, 0.5]) {
      assert.equal(memory.fetchWords(address, words, 2), false, `${address}`);
      assert.equal(memory.storeWords(address, words, 2), false, `${address}`);
    }
    assert.ok(memory.fetchWords(PAGE, words, 2));
    assert.equal(memory.storeWords(PAGE, Uint32Array.of(0, 0), 2), false);
    assert.equal(memory.readU32(PAGE), before);
  });
  it("copies exactly the bytes asked for, whatever the pages behind them", () => {
    const { memory } = setUp();
    const expected = Uint8Array.from({ length: 4 * PAGE }, (_, index) => index % 251);
    const lengths = fc.integer({ min: 0, max: 3 * PAGE });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: PAGE }), lengths, (address, length) => {
        const target = new Uint8Array(length + 2).fill(0xaa);
        assert.equal(memory.copyFromGuest(address, target.subarray(1, length + 1)), 0);
        assert.deepEqual(target.subarray(1, length + 1), expected.subarray(address, address + length));
        assert.deepEqual([target[0], target.at(-1)], [0xaa, 0xaa]);
      }),
    );
  });
  it("answers -EFAULT and copies nothing when any page of the range is absent", () => {
    const { memory, world, guest } = setUp();
    const target = new Uint8Array(2 * PAGE).fill(0xaa);
    assert.equal(memory.copyFromGuest(3 * PAGE, target), -abi.EFAULT);
    assert.ok(target.every((byte) => byte === 0xaa));
    assert.equal(memory.copyToGuest(3 * PAGE, target), -abi.EFAULT);
    assert.equal(world.mmu.read(guest.base, 3 * PAGE), (3 * PAGE) % 251);
    assert.equal(memory.readU32(4 * PAGE - 2), -1);
    assert.equal(memory.writeU32(4 * PAGE - 2, 1), false);
    assert.equal(memory.copyFromGuest(2 * PAGE, target), 0);
  });
  it("zeroes a range, and tells what may be read and written", () => {
    const { memory } = setUp();
    assert.equal(memory.zero(5, PAGE), 0);
    assert.equal(memory.readU8(4), 4);
    assert.equal(memory.readU8(PAGE + 4), 0);
    assert.equal(memory.readU8(PAGE + 5), (PAGE + 5) % 251);
    assert.equal(memory.zero(3 * PAGE, PAGE + 1), -abi.EFAULT);
    assert.ok(memory.accessible(0, 4 * PAGE, true));
    assert.ok(!memory.accessible(0, 4 * PAGE + 1, false));
    assert.ok(memory.accessible(PAGE * 4, 0, true));
  });
});

describe("the domain's own permission for a page", () => {
  it("lets a read-only page be read and not written, a secret page neither", () => {
    const { world, guest, memory } = setUp();
    const other = addGuest(world, 2);
    assert.equal(populate(other, [0]), 1);
    const frame = p2mMfn(world.hypervisor.p2m.get(other.slot, 0));
    hookAs(world, guest, 20, frame, P2M_GRANT_RO);
    hookAs(world, guest, 21, frame, P2M_GRANT_RW);
    assert.equal(memory.writeU32(20 * PAGE, 1), false);
    assert.equal(memory.copyToGuest(20 * PAGE, new Uint8Array(200)), -abi.EFAULT);
    assert.equal(memory.zero(20 * PAGE, 1), -abi.EFAULT);
    assert.equal(memory.readU32(20 * PAGE), 0);
    assert.ok(memory.writeU32(21 * PAGE, 5));
    assert.equal(memory.readU32(20 * PAGE), 5);
    world.mmu.addSecret(9, 1);
    const secret = createSecretExtent(world.hypervisor, guest.slot, 1, 9);
    const target = { slot: guest.slot, gfn: 22, page: 0, count: 1, isWritable: true };
    assert.ok(mapSecret(world.hypervisor, secret, target) > 0);
    assert.equal(memory.readU32(22 * PAGE), -1);
    assert.equal(memory.writeU32(22 * PAGE, 1), false);
    assert.equal(memory.accessible(22 * PAGE, 1, false), false);
  });
  it("holds for RAM that was made read-only", () => {
    const { world, guest, memory } = setUp();
    hookAs(world, guest, 1, p2mMfn(world.hypervisor.p2m.get(guest.slot, 1)), P2M_RAM_RO);
    assert.equal(memory.readU8(PAGE), PAGE % 251);
    assert.equal(memory.writeU8(PAGE, 1), false);
    assert.equal(memory.copyToGuest(0, new Uint8Array(2 * PAGE)), -abi.EFAULT);
    assert.ok(memory.writeU8(0, 1));
  });
});

describe("guest addresses and lengths", () => {
  const GUEST_END = 1024 * PAGE;
  const edges = [
    0,
    1,
    GUEST_END - 1,
    GUEST_END,
    GUEST_END + 1,
    2 ** 31,
    2 ** 32 - 1,
    2 ** 32,
    2 ** 53,
    -1,
    0.5,
    Number.NaN,
    Infinity,
  ];
  const isAtTop = (address: number, end: number): boolean =>
    address >= GUEST_END - SYSTEM_PAGES * PAGE && end <= GUEST_END;
  it("are checked as a whole: no address wraps, no length is cut, nothing outside is touched (W01)", () => {
    const { memory, world, guest } = setUp();
    const before = range(0, 4 * PAGE)
      .map((address) => world.mmu.read(guest.base, address))
      .join();
    for (const address of edges) {
      for (const length of [1, 4, 64, 4096, 8192]) {
        const end = address + length;
        const isInside = Number.isInteger(address) && ((address >= 0 && end <= 4 * PAGE) || isAtTop(address, end));
        assert.equal(memory.copyFromGuest(address, new Uint8Array(length)), isInside ? 0 : -abi.EFAULT, `${address}`);
        if (!isInside) assert.equal(memory.copyToGuest(address, new Uint8Array(length)), -abi.EFAULT);
        if (!isInside && length <= SCRATCH_BYTES) assert.equal(memory.fetch(address, length), false);
        if (!isInside && length <= SCRATCH_BYTES) assert.equal(memory.store(address, length), false);
      }
      assert.equal(memory.accessible(address, 2 ** 32, false), false);
      assert.equal(memory.accessible(0, address === 0 ? 5 * PAGE : address, true), address === 1);
    }
    assert.equal(
      range(0, 4 * PAGE)
        .map((address) => world.mmu.read(guest.base, address))
        .join(),
      before,
    );
  });
  it("at the very end of the address space work to the last byte and not beyond (W05, M40)", () => {
    const { memory } = setUp();
    const end = GUEST_END;
    assert.equal(memory.copyToGuest(end - 100, new Uint8Array(100).fill(7)), 0);
    assert.equal(memory.readU8(end - 1), 7);
    assert.equal(memory.readU32(end - 4), 0x0707_0707);
    assert.equal(memory.readU32(end - 3), -1);
    assert.equal(memory.zero(end - 100, 101), -abi.EFAULT);
    assert.equal(memory.readU8(end - 100), 7);
    assert.equal(memory.zero(end - 100, 100), 0);
    assert.equal(memory.readU8(end - 1), 0);
    assert.equal(memory.zero(end, 0), 0);
  });
  it("of 64 bits are refused, not rounded to a neighbour (W27)", () => {
    const { memory } = setUp();
    assert.equal(memory.readU8(2 ** 53), -1);
    assert.equal(memory.readU8(2 ** 32), -1);
    assert.equal(memory.readU8(-(2 ** 32)), -1);
    assert.equal(memory.readU8(0), 0);
  });
});
