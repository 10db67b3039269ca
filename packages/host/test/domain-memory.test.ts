import assert from "node:assert/strict";
import { after, test } from "node:test";
import { assertClean, guest, openHost, program, run } from "./support.ts";

const host = await openHost();
after(() => host.close());

const PAGE = 65_536;

/** Stores 32-bit numbers that the program leaves at address 0. */
const results = (bytes: Uint8Array): number[] => [...new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)];

const growing = guest(`(module
  (memory (export "memory") 2)
  (func (export "_start")
    (i32.store (i32.const 0) (memory.size))
    (i32.store (i32.const 4) (memory.grow (i32.const 3)))
    (i32.store (i32.const 8) (memory.size))
    (i32.store (i32.const 12) (memory.grow (i32.const 100000)))
    (i32.store (i32.const 16) (memory.grow (i32.const -1)))
    (i32.store (i32.const 20) (memory.grow (i32.const 0)))
    (i32.store (i32.const 0x4fffc) (i32.const 77))))`);

test("memory.size and memory.grow tell what the domain has, and memory is usable to the end", async () => {
  await using domain = await run(host, growing);
  assert.equal((await domain.exited).crashed, false);
  assert.deepEqual(results(domain.read(0, 24)), [2, 2, 5, -1, -1, 5]);
  assert.deepEqual(results(domain.read(5 * PAGE - 4, 4)), [77]);
  assert.equal(domain.stats().pages, 5 * 16);
  assertClean(host);
});

test("memory.grow is bounded by the domain's own limit, to the frame, and takes all or nothing", async () => {
  const memoryBytesMax = 3 * PAGE + 4096;
  await using domain = await run(host, growing, { memoryBytesMax });
  assert.equal((await domain.exited).crashed, true);
  assert.deepEqual(results(domain.read(0, 24)), [2, -1, 2, -1, -1, 2]);
  assert.equal(domain.stats().pages, 2 * 16);
  assert.equal(domain.stats().pagesMax, 3 * 16 + 1);
  assertClean(host);
});

test("memory.grow stops at the maximum that the module declared", async () => {
  const image = guest(`(module (memory (export "memory") 1 2)
    (func (export "_start")
      (i32.store (i32.const 0) (memory.grow (i32.const 1)))
      (i32.store (i32.const 4) (memory.grow (i32.const 1)))))`);
  await using domain = await run(host, image);
  await domain.exited;
  assert.deepEqual(results(domain.read(0, 8)), [1, -1]);
});

test("a guest that grows without end gets what it may have and no more", async () => {
  const hoarding = program(
    "(block $full (loop $again (br_if $full (i32.eq (memory.grow (i32.const 1)) (i32.const -1))) (br $again)))",
  );
  await using domain = await run(host, hoarding, { memoryBytesMax: 16 * 2 ** 20 });
  assert.equal((await domain.exited).code, 0);
  assert.equal(domain.stats().pages, 4096);
  assertClean(host);
});

test("an image that needs more memory than its domain may have is refused with both numbers", async () => {
  const free = host.info().memoryFreeBytes;
  await assert.rejects(host.createDomain({ image: growing, memoryBytesMax: PAGE }), {
    code: "MEMORY_LIMIT",
    message: /128 KiB.*64 KiB/,
  });
  assert.equal(host.info().memoryFreeBytes, free);
  assertClean(host);
});

test("an image that needs more memory than is left on the machine is refused", async () => {
  const image = guest(`(module (memory (export "memory") 7168) (func (export "_start")))`);
  const memoryBytesMax = 512 * 2 ** 20;
  await using first = await host.createDomain({ image, memoryBytesMax });
  await assert.rejects(host.createDomain({ image, memoryBytesMax }), { code: "MEMORY_EXHAUSTED" });
  assert.equal(first.stats().pages, 7168 * 16);
  assertClean(host);
});

test("a data segment beyond the declared memory is refused, one that ends with it is not", async () => {
  const withSegment = (address: number): Uint8Array =>
    guest(`(module (memory (export "memory") 1) (data (i32.const ${address}) "abcd") (func (export "_start")))`);
  await assert.rejects(host.createDomain({ image: withSegment(65_533) }), { code: "MODULE_INVALID" });
  await using domain = await host.createDomain({ image: withSegment(65_532) });
  assert.equal(new TextDecoder().decode(domain.read(65_532, 4)), "abcd");
  assertClean(host);
});

test("host code reads and writes a domain's memory through the p2m, and gets an error for what is no memory", async () => {
  await using domain = await host.createDomain({ image: growing });
  const bytes = Uint8Array.from({ length: 10_000 }, (_, index) => index % 251);
  domain.write(60_000, bytes);
  assert.deepEqual(domain.read(60_000, 10_000), bytes);
  assert.deepEqual(domain.read(2 * PAGE, 0), new Uint8Array(0));
  for (const [address, length] of [
    [2 * PAGE, 1],
    [2 * PAGE - 1, 2],
    [2 ** 32 - 1, 1],
    [2 ** 32, 1],
    [-1, 1],
    [0, -1],
    [0.5, 1],
    [Number.NaN, 1],
    [0, 2 ** 32],
  ] as const) {
    assert.throws(() => domain.read(address, length), { code: "GUEST_ADDRESS" }, `${address} ${length}`);
  }
  assert.throws(() => domain.write(2 * PAGE - 1, bytes), { code: "GUEST_ADDRESS" });
  assert.deepEqual(domain.read(2 * PAGE - 1, 1), new Uint8Array(1));
});

for (const [what, instruction] of [
  ["memory.fill", "(memory.fill (i32.const 0x10000) (i32.const 1) (i32.const 65536))"],
  ["memory.copy", "(memory.copy (i32.const 0x10000) (i32.const 0) (i32.const 65536))"],
  ["memory.copy from there", "(memory.copy (i32.const 0) (i32.const 0x10000) (i32.const 65536))"],
  ["a store", "(i64.store (i32.const 0xfffc) (i64.const 1))"],
  ["a vector store", "(v128.store (i32.const 0xfff8) (v128.const i32x4 1 2 3 4))"],
  ["an atomic addition", "(drop (i32.atomic.rmw.add (i32.const 0x10000) (i32.const 1)))"],
] as const) {
  test(`${what} on memory that is not there crashes the domain only`, async () => {
    const shared = instruction.includes("atomic") ? "1 1 shared" : "1";
    const image = guest(`(module (memory (export "memory") ${shared}) (func (export "_start") ${instruction}))`);
    await using domain = await run(host, image);
    const exit = await domain.exited;
    assert.equal(exit.crashed, true);
    assert.match(exit.reason, /out of bounds|unreachable/);
    assertClean(host);
  });
}

test("memory that a domain gave up goes back to the machine", async () => {
  // decrease_reservation of gfn 15: extent list at 0, reservation at 16.
  const image = program(`
    (i32.store (i32.const 0) (i32.const 15))
    (i32.store (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (i32.const 1))
    (i32.store (i32.const 24) (i32.const 0))
    (i32.store (i32.const 28) (i32.const 0))
    (i32.store (i32.const 32) (i32.const 0x7ff0))
    (i32.store (i32.const 64) (call $memory_op (i32.const 1) (i32.const 16)))`);
  const free = host.info().memoryFreeBytes;
  await using domain = await run(host, image);
  await domain.exited;
  assert.deepEqual(results(domain.read(64, 4)), [1]);
  assert.equal(domain.stats().pages, 15);
  // 15 frames, shared_info and a page of its grant table.
  assert.equal(host.info().memoryFreeBytes, free - 17 * 4096);
  assert.throws(() => domain.read(15 * 4096, 1), { code: "GUEST_ADDRESS" });
  assertClean(host);
});

test("a new domain finds no trace of the one before it in its memory (W14)", async () => {
  const filling = program("(memory.fill (i32.const 0) (i32.const 0xc3) (i32.const 65536))");
  const looking = program(`
    (local $at i32)
    (loop $again
      (if (i32.load8_u (local.get $at)) (then unreachable))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $at) (i32.const 65536))))`);
  for (let round = 0; round < 3; round += 1) {
    const first = await run(host, filling);
    assert.equal((await first.exited).crashed, false);
    await first.destroy();
    await using second = await run(host, looking);
    assert.equal((await second.exited).crashed, false);
  }
});
