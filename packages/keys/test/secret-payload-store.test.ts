import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { describe, it } from "node:test";
import { KEY_SPEC, KeyService, type KeyType, type Process, SecretPayloadStore, settle } from "@xenolith/keys";
import { type PoolOptions, type SecretOwner, SecretPool, type SecretQuota } from "@xenolith/secrets";
import { addressOf, errnoName } from "@xenolith/sys";

const ALL_RIGHTS = 0x3f3f3f3f;

const nameOf = (result: number): string => (result < 0 ? errnoName(-result) : "done");

/** A service whose payloads lie in a pool, where each user is an owner. */
class Stage implements Disposable {
  readonly pool: SecretPool;
  readonly payloads: SecretPayloadStore<SecretOwner>;
  readonly service: KeyService;
  #pid = 0;

  constructor({ quota = {}, types = [], ...options }: { quota?: SecretQuota; types?: KeyType[] } & PoolOptions = {}) {
    this.pool = SecretPool.open({ policy: "degraded", underPressure: () => false, ...options });
    this.payloads = new SecretPayloadStore(this.pool.table(), (uid) => this.pool.owner(`uid:${uid}`, quota));
    this.service = new KeyService({ payloads: this.payloads, types, limits: { maxBytes: 10_000_000 } });
  }

  /** A process of a user, with a session keyring. */
  async caller(uid: number): Promise<Process> {
    this.#pid += 1;
    const caller = this.service.attach({ pid: this.#pid, uid, gid: uid });
    await settle(this.service.joinSession(caller, null));
    return caller;
  }

  async add(caller: Process, name: string, payload: Uint8Array, type = "user"): Promise<number> {
    return await settle(this.service.addKey(caller, type, name, payload, KEY_SPEC.session));
  }

  async read(caller: Process, serial: number): Promise<string> {
    const bytes = Buffer.alloc(64);
    const size = await settle(this.service.read(caller, serial, bytes));
    return size < 0 ? nameOf(size) : bytes.toString("utf8", 0, size);
  }

  /** What each owner has: `uid:1000` and its secrets. */
  owners(): string[] {
    return this.pool
      .statistics()
      .owners.map(({ path, slots }) => `${path} ${slots}`)
      .toSorted();
  }

  [Symbol.dispose](): void {
    this.service.close();
    assert.deepEqual(this.owners(), [], "users without keys own nothing");
    this.pool.close();
  }
}

describe("payloads in secret memory", () => {
  it("are what was added, for keys of every type and size, and gone with their keys", async () => {
    using stage = new Stage();
    const { service, pool } = stage;
    const caller = await stage.caller(1000);
    for (const [type, size] of [
      ...[1, 48, 49, 4080, 4081, 9000, 32_767].map((each) => ["user", each] as const),
      ...[1, 5000, 2 ** 20 - 1].map((each) => ["big_key", each] as const),
    ]) {
      const payload = randomBytes(size);
      const serial = await stage.add(caller, `of:${size}`, payload, type);
      assert.ok(serial > 0, nameOf(serial));
      const read = Buffer.alloc(size + 1);
      assert.equal(await settle(service.read(caller, serial, read)), size);
      assert.ok(read.subarray(0, size).equals(payload));
    }
    assert.equal(pool.statistics().slots, 10);
    await stage.add(caller, "of:1", Buffer.from("updated"));
    assert.equal(pool.statistics().slots, 10, "an update leaves nothing of the old payload");
    service.close();
    assert.deepEqual([stage.payloads.count, pool.statistics().usedBytes], [0, 0]);
  });

  it("belong to the user who has the key, from the first payload to the last key", async () => {
    using stage = new Stage();
    const [first, second] = [await stage.caller(1000), await stage.caller(1001)];
    const key = await stage.add(first, "a", Buffer.from("alpha"));
    await stage.add(second, "b", Buffer.from("beta"));
    assert.deepEqual(stage.owners(), ["uid:1000 1", "uid:1001 1"]);
    await settle(stage.service.revoke(first, key));
    assert.deepEqual(stage.owners(), ["uid:1000 0", "uid:1001 1"], "the session keyring is a key too");
    stage.service.exit(first);
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(stage.owners(), ["uid:1001 1"]);
  });

  it("go to the new user with their key, or neither goes", async () => {
    using stage = new Stage({ quota: { slots: 2 } });
    const { service } = stage;
    const [shop, root] = [await stage.caller(1000), await stage.caller(0)];
    const keys = [
      await stage.add(shop, "small", Buffer.from("small one")),
      await stage.add(shop, "big", Buffer.from("big one"), "big_key"),
    ];
    for (const key of keys) await settle(service.setPermissions(shop, key, ALL_RIGHTS));
    const other = await stage.add(root, "other", Buffer.from("other"));
    const chown = async (key: number, uid: number): Promise<string> =>
      nameOf(await settle(service.chown(root, key, uid, -1)));
    assert.equal(await chown(keys[1]!, 0), "done");
    assert.deepEqual(stage.owners(), ["uid:0 2", "uid:1000 1"]);
    const before = [service.procKeyUsers(), ...stage.owners()];
    assert.equal(await chown(keys[0]!, 0), "EDQUOT");
    assert.deepEqual([service.procKeyUsers(), ...stage.owners()], before);
    for (const key of [other, keys[0]!]) assert.equal(await chown(key, 1002), "done");
    assert.deepEqual(stage.owners(), ["uid:0 1", "uid:1000 0", "uid:1002 2"]);
    assert.deepEqual(
      [await stage.read(root, keys[0]!), await stage.read(root, keys[1]!), await stage.read(root, other)],
      ["small one", "big one", "other"],
    );
    assert.deepEqual(service.audit(), []);
  });

  it("are paid for by the owner of the key, whoever updates it", async () => {
    using stage = new Stage({ quota: { bytes: 256 } });
    const { service } = stage;
    const [shop, root] = [await stage.caller(1000), await stage.caller(0)];
    const key = await stage.add(shop, "a", Buffer.from("alpha"));
    await settle(service.setPermissions(shop, key, ALL_RIGHTS));
    assert.equal(await settle(service.update(root, key, Buffer.from("beta"))), 0);
    assert.deepEqual(stage.owners(), ["uid:1000 1"]);
    assert.equal(
      nameOf(await settle(service.update(root, key, Buffer.alloc(200)))),
      "EDQUOT",
      "beside what it replaces",
    );
    await settle(service.link(root, key, KEY_SPEC.session));
    assert.equal(await stage.add(root, "a", Buffer.from("gamma")), key, "found in the caller's keyring: an update");
    assert.equal(await stage.read(shop, key), "gamma");
    assert.deepEqual(stage.owners(), ["uid:0 0", "uid:1000 1"]);
  });

  it("that a user's quota forbids are EDQUOT, and others have what they had", async () => {
    using stage = new Stage({ quota: { bytes: 256, slots: 3 } });
    const caller = await stage.caller(1000);
    const add = async (name: string, size: number): Promise<string> =>
      nameOf(await stage.add(caller, name, Buffer.alloc(size, 1)));
    assert.deepEqual(
      [await add("a", 48), await add("b", 241), await add("c", 48), await add("d", 48), await add("e", 48)],
      ["done", "EDQUOT", "done", "done", "EDQUOT"],
    );
    const stranger = await stage.caller(1001);
    assert.equal(nameOf(await stage.add(stranger, "a", Buffer.alloc(48))), "done");
    assert.equal(nameOf(stage.payloads.put(new Uint8Array(0), 1000)), "EINVAL");
    assert.deepEqual(stage.owners(), ["uid:1000 3", "uid:1001 1"]);
    assert.deepEqual(stage.service.audit(), []);
  });

  it("that the pool has no room for are ENOMEM, and nothing has changed", async () => {
    using stage = new Stage({ bytesMax: 2 ** 16, reserveShare: 0 });
    const { service, pool } = stage;
    const caller = await stage.caller(1000);
    const results: number[] = [];
    const key = await stage.add(caller, "first", Buffer.from("stays"));
    for (let index = 0; index < 20; index += 1) {
      results.push(await stage.add(caller, `key:${index}`, Buffer.alloc(4080, index), "big_key"));
    }
    assert.deepEqual(new Set(results.filter((result) => result < 0).map(nameOf)), new Set(["ENOMEM"]));
    const figures = (): unknown => [service.procKeyUsers(), pool.statistics().usedBytes, stage.payloads.count];
    const before = figures();
    assert.equal(nameOf(await stage.add(caller, "more", Buffer.alloc(4080), "big_key")), "ENOMEM");
    assert.equal(nameOf(await settle(service.update(caller, key, Buffer.alloc(4000)))), "ENOMEM");
    assert.deepEqual(figures(), before);
    assert.equal(await stage.read(caller, key), "stays");
    assert.deepEqual(service.audit(), []);
  });

  it("of a user who gets no key leave no owner behind", async () => {
    using stage = new Stage({ quota: { bytes: 64 } });
    const { service } = stage;
    const caller = service.attach({ pid: 99, uid: 4000, gid: 4000 });
    const root = await stage.caller(0);
    const ring = await settle(service.addKey(root, "keyring", "shared", null, KEY_SPEC.session));
    await settle(service.setPermissions(root, ring, ALL_RIGHTS));
    service.setLimit("maxBytes", 10);
    assert.equal(nameOf(await settle(service.addKey(caller, "user", "k", Buffer.alloc(32), ring))), "EDQUOT");
    assert.equal(nameOf(await settle(service.addKey(caller, "user", "k", Buffer.alloc(65), ring))), "EDQUOT");
    assert.deepEqual(stage.owners(), []);
  });

  it("are gone when the store is closed, and keys that live on have nothing to release", async () => {
    using stage = new Stage();
    const { pool, payloads, service } = stage;
    const caller = await stage.caller(1000);
    const key = await stage.add(caller, "a", Buffer.from("payload"));
    payloads.close();
    assert.deepEqual([stage.owners(), pool.statistics().slots, payloads.count], [[], 0, 0]);
    assert.equal(nameOf(await stage.add(caller, "b", Buffer.from("payload"))), "ENOMEM");
    assert.equal(nameOf(await settle(service.update(caller, key, Buffer.from("payload")))), "ENOMEM");
    assert.equal(await settle(service.revoke(caller, key)), 0);
    payloads.close();
  });

  it("of a type that keeps them where they are outlive their user's last key, and no longer", async () => {
    const kept: KeyType = {
      name: "kept",
      preparse: (prepared, { payloads }) => {
        const handle = payloads.put(prepared.bytes, prepared.uid);
        prepared.payload = handle;
        return Math.min(0, handle);
      },
      instantiate: (key, prepared) => {
        key.payload = prepared.payload;
        return 0;
      },
      destroy: ({ payload }, { payloads }) => payloads.release(payload as number),
    };
    using stage = new Stage({ types: [kept] });
    const [shop, root] = [await stage.caller(1000), await stage.caller(0)];
    const key = await stage.add(shop, "k", Buffer.from("payload"), "kept");
    await settle(stage.service.setPermissions(shop, key, ALL_RIGHTS));
    await settle(stage.service.link(root, key, KEY_SPEC.session));
    await settle(stage.service.chown(root, key, 0, -1));
    stage.service.exit(shop);
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(stage.owners(), ["uid:1000 1"]);
    await settle(stage.service.unlink(root, key, KEY_SPEC.session));
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(stage.owners(), []);
  });

  it("lie where the kernel cannot read them, and are gone after their release", (t) => {
    using stage = new Stage();
    const { pool, payloads } = stage;
    if (!pool.hidden) {
      t.skip("this kernel gives no secret memory");
      return;
    }
    const handle = payloads.put(Buffer.from("payload"), 1000);
    const part = Buffer.alloc(4);
    payloads.copyTo(handle, 3, part);
    assert.equal(part.toString(), "pay\0");
    let address = 0;
    payloads.copyTo(handle, 3, { length: 3, set: (bytes) => void (address = addressOf(bytes)) });
    const memory = openSync("/proc/self/mem", "r");
    assert.throws(() => readSync(memory, part, 0, 4, address), { code: "EIO" });
    assert.equal(readSync(memory, part, 0, 4, addressOf(Buffer.from("control"))), 4);
    closeSync(memory);
    payloads.release(handle);
    assert.throws(() => payloads.copyTo(handle, 1, part), { code: "SECRET_RELEASED" });
    payloads.forgetUser(1000);
    assert.equal(pool.statistics().slots, 0);
  });
});
