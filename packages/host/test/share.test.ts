// Shares: one buffer of machine memory in many guests at once, taken back while they use it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { freeFrameCount } from "@xenolith/core";
import { exactProcessMemory } from "@xenolith/sys";
import type { Host, ShareLoss } from "../src/index.ts";
import { assertClean, eventually, guest, openHost, run } from "./support.ts";

const MIB = 2 ** 20;
const READ_ONLY = { access: "read-only" } as const;
const READ_WRITE = { access: "read-write" } as const;

/**
 * A reactor that works on memory that is given to it: sums words, fills bytes, and `watch`: adds up words until the sum
 * of a round is 0, telling in its own memory (at 16) how many rounds it made and (at 24) whether a word was ever neither
 * 0 nor 7.
 */
const worker = guest(`(module
  (memory (export "memory") 1)
  (func (export "sum") (param $at i32) (param $length i32) (result i64)
    (local $sum i64) (local $end i32)
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (loop $next
      (local.set $sum (i64.add (local.get $sum) (i64.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $sum))
  (func (export "load") (param $at i32) (result i32) (i32.load8_u (local.get $at)))
  (func (export "store") (param $at i32) (param $value i32) (i32.store8 (local.get $at) (local.get $value)))
  (func (export "grow") (param $pages i32) (result i32) (memory.grow (local.get $pages)))
  (func (export "watch") (param $at i32) (param $length i32) (result i32)
    (local $p i32) (local $end i32) (local $sum i64) (local $word i64)
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (loop $round
      (local.set $sum (i64.const 0))
      (local.set $p (local.get $at))
      (loop $next
        (local.set $word (i64.load (local.get $p)))
        (if (i32.and (i64.ne (local.get $word) (i64.const 0)) (i64.ne (local.get $word) (i64.const 7)))
          (then (i64.store (i32.const 24) (local.get $word))))
        (local.set $sum (i64.add (local.get $sum) (local.get $word)))
        (local.set $p (i32.add (local.get $p) (i32.const 8)))
        (br_if $next (i32.lt_u (local.get $p) (local.get $end))))
      (i64.store (i32.const 16) (i64.add (i64.load (i32.const 16)) (i64.const 1)))
      (br_if $round (i64.ne (local.get $sum) (i64.const 0))))
    (i32.const 1)))`);

/** Adds 1 to each word of a buffer, again and again, plainly and atomically in turns, until there is a 1 at address 8. */
const adder = guest(`(module
  (memory (export "memory") 1 1 shared)
  (func (export "add") (param $at i32) (param $length i32) (result i32)
    (local $p i32) (local $end i32)
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (loop $round
      (local.set $p (local.get $at))
      (loop $next
        (i32.store (local.get $p) (i32.add (i32.load (local.get $p)) (i32.const 1)))
        (drop (i32.atomic.rmw.add offset=4 (local.get $p) (i32.const 1)))
        (v128.store offset=8 (local.get $p)
          (i32x4.add (v128.load offset=8 (local.get $p)) (v128.const i32x4 1 1 0 0)))
        (local.set $p (i32.add (local.get $p) (i32.const 64)))
        (br_if $next (i32.lt_u (local.get $p) (local.get $end))))
      (br_if $round (i32.eqz (i32.load (i32.const 8)))))
    (i32.const 1)))`);

const sevens = (lengthBytes: number): BigUint64Array => new BigUint64Array(lengthBytes / 8).fill(7n);

/** Machine memory that is resident in this process, each page counted once however often it is mapped. */
const machineBytes = (): number => {
  let sum = 0;
  let isBank = false;
  for (const line of readFileSync("/proc/self/smaps", "latin1").split("\n")) {
    if (/^[0-9a-f]+-/.test(line)) isBank = line.includes("/memfd:xenolith-bank");
    const size = isBank ? /^Pss:\s+(\d+) kB/.exec(line) : null;
    if (size !== null) sum += Number(size[1]) * 1024;
  }
  return sum;
};

/** Sums of the auditor and of free frames agree with what was there before. */
const assertSame = (host: Host, freeBefore: number): void => {
  assertClean(host);
  assert.equal(freeFrameCount(host.hypervisor), freeBefore);
};

test("a reactor that is called with a mapped buffer works on it without a copy", async () => {
  await using host = await openHost();
  const domain = await run(host, worker);
  const free = freeFrameCount(host.hypervisor);
  const share = host.share(sevens(MIB));
  const pages = domain.stats().pages;
  const address = share.mapInto(domain, READ_ONLY);
  assert.equal(address, 0xf000_0000 - MIB - 4096);
  assert.equal(share.addressIn(domain), address);
  assert.equal(await domain.call("sum", address, MIB), (7n * BigInt(MIB)) / 8n);
  assert.equal(domain.stats().pages, pages);
  // Not a copy: what dom0 writes is there at once.
  new BigUint64Array(share.bytes.buffer, share.bytes.byteOffset, 1)[0] = 1007n;
  assert.equal(await domain.call("sum", address, MIB), (7n * BigInt(MIB)) / 8n + 1000n);
  assertClean(host);
  share.unmap(domain);
  share.close();
  assertSame(host, free);
});

test("what a guest writes dom0 and the other guests see at once", async () => {
  await using host = await openHost();
  const [one, two] = [await run(host, worker), await run(host, worker)];
  using share = host.share(8192);
  const address = share.mapInto(one, READ_WRITE);
  const reading = share.mapInto(two, READ_ONLY);
  await one.call("store", address + 5000, 9);
  assert.equal(share.bytes[5000], 9);
  assert.equal(await two.call("load", reading + 5000), 9);
  assert.deepEqual([...two.read(reading + 5000, 1)], [9]);
  await assert.rejects(two.call("store", reading, 1), { code: "DOMAIN_CRASHED" });
  assertClean(host);
});

test("revoked in the middle of a guest's loop: it reads the share or zeros, and never traps", async () => {
  await using host = await openHost();
  const domain = await run(host, worker);
  using share = host.share(sevens(MIB));
  const address = share.mapInto(domain, READ_ONLY);
  const losses: ShareLoss[] = [];
  share.events.on("revoked", (loss) => losses.push(loss));
  const watching = domain.call("watch", address, MIB);
  await eventually(() => new DataView(domain.read(16, 8).buffer).getBigUint64(0, true) > 3n);
  share.revoke(domain);
  assert.equal(await watching, 1);
  assert.deepEqual([...domain.read(24, 8)], Array(8).fill(0));
  assert.deepEqual(losses, [{ domain, address, lengthBytes: MIB }]);
  assert.deepEqual(share.domains, []);
  assert.equal(share.bytes[0], 7);
  assertClean(host);
  share.unmap(domain);
  await assert.rejects(domain.call("load", address), { code: "DOMAIN_CRASHED" });
});

test("revoked from a writer: it goes on with zeroed pages of its own", async () => {
  await using host = await openHost();
  const domain = await run(host, worker);
  const before = domain.stats().pages;
  using share = host.share(sevens(16_384));
  const address = share.mapInto(domain, READ_WRITE);
  assert.equal(domain.stats().pages, before + 4);
  share.revoke();
  assert.equal(await domain.call("sum", address, 16_384), 0n);
  await domain.call("store", address, 5);
  assert.equal(await domain.call("load", address), 5);
  assert.equal(share.bytes[0], 7);
  assertClean(host);
  share.unmap(domain);
  assert.equal(domain.stats().pages, before);
  // And once more from the beginning.
  assert.equal(share.mapInto(domain, READ_WRITE), address);
  assert.equal(await domain.call("load", address), 7);
});

test("revoked and given again a thousand times under a guest that adds to each word: it never traps, and dom0's bytes stay what it wrote", async () => {
  await using host = await openHost();
  const domain = await run(host, adder);
  using share = host.share(65_536);
  const words = new Int32Array(share.bytes.buffer, share.bytes.byteOffset, 16_384);
  const address = share.mapInto(domain, READ_WRITE);
  const adding = domain.call("add", address, 65_536);
  for (let cycle = 1; cycle <= 1000; cycle += 1) {
    share.revoke();
    words.fill(cycle * 1_000_000);
    assert.ok(
      words.every((word) => word === cycle * 1_000_000),
      "revoked: nobody else writes it",
    );
    assert.equal(share.mapInto(domain, READ_WRITE), address);
  }
  // What is added in one instruction is added to the share. A load and a store may have a restored page between them.
  await eventually(() => words.every((word, index) => index % 16 !== 1 || word > 1000 * 1_000_000));
  domain.write(8, Uint8Array.of(1));
  assert.equal(await adding, 1);
  assertClean(host);
});

test("sixteen guests hold one copy, and one that loses it does not disturb the others", async () => {
  await using host = await openHost({ memoryBytes: 1024 * MIB });
  const lengthBytes = 64 * MIB;
  const domains = await Promise.all(Array.from({ length: 16 }, () => run(host, worker)));
  await Promise.all(domains.map((domain) => domain.call("sum", 0, 65_536)));
  const before = machineBytes();
  const share = host.share(lengthBytes);
  new BigUint64Array(share.bytes.buffer, share.bytes.byteOffset, lengthBytes / 8).fill(7n);
  const one = machineBytes() - before;
  assert.ok(one >= lengthBytes);
  const process = exactProcessMemory().proportionalBytes;
  const addresses = domains.map((domain) => share.mapInto(domain, READ_ONLY));
  const sum = (7n * BigInt(lengthBytes)) / 8n;
  const sums = async (): Promise<unknown[]> =>
    Promise.all(domains.map((domain, index) => domain.call("sum", addresses[index]!, lengthBytes)));
  assert.deepEqual(await sums(), Array(16).fill(sum));
  const all = machineBytes() - before;
  assert.ok(all <= one * 1.02, `${all} bytes are resident, one copy is ${one}`);
  // The engine's own heaps come and go, by a few MiB.
  const grown = exactProcessMemory().proportionalBytes - process;
  assert.ok(grown < lengthBytes / 2, `the process has grown by ${grown} bytes`);
  share.revoke(domains[3]);
  assert.deepEqual(
    await sums(),
    domains.map((_, index) => (index === 3 ? 0n : sum)),
  );
  assertClean(host);
  share.close();
  assert.deepEqual(await sums(), Array(16).fill(0n));
  assertClean(host);
  for (const domain of domains) share.unmap(domain);
  assertClean(host);
});

test("a guest's own memory is shared with others, and taken back when it dies", async () => {
  await using host = await openHost();
  const [granter, user] = [await run(host, worker), await run(host, worker)];
  granter.write(4096, new Uint8Array(8192).fill(3));
  const share = host.shareFrom(granter, 4096, 8192);
  const address = share.mapInto(user, READ_ONLY);
  assert.equal(await user.call("load", address + 8191), 3);
  await granter.call("store", 4096, 4);
  assert.equal(await user.call("load", address), 4);
  assert.equal(share.bytes[0], 4);
  share.bytes[1] = 99;
  assert.equal(await user.call("load", address + 1), 3, "dom0 has a view of it for reading");
  assert.throws(() => share.mapInto(granter, READ_ONLY), { code: "INVALID_ARGUMENT" });
  assertClean(host);
  const losses: ShareLoss[] = [];
  share.events.on("revoked", (loss) => losses.push(loss));
  await granter.destroy();
  assert.equal(await user.call("load", address), 0);
  assert.equal(share.bytes[0], 0);
  assert.deepEqual(losses, [{ domain: user, address, lengthBytes: 8192 }]);
  assert.equal(share.closed, true);
  assert.throws(() => share.mapInto(user, READ_ONLY), { code: "SHARE_CLOSED" });
  assertClean(host);
  share.unmap(user);
  assertClean(host);
});

test("the end of a domain takes its mappings with it", async () => {
  await using host = await openHost();
  const free = freeFrameCount(host.hypervisor);
  const share = host.share(65_536);
  const losses: ShareLoss[] = [];
  share.events.on("unmapped", (loss) => losses.push(loss));
  const domain = await run(host, worker);
  const address = share.mapInto(domain, READ_WRITE);
  await domain.destroy();
  await Promise.resolve();
  assert.deepEqual(losses, [{ domain, address, lengthBytes: 65_536 }]);
  assert.equal(share.addressIn(domain), undefined);
  share.unmap(domain);
  share.revoke(domain);
  assert.throws(() => share.mapInto(domain, READ_ONLY), { code: "DOMAIN_STATE" });
  assertClean(host);
  share.close();
  assertSame(host, free);
});

test("after close a share maps nowhere, and its views read zeros of their own", async () => {
  await using host = await openHost();
  const domain = await run(host, worker);
  const free = freeFrameCount(host.hypervisor);
  const share = host.share(new Uint8Array(100).fill(7));
  const { bytes } = share;
  assert.equal(bytes.length, 100);
  const address = share.mapInto(domain, READ_ONLY);
  await share[Symbol.asyncDispose]();
  share.close();
  assert.equal(bytes[0], 0);
  bytes[0] = 8;
  assert.equal(await domain.call("load", address), 0);
  assert.throws(() => share.mapInto(domain, READ_ONLY), { code: "SHARE_CLOSED" });
  share.revoke();
  share.unmap(domain);
  assertSame(host, free);
});

test("memory.grow and shares stay out of each other's way", async () => {
  await using host = await openHost();
  const domain = await run(host, worker, { memoryBytesMax: 256 * MIB });
  using high = host.share(MIB);
  using low = host.share(MIB);
  high.mapInto(domain, READ_ONLY);
  low.mapInto(domain, { ...READ_ONLY, address: 4 * MIB });
  assert.equal(await domain.call("grow", 63), 1, "up to the share");
  assert.equal(await domain.call("grow", 1), -1);
  low.unmap(domain);
  assert.equal(await domain.call("grow", 1), 64);
  assert.throws(() => low.mapInto(domain, { ...READ_ONLY, address: 4 * MIB }), { code: "GUEST_ADDRESS" });
  assertClean(host);
});

test("sizes, addresses and rights that make no sense are refused, with nothing changed", async () => {
  await using host = await openHost();
  await using other = await openHost();
  const domain = await run(host, worker);
  const stranger = await run(other, worker);
  for (const size of [0, -1, 0.5, Number.NaN, 2 ** 32, 600 * MIB, Infinity]) {
    assert.throws(() => host.share(size), { code: "INVALID_SIZE" }, String(size));
  }
  assert.throws(() => host.share(new Uint8Array(0)), { code: "INVALID_SIZE" });
  const share = host.share(8192);
  for (const address of [1, -4096, 0.5, 2 ** 32, 2 ** 32 - 4096, Number.NaN]) {
    assert.throws(() => share.mapInto(domain, { ...READ_ONLY, address }), { code: "GUEST_ADDRESS" }, String(address));
  }
  for (const address of [0, 0xf000]) {
    assert.throws(() => share.mapInto(domain, { ...READ_WRITE, address }), { code: "GUEST_ADDRESS" }, String(address));
  }
  assert.throws(() => share.mapInto(stranger, READ_ONLY), { code: "DOMAIN_STATE" });
  // @ts-expect-error: no such right
  assert.throws(() => share.mapInto(domain, { access: "none" }), { code: "INVALID_ARGUMENT" });
  assert.throws(() => host.shareFrom(stranger, 0, 4096), { code: "DOMAIN_STATE" });
  for (const [address, length, code] of [
    [1, 4096, "GUEST_ADDRESS"],
    [0, 100, "INVALID_SIZE"],
    [0, 0, "INVALID_SIZE"],
    [65_536, 4096, "GUEST_ADDRESS"],
    [61_440, 8192, "GUEST_ADDRESS"],
    [2 ** 32 - 4096, 8192, "GUEST_ADDRESS"],
  ] as const) {
    assert.throws(() => host.shareFrom(domain, address, length), { code }, `${address} ${length}`);
  }
  assertClean(host);
  const address = share.mapInto(domain, { ...READ_ONLY, address: 2 ** 32 - 8192 });
  assert.equal(address, 2 ** 32 - 8192);
  assert.throws(() => share.mapInto(domain, READ_ONLY), { code: "INVALID_ARGUMENT" });
  // What is mapped of others cannot be shared on.
  assert.throws(() => host.shareFrom(domain, address, 4096), { code: "GUEST_ADDRESS" });
  share.close();
  assertClean(host);
});

test("a spent budget, of pages or of mappings, refuses a mapping and leaves nothing behind", async () => {
  await using host = await openHost();
  const poor = await run(host, worker, { memoryBytesMax: 65_536 + 4096, vmaBudget: 4 });
  using share = host.share(8192);
  using more = host.share(4096);
  assert.throws(() => share.mapInto(poor, READ_WRITE), { code: "MEMORY_EXHAUSTED" });
  share.mapInto(poor, READ_ONLY);
  assert.throws(() => more.mapInto(poor, READ_ONLY), { code: "VMA_EXHAUSTED" });
  share.unmap(poor);
  more.mapInto(poor, READ_WRITE);
  assert.throws(() => share.mapInto(poor, READ_WRITE), { code: "MEMORY_LIMIT" });
  assertClean(host);
  assert.throws(() => host.share(500 * MIB) && host.share(500 * MIB), { code: "MEMORY_EXHAUSTED" });
  assertClean(host);
});

test("a closed host refuses, and its shares are closed", async () => {
  const host = await openHost();
  const share = host.share(4096);
  await host.close();
  assert.equal(share.closed, true);
  assert.throws(() => host.share(4096), { code: "HOST_CLOSED" });
  assert.equal(share.bytes[0], 0);
});
