import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Answer, DEFAULT_RING, Pending, settle, type Upcall } from "../src/index.ts";
import {
  assumeAndBuild,
  type Bench,
  bytes,
  errorLater,
  errorOf,
  linksIn,
  ok,
  onBench,
  procLine,
  readText,
  SESSION,
} from "./kit.ts";

describe("a request for a key that is not there", () => {
  it(
    "starts a helper with the arguments and environment of request-key(8), and gives the key that it builds",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      ok(service.getKeyringId(asker, -1, true));
      const rings = [-1, -2, -3].map((id) => (id === -2 ? 0 : ok(service.getKeyringId(asker, id, false))));
      bench.helper = async (upcall) => {
        assert.equal(procLine(service, asker, upcall.target), "---QU--     3 perm 3f010000  1000  1000 user      db:a");
        return await assumeAndBuild(service, upcall, "value");
      };
      const key = ok(await settle(service.requestKey(asker, "user", "db:a", "callout", 0)));
      const [upcall] = bench.upcalls;
      assert.deepEqual(upcall?.argv, ["create", key, 1000, 1000, ...rings].map(String));
      assert.deepEqual(upcall.env, { HOME: "/", PATH: "/sbin:/bin:/usr/sbin:/usr/bin" });
      assert.equal(readText(service, asker, key), "value");
      assert.deepEqual(linksIn(service, asker, -1), [key], "a thread keyring comes first");
      assert.equal(ok(service.requestKey(asker, "user", "db:a", "callout", 0)), key);
      assert.equal(bench.upcalls.length, 1);
    }),
  );

  const endings: readonly (readonly [string, (bench: Bench, upcall: Upcall) => Promise<number>, string, string])[] = [
    ["ends without building it", async () => 0, "ENOKEY", "1m"],
    ["ends with an exit code", async () => 256, "ENOKEY", "1m"],
    ["cannot be started", async () => -2, "ENOENT", "1m"],
    ["fails in its own code", async () => Promise.reject(new Error("no")), "EIO", "1m"],
    [
      "negates it",
      async ({ service }, { helper, target }) => {
        ok(service.assumeAuthority(helper, target));
        return ok(service.negate(helper, target, 30, 0));
      },
      "ENOKEY",
      "30s",
    ],
    [
      "rejects it",
      async ({ service }, { helper, target }) => {
        ok(service.assumeAuthority(helper, target));
        return ok(service.reject(helper, target, { seconds: 90, error: 129, ring: 0 }));
      },
      "EKEYREJECTED",
      "1m",
    ],
  ];
  for (const [ending, helper, error, time] of endings) {
    it(
      `whose helper ${ending}: ${error}, and the same again without a helper while the key is negative`,
      onBench(async (bench) => {
        const { service } = bench;
        const asker = bench.process();
        bench.helper = async (upcall) => await helper(bench, upcall);
        assert.equal(await errorLater(service.requestKey(asker, "user", "k", "c", 0)), error);
        const [key] = linksIn(service, asker, SESSION);
        assert.match(procLine(service, asker, key!)!, new RegExp(`^I--Q-N- +1 +${time} `));
        const again = error === "ENOENT" || error === "EIO" ? "ENOKEY" : error;
        assert.equal(errorOf(service.requestKey(asker, "user", "k", "c", 0)), again);
        assert.equal(bench.upcalls.length, 1);
        bench.clock.advance(91);
        assert.equal(await errorLater(service.requestKey(asker, "user", "k", "c", 0)), error);
        assert.equal(bench.upcalls.length, 2, "it is asked for anew when it is expired");
      }),
    );
  }

  it(
    "without a callout: ENOKEY; a type that is unknown: ENOKEY; a keyring: EPERM; no description: EINVAL",
    onBench((bench) => {
      const { service } = bench;
      const asker = bench.process();
      assert.equal(errorOf(service.requestKey(asker, "user", "k", null, 0)), "ENOKEY");
      assert.equal(errorOf(service.requestKey(asker, "other", "k", "c", 0)), "ENOKEY");
      assert.equal(errorOf(service.requestKey(asker, "keyring", "k", "c", 0)), "EPERM");
      assert.equal(errorOf(service.requestKey(asker, "user", "", "c", 0)), "EINVAL");
      assert.equal(errorOf(service.requestKey(asker, "logon", "k", "c", 0)), "EINVAL");
      assert.deepEqual(linksIn(service, asker, SESSION), []);
    }),
  );

  it(
    "starts one helper for a thousand who ask at the same time",
    onBench(async (bench) => {
      const { service } = bench;
      const first = bench.process();
      let release = (): void => undefined;
      const gate = new Promise<void>((resolve) => {
        release = resolve;
      });
      bench.helper = async (upcall) => {
        await gate;
        return await assumeAndBuild(service, upcall, "v");
      };
      const askers = Array.from({ length: 999 }, (_, index) => service.fork(first, { pid: 10_000 + index }));
      const answers = [first, ...askers].map((asker) => service.requestKey(asker, "user", "shared", "c", 0));
      assert.ok(answers.every((answer) => answer instanceof Pending));
      assert.equal(service.statistics().waits, 1000);
      release();
      const serials = await Promise.all(answers.map(settle));
      assert.equal(new Set(serials).size, 1);
      ok(serials[0]!);
      assert.equal(bench.upcalls.length, 1);
    }),
  );

  it(
    "can be interrupted by those who came later, not by the first",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      let release = (): void => undefined;
      const gate = new Promise<void>((resolve) => {
        release = resolve;
      });
      bench.helper = async (upcall) => {
        await gate;
        return await assumeAndBuild(service, upcall, "v");
      };
      const first = service.requestKey(asker, "user", "k", "c", 0);
      const second = service.requestKey(asker, "user", "k", "c", 0);
      const third = service.read(asker, linksIn(service, asker, SESSION)[0]!);
      assert.ok(first instanceof Pending && second instanceof Pending && third instanceof Pending);
      for (const each of [first, second, third]) each.interrupt();
      assert.equal(await errorLater(second), "EINTR");
      assert.equal(await errorLater(third), "EINTR");
      release();
      ok(await first.settled);
    }),
  );

  it(
    "stays refused for whoever can see it, and is found at once by a search while it is being built",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      bench.helper = async (upcall) => {
        assert.equal(ok(service.search(asker, SESSION, "user", "k", 0)), upcall.target);
        assert.equal(ok(service.describe(asker, upcall.target)), "user;1000;1000;3f010000;k".length + 1);
        return await assumeAndBuild(service, upcall, "v");
      };
      ok(await settle(service.requestKey(asker, "user", "k", "c", 0)));
    }),
  );

  it(
    "adding the same key meanwhile waits: then it updates the key, or fails as the request did",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      let refuses = false;
      let added: Answer = 0;
      bench.helper = async (upcall) => {
        added = service.addKey(asker, "user", "k", bytes("added"), SESSION);
        assert.ok(added instanceof Pending);
        if (refuses) return 0;
        return await assumeAndBuild(service, upcall, "built");
      };
      const key = ok(await settle(service.requestKey(asker, "user", "k", "c", 0)));
      assert.equal(ok(await settle(added)), key);
      assert.equal(readText(service, asker, key), "added");
      ok(service.unlink(asker, key, SESSION));
      refuses = true;
      assert.equal(await errorLater(service.requestKey(asker, "user", "k", "c", 0)), "ENOKEY");
      assert.equal(await errorLater(added), "ENOKEY");
    }),
  );

  it(
    "whose helper takes too long is refused, and the helper told so; what it does later is EBUSY",
    onBench(
      async (bench) => {
        const { service } = bench;
        const asker = bench.process();
        let late: Upcall | undefined;
        let ended = (): void => undefined;
        bench.helper = async (upcall) => {
          late = upcall;
          ok(service.assumeAuthority(upcall.helper, upcall.target));
          await new Promise<void>((resolve) => {
            ended = resolve;
          });
          return 0;
        };
        const answer = service.requestKey(asker, "user", "k", "c", 0);
        const child = service.fork(late!.helper, { pid: 4242 });
        bench.clock.advance(4);
        assert.equal(late!.signal.aborted, false);
        bench.clock.advance(1);
        assert.equal(await errorLater(answer), "ENOKEY");
        assert.equal(late!.signal.aborted, true);
        assert.equal(errorOf(service.instantiate(child, late!.target, bytes("x"), 0)), "EBUSY");
        service.exit(child);
        ended();
      },
      { upcallTimeoutMs: 5000 },
    ),
  );

  it(
    "is refused when the expiry that its helper set is over before the helper is",
    onBench(async (bench) => {
      const { service, clock } = bench;
      const asker = bench.process();
      bench.helper = async ({ helper, target }) => {
        ok(service.assumeAuthority(helper, target));
        ok(service.setTimeout(helper, target, 5));
        ok(service.instantiate(helper, target, bytes("v"), 0));
        clock.advance(5);
        return 0;
      };
      assert.equal(await errorLater(service.requestKey(asker, "user", "k", "c", 0)), "ENOKEY");
    }),
  );
});

describe("where a requested key goes", () => {
  const cases: readonly (readonly [string, number, number])[] = [
    ["thread", DEFAULT_RING.thread, -1],
    ["process", DEFAULT_RING.process, -2],
    ["session", DEFAULT_RING.session, -3],
    ["user", DEFAULT_RING.user, -4],
    ["user's session", DEFAULT_RING.userSession, -5],
  ];
  for (const [name, setting, ring] of cases) {
    it(
      `set to the ${name} keyring: there`,
      onBench(async (bench) => {
        const { service } = bench;
        const asker = bench.process();
        bench.helper = async (upcall) => await assumeAndBuild(service, upcall, "v");
        assert.equal(ok(service.setDefaultRing(asker, setting)), 0);
        assert.equal(ok(service.setDefaultRing(asker, -1)), setting);
        const key = ok(await settle(service.requestKey(asker, "user", "k", "c", 0)));
        assert.ok(linksIn(service, asker, ring).includes(key));
      }),
    );
  }
});
