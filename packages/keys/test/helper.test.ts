import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { authorityOf } from "../src/authority.ts";
import { type Answer, type KeyService, Pending, type Process, settle } from "../src/index.ts";
import { bytes, describeText, errorLater, errorOf, ok, onBench, readText, SESSION } from "./kit.ts";

describe("a helper", () => {
  it(
    "builds once: a second time it has no authority, and another key's it never had",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      const other = ok(service.addKey(asker, "user", "other", bytes("o"), SESSION));
      bench.helper = async ({ helper, target }) => {
        assert.equal(errorOf(service.instantiate(helper, target, bytes("x"), 0)), "EPERM");
        ok(service.assumeAuthority(helper, target));
        assert.equal(errorOf(service.instantiate(helper, other, bytes("x"), 0)), "EPERM");
        assert.equal(errorOf(service.instantiate(helper, target, null, 0)), "EINVAL");
        ok(service.instantiate(helper, target, bytes("x"), 0));
        assert.equal(errorOf(service.instantiate(helper, target, bytes("y"), 0)), "EPERM");
        assert.equal(errorOf(service.assumeAuthority(helper, target)), "ENOKEY");
        return 0;
      };
      const key = ok(await settle(service.requestKey(asker, "user", "k", "c", 0)));
      assert.equal(readText(service, asker, key), "x");
    }),
  );

  it(
    "has a callout of its own, which is wiped when the key is built",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      const callout = Buffer.from("token");
      let kept: Uint8Array | undefined;
      bench.helper = ({ helper, target }) => {
        callout.fill(0x78);
        ok(service.assumeAuthority(helper, target));
        assert.equal(readText(service, helper, -7), "token");
        kept = authorityOf(helper.authority!)?.callout;
        return ok(service.instantiate(helper, target, bytes("v"), 0));
      };
      ok(await settle(service.requestKey(asker, "user", "k", callout, 0)));
      assert.equal(Buffer.from(kept!).toString("hex"), "0000000000");
    }),
  );

  it(
    "reads the callout, also an empty one, and finds the requester's keys with the requester's rights",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      const token = ok(service.addKey(asker, "user", "token", bytes("secret"), SESSION));
      const seen: string[] = [];
      bench.helper = async (upcall) => {
        const { helper, target } = upcall;
        assert.equal(errorOf(service.requestKey(helper, "user", "token", null, 0)), "ENOKEY");
        ok(service.assumeAuthority(helper, target));
        seen.push(readText(service, helper, -7));
        assert.equal(ok(service.requestKey(helper, "user", "token", null, 0)), token);
        assert.equal(readText(service, helper, token), "secret");
        return ok(service.instantiate(helper, target, bytes("v"), 0));
      };
      ok(await settle(service.requestKey(asker, "user", "k", "told", 0)));
      ok(await settle(service.requestKey(asker, "user", "l", "", 0)));
      assert.deepEqual(seen, ["told", ""]);
    }),
  );

  for (const [name, act] of [
    ["reads", (service, p, id) => service.read(p, id)],
    ["links", (service, p, id) => service.link(p, id, SESSION)],
    ["asks for the id of", (service, p, id) => service.getKeyringId(p, id, false)],
    ["requests", (service, p) => service.requestKey(p, "user", "k", "c", 0)],
  ] as readonly (readonly [string, (s: KeyService, p: Process, id: number) => Answer])[]) {
    it(
      `that ${name} the key that it builds is told that this would never end`,
      onBench(async (bench) => {
        const { service } = bench;
        const asker = bench.process();
        bench.helper = async (upcall) => {
          ok(service.assumeAuthority(upcall.helper, upcall.target));
          assert.equal(errorOf(act(service, upcall.helper, upcall.target)), "EDEADLK");
          return ok(service.instantiate(upcall.helper, upcall.target, bytes("v"), 0));
        };
        ok(await settle(service.requestKey(asker, "user", "k", "c", 0)));
      }),
    );
  }

  it(
    "whose own request waits for it is told so, too, across two constructions",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      const errors: (string | number)[] = [];
      bench.helper = async (upcall) => {
        const { helper, target } = upcall;
        ok(service.assumeAuthority(helper, target));
        // One asks for the other, and the other for the one.
        const next = describeText(service, helper, target).endsWith(";a") ? "b" : "a";
        const result = await errorLater(service.requestKey(helper, "user", next, "c", -8));
        errors.push(typeof result === "number" ? "a key" : result);
        return ok(service.instantiate(helper, target, bytes(next), 0));
      };
      ok(await settle(service.requestKey(asker, "user", "a", "c", 0)));
      assert.deepEqual(errors, ["EDEADLK", "a key"]);
    }),
  );

  it(
    "waits for ever where detection is off, as in the kernel; interrupted, it goes on",
    onBench(
      async (bench) => {
        const { service } = bench;
        const asker = bench.process();
        bench.helper = async (upcall) => {
          ok(service.assumeAuthority(upcall.helper, upcall.target));
          const answer = service.link(upcall.helper, upcall.target, SESSION);
          assert.ok(answer instanceof Pending);
          answer.interrupt();
          assert.equal(await errorLater(answer), "EINTR");
          return ok(service.instantiate(upcall.helper, upcall.target, bytes("v"), 0));
        };
        ok(await settle(service.requestKey(asker, "user", "k", "c", 0)));
      },
      { detectSelfWait: false },
    ),
  );
});
