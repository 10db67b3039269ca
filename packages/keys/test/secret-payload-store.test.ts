import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { describe, it } from "node:test";
import { KEY_SPEC, KeyService, SecretPayloadStore, settle } from "@xenolith/keys";
import { type SecretOwner, SecretPool } from "@xenolith/secrets";
import { addressOf, errnoName } from "@xenolith/sys";

const openPool = (): SecretPool => SecretPool.open({ policy: "degraded", underPressure: () => false });

/** A service whose payloads lie in a pool, and a caller with a session keyring. */
const serviceOver = (owner: SecretOwner) => {
  const payloads = new SecretPayloadStore(owner);
  const service = new KeyService({ payloads });
  const caller = service.attach({ pid: 1, uid: 1000, gid: 1000 });
  return { payloads, service, caller };
};

const nameOf = (result: number): string => (result < 0 ? errnoName(-result) : "done");

describe("payloads in secret memory", () => {
  it("are what was added, for keys of every size, and gone with their keys", async () => {
    using pool = openPool();
    using owner = pool.owner("keys");
    const { payloads, service, caller } = serviceOver(owner);
    await settle(service.joinSession(caller, null));
    for (const size of [1, 48, 49, 4080, 4081, 9000]) {
      const payload = randomBytes(size);
      const serial = await settle(service.addKey(caller, "user", `of:${size}`, payload, KEY_SPEC.session));
      assert.ok(serial > 0, nameOf(serial));
      const read = Buffer.alloc(size + 1);
      assert.equal(await settle(service.read(caller, serial, read)), size);
      assert.deepEqual(read.subarray(0, size), payload);
    }
    assert.equal(payloads.count, 6);
    assert.equal(pool.statistics().slots, 6);
    await settle(service.addKey(caller, "user", "of:1", Buffer.from("updated"), KEY_SPEC.session));
    assert.equal(pool.statistics().slots, 6, "an update leaves nothing of the old payload");
    service[Symbol.dispose]();
    assert.deepEqual([payloads.count, pool.statistics().usedBytes], [0, 0]);
  });

  it("that the pool refuses are refused to the caller with its error number, and others are kept", async () => {
    using pool = openPool();
    using owner = pool.owner("keys", { bytes: 256, slots: 3 });
    const { payloads, service, caller } = serviceOver(owner);
    await settle(service.joinSession(caller, null));
    const add = async (name: string, size: number): Promise<string> =>
      nameOf(await settle(service.addKey(caller, "user", name, Buffer.alloc(size, 1), KEY_SPEC.session)));
    assert.deepEqual(
      [await add("a", 48), await add("b", 200), await add("c", 48), await add("d", 48), await add("e", 48)],
      ["done", "EDQUOT", "done", "done", "EDQUOT"],
    );
    assert.equal(payloads.put(new Uint8Array(0)), -22);
    assert.equal(payloads.count, 3);
    service[Symbol.dispose]();
  });

  it("lie where the kernel cannot read them", (t) => {
    using pool = openPool();
    if (!pool.hidden) {
      t.skip("this kernel gives no secret memory");
      return;
    }
    const owner = pool.owner("keys");
    const seen: number[] = [];
    const payloads = new SecretPayloadStore({
      tryAllocate: (size) => {
        const secret = owner.allocate(size);
        seen.push(secret.withBytes(addressOf));
        return secret;
      },
    });
    const handle = payloads.put(Buffer.from("payload"));
    const part = Buffer.alloc(4);
    payloads.copyTo(handle, 3, part);
    assert.equal(part.toString(), "pay\0");
    const memory = openSync("/proc/self/mem", "r");
    assert.throws(() => readSync(memory, part, 0, 4, seen[0]!), { code: "EIO" });
    assert.equal(readSync(memory, part, 0, 4, addressOf(Buffer.from("control"))), 4);
    closeSync(memory);
    payloads.release(handle);
    assert.throws(() => payloads.copyTo(handle, 1, part), assert.AssertionError);
    assert.equal(pool.statistics().slots, 0);
  });
});
