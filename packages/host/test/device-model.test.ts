import assert from "node:assert/strict";
import { after, test } from "node:test";
import { assertClean, guest, openHost, run } from "./support.ts";

const host = await openHost();
after(() => host.close());

const FRAME = 4096;
const MIB = 2 ** 20;
const AT = 0xc000_0000;

const image = guest(`(module (memory (export "memory") 1)
  (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))`);

/** A stub domain that tries to set the limit of domain `$domid` to `$kib` KiB, and says what came of it. */
const stub = guest(`(module
  (import "xen" "domctl" (func $domctl (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "max_mem") (param $domid i32) (param $low i32) (param $high i32) (result i32)
    (i32.store (i32.const 0) (i32.const 11))
    (i32.store (i32.const 4) (i32.const 0x18))
    (i32.store (i32.const 8) (local.get $domid))
    (i32.store (i32.const 16) (local.get $low))
    (i32.store (i32.const 20) (local.get $high))
    (call $domctl (i32.const 0))))`);

test("a device model in the program populates, writes and raises its target's limit within the bound", async () => {
  await using target = await run(host, image, { memoryBytesMax: MIB, deviceModelMemoryBytes: 8 * FRAME });
  const model = target.memory.deviceModel();
  assert.equal(model.extraBytesLeft, 8 * FRAME);
  model.raiseMax(8 * FRAME);
  assert.throws(() => model.raiseMax(FRAME), { code: "MEMORY_LIMIT" });
  model.populate(AT, 2 * FRAME);
  model.write(AT, Uint8Array.of(0x55, 0xaa));
  assert.equal(await target.call("peek", AT | 0), 0x55);
  assert.deepEqual([...model.read(AT + 1, 1)], [0xaa]);
  assert.throws(() => model.populate(AT, FRAME), { code: "GUEST_ADDRESS" });
  assert.throws(() => model.populate(AT + 1, FRAME), { code: "GUEST_ADDRESS" });
  assert.deepEqual(target.memory.figures(), {
    memoryBytes: 65_536 + 2 * FRAME,
    memoryBytesMax: MIB + 8 * FRAME,
    claimedBytes: 0,
    deviceModelBytes: 8 * FRAME,
    deviceModelBytesMax: 8 * FRAME,
    isFrozen: false,
  });
  model.release(AT, 2 * FRAME);
  assert.throws(() => model.release(AT, FRAME), { code: "GUEST_ADDRESS" });
  model.raiseMax(-8 * FRAME);
  assert.throws(() => model.raiseMax(-FRAME), { code: "MEMORY_LIMIT" });
  for (const bad of [0.5, NaN, Infinity, 1, 2 ** 60]) {
    assert.throws(() => model.raiseMax(bad), /INVALID_SIZE|MEMORY_LIMIT|whole number|may not/);
  }
  assert.equal(target.memory.figures().memoryBytesMax, MIB);
  assertClean(host);
});

test("populating everything stops at the limit, which the device model cannot move", async () => {
  await using target = await run(host, image, { memoryBytesMax: MIB, deviceModelMemoryBytes: 4 * FRAME });
  const free = host.info().memoryFreeBytes;
  const model = target.memory.deviceModel();
  model.raiseMax(4 * FRAME);
  assert.throws(() => model.populate(AT, MIB), { code: "MEMORY_LIMIT" });
  model.populate(AT, MIB + 4 * FRAME - 65_536);
  assert.throws(() => model.populate(0, FRAME), { code: "GUEST_ADDRESS" });
  assert.throws(() => model.populate(0xd000_0000, FRAME), { code: "MEMORY_LIMIT" });
  assert.equal(await target.call("grow", 1), -1);
  assert.equal(host.info().memoryFreeBytes, free - (MIB + 4 * FRAME - 65_536));
});

test("a stub domain has a target from its creation: it may raise that one's limit, and no other's", async () => {
  await using target = await run(host, image, { memoryBytesMax: MIB, deviceModelMemoryBytes: 4 * FRAME });
  await using other = await run(host, image, { memoryBytesMax: MIB, deviceModelMemoryBytes: 4 * FRAME });
  await using model = await run(host, stub, { deviceModelFor: target });
  const kib = MIB / 1024;
  assert.equal(await model.call("max_mem", target.domid, -1, -1), -1);
  assert.equal(await model.call("max_mem", target.domid, kib + 20, 0), -1);
  assert.equal(await model.call("max_mem", other.domid, kib + 4, 0), -1);
  assert.equal(await model.call("max_mem", target.domid, kib + 16, 0), 0);
  assert.equal(target.memory.figures().memoryBytesMax, MIB + 4 * FRAME);
  assert.equal(model.stats().denied, 1, "the bound's refusals are the operation's, the stranger's is the policy's");
  target.setMemoryMax(2 * MIB);
  assert.equal(target.memory.figures().memoryBytesMax, 2 * MIB + 4 * FRAME);
  target.memory.setDeviceModelMax(5 * FRAME);
  assert.equal(await model.call("max_mem", target.domid, 2 * kib + 20, 0), 0);
  assertClean(host);
});

test("what is set aside for a domain is its own, whoever asks; more than it may own is refused with the numbers", async () => {
  await using domain = await run(host, image, { memoryBytesMax: 2 * MIB, memoryClaimBytes: MIB });
  assert.equal(domain.memory.figures().claimedBytes, MIB - 65_536);
  assert.equal(host.info().memoryClaimedBytes, MIB - 65_536);
  domain.memory.setClaim(2 * MIB);
  assert.throws(() => domain.memory.setClaim(2 * MIB + FRAME), { code: "INVALID_SIZE", message: /may own 2097152/ });
  assert.throws(() => domain.memory.setClaim(-1), { code: "INVALID_SIZE" });
  domain.setMemoryMax(host.info().memoryBytes);
  assert.throws(() => domain.memory.setClaim(host.info().memoryBytes), {
    code: "MEMORY_EXHAUSTED",
    message: /owns 65536, and \d+ are free for it/,
  });
  assert.equal(domain.memory.figures().claimedBytes, 2 * MIB - 65_536);
  const tooMuch = { memoryBytesMax: MIB, memoryClaimBytes: MIB + FRAME };
  await assert.rejects(run(host, image, tooMuch), { code: "INVALID_SIZE" });
  domain.memory.setClaim(0);
  assert.equal(host.info().memoryClaimedBytes, 0);
  assertClean(host);
});

test("a target that is gone, or that is the control domain, is none", async () => {
  const target = await run(host, image);
  const model = target.memory.deviceModel();
  await target.destroy();
  assert.throws(() => model.populate(AT, FRAME), { code: "DOMAIN_STATE" });
  assert.throws(() => target.memory.figures(), { code: "DOMAIN_STATE" });
  const free = host.info().memoryFreeBytes;
  await assert.rejects(host.createDomain({ image, deviceModelFor: target }), { code: "DOMAIN_NOT_FOUND" });
  await assert.rejects(host.createDomain({ image, deviceModelFor: { domid: 0, generation: 1 } }), {
    code: "DOMAIN_NOT_FOUND",
  });
  for (const deviceModelMemoryBytes of [-1, NaN, 1, 2 ** 60]) {
    await assert.rejects(host.createDomain({ image, deviceModelMemoryBytes }), { code: "INVALID_SIZE" });
  }
  assert.equal(host.info().memoryFreeBytes, free);
  assertClean(host);
});

test("frozen limits change only through the freeze, until it is thawed", async () => {
  await using target = await run(host, image, { memoryBytesMax: MIB, deviceModelMemoryBytes: 4 * FRAME });
  await using model = await run(host, stub, { deviceModelFor: target });
  {
    using freeze = target.memory.freeze();
    assert.equal(freeze.figures().isFrozen, true);
    for (const change of [
      () => target.setMemoryMax(2 * MIB),
      () => target.memory.setMax(2 * MIB),
      () => target.memory.setDeviceModelMax(0),
      () => target.memory.freeze(),
      () => target.memory.deviceModel().raiseMax(FRAME),
    ]) {
      assert.throws(change, { code: "MEMORY_FROZEN" });
    }
    assert.equal(await model.call("max_mem", target.domid, 1028, 0), -16);
    assert.equal(target.memory.figures().memoryBytesMax, MIB);
    // Below what it has, as in Xen: it only cannot grow.
    freeze.setMax(FRAME);
    assert.equal(await target.call("grow", 1), -1);
    freeze.setMax(2 * MIB);
  }
  assert.equal(target.memory.figures().memoryBytesMax, 2 * MIB);
  target.setMemoryMax(MIB);
  const stale = target.memory.freeze();
  stale.thaw();
  using current = target.memory.freeze();
  assert.throws(() => stale.setMax(MIB), { code: "MEMORY_FROZEN" });
  stale.thaw();
  assert.equal(current.figures().isFrozen, true);
});
