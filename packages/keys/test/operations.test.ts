/** Operations on keys and keyrings: what they refuse, in which order, and what they leave. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import { keyErrno, type KeyText, type Upcall } from "../src/index.ts";
import { bytes, errorOf, linksIn, ok, onBench, procLine, readText, SESSION } from "./kit.ts";

const done = (result: string | number): string => (typeof result === "number" ? "done" : result);

describe("texts", () => {
  const longest = "x".repeat(4095);
  const cases: readonly (readonly [string, KeyText, string])[] = [
    ["of one byte", "a", "done"],
    ["of 4,095 bytes", longest, "done"],
    ["of 4,096 bytes", `${longest}x`, "EINVAL"],
    ["of a million bytes", "x".repeat(1_000_000), "EINVAL"],
    ["of 2,048 letters of two bytes", "ä".repeat(2048), "EINVAL"],
    ["with a NUL", "a\0b", "EINVAL"],
    ["with a newline, a slash and a semicolon", "a\n/b;c", "done"],
    ["that is no UTF-8", Uint8Array.of(0xff, 0xfe, 0x80), "done"],
    ["of letters beyond ASCII", "schlüssel", "done"],
  ];
  for (const [what, description, expected] of cases) {
    it(
      `as a description ${what}: ${expected}`,
      onBench((bench) => {
        const { service } = bench;
        const process = bench.process(0);
        const added = service.addKey(process, "user", description, bytes("v"), SESSION);
        assert.equal(done(errorOf(added)), expected);
        const found = service.search(process, SESSION, "user", description, 0);
        if (expected !== "done") {
          assert.equal(errorOf(found), expected);
          return;
        }
        assert.equal(ok(found), added);
        const target = Buffer.alloc(5000);
        const size = ok(service.describe(process, Number(added), target));
        const raw = typeof description === "string" ? Buffer.from(description) : Buffer.from(description);
        assert.deepEqual(
          target.subarray(0, size),
          Buffer.concat([Buffer.from("user;0;0;3f010000;"), raw, Buffer.alloc(1)]),
        );
      }),
    );
  }

  it(
    "as a description that is the same in another form is the same key",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const key = ok(service.addKey(process, "user", "schlüssel", bytes("v"), SESSION));
      assert.equal(ok(service.search(process, SESSION, "user", Buffer.from("schlüssel"), 0)), key);
    }),
  );

  it(
    "as a callout: up to 4,095 bytes, empty too; as a restriction and as a name of a session the same",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process(0);
      assert.equal(errorOf(service.requestKey(process, "user", "k", `${longest}x`, 0)), "EINVAL");
      assert.equal(errorOf(service.requestKey(process, "user", "k", "a\0", 0)), "EINVAL");
      assert.equal(errorOf(service.restrict(process, SESSION, "user", `${longest}x`)), "EINVAL");
      assert.equal(errorOf(service.joinSession(process, `${longest}x`)), "EINVAL");
      ok(service.joinSession(process, longest));
    }),
  );
});

describe("links", () => {
  it(
    "are listed by slot: the first one, then from the last slot down; a replaced one keeps its place",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const names = ["k0", "k1", "k2", "k3", "k4"];
      const keys = names.map((name) => ok(service.addKey(process, "user", name, bytes("v"), SESSION)));
      assert.deepEqual(linksIn(service, process, SESSION), [keys[0], keys[4], keys[3], keys[2], keys[1]]);
      const ring = ok(service.addKey(process, "keyring", "r", null, SESSION));
      const again = ok(service.addKey(process, "keyring", "r", null, SESSION));
      assert.notEqual(again, ring);
      assert.deepEqual(linksIn(service, process, SESSION), [keys[0], again, keys[4], keys[3], keys[2], keys[1]]);
      ok(service.unlink(process, keys[2]!, SESSION));
      const next = ok(service.addKey(process, "user", "k5", bytes("v"), SESSION));
      assert.deepEqual(linksIn(service, process, SESSION), [keys[0], again, keys[4], keys[3], next, keys[1]]);
    }),
  );

  it(
    "unlink and move go by type and description, whichever key is named",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const [one, two] = ["one", "two"].map((name) => ok(service.addKey(process, "keyring", name, null, SESSION)));
      const inOne = ok(service.addKey(process, "user", "k", bytes("1"), one!));
      const inTwo = ok(service.addKey(process, "user", "k", bytes("2"), two!));
      assert.equal(errorOf(service.move(process, inOne, one!, two!, 1)), "EEXIST");
      ok(service.move(process, inOne, two!, SESSION, 0));
      assert.deepEqual(linksIn(service, process, two!), []);
      assert.equal(errorOf(service.read(process, inTwo)), "ENOKEY");
      ok(service.unlink(process, inOne, one!));
      assert.equal(errorOf(service.unlink(process, inOne, one!)), "ENOENT");
      assert.equal(errorOf(service.move(process, inOne, one!, two!, 0)), "ENOENT");
      assert.equal(errorOf(service.move(process, inOne, one!, two!, 2)), "EINVAL");
      assert.equal(ok(service.move(process, inOne, one!, one!, 0)), 0);
    }),
  );

  it(
    "charge four bytes to the keyring's owner; what the collector removes comes back when the keyring is cleared",
    onBench((bench) => {
      const { service, clock } = bench;
      const process = bench.process();
      const used = (): number => Number(/1000: .* (\d+)\/20000$/m.exec(service.procKeyUsers())?.[1]);
      const empty = used();
      const key = ok(service.addKey(process, "user", "abc", bytes("12345"), SESSION));
      assert.equal(used(), empty + 9 + 4);
      ok(service.unlink(process, key, SESSION));
      assert.equal(used(), empty);
      const timed = ok(service.addKey(process, "user", "abc", bytes("12345"), SESSION));
      ok(service.setTimeout(process, timed, 10));
      clock.advance(10 + 299);
      assert.deepEqual(linksIn(service, process, SESSION), [timed]);
      clock.advance(1);
      assert.deepEqual(linksIn(service, process, SESSION), []);
      assert.equal(used(), empty + 4);
      ok(service.clear(process, SESSION));
      assert.equal(used(), empty);
    }),
  );

  it(
    "that the collector removed come back when the keyring is revoked, too, also if its last one was unlinked",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const ring = ok(service.addKey(process, "keyring", "r", null, SESSION));
      const [quota] = /\d+\/20000/.exec(service.procKeyUsers().split("\n")[1]!)!;
      const [one, two] = ["one", "two"].map((name) => ok(service.addKey(process, "user", name, bytes("v"), ring)));
      ok(service.invalidate(process, one!));
      ok(service.unlink(process, two!, ring));
      assert.ok(!service.procKeyUsers().includes(` ${quota}\n`));
      ok(service.revoke(process, ring));
      assert.ok(service.procKeyUsers().includes(` ${quota}\n`));
    }),
  );

  it(
    "to a revoked key go when the delay is over, and the delay can be changed",
    onBench((bench) => {
      const { service, clock } = bench;
      const process = bench.process();
      const key = ok(service.addKey(process, "user", "k", bytes("v"), SESSION));
      ok(service.revoke(process, key));
      assert.match(procLine(service, process, key)!, /^IR-Q--- +1 expd 3f010000 .* k: 0$/);
      assert.equal(errorOf(service.revoke(process, key)), "EKEYREVOKED");
      assert.equal(service.setLimit("gcDelaySeconds", 3), 0);
      clock.advance(3);
      assert.deepEqual(linksIn(service, process, SESSION), []);
      for (const value of [0, 2 ** 31, 1.5, -1]) assert.equal(errorOf(service.setLimit("maxKeys", value)), "EINVAL");
      assert.equal(service.limits.maxKeys, 200);
    }),
  );
});

describe("expired keys", () => {
  it(
    "are refused by everything but unlink, and revived by being added again, with the same number",
    onBench((bench) => {
      const { service, clock } = bench;
      const process = bench.process();
      const key = ok(service.addKey(process, "user", "k", bytes("old"), SESSION));
      ok(service.setTimeout(process, key, 5));
      clock.advance(5);
      for (const answer of [
        service.read(process, key),
        service.describe(process, key),
        service.update(process, key, bytes("x")),
        service.setTimeout(process, key, 0),
        service.revoke(process, key),
        service.link(process, key, SESSION),
      ]) {
        assert.equal(errorOf(answer), "EKEYEXPIRED");
      }
      assert.equal(errorOf(service.search(process, SESSION, "user", "k", 0)), "EKEYEXPIRED");
      assert.equal(errorOf(service.requestKey(process, "user", "k", null, 0)), "ENOKEY");
      assert.equal(ok(service.addKey(process, "user", "k", bytes("new"), SESSION)), key);
      assert.equal(readText(service, process, key), "new");
      assert.match(procLine(service, process, key)!, / perm /);
      clock.advance(1000);
      assert.equal(readText(service, process, key), "new");
    }),
  );
});

describe("types that go", () => {
  it(
    "take their keys' payloads along and leave dead keys; keyrings restricted to them take nothing more",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      let destroyed = 0;
      const own = {
        name: "own",
        preparse: () => 0,
        instantiate: () => 0,
        destroy: () => {
          destroyed += 1;
        },
        lookupRestriction: () => ({ type: own, trusted: undefined, check: () => 0 }),
      };
      assert.equal(service.registerType(own), 0);
      const key = ok(service.addKey(process, "own", "k", null, SESSION));
      const ring = ok(service.addKey(process, "keyring", "r", null, SESSION));
      ok(service.restrict(process, ring, "own", "x"));
      ok(service.addKey(process, "user", "u", bytes("v"), ring));
      using held = service.trusted.reference(key);
      assert.equal(service.unregisterType("own"), 0);
      assert.equal(errorOf(service.unregisterType("own")), "ENOENT");
      assert.equal(errorOf(service.unregisterType("keyring")), "EPERM");
      assert.equal(destroyed, 1);
      assert.equal(held?.read(), -keyErrno.EKEYREVOKED);
      assert.equal(errorOf(service.describe(process, key)), "EKEYREVOKED");
      assert.deepEqual(linksIn(service, process, SESSION), [ring]);
      assert.equal(errorOf(service.addKey(process, "user", "w", bytes("v"), ring)), "EPERM");
      assert.equal(errorOf(service.addKey(process, "own", "k", null, SESSION)), "ENODEV");
    }),
  );
});

describe("a type whose keys are collected at once", () => {
  it(
    "loses its links when they expire, without the delay",
    onBench((bench) => {
      const { service, clock } = bench;
      const type = { name: "quick", reapsAtOnce: true, preparse: () => 0, instantiate: () => 0 };
      assert.equal(service.registerType(type), 0);
      const process = bench.process();
      const key = ok(service.addKey(process, "quick", "k", null, SESSION));
      ok(service.setTimeout(process, key, 5));
      clock.advance(4);
      assert.deepEqual(linksIn(service, process, SESSION), [key]);
      clock.advance(1);
      assert.deepEqual(linksIn(service, process, SESSION), []);
    }),
  );
});

describe("secrets", () => {
  it(
    "do not show when anything of the service is printed, listed or fails",
    onBench(async (bench) => {
      const { service } = bench;
      const process = bench.process();
      const secret = "hunter2-hunter2";
      const key = ok(service.addKey(process, "user", "k", bytes(secret), SESSION));
      ok(service.addKey(process, "big_key", "b", bytes(secret), SESSION));
      using reference = service.trusted.reference(key);
      const seen: unknown[] = [service, process, process.session, reference, bench.payloads, service.statistics()];
      bench.helper = (upcall) => {
        seen.push(upcall, upcall.helper.session);
        throw new Error(secret);
      };
      const answer = service.requestKey(process, "user", "l", secret, 0);
      seen.push(answer);
      assert.ok(typeof answer === "object");
      seen.push(await answer.settled, service.procKeys(process), service.audit());
      for (const each of seen) {
        const text = `${inspect(each, { depth: 12, showHidden: true, getters: true })} ${JSON.stringify(String(each))}`;
        assert.ok(!text.includes(secret) && !text.includes(Buffer.from(secret).toString("hex")), text.slice(0, 200));
      }
    }),
  );
});

describe("what is not offered", () => {
  it(
    "is refused as a kernel without it refuses, and the capabilities say so",
    onBench(({ service }) => {
      assert.equal(errorOf(service.notSupported()), "EOPNOTSUPP");
      const target = Buffer.alloc(4, 0xff);
      assert.equal(service.capabilities(target), 2);
      assert.equal(target.toString("hex"), "f3030000");
      const [dh, publicKeys, notifications] = [target[0]! & 0x04, target[0]! & 0x08, target[1]! & 0x04];
      assert.deepEqual([dh, publicKeys, notifications], [0, 0, 0]);
      assert.equal(service.capabilities(), 2);
      assert.equal(service.capabilities(Buffer.alloc(1)), 2);
    }),
  );
});

describe("a service", () => {
  it("refuses options that mean nothing", async () => {
    const { KeyService } = await import("../src/index.ts");
    for (const options of [
      { upcallTimeoutMs: -1 },
      { upcallTimeoutMs: 2 ** 31 },
      { limits: { maxKeys: 0 } },
      { limits: { gcDelaySeconds: 0.5 } },
      { types: [{ name: "user" }] },
      { types: [{ name: "" }] },
    ]) {
      assert.throws(() => new KeyService(options), { code: "INVALID_ARGUMENT" });
    }
  });

  it("that is closed ends waits, and knows no process any more", async () => {
    const { KeyService, settle } = await import("../src/index.ts");
    let signal: AbortSignal | undefined;
    const run = async (upcall: Upcall): Promise<number> => {
      signal = upcall.signal;
      return await new Promise(() => undefined);
    };
    const service = new KeyService({ upcall: { run } });
    const process = service.attach({ pid: 1, uid: 5, gid: 5 });
    ok(service.joinSession(process, null));
    const first = service.requestKey(process, "user", "k", "c", 0);
    const second = service.requestKey(process, "user", "k", "c", 0);
    assert.ok(typeof first === "object");
    service.close();
    assert.equal(await settle(second), -keyErrno.EINTR);
    assert.equal(await settle(first), -keyErrno.EINTR);
    assert.equal(signal?.aborted, true);
    assert.deepEqual(service.statistics(), { keys: 0, users: 1, processes: 0, payloads: 0, waits: 0 });
    assert.throws(() => service.read(process, 1), { code: "INVALID_ARGUMENT" });
  });
});
