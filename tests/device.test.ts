/**
 * A device of the control domain and drivers that do everything wrong: the copy engine of examples/copy-engine. Tests
 * are named by the published bugs of other device back ends (B..) that they look for here.
 */
import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { assertClean, eventually, openHost } from "./advisory-guests.ts";
import { ATTACH, COPY, createEngine, DETACH, Driver, MORE, PAGE, REVOKABLE, WRITABLE } from "./device-driver.ts";

const host = await openHost();
after(() => host.close());
const bus = new Uint8Array(host.dmaView.buffer);
/** Some tenths of a second of copying. */
const MANY_TIMES = 2 ** 19;

const stopped = async (driver: Driver, reason: RegExp): Promise<void> => {
  await eventually(() => driver.engine.state === "stopped");
  assert.match(driver.engine.reason, reason);
  assertClean(host);
};

const end = async (driver: Driver): Promise<void> => {
  driver.engine.close();
  await driver.domain.destroy();
  assertClean(host);
};

const EINVAL_STATUS = -22;
const EFAULT_STATUS = -14;
const ENOENT_STATUS = -2;
const ENOSPC_STATUS = -28;
const ECANCELED_STATUS = -125;

describe("a device and revocation", () => {
  it("a device that writes all the time hits its own page once the guest's is revoked, and nothing faults", async () => {
    const driver = await Driver.start(host);
    driver.fill(0, 0xaa);
    const source = await driver.attach([driver.grantPage(0, { isReadOnly: true })]);
    const dest = await driver.attach([driver.grantPage(1, { isRevokable: true })], WRITABLE | REVOKABLE);
    driver.put(COPY, 0, MANY_TIMES, [source, dest, PAGE]);
    await driver.send();
    await eventually(() => driver.page(1)[PAGE - 1] === 0xaa);
    await driver.revoke(101);
    assert.equal(driver.answered, 0);
    driver.fill(1, 0x55);
    await eventually(() => bus[dest + PAGE - 1] === 0xaa);
    assert.ok(driver.page(1).every((byte) => byte === 0x55));
    const { status, value } = await driver.answer();
    assert.deepEqual([status, value], [EFAULT_STATUS, MANY_TIMES]);
    assert.ok(driver.page(1).every((byte) => byte === 0x55));
    assert.equal(driver.isInUse(101), false);
    assertClean(host);
    assert.equal((await driver.ask(DETACH, 0, 0, [dest])).status, 0);
    assert.equal(driver.engine.state, "connected");
    await end(driver);
  });

  it("many times over, at any moment of a copy, with whole runs", async () => {
    const driver = await Driver.start(host);
    driver.fill(0, 0xaa);
    const source = await driver.attach([driver.grantPage(0)]);
    for (let round = 0; round < 50; round += 1) {
      const refs = [1, 2, 3].map((index) => driver.grantPage(index, { isRevokable: true }));
      const dest = await driver.attach(refs, WRITABLE | REVOKABLE);
      for (let index = 0; index < 3; index += 1) driver.put(COPY, 0, 40, [source, dest + index * PAGE, PAGE]);
      await driver.send();
      for (const ref of refs) await driver.revoke(ref);
      for (let index = 1; index <= 3; index += 1) driver.fill(index, round);
      for (let index = 0; index < 3; index += 1) await driver.answer();
      for (let index = 1; index <= 3; index += 1) assert.ok(driver.page(index).every((byte) => byte === round));
      assert.equal((await driver.ask(DETACH, 0, 0, [dest])).status, 0);
    }
    await end(driver);
  });

  it("a source that is taken back is read no more: the copy brings zeros", async () => {
    const driver = await Driver.start(host);
    driver.fill(0, 0xaa);
    const source = await driver.attach([driver.grantPage(0, { isRevokable: true })], REVOKABLE);
    const dest = await driver.attach([driver.grantPage(1)], WRITABLE);
    assert.equal((await driver.ask(COPY, 0, 1, [source, dest, PAGE])).status, 0);
    assert.equal(driver.page(1)[9], 0xaa);
    await driver.revoke(100);
    assert.equal((await driver.ask(COPY, 0, 1, [source, dest, PAGE])).status, EFAULT_STATUS);
    assert.ok(driver.page(1).every((byte) => byte === 0));
    await end(driver);
  });

  it("an engine whose ring is taken back stops", async () => {
    const driver = await Driver.start(host, { isRingRevokable: true });
    await driver.attach([driver.grantPage(0)]);
    await driver.revokeRing();
    await stopped(driver, /taken back|ring ahead/);
    assert.equal(driver.isInUse(100), false);
    await end(driver);
  });
});

describe("a driver that is not trusted", () => {
  it("is served at its best: lists, borders of pages, the interrupt", async () => {
    const driver = await Driver.start(host);
    const { engine } = driver;
    for (let index = 0; index < 4; index += 1) driver.fill(index, index + 1);
    const source = await driver.attach([0, 1, 2].map((index) => driver.grantPage(index)));
    const dest = await driver.attach([driver.grantPage(3)], WRITABLE);
    assert.equal(driver.takeInterrupt(), true);
    assert.equal(driver.takeInterrupt(), false);
    driver.put(COPY, MORE, 1, [source + PAGE - 2, dest, 4]);
    driver.put(COPY, MORE, 1, [source + 3 * PAGE - 1, dest + 4, 1]);
    driver.put(COPY, 0, 1, [source, dest + PAGE, 0]);
    await driver.send();
    for (let index = 0; index < 3; index += 1) assert.equal((await driver.answer()).status, 0);
    assert.deepEqual([...driver.page(3).subarray(0, 6)], [1, 1, 2, 2, 3, 4]);
    assert.equal(driver.takeInterrupt(), true);
    assert.equal(engine.state, "connected");
    await end(driver);
  });

  it("B01: a request that changes while it is looked at is either of the two, and reaches nobody else's pages", async () => {
    const victim = await Driver.start(host);
    victim.fill(0, 0x77);
    const secret = await victim.attach([victim.grantPage(0)]);
    const driver = await Driver.start(host);
    driver.fill(0, 0x11);
    const own = await driver.attach([driver.grantPage(0)]);
    const dest = await driver.attach([driver.grantPage(1)], WRITABLE);
    const statuses = new Map<number, number>();
    for (let round = 0; round < 100; round += 1) {
      // The engine is busy when the guest begins to change what comes next.
      driver.put(COPY, 0, 10_000, [own, dest, PAGE]);
      const at = driver.put(COPY, 0, 1, [own, dest, PAGE]);
      await driver.send();
      const stop = driver.flip(at + 12, own, secret);
      await driver.answer();
      await eventually(() => driver.answered > 0);
      await stop();
      const { status } = await driver.answer();
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      assert.ok(driver.page(1).every((byte) => byte === 0 || byte === 0x11));
    }
    assert.ok([...statuses.keys()].every((status) => status === 0 || status === EFAULT_STATUS));
    await end(driver);
    await end(victim);
  });

  for (const ahead of [33, 2 ** 31, 0xffff_ffff - 1]) {
    it(`B02: a request index ${ahead} ahead ends the engine`, async () => {
      const driver = await Driver.start(host);
      await driver.attach([driver.grantPage(0)]);
      await driver.send(driver.produced + ahead);
      await stopped(driver, /ring ahead/);
      assert.equal(driver.isInUse(100), false);
      await end(driver);
    });
  }

  it("B06: every byte of an answer is defined", async () => {
    const driver = await Driver.start(host);
    const ref = driver.grantPage(0);
    for (const [operation, words] of [
      [ATTACH, [ref]],
      [COPY, [1, 2, 3]],
      [DETACH, [5]],
      [77, [1, 2, 3, 4, 5]],
    ] as const) {
      const { id, rest } = await driver.ask(operation, 0, 1, [...words, 0xffff_ffff, 0xffff_ffff]);
      assert.equal(id, driver.produced - 1);
      assert.ok(rest.every((byte) => byte === 0));
    }
    await end(driver);
  });

  it("B07: a domain destroyed in the middle of a copy leaves nothing behind", async () => {
    const driver = await Driver.start(host);
    const slot = host.hypervisor.domains.slotOf(driver.domain.domid);
    const source = await driver.attach([driver.grantPage(0)]);
    const dest = await driver.attach([driver.grantPage(1)], WRITABLE);
    driver.put(COPY, 0, MANY_TIMES, [source, dest, PAGE]);
    await driver.send();
    await driver.domain.destroy();
    await stopped(driver, /domain/);
    await eventually(() => host.hypervisor.domains.stateOf(slot) === "free");
    assertClean(host);
  });

  it("B10: one reference of a list that cannot be mapped, and none is", async () => {
    const driver = await Driver.start(host);
    for (let wrong = 0; wrong < 5; wrong += 1) {
      const refs = [0, 1, 2, 3, 4].map((index) => driver.grantPage(index));
      driver.grant(refs[wrong]!, 0x6_0000);
      assert.equal((await driver.ask(ATTACH, WRITABLE, 5, refs)).status, EINVAL_STATUS);
      assert.ok(refs.every((ref) => !driver.isInUse(ref)));
      driver.grantPage(wrong);
    }
    const refs = [0, 1, 2, 3, 4].map((index) => driver.grantPage(index));
    assert.equal((await driver.ask(ATTACH, 0, 6, refs)).status, EINVAL_STATUS);
    assert.equal((await driver.ask(ATTACH, 4, 5, refs)).status, EINVAL_STATUS);
    assert.equal((await driver.ask(ATTACH, 0, 0, refs)).status, EINVAL_STATUS);
    assert.equal((await driver.ask(ATTACH, REVOKABLE, 5, refs)).status, EINVAL_STATUS);
    assert.equal((await driver.ask(ATTACH, WRITABLE, 5, refs)).status, 0);
    await end(driver);
  });

  it("B10: a list stops at the first copy that fails, and the next list does not", async () => {
    const driver = await Driver.start(host);
    const page = await driver.attach([driver.grantPage(0)], WRITABLE);
    driver.put(COPY, MORE, 1, [page, page + 8, 8]);
    driver.put(COPY, MORE, 1, [page, page + PAGE - 7, 8]);
    driver.put(COPY, MORE, 0, [page, page, 8]);
    driver.put(COPY, 0, 1, [page, page + 8, 8]);
    driver.put(COPY, 0, 1, [page, page + 8, 8]);
    await driver.send();
    const statuses: number[] = [];
    for (let index = 0; index < 5; index += 1) statuses.push((await driver.answer()).status);
    assert.deepEqual(statuses, [0, EFAULT_STATUS, EINVAL_STATUS, ECANCELED_STATUS, 0]);
    await end(driver);
  });

  it("B11: no request makes the engine throw: a thousand of random ones are answered", async () => {
    const seed = 20_261_121;
    let state = seed;
    const random = (below: number): number => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % below;
    const driver = await Driver.start(host);
    const known = [await driver.attach([driver.grantPage(0)], WRITABLE), 0, PAGE, 2 ** 32 - 1, 100, 101];
    for (let index = 1; index < 8; index += 1) driver.grantPage(index);
    const word = (): number => (random(3) === 0 ? random(2 ** 32) : known[random(known.length)]! + random(3));
    for (let round = 0; round < 1000 / 16; round += 1) {
      for (let index = 0; index < 16; index += 1) {
        driver.put(random(6), random(2) * random(5), random(8), [word(), word(), word(), word(), word()]);
      }
      await driver.send();
      for (let index = 0; index < 16; index += 1) {
        const { id } = await driver.answer();
        assert.equal(id, round * 16 + index + 1, `seed ${seed}`);
      }
    }
    assert.equal(driver.engine.state, "connected");
    assertClean(host);
    await end(driver);
  });

  it("copies beyond pages, from and to nowhere, and into what is read-only are refused", async () => {
    const driver = await Driver.start(host);
    const other = await Driver.start(host);
    const theirs = await other.attach([other.grantPage(0)], WRITABLE);
    const constant = await driver.attach([driver.grantPage(0, { isReadOnly: true })]);
    const page = await driver.attach([driver.grantPage(1), driver.grantPage(2)], WRITABLE);
    for (const [source, dest, length] of [
      [constant, page, PAGE + 1],
      [constant + 1, page, PAGE],
      [constant, page + PAGE + 1, PAGE],
      [page, constant, 1],
      [constant, 0xffff_f000, PAGE],
      [0xffff_ffff, page, 2 ** 20],
      [0, page, 1],
      [constant - 1, page, 1],
      [theirs, page, 1],
      [constant, theirs, 1],
    ] as const) {
      assert.equal((await driver.ask(COPY, 0, 1, [source, dest, length])).status, EFAULT_STATUS);
    }
    for (const [times, length] of [
      [0, 1],
      [2 ** 20 + 1, 1],
      [1, 2 ** 20 + 1],
      [1, 2 ** 32 - 1],
    ] as const) {
      assert.equal((await driver.ask(COPY, 0, times, [constant, page, length])).status, EINVAL_STATUS);
    }
    assert.equal((await driver.ask(COPY, 0, 1, [constant, page + PAGE, PAGE])).status, 0);
    await end(driver);
    await end(other);
  });

  it("a driver attaches no more than its share of pages", async () => {
    const driver = await Driver.start(host);
    const refs = Array.from({ length: 5 }, () => driver.grantPage(0));
    for (let run = 0; run < 51; run += 1) {
      for (const [index] of refs.entries()) refs[index] = driver.grantPage(run % 40);
      await driver.attach(refs.slice(0, 5));
    }
    assert.equal((await driver.ask(ATTACH, 0, 5, refs)).status, ENOSPC_STATUS);
    assert.equal((await driver.ask(ATTACH, 0, 1, refs)).status, 0);
    await end(driver);
  });

  it("B21: operations out of order are errors", async () => {
    const driver = await Driver.start(host);
    const page = await driver.attach([driver.grantPage(0)], WRITABLE);
    assert.equal((await driver.ask(DETACH, 0, 0, [page + 1])).status, ENOENT_STATUS);
    assert.equal((await driver.ask(DETACH, 0, 0, [page])).status, 0);
    assert.equal((await driver.ask(DETACH, 0, 0, [page])).status, ENOENT_STATUS);
    assert.equal((await driver.ask(COPY, 0, 1, [page, page, 1])).status, EFAULT_STATUS);
    driver.engine.connect({ ringRef: 9, port: 1, isRingRevokable: false });
    assert.equal(driver.engine.state, "connected");
    driver.engine.close();
    driver.engine.close();
    driver.engine.connect({ ringRef: 8, port: 1, isRingRevokable: false });
    assert.equal(driver.engine.state, "stopped");
    assert.equal(driver.answered, 0);
    await end(driver);
  });

  it("B21: an engine that cannot connect is stopped, and says why", async () => {
    const driver = await Driver.start(host);
    driver.engine.close();
    for (const [ringRef, port] of [
      [9999, 1],
      [Number.NaN, 1],
      [8, Number.NaN],
      [8, 0],
      [8, 5000],
      [8, 77],
    ] as const) {
      const engine = createEngine(host, driver.domain, 71);
      engine.connect({ ringRef, port, isRingRevokable: false });
      assert.equal(engine.state, "stopped");
      assert.match(engine.reason, /^cannot connect/);
      assertClean(host);
    }
    await end(driver);
  });

  it("B22: more requests in flight than the ring has slots end the engine", async () => {
    const driver = await Driver.start(host);
    const source = await driver.attach([driver.grantPage(0)]);
    const dest = await driver.attach([driver.grantPage(1)], WRITABLE);
    driver.put(COPY, 0, MANY_TIMES, [source, dest, PAGE]);
    await driver.send();
    for (let index = 0; index < 31; index += 1) driver.put(COPY, 0, 1, [source, dest, 1]);
    await driver.send();
    assert.equal(driver.engine.state, "connected");
    await driver.send(driver.produced + 1);
    await stopped(driver, /ring ahead/);
    await end(driver);
  });
});
