// host.grants.map and copy: dom0 as mapper, with a real guest on the other side.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { GTF_reading, GTF_readonly, GTF_revokable, GTF_writing } from "@xenolith/abi";
import { clearPending, freeFrameCount, isPending } from "@xenolith/core";
import { assertClean, eventually, openHost } from "./support.ts";
import { OWN_GFN, own, Puppet, wordAt } from "./grants-guest.ts";

const host = await openHost();
after(() => host.close());
const { grants } = host;
const IN_USE = GTF_reading | GTF_writing;

/** A guest that grants `count` of its pages, by the references from 8 up; their first words are 100, 101, ... */
const granter = async (count: number, flags = 0): Promise<Puppet> => {
  const puppet = await Puppet.start(host);
  for (let index = 0; index < count; index += 1) {
    puppet.grant(8 + index, OWN_GFN + index, flags);
    puppet.domain.write(own(index), Uint8Array.of(100 + index));
  }
  return puppet;
};

test("pages that a guest granted are one memory with dom0's view, in the order of the references", async () => {
  const puppet = await granter(3);
  const mapped = grants.map(puppet.domid, [10, 8, 9]);
  assert.deepEqual([mapped.bytes[0], mapped.bytes[4096], mapped.bytes[8192]], [102, 100, 101]);
  await puppet.store(own(2), 7);
  assert.equal(mapped.bytes[0], 7);
  mapped.bytes[4096] = 55;
  assert.equal(await puppet.load(own(0)), 55);
  assert.equal(puppet.flags(8) & IN_USE, IN_USE);
  assertClean(host);
  mapped.unmap();
  mapped.unmap();
  assert.equal(mapped.isMapped, false);
  assert.ok(mapped.bytes.every((byte) => byte === 0));
  mapped.bytes.fill(1);
  assert.equal(await puppet.load(own(0)), 55);
  assert.equal(puppet.flags(8) & IN_USE, 0);
  assertClean(host);
  await puppet.domain.destroy();
});

test("read-only pages are not marked as written, and a write to the view stays in it", async () => {
  const puppet = await granter(1, GTF_readonly);
  assert.throws(() => grants.map(puppet.domid, [8]), { code: "HYPERCALL_FAILED", message: /GNTST_general_error/ });
  using mapped = grants.map(puppet.domid, [8], { readOnly: true });
  assert.equal(puppet.flags(8) & IN_USE, GTF_reading);
  mapped.bytes[0] = 1;
  assert.equal(await puppet.load(own(0)), 100);
  mapped.unmap();
  await puppet.domain.destroy();
  assertClean(host);
});

test("all or nothing: the error names the reference and the status, and nothing stays mapped", async () => {
  const puppet = await granter(4);
  for (const [refs, message] of [
    [[8, 9, 500, 10], /reference 500 of domain \d+ \(3 of 4\).*GNTST_general_error/],
    [[9999], /reference 9999.*GNTST_bad_gntref/],
    [[4_294_967_295, 8], /reference 4294967295.*\(1 of 2\).*GNTST_bad_gntref/],
  ] as const) {
    for (const options of [{}, { device: true }, { device: "only" }] as const) {
      assert.throws(() => grants.map(puppet.domid, refs, options), { code: "HYPERCALL_FAILED", message });
    }
  }
  assert.throws(() => grants.map(31_000, [8]), { code: "HYPERCALL_FAILED", message: /GNTST_bad_domain/ });
  puppet.grant(30, 0x6_0000);
  assert.throws(() => grants.map(puppet.domid, [8, 30]), { message: /reference 30.*GNTST_bad_page/ });
  assert.deepEqual(
    [8, 9, 10, 11].map((ref) => puppet.flags(ref) & IN_USE),
    [0, 0, 0, 0],
  );
  assertClean(host);
  await puppet.domain.destroy();
});

test("the number of references has a limit that the error names", () => {
  const refs = Array.from({ length: 65_537 }, () => 8);
  assert.throws(() => grants.map(1, []), { code: "INVALID_SIZE", message: /0 references, it must be 1 to 65536/ });
  assert.throws(() => grants.map(1, refs), { code: "INVALID_SIZE", message: /65537/ });
  assert.throws(() => grants.map(1, [1.5]), { code: "INVALID_ARGUMENT" });
  assert.throws(() => grants.map(1, [-1]), { code: "INVALID_ARGUMENT" });
  assert.throws(() => grants.map(-1, [8]), { code: "INVALID_ARGUMENT" });
});

test("one reference can be mapped many times: 128 in one call, and no more at a time", async () => {
  const puppet = await granter(2);
  const refs = Array.from({ length: 128 }, () => 8);
  const first = grants.map(puppet.domid, refs);
  assert.ok([0, 64, 127].every((index) => first.bytes[index * 4096] === 100));
  assert.throws(() => grants.map(puppet.domid, [9, 8]), { message: /reference 8 .*GNTST_general_error/ });
  first.unmap();
  grants.map(puppet.domid, [9, 8]).unmap();
  await puppet.domain.destroy();
  assertClean(host);
});

test("more pages than one batch has", async () => {
  const puppet = await granter(0);
  const refs: number[] = [];
  // 500 pages from address 0 on, the highest first.
  for (let index = 0; index < 490; index += 1) {
    puppet.grant(8 + index, 1000 - index, GTF_readonly);
    refs.push(8 + index);
  }
  const all = [...refs, ...refs.slice(0, 300)];
  const mapped = grants.map(puppet.domid, all, { readOnly: true });
  puppet.domain.write(1000 * 4096, Uint8Array.of(1));
  puppet.domain.write((1000 - 289) * 4096, Uint8Array.of(2));
  assert.deepEqual([mapped.bytes[0], mapped.bytes[490 * 4096], mapped.bytes[(490 + 289) * 4096]], [1, 1, 2]);
  assertClean(host);
  mapped.unmap();
  assertClean(host);
  await puppet.domain.destroy();
});

test("revokable: when the guest takes its page back, dom0 sees a page of its own and is told", async () => {
  const puppet = await granter(2, GTF_revokable);
  assert.throws(() => grants.map(puppet.domid, [8]), { message: /GNTST_permission_denied/ });
  const mapped = grants.map(puppet.domid, [8, 9], { revokable: true });
  const told: number[] = [];
  mapped.events.on("revoked", (index) => told.push(index));
  mapped.bytes[4096] = 3;
  assert.equal(await puppet.load(own(1)), 3);
  assert.equal(await puppet.revoke(9), 0);
  assert.deepEqual([mapped.isRevoked(0), mapped.isRevoked(1)], [false, true]);
  assert.equal(mapped.bytes[4096], 0);
  mapped.bytes[4096] = 4;
  mapped.bytes[0] = 5;
  assert.deepEqual([await puppet.load(own(1)), await puppet.load(own(0))], [3, 5]);
  await eventually(() => told.length > 0);
  assert.deepEqual(told, [1]);
  assertClean(host);
  assert.throws(() => mapped.isRevoked(2), { code: "INVALID_ARGUMENT" });
  assert.equal(puppet.flags(9) & IN_USE, 0);
  mapped.unmap();
  assert.deepEqual([mapped.isRevoked(0), mapped.isRevoked(1)], [false, true]);
  await puppet.domain.destroy();
  assertClean(host);
});

test("revokable and read-only: zeros take the place of the page", async () => {
  const puppet = await granter(1, GTF_revokable);
  const before = freeFrameCount(host.hypervisor);
  const mapped = grants.map(puppet.domid, [8], { revokable: true, readOnly: true, device: true });
  assert.equal(freeFrameCount(host.hypervisor), before);
  assert.equal(mapped.deviceBytes![0], 100);
  assert.equal(await puppet.revoke(8), 0);
  assert.deepEqual([mapped.bytes[0], mapped.deviceBytes![0]], [0, 0]);
  assertClean(host);
  mapped.unmap();
  await puppet.domain.destroy();
  assertClean(host);
});

for (const device of [true, "only"] as const) {
  test(`device ${device}: the page stands at its bus address, and revoke and unmap reach it there`, async () => {
    const puppet = await granter(3, GTF_revokable);
    puppet.grant(20, OWN_GFN + 3);
    const mapped = grants.map(puppet.domid, [8, 9], { revokable: true, device });
    const plain = grants.map(puppet.domid, [20], { device });
    assert.equal(mapped.bytes.length, device === true ? 8192 : 0);
    assert.equal(mapped.deviceAddress! % 4096, 0);
    const bus = new Uint8Array(host.dmaView.buffer);
    assert.equal(bus[mapped.deviceAddress! + 4096], 101);
    bus[mapped.deviceAddress!] = 9;
    assert.equal(await puppet.load(own(0)), 9);
    if (device === true) assert.equal(mapped.bytes[0], 9);
    assert.equal(await puppet.revoke(8), 0);
    bus[mapped.deviceAddress!] = 10;
    if (device === true) assert.equal(mapped.bytes[0], 10);
    assert.equal(await puppet.load(own(0)), 9);
    assertClean(host);
    mapped.unmap();
    bus[plain.deviceAddress!] = 11;
    assert.equal(await puppet.load(own(3)), 11);
    plain.unmap();
    assert.equal(bus[plain.deviceAddress!], 0);
    assert.equal(puppet.flags(20) & IN_USE, 0);
    await puppet.domain.destroy();
    assertClean(host);
  });
}

test("unmapNotify: the byte is 0 and the page unmapped when the event comes; a new request replaces the earlier", async () => {
  const puppet = await granter(2);
  const slot = host.hypervisor.domains.slotOf(puppet.domid);
  const remote = await puppet.port();
  const port = host.events.bindInterdomain(puppet.domid, remote);
  const mapped = grants.map(puppet.domid, [8, 9]);
  mapped.bytes.fill(1);
  mapped.unmapNotify({ clearByte: 3, port });
  mapped.unmapNotify({ clearByte: 4096 + 2, port });
  clearPending(host.hypervisor, slot, remote);
  mapped.unmap();
  assert.equal(isPending(host.hypervisor, slot, remote), true);
  assert.equal(await puppet.load(own(0)), 0x0101_0101);
  assert.equal(await puppet.load(own(1)), 0x0100_0101);
  host.events.close(port);
  await puppet.domain.destroy();
  assertClean(host);
});

test("a notification is refused for revokable pages, a byte of read-only ones, and ports that lead nowhere", async () => {
  const puppet = await granter(1);
  puppet.grant(20, OWN_GFN + 3, GTF_revokable);
  const plain = grants.map(puppet.domid, [8]);
  const constant = grants.map(puppet.domid, [8], { readOnly: true });
  const revokable = grants.map(puppet.domid, [20], { revokable: true });
  const unbound = host.events.allocateUnbound(puppet.domid);
  const refused = { code: "INVALID_ARGUMENT" };
  assert.throws(() => revokable.unmapNotify({ clearByte: 0 }), { ...refused, message: /revokable/ });
  assert.throws(() => constant.unmapNotify({ clearByte: 0 }), { ...refused, message: /EINVAL/ });
  assert.throws(() => plain.unmapNotify({ clearByte: 4096 }), { ...refused, message: /0 to 4095/ });
  assert.throws(() => plain.unmapNotify({ port: 77 }), refused);
  plain.unmapNotify({ port: unbound });
  plain.unmapNotify({ clearByte: 0 });
  for (const mapped of [plain, constant, revokable]) mapped.unmap();
  assert.throws(() => plain.unmapNotify({ clearByte: 0 }), refused);
  host.events.close(unbound);
  await puppet.domain.destroy();
  assertClean(host);
});

test("a granter that dies leaves its plain pages to dom0 and takes the revokable ones; then its number is free", async () => {
  const puppet = await granter(1);
  puppet.grant(20, OWN_GFN + 3, GTF_revokable);
  puppet.domain.write(own(3), Uint8Array.of(9));
  const plain = grants.map(puppet.domid, [8]);
  const revokable = grants.map(puppet.domid, [20], { revokable: true });
  const told: string[] = [];
  plain.events.on("orphaned", () => told.push("orphaned"));
  revokable.events.on("revoked", () => told.push("revoked"));
  const slot = host.hypervisor.domains.slotOf(puppet.domid);
  await puppet.domain.destroy();
  await eventually(() => told.length === 2);
  assert.deepEqual([plain.bytes[0], revokable.bytes[0]], [100, 0]);
  plain.bytes[1] = 1;
  assert.equal(plain.bytes[1], 1);
  assert.equal(host.hypervisor.domains.stateOf(slot), "dead");
  assert.throws(() => grants.map(puppet.domid, [8]), { code: "HYPERCALL_FAILED" });
  assertClean(host);
  plain.unmap();
  revokable.unmap();
  await eventually(() => host.hypervisor.domains.stateOf(slot) === "free");
  assertClean(host);
});

test("copies: out of a granted page, into one, and from one to another, each with its status", async () => {
  const puppet = await granter(2);
  puppet.grant(20, OWN_GFN + 2, GTF_readonly);
  const { domid } = puppet;
  const taken = new Uint8Array(8);
  grants.copy([
    { from: Uint8Array.of(1, 2, 3), to: { domid, ref: 8, offset: 4093 } },
    { from: { domid, ref: 8, offset: 4090 }, to: taken.subarray(1, 7) },
    { from: { domid, ref: 8, offset: 4093 }, to: { domid, ref: 9, offset: 16 }, lengthBytes: 3 },
    { from: { domid, ref: 8 }, to: taken.subarray(7), lengthBytes: 1 },
  ]);
  assert.deepEqual([...taken], [0, 0, 0, 0, 1, 2, 3, 100]);
  assert.equal(await puppet.load(own(1) + 16), 0x0003_0201);
  const page = new Uint8Array(4096).fill(8);
  const statuses = grants.copyEach([
    { from: { domid, ref: 9999 }, to: page },
    { from: page, to: { domid, ref: 20 } },
    { from: { domid, ref: 8, offset: 4095 }, to: page, lengthBytes: 2 },
    { from: { domid: 31_000, ref: 8 }, to: page },
    { from: { domid, ref: 9999 }, to: page, lengthBytes: 0 },
    { from: page, to: { domid, ref: 8 } },
  ]);
  assert.deepEqual(statuses, [-3, -1, -10, -2, 0, 0]);
  assert.equal(wordAt(puppet.domain.read(own(0) + 4092, 4)), 0x0808_0808);
  assert.throws(() => grants.copy([{ from: page, to: { domid, ref: 20 } }]), { message: /copy 1 of 1.*general_error/ });
  assert.throws(() => grants.copy([{ from: page, to: page }]), { code: "INVALID_ARGUMENT" });
  assert.throws(() => grants.copy([{ from: page, to: { domid, ref: 8 }, lengthBytes: 5000 }]), {
    code: "INVALID_SIZE",
  });
  assert.throws(() => grants.copy([{ from: { domid, ref: 8 }, to: { domid, ref: 9 } }]), { code: "INVALID_SIZE" });
  assert.throws(() => grants.copy([{ from: page, to: { domid, ref: -1 } }]), { code: "INVALID_ARGUMENT" });
  assert.equal(puppet.flags(8) & IN_USE, 0);
  await puppet.domain.destroy();
  assertClean(host);
});

test("a host closes with everything in use", async () => {
  const other = await openHost();
  const puppet = await Puppet.start(other);
  puppet.grant(8, OWN_GFN);
  puppet.grant(9, OWN_GFN, GTF_revokable);
  const plain = other.grants.map(puppet.domid, [8], { device: true });
  other.grants.map(puppet.domid, [9], { revokable: true });
  const shared = other.grants.share(puppet.domid, { pages: 2 });
  await puppet.map(shared.refs[0]!, 0x5000_0000);
  const ended = shared.end();
  await other.close();
  await ended;
  assert.equal(plain.isMapped, false);
  assert.equal(plain.bytes[0], 0);
  assert.throws(() => other.grants.share(1, { pages: 1 }), { code: "HOST_CLOSED" });
  assert.throws(() => other.grants.map(1, [8]), { code: "HOST_CLOSED" });
  assert.throws(() => other.grants.copy([]), { code: "HOST_CLOSED" });
});
