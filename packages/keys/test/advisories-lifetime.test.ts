/** Published bugs of key retention as rules: how long keys live, and what is left of them. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DEFAULT_RING, type KeyService, Pending, type Process, settle } from "../src/index.ts";
import { USAGE_MAX } from "../src/key.ts";
import {
  assumeAndBuild,
  bytes,
  emptyState,
  errorLater,
  errorOf,
  linksIn,
  ok,
  onBench,
  OPEN,
  procLine,
  readText,
  SESSION,
} from "./kit.ts";

const usageOf = (service: KeyService, process: Process, id: number): number =>
  Number(/^\S+ +(\d+)/.exec(procLine(service, process, id) ?? "")?.[1]);

describe("advisories of keys: lifetimes", () => {
  it(
    "K01: joining the session that one is in already leaves its count of references alone",
    onBench(({ service }) => {
      const process = service.attach({ pid: 9, uid: 1000, gid: 1000 });
      const session = ok(service.joinSession(process, "x"));
      ok(service.setPermissions(process, session, OPEN));
      for (let count = 0; count < 100_000; count += 1) assert.equal(service.joinSession(process, "x"), 0);
      assert.equal(usageOf(service, process, session), 1);
    }),
  );

  it("K01: a count of references stops at its maximum, and such a key is never freed", () => {
    const { state, key } = emptyState();
    key.usage = USAGE_MAX - 1;
    for (let count = 0; count < 3; count += 1) state.get(key);
    assert.equal(key.usage, USAGE_MAX);
    for (let count = 0; count < 3; count += 1) state.put(key);
    assert.equal(key.usage, USAGE_MAX);
    assert.equal(state.keys.get(key.serial), key);
  });

  it(
    "K02: after every join that is refused, a good one works",
    onBench(
      ({ service }) => {
        const process = service.attach({ pid: 9, uid: 1000, gid: 1000 });
        for (const name of ["", "x".repeat(4096), ".x", "a\0b"])
          assert.ok(Number(service.joinSession(process, name)) < 0);
        ok(service.joinSession(process, "a"));
        assert.equal(errorOf(service.joinSession(process, "b".repeat(300))), "EDQUOT");
        ok(service.joinSession(process, "c"));
      },
      { limits: { maxBytes: 200 } },
    ),
  );

  it(
    "K03: joins, additions over a key, requests and refusals leave nothing behind",
    onBench(async (bench) => {
      const { service } = bench;
      const process = bench.process();
      bench.helper = async (upcall) => await assumeAndBuild(service, upcall, "v");
      const round = async (): Promise<void> => {
        ok(service.joinSession(process, null));
        ok(service.addKey(process, "user", "k", bytes("1"), SESSION));
        ok(service.addKey(process, "user", "k", bytes("2"), SESSION));
        ok(service.addKey(process, "keyring", "r", null, SESSION));
        ok(service.addKey(process, "keyring", "r", null, SESSION));
        assert.equal(errorOf(service.addKey(process, "user", "k", new Uint8Array(40_000), SESSION)), "EINVAL");
        ok(await settle(service.requestKey(process, "user", "built", "c", 0)));
        assert.equal(await errorLater(service.requestKey(process, "logon", "nocolon", "c", 0)), "EINVAL");
      };
      await round();
      const before = service.statistics();
      const user = service.procKeyUsers();
      for (let count = 0; count < 2000; count += 1) await round();
      assert.deepEqual(service.statistics(), before);
      assert.equal(service.procKeyUsers(), user);
    }),
  );

  it(
    "K04: wherever a requested key goes by default, the references are those of its links",
    onBench(async (bench) => {
      const { service } = bench;
      const process = bench.process();
      let fails = false;
      bench.helper = async (upcall) => (fails ? 0 : await assumeAndBuild(service, upcall, "v"));
      for (const setting of Object.values(DEFAULT_RING).filter((value) => value !== DEFAULT_RING.group)) {
        ok(service.setDefaultRing(process, setting));
        const key = ok(await settle(service.requestKey(process, "user", `k${setting}`, "c", 0)));
        fails = true;
        assert.equal(await errorLater(service.requestKey(process, "user", `n${setting}`, "c", 0)), "ENOKEY");
        fails = false;
        assert.deepEqual(service.audit(), []);
        if (setting < DEFAULT_RING.user) assert.equal(usageOf(service, process, key), 1);
      }
    }),
  );

  it(
    "K05: a key whose last reference goes cannot be found in any way, and its quota comes back once",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const before = service.procKeyUsers();
      const ring = ok(service.addKey(process, "keyring", "named", null, SESSION));
      ok(service.setPermissions(process, ring, OPEN));
      const key = ok(service.addKey(process, "user", "k", bytes("v"), ring));
      ok(service.unlink(process, ring, SESSION));
      for (const id of [ring, key]) {
        assert.equal(errorOf(service.read(process, id)), "ENOKEY");
        assert.equal(errorOf(service.describe(process, id)), "ENOKEY");
        assert.equal(errorOf(service.link(process, id, SESSION)), "ENOKEY");
      }
      assert.equal(errorOf(service.search(process, SESSION, "user", "k", 0)), "ENOKEY");
      assert.equal(service.procKeyUsers(), before);
      const other = service.fork(process, { pid: 77 });
      assert.notEqual(ok(service.joinSession(other, "named")), ring);
    }),
  );

  it(
    "K06: a keyring is never under construction, and what was never instantiated ends without a payload",
    onBench(async (bench) => {
      const { service } = bench;
      const process = bench.process();
      assert.equal(errorOf(service.requestKey(process, "keyring", "r", "c", 0)), "EPERM");
      bench.helper = () => 0;
      assert.equal(await errorLater(service.requestKey(process, "user", "k", "c", 0)), "ENOKEY");
      const [key] = linksIn(service, process, SESSION);
      ok(service.unlink(process, key!, SESSION));
      assert.equal(bench.payloads.count, 0);
    }),
  );

  it(
    "K13: what was read before a revocation stays as it was; after it there is only the error",
    onBench((bench) => {
      const { service, clock } = bench;
      const process = bench.process();
      const ends: readonly (readonly [(key: number) => unknown, string])[] = [
        [(key) => service.revoke(process, key), "EKEYREVOKED"],
        [(key) => service.invalidate(process, key), "ENOKEY"],
        [(key) => service.setTimeout(process, key, 1), "EKEYEXPIRED"],
      ];
      for (const [end, error] of ends) {
        const key = ok(service.addKey(process, "user", "k", bytes("value"), SESSION));
        const target = Buffer.alloc(5);
        ok(service.read(process, key, target));
        end(key);
        clock.advance(1);
        assert.equal(target.toString(), "value");
        assert.equal(errorOf(service.read(process, key, target)), error);
        assert.equal(target.toString(), "value");
        service.unlink(process, key, SESSION);
      }
    }),
  );

  it(
    "K26: whoever holds a payload goes on with it, while the key is refused to all others",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const key = ok(service.addKey(process, "user", "k", bytes("value"), SESSION));
      using reference = service.trusted.reference(key);
      const [own, later] = [Buffer.alloc(5), Buffer.alloc(5)];
      assert.equal(reference?.read(own), 5);
      ok(service.revoke(process, key));
      assert.equal(bench.payloads.count, 0, "the service itself keeps nothing");
      assert.equal(reference?.read(later), -128);
      assert.equal(later.toString("hex"), "0000000000");
      assert.equal(own.toString(), "value");
    }),
  );

  it(
    "K22: setting the thread keyring as default again and again makes one",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      ok(service.setDefaultRing(process, DEFAULT_RING.thread));
      const ring = ok(service.getKeyringId(process, -1, false));
      const before = service.statistics();
      for (let count = 0; count < 100_000; count += 1) ok(service.setDefaultRing(process, DEFAULT_RING.thread));
      assert.equal(ok(service.getKeyringId(process, -1, false)), ring);
      assert.deepEqual(service.statistics(), before);
    }),
  );

  it(
    "K27: an expiry that was set before the key was built stays",
    onBench(async (bench) => {
      const { service, clock } = bench;
      const process = bench.process();
      bench.helper = async ({ helper, target }) => {
        ok(service.assumeAuthority(helper, target));
        ok(service.setTimeout(helper, target, 50));
        return ok(service.instantiate(helper, target, bytes("v"), 0));
      };
      const key = ok(await settle(service.requestKey(process, "user", "k", "c", 0)));
      assert.match(procLine(service, process, key)!, / 50s /);
      for (const seconds of [-1, 1.5, 2 ** 32])
        assert.equal(errorOf(service.setTimeout(process, key, seconds)), "EINVAL");
      clock.advance(49);
      assert.equal(readText(service, process, key), "v");
      clock.advance(1);
      assert.equal(errorOf(service.read(process, key)), "EKEYEXPIRED");
    }),
  );

  it(
    "K33: an update that the type or the permissions refuse leaves nothing half done",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      assert.equal(errorOf(service.update(process, SESSION, bytes("x"))), "EOPNOTSUPP");
      const key = ok(service.addKey(process, "user", "k", bytes("old"), SESSION));
      ok(service.setPermissions(process, key, 0x3b3b_0000));
      assert.equal(errorOf(service.update(process, key, bytes("new"))), "EACCES");
      assert.equal(readText(service, process, key), "old");
      assert.equal(bench.payloads.count, 1);
    }),
  );

  it(
    "K34: keys and bytes can be used up exactly, not passed, and come back at once",
    onBench(
      (bench) => {
        const { service } = bench;
        const process = bench.process();
        const used = (): string | undefined => / (\d+\/10 \d+\/200)$/m.exec(service.procKeyUsers())?.[1];
        // The session keyring has 5 bytes, and 4 for each link.
        const first = ok(service.addKey(process, "user", "a", new Uint8Array(100), SESSION));
        assert.equal(used(), "2/10 111/200");
        const exact = new Uint8Array(200 - 111 - 4 - 2);
        assert.equal(
          errorOf(service.addKey(process, "user", "b", new Uint8Array(exact.length + 1), SESSION)),
          "EDQUOT",
        );
        const second = ok(service.addKey(process, "user", "b", exact, SESSION));
        assert.equal(used(), "3/10 200/200");
        assert.equal(errorOf(service.update(process, first, new Uint8Array(101))), "EDQUOT");
        ok(service.update(process, first, new Uint8Array(100)));
        ok(service.revoke(process, second));
        assert.equal(used(), `3/10 ${200 - exact.length}/200`);
        ok(service.unlink(process, second, SESSION));
        ok(service.update(process, first, new Uint8Array(1)));
        const names = "cdefghij".split("");
        for (const name of names) ok(service.addKey(process, "user", name, new Uint8Array(1), SESSION));
        assert.equal(errorOf(service.addKey(process, "user", "z", new Uint8Array(1), SESSION)), "EDQUOT");
        assert.match(used()!, /^10\/10 /);
      },
      { limits: { maxKeys: 10, maxBytes: 200 } },
    ),
  );

  it(
    "K14, K15: a negative key that is added again becomes a good one; one under construction is waited for",
    onBench(async (bench) => {
      const { service } = bench;
      const process = bench.process();
      for (const type of ["user", "logon", "big_key"]) {
        bench.helper = () => 0;
        assert.equal(await errorLater(service.requestKey(process, type, "a:b", "c", 0)), "ENOKEY");
        const key = linksIn(service, process, SESSION)[0]!;
        assert.equal(errorOf(service.update(process, key, bytes("x"))), "ENOKEY");
        assert.equal(ok(service.addKey(process, type, "a:b", bytes("good"), SESSION)), key, "it keeps its number");
        assert.equal(ok(service.requestKey(process, type, "a:b", null, 0)), key);
        if (type !== "logon") assert.equal(readText(service, process, key), "good");
        let added: unknown;
        bench.helper = async (upcall) => {
          added = service.addKey(process, type, "c:d", bytes("late"), SESSION);
          return await assumeAndBuild(service, upcall, "built");
        };
        ok(await settle(service.requestKey(process, type, "c:d", "c", 0)));
        assert.ok(added instanceof Pending);
        ok(await added.settled);
        ok(service.clear(process, SESSION));
      }
    }),
  );

  it(
    "K16: a negative key can be described, not read or updated",
    onBench(async (bench) => {
      const { service } = bench;
      const process = bench.process();
      assert.equal(await errorLater(service.requestKey(process, "user", "k", "c", 0)), "ENOKEY");
      const key = linksIn(service, process, SESSION)[0]!;
      assert.equal(errorOf(service.read(process, key)), "ENOKEY");
      assert.equal(errorOf(service.update(process, key, bytes("x"))), "ENOKEY");
      ok(service.describe(process, key));
    }),
  );
});
