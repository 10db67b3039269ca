import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  KEY_ALL,
  KEY_READ,
  KEY_SEARCH,
  KEY_SPEC,
  KEY_VIEW,
  keyErrno,
  type PayloadTarget,
  permissionMask,
} from "../src/index.ts";
import { ok, onBench, OPEN, SESSION } from "./kit.ts";

const GIVEN = permissionMask({ possessor: KEY_VIEW | KEY_READ | KEY_SEARCH, user: KEY_ALL });

/** Takes a payload as a guest's page does: by `set` only. */
class Taker implements PayloadTarget {
  readonly length: number;
  readonly taken: Uint8Array[] = [];

  constructor(length: number) {
    this.length = length;
  }

  set(bytes: Uint8Array): void {
    this.taken.push(Uint8Array.from(bytes));
  }
}

describe("a payload's target", () => {
  it(
    "is given all bytes at once, or nothing",
    onBench((bench) => {
      const process = bench.process(0);
      for (const size of [1, 64, 65, 1024, 32_767]) {
        const payload = new Uint8Array(size).map((_, index) => index * 7);
        const key = ok(bench.service.addKey(process, "user", `of ${size}`, payload, SESSION));
        for (const room of [size - 1, size, size + 1]) {
          const taker = new Taker(room);
          assert.equal(bench.service.read(process, key, taker), size);
          assert.deepEqual(taker.taken, room < size ? [] : [payload]);
        }
        ok(bench.service.unlink(process, key, SESSION));
      }
      const key = ok(bench.service.addKey(process, "user", "one", Uint8Array.of(1), SESSION));
      const list = new Taker(8);
      assert.equal(bench.service.read(process, SESSION, list), 4);
      assert.equal(new DataView(list.taken[0]!.buffer).getInt32(0, true), key);
    }),
  );
});

describe("code in the process", () => {
  it(
    "knows of which keys a process may hear",
    onBench((bench) => {
      const { service } = bench;
      const mine = bench.process(1000);
      const other = bench.process(2000);
      const key = ok(service.addKey(mine, "user", "mine", Uint8Array.of(1), SESSION));
      assert.equal(service.trusted.isKnownTo(mine, key), true);
      assert.equal(service.trusted.isKnownTo(other, key), false);
      assert.equal(service.trusted.isKnownTo(other, key + 1), false);
      ok(service.setPermissions(mine, key, OPEN | KEY_READ));
      assert.equal(service.trusted.isKnownTo(other, key), true);
      ok(service.setPermissions(mine, key, OPEN));
      assert.equal(service.trusted.link(key, other.session!.serial), 0);
      // Possessed, now: the mask gives its possessor everything.
      assert.equal(service.trusted.isKnownTo(other, key), true);
    }),
  );

  it(
    "gives a key that its possessor can use and not change",
    onBench((bench) => {
      const { service } = bench;
      const admin = bench.process(0);
      const guest = bench.process(3000);
      const ring = service.trusted.createKeyring({ description: ".given", permissions: GIVEN });
      assert.ok(typeof ring !== "number");
      assert.equal(service.trusted.link(ring.serial, guest.session!.serial), 0);
      const wanted = { type: "user", description: "db", payload: Uint8Array.of(1, 2), ring: ring.serial };
      const key = ok(service.trusted.addKey(admin, wanted, GIVEN));
      assert.equal(service.requestKey(guest, "user", "db", null, 0), key);
      assert.equal(service.read(guest, key), 2);
      const { EACCES } = keyErrno;
      assert.equal(service.update(guest, key, Uint8Array.of(9)), -EACCES);
      assert.equal(service.revoke(guest, key), -EACCES);
      assert.equal(service.setTimeout(guest, key, 1), -EACCES);
      assert.equal(service.link(guest, key, KEY_SPEC.session), -EACCES);
      assert.equal(service.unlink(guest, key, ring.serial), -EACCES);
      assert.equal(service.clear(guest, ring.serial), -EACCES);
      // Added again it is the same key with another payload.
      assert.equal(service.trusted.addKey(admin, { ...wanted, payload: Uint8Array.of(7) }, GIVEN), key);
      assert.equal(service.read(guest, key), 1);
      assert.equal(service.trusted.addKey(admin, wanted, 0x40), -keyErrno.EINVAL);
      assert.equal(service.trusted.unlink(key, ring.serial), 0);
      assert.equal(service.trusted.unlink(key, ring.serial), -keyErrno.ENOKEY);
      assert.equal(service.trusted.link(key, ring.serial), -keyErrno.ENOKEY);
      ring.release();
    }),
  );

  it(
    "lets others join what one thread joined",
    onBench((bench) => {
      const { service } = bench;
      const first = bench.process(5000);
      const second = service.newThread(first, { pid: 1 });
      const before = first.session!.serial;
      const joined = ok(service.joinSession(first, "work"));
      assert.equal(second.session!.serial, before);
      service.trusted.shareSession(first, second);
      assert.equal(second.session!.serial, joined);
      service.trusted.shareSession(first, second);
      // Nobody is left in the first one.
      assert.equal(service.describe(first, before), -keyErrno.ENOKEY);
    }),
  );

  it(
    "forgets a user: its keyrings, what is in them and its quota",
    onBench((bench) => {
      const { service } = bench;
      const guest = bench.process(4000);
      ok(service.addKey(guest, "user", "in @u", Uint8Array.of(1), KEY_SPEC.user));
      ok(service.addKey(guest, "user", "in @us", Uint8Array.of(1), KEY_SPEC.userSession));
      ok(service.addKey(guest, "user", "kept", Uint8Array.of(1), ok(service.getPersistent(guest, -1, SESSION))));
      assert.match(service.procKeyUsers(), /^ *4000:/m);
      service.exit(guest);
      assert.match(service.procKeyUsers(), /^ *4000:/m);
      service.trusted.forgetUser(4000);
      assert.doesNotMatch(service.procKeyUsers(), /^ *4000:/m);
      service.trusted.forgetUser(4000);
    }),
  );
});
