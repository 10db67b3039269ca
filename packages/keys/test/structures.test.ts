/** What the service keeps its keys in. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MemoryPayloadStore, type PayloadStore, settle } from "../src/index.ts";
import { audit } from "../src/audit.ts";
import { ExpiryIndex } from "../src/expiry-index.ts";
import { linksOf } from "../src/link-table.ts";
import { link } from "../src/links.ts";
import { createRing } from "../src/rings.ts";
import { bytes, emptyState, errorLater, errorOf, linksIn, ok, onBench, OPEN, readText, SESSION } from "./kit.ts";
import { Random } from "./random.ts";

describe("a keyring of many links", () => {
  it(
    "keeps keys apart that have the same description and another type, finds, replaces and removes each",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process(0);
      const ring = ok(service.addKey(process, "keyring", "many", null, SESSION));
      const names = Array.from({ length: 40 }, (_, index) => `a:${index}`);
      const keys = new Map<string, number>();
      for (const name of names) {
        for (const type of ["user", "logon", "big_key", "keyring"]) {
          const payload = type === "keyring" ? null : bytes(name);
          keys.set(`${type} ${name}`, ok(service.addKey(process, type, name, payload, ring)));
        }
      }
      assert.deepEqual(
        linksIn(service, process, ring),
        [...keys.values()].toSorted(byPlace(linksIn(service, process, ring))),
      );
      for (const [what, key] of keys) {
        const [type = "", name = ""] = what.split(" ");
        assert.equal(ok(service.search(process, ring, type, name, 0)), key);
      }
      const replaced = ok(service.addKey(process, "keyring", "a:7", null, ring));
      assert.notEqual(replaced, keys.get("keyring a:7"));
      keys.set("keyring a:7", replaced);
      assert.deepEqual(new Set(linksIn(service, process, ring)), new Set(keys.values()));
      assert.deepEqual(service.audit(), []);
      for (const [what, key] of keys) {
        ok(service.unlink(process, key, ring));
        assert.equal(errorOf(service.search(process, ring, what.split(" ")[0]!, what.split(" ")[1]!, 0)), "ENOKEY");
      }
      const [first, second, third] = ["x", "y", "z"].map((name) =>
        ok(service.addKey(process, "user", name, bytes("v"), ring)),
      );
      assert.deepEqual(linksIn(service, process, ring), [first, third, second], "empty, it begins with slots again");
    }),
  );

  it(
    "is filled with a hundred thousand keys, and cleared, and nothing is left",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process(0);
      const ring = ok(service.addKey(process, "keyring", "many", null, SESSION));
      const payload = bytes("v");
      for (let index = 0; index < 100_000; index += 1) ok(service.addKey(process, "user", `k${index}`, payload, ring));
      assert.equal(ok(service.read(process, ring)), 400_000);
      ok(service.clear(process, ring));
      // More keys end than in one go; the rest follows at the next tick.
      bench.clock.advance(1);
      assert.deepEqual(service.statistics(), { keys: 2, users: 1, processes: 1, payloads: 0, waits: 0 });
    }),
  );
});

const byPlace =
  (places: readonly number[]) =>
  (left: number, right: number): number =>
    places.indexOf(left) - places.indexOf(right);

describe("payloads in memory", () => {
  it("come back as they were put in, whatever their size and the order in which they go", () => {
    const seed = Date.now() % 1_000_000;
    const random = new Random(seed);
    const store: PayloadStore = new MemoryPayloadStore();
    const kept: { readonly handle: number; readonly payload: Uint8Array }[] = [];
    for (let step = 0; step < 20_000; step += 1) {
      if (kept.length < 50 || random.chance(0.5)) {
        const payload = new Uint8Array(random.pick([1, 15, 16, 17, 32, 100, 1000, 1025, 5000, 32_768, 40_000]));
        payload.fill(1 + random.below(255));
        kept.push({ handle: store.put(payload, 1000), payload });
      } else {
        const [taken] = kept.splice(random.below(kept.length), 1);
        const target = new Uint8Array(taken!.payload.length);
        store.copyTo(taken!.handle, target.length, target);
        assert.deepEqual(target, taken!.payload, `seed ${seed}`);
        store.release(taken!.handle);
      }
      if (kept.length > 500) for (const { handle } of kept.splice(0, 400)) store.release(handle);
    }
    assert.equal(store.count, kept.length);
    assert.equal(new Set(kept.map(({ handle }) => handle)).size, kept.length);
  });

  it("are wiped when they are released", () => {
    const store = new MemoryPayloadStore();
    const first = store.put(new Uint8Array(32).fill(0x5a));
    store.release(first);
    const second = store.put(new Uint8Array(17).fill(1));
    assert.equal(second, first, "the same place is used again");
    const target = new Uint8Array(32);
    store.copyTo(second, 32, target);
    assert.ok(target.subarray(17).every((byte) => byte === 0));
  });
});

describe("the index of expiry", () => {
  it("gives keys by their second, also when most have moved on", () => {
    const { state, key } = emptyState();
    const index = new ExpiryIndex();
    const random = new Random(7);
    let current = 0;
    for (let step = 0; step < 5000; step += 1) {
      if (current > 0) index.remove(current, key);
      current = 1 + random.below(100_000);
      index.add(current, key);
      assert.equal(index.first(), current);
    }
    assert.deepEqual(index.takeUntil(current - 1), []);
    assert.deepEqual(index.takeUntil(current), [key]);
    assert.equal(index.first(), undefined);
    assert.equal(state.keys.size, 1);
  });

  it("takes out what is due, in order, and nothing else", () => {
    const index = new ExpiryIndex();
    const keys = Array.from({ length: 200 }, () => emptyState().key);
    for (const [at, key] of keys.entries()) index.add((at * 37) % 200, key);
    assert.equal(index.takeUntil(99).length, 100);
    assert.equal(index.first(), 100);
    assert.equal(index.takeUntil(1000).length, 100);
  });
});

describe("the auditor", () => {
  it("finds a count, a charge, a link, a name and a timer that are wrong", () => {
    const { state, key } = emptyState();
    state.pin(key);
    state.put(key);
    const ring = createRing(state, { description: "r", uid: 5, gid: 5, permissions: OPEN, quota: "checked" });
    assert.ok(typeof ring !== "number");
    state.pin(ring);
    state.put(ring);
    assert.equal(link(state, ring, key), 0);
    assert.deepEqual(audit(state), []);
    const damages: readonly (readonly [() => void, () => void, RegExp])[] = [
      [() => (key.usage += 1), () => (key.usage -= 1), /usage 3, but 2 references/],
      [() => (ring.quotaBytes += 1), () => (ring.quotaBytes -= 1), /bytes charged instead of/],
      [() => (ring.payloadBytes += 4), () => (ring.payloadBytes -= 4), /bytes for links instead of 4/],
      [() => (key.holders = undefined), () => (key.holders = ring), /does not know that it is linked/],
      [() => (ring.user.quotaKeys += 1), () => (ring.user.quotaKeys -= 1), /user 5: 1\/1 keys, quota 2/],
      [() => state.named.clear(), () => state.named.set("r", new Set([ring])), /missing among names/],
      [() => (key.expiry = 2_000_000), () => (key.expiry = -1), /will not be collected/],
      [() => state.keys.delete(key.serial), () => state.keys.set(key.serial, key), /referred to, but not listed/],
    ];
    for (const [damage, mend, finding] of damages) {
      damage();
      assert.match(audit(state).join("\n"), finding);
      mend();
      assert.deepEqual(audit(state), []);
    }
    assert.equal(linksOf(ring).size, 1);
  });
});

describe("serial numbers", () => {
  it(
    "are random and at least 3; one that is taken gives the next free one",
    onBench(
      (bench) => {
        const { service } = bench;
        const process = bench.process(0);
        const session = ok(service.getKeyringId(process, SESSION, false));
        const keys = ["a", "b", "c"].map((name) => ok(service.addKey(process, "user", name, bytes("v"), SESSION)));
        assert.deepEqual([session, ...keys], [2 ** 31 - 1, 3, 4, 5]);
      },
      { random: () => 2 ** 32 - 1 },
    ),
  );
});

describe("a type that calls back into the service", () => {
  it(
    "while a request looks at its description, and adds that very key: the request finds it",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      let added = 0;
      const result = service.registerType({
        name: "eager",
        preparse: () => 0,
        instantiate: (key) => {
          key.payload = "there";
          return 0;
        },
        read: () => 0,
        vetDescription: () => {
          if (added === 0) {
            added = -1;
            added = ok(service.addKey(process, "eager", "e", null, SESSION));
          }
          return 0;
        },
      });
      assert.equal(result, 0);
      const other = ok(service.addKey(process, "keyring", "other", null, SESSION));
      assert.equal(ok(service.requestKey(process, "eager", "e", "c", other)), added);
      assert.deepEqual(linksIn(service, process, other), [added]);
      assert.equal(bench.upcalls.length, 0);
    }),
  );
});

describe("a helper's child that outlives it", () => {
  it(
    "has no authority any more, for itself or for others",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      let child = service.attach({ pid: 1, uid: 0, gid: 0 });
      bench.helper = async ({ helper, target }) => {
        ok(service.assumeAuthority(helper, target));
        service.exit(child);
        child = service.fork(helper, { pid: 2 });
        return ok(service.instantiate(helper, target, bytes("v"), 0));
      };
      const key = ok(await settle(service.requestKey(asker, "user", "k", "c", 0)));
      assert.equal(errorOf(service.instantiate(child, key, bytes("w"), 0)), "EPERM");
      assert.equal(errorOf(service.reject(child, key, { seconds: 1, error: 1, ring: 0 })), "EPERM");
      assert.equal(errorOf(service.getKeyringId(child, -8, false)), "EKEYREVOKED");
      assert.equal(await errorLater(service.requestKey(child, "user", "other", "c", 0)), "EKEYREVOKED");
      assert.equal(errorOf(service.read(child, key)), "EACCES");
      assert.equal(readText(service, asker, key), "v");
      assert.equal(bench.upcalls.length, 1);
    }),
  );
});
