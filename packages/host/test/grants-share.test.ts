// host.grants.share: dom0 as granter, with a real guest on the other side.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { clearPending, freeFrameCount, isPending } from "@xenolith/core";
import { assertClean, eventually, openHost } from "./support.ts";
import { Puppet, TARGET, wordAt } from "./grants-guest.ts";

const host = await openHost();
after(() => host.close());
const { grants } = host;

test("B14: pages that dom0 shares are zeroed, have references from 8 up, and are one memory with what a guest maps", async () => {
  const puppet = await Puppet.start(host);
  const shared = grants.share(puppet.domid, { pages: 2 });
  assert.equal(shared.refs.length, 2);
  assert.ok(shared.refs.every((ref) => ref >= 8));
  assert.ok(shared.bytes.every((byte) => byte === 0));
  assert.equal(shared.isInUse, false);
  const mapped = await puppet.map(shared.refs[1]!, TARGET);
  assert.equal(mapped.status, 0);
  assert.equal(shared.isInUse, true);
  shared.bytes[4096] = 77;
  assert.equal(await puppet.load(TARGET), 77);
  await puppet.store(TARGET + 4, 0x1234);
  assert.equal(wordAt(shared.bytes, 4100), 0x1234);
  assertClean(host);
  assert.equal(await puppet.unmap(mapped.handle, TARGET), 0);
  assert.equal(shared.isInUse, false);
  await shared.end();
  await puppet.domain.destroy();
  assertClean(host);
});

test("what is shared read-only cannot be mapped for writing, and what is revokable not plainly", async () => {
  const puppet = await Puppet.start(host);
  const constant = grants.share(puppet.domid, { pages: 1, readOnly: true });
  const revokable = grants.share(puppet.domid, { pages: 1, revokable: true });
  assert.equal((await puppet.map(constant.refs[0]!, TARGET)).status, -1);
  assert.equal((await puppet.map(constant.refs[0]!, TARGET, { readOnly: true })).status, 0);
  assert.equal((await puppet.map(revokable.refs[0]!, TARGET + 4096)).status, -8);
  assert.equal((await puppet.map(revokable.refs[0]!, TARGET + 4096, { revokable: true })).status, 0);
  assert.equal((await puppet.map(constant.refs[0]!, TARGET + 8192, { readOnly: true, revokable: true })).status, -1);
  assertClean(host);
  await puppet.domain.destroy();
  await Promise.all([constant.end(), revokable.end()]);
  assertClean(host);
});

test("access that nobody uses ends at once: memory and references are free again", async () => {
  const puppet = await Puppet.start(host);
  await grants.share(puppet.domid, { pages: 1 }).end();
  const before = freeFrameCount(host.hypervisor);
  const shared = grants.share(puppet.domid, { pages: 40 });
  shared.bytes.fill(1);
  assert.equal(freeFrameCount(host.hypervisor), before - 40);
  const ending = shared.end();
  assert.equal(freeFrameCount(host.hypervisor), before);
  assert.ok(shared.bytes.every((byte) => byte === 0));
  await ending;
  assert.equal((await puppet.map(shared.refs[0]!, TARGET)).status, -1);
  const again = grants.share(puppet.domid, { pages: 40 });
  assert.deepEqual(again.refs, shared.refs);
  assertClean(host);
  await again.end();
  await puppet.domain.destroy();
});

test("a page in use is kept until the guest lets go; the others are free at once", async () => {
  const puppet = await Puppet.start(host);
  const shared = grants.share(puppet.domid, { pages: 3 });
  shared.bytes.fill(5);
  const { handle } = await puppet.map(shared.refs[1]!, TARGET);
  const before = freeFrameCount(host.hypervisor);
  const told: string[] = [];
  shared.events.on("ended", () => told.push("ended"));
  let isEnded = false;
  const ending = shared.end().then(() => (isEnded = true));
  assert.equal(freeFrameCount(host.hypervisor), before + 2);
  assert.equal(grants.deferredCount, 1);
  assert.deepEqual([shared.bytes[0], shared.bytes[4096], shared.bytes[8192]], [0, 5, 0]);
  assert.equal(await puppet.load(TARGET), 0x0505_0505);
  await puppet.store(TARGET, 6);
  assert.equal(shared.bytes[4096], 6);
  assert.equal(isEnded, false);
  assertClean(host);
  assert.equal(await puppet.unmap(handle, TARGET), 0);
  // The timer that looks again does not keep the process alive.
  await eventually(() => isEnded);
  await ending;
  assert.deepEqual(told, ["ended"]);
  assert.equal(freeFrameCount(host.hypervisor), before + 3);
  assert.equal(grants.deferredCount, 0);
  await puppet.domain.destroy();
  assertClean(host);
});

test("revoke: a guest that writes all the time goes on in a page of its own, and dom0's page stays as it is", async () => {
  const puppet = await Puppet.start(host);
  const shared = grants.share(puppet.domid, { pages: 2, revokable: true });
  const first = await puppet.map(shared.refs[0]!, TARGET, { revokable: true });
  const second = await puppet.map(shared.refs[1]!, TARGET + 4096, { revokable: true });
  assert.deepEqual([first.status, second.status], [0, 0]);
  const stop = puppet.hammer(TARGET);
  await eventually(() => wordAt(shared.bytes) > 1000);
  shared.revoke(shared.refs[0]);
  const kept = wordAt(shared.bytes);
  const { count } = puppet;
  await eventually(() => puppet.count > count + 1000);
  const last = await stop();
  assert.equal(wordAt(shared.bytes), kept);
  assert.ok(last > kept);
  assert.ok((await puppet.load(TARGET)) > 1000);
  shared.bytes[4096] = 9;
  assert.equal(await puppet.load(TARGET + 4096), 9);
  assert.equal(shared.isInUse, true);
  shared.revoke();
  assert.equal(shared.isInUse, false);
  assert.equal(await puppet.load(TARGET + 4096), 0);
  shared.revoke();
  assertClean(host);
  assert.equal(await puppet.unmap(first.handle, TARGET), 0);
  await shared.end();
  assertClean(host);
  await puppet.domain.destroy();
  assertClean(host);
});

test("the end of revokable pages waits for nobody", async () => {
  const puppet = await Puppet.start(host);
  const shared = grants.share(puppet.domid, { pages: 1, revokable: true });
  assert.equal((await puppet.map(shared.refs[0]!, TARGET, { revokable: true })).status, 0);
  await puppet.store(TARGET, 3);
  await shared.end();
  assert.equal(await puppet.load(TARGET), 0);
  await puppet.domain.destroy();
  assertClean(host);
});

test("only what is revokable is revoked, and by a reference of its own", async () => {
  const puppet = await Puppet.start(host);
  const plain = grants.share(puppet.domid, { pages: 1 });
  const revokable = grants.share(puppet.domid, { pages: 1, revokable: true });
  assert.throws(() => plain.revoke(), { code: "INVALID_ARGUMENT" });
  assert.throws(() => revokable.revoke(plain.refs[0]), { code: "INVALID_ARGUMENT", message: /none of these pages/ });
  revokable.revoke(revokable.refs[0]);
  assert.equal((await puppet.map(revokable.refs[0]!, TARGET, { revokable: true })).status, -1);
  await Promise.all([plain.end(), revokable.end()]);
  await puppet.domain.destroy();
  assertClean(host);
});

test("notifyOnEnd: at the end the byte is 0 and the guest has an event; an earlier request is replaced", async () => {
  const puppet = await Puppet.start(host);
  const shared = grants.share(puppet.domid, { pages: 2 });
  const remote = await puppet.port();
  const local = host.events.bindInterdomain(puppet.domid, remote);
  const slot = host.hypervisor.domains.slotOf(puppet.domid);
  assert.equal((await puppet.map(shared.refs[1]!, TARGET)).status, 0);
  shared.bytes.fill(1);
  shared.notifyOnEnd({ clearByte: 7, port: local });
  shared.notifyOnEnd({ clearByte: 4096 + 9, port: local });
  clearPending(host.hypervisor, slot, remote);
  void shared.end();
  assert.equal(isPending(host.hypervisor, slot, remote), true);
  assert.equal(await puppet.load(TARGET + 4), 0x0101_0101);
  assert.equal(await puppet.load(TARGET + 8), 0x0101_0001);
  await puppet.domain.destroy();
  await eventually(() => grants.deferredCount === 0);
  host.events.close(local);
  assertClean(host);
});

test("a notification needs a byte of the pages, a port to another domain, and pages that stay", async () => {
  const puppet = await Puppet.start(host);
  const shared = grants.share(puppet.domid, { pages: 1 });
  const revokable = grants.share(puppet.domid, { pages: 1, revokable: true });
  const unbound = host.events.allocateUnbound(puppet.domid);
  const refused = { code: "INVALID_ARGUMENT" };
  assert.throws(() => shared.notifyOnEnd({ clearByte: 4096 }), { ...refused, message: /4096.*0 to 4095/ });
  assert.throws(() => shared.notifyOnEnd({ clearByte: -1 }), refused);
  assert.throws(() => shared.notifyOnEnd({ port: 99_999 }), refused);
  assert.throws(() => shared.notifyOnEnd({ port: -1 }), refused);
  assert.throws(() => revokable.notifyOnEnd({ clearByte: 0 }), refused);
  shared.notifyOnEnd({ clearByte: 0, port: unbound });
  shared.notifyOnEnd({});
  await shared.end();
  assert.throws(() => shared.notifyOnEnd({ clearByte: 0 }), refused);
  await revokable.end();
  host.events.close(unbound);
  await puppet.domain.destroy();
  assertClean(host);
});

test("sizes, domains and the number of references have limits that the error names", async () => {
  const puppet = await Puppet.start(host);
  for (const pages of [0, -1, 1.5, Number.NaN, 2 ** 40]) {
    assert.throws(() => grants.share(puppet.domid, { pages }), { code: "INVALID_SIZE" });
  }
  assert.throws(() => grants.share(31_000, { pages: 1 }), { code: "DOMAIN_NOT_FOUND", message: /31000/ });
  const before = freeFrameCount(host.hypervisor);
  assert.throws(() => grants.share(puppet.domid, { pages: 40_000 }), { code: "GRANT_LIMIT", message: /40000.*32760/ });
  assert.equal(freeFrameCount(host.hypervisor), before);
  const many = grants.share(puppet.domid, { pages: 32_760 });
  assert.throws(() => grants.share(puppet.domid, { pages: 1 }), { code: "GRANT_LIMIT" });
  assert.equal(many.refs.at(-1), 32_767);
  await many.end();
  await grants.share(puppet.domid, { pages: 1 }).end();
  await puppet.domain.destroy();
  assertClean(host);
});

test("pages shared with a domain that dies are dom0's again, mapped or not", async () => {
  const puppet = await Puppet.start(host);
  const first = grants.share(puppet.domid, { pages: 2 });
  const second = grants.share(puppet.domid, { pages: 1, revokable: true });
  const told: string[] = [];
  first.events.on("orphaned", () => told.push("orphaned"));
  first.events.on("ended", () => told.push("ended"));
  assert.equal((await puppet.map(first.refs[0]!, TARGET)).status, 0);
  assert.equal((await puppet.map(second.refs[0]!, TARGET + 4096, { revokable: true })).status, 0);
  await puppet.domain.destroy();
  await Promise.all([first.end(), second.end()]);
  await eventually(() => told.length === 2);
  assert.deepEqual(told.toSorted(), ["ended", "orphaned"]);
  assert.throws(() => grants.share(puppet.domid, { pages: 1 }), { code: "DOMAIN_NOT_FOUND" });
  assertClean(host);
});

for (const way of ["unmaps", "is destroyed", "crashes"] as const) {
  test(`a guest that ${way} lets go of the page, with the notification that it asked for`, async () => {
    const puppet = await Puppet.start(host);
    await using shared = grants.share(puppet.domid, { pages: 1 });
    const seen: unknown[] = [];
    const remote = await puppet.port();
    const local = host.events.bindInterdomain(puppet.domid, remote, () => {
      seen.push([shared.bytes[5], shared.isInUse]);
    });
    const { handle } = await puppet.map(shared.refs[0]!, TARGET);
    // UNMAP_NOTIFY_CLEAR_BYTE and UNMAP_NOTIFY_SEND_EVENT.
    assert.equal(await puppet.notify(handle, 3, 5, remote), 0);
    shared.bytes.fill(1);
    // Binding made an event of its own.
    await new Promise((resolve) => setTimeout(resolve, 5));
    seen.length = 0;
    if (way === "unmaps") assert.equal(await puppet.unmap(handle, TARGET), 0);
    if (way === "crashes") await assert.rejects(puppet.domain.call("crash"), { code: "DOMAIN_CRASHED" });
    if (way !== "unmaps") await puppet.domain.destroy();
    await eventually(() => seen.length > 0);
    assert.deepEqual(seen.at(-1), [0, false]);
    await puppet.domain.destroy();
    host.events.close(local);
    assertClean(host);
  });
}
