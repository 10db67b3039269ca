/** A request whose helper makes a request itself: event by event, as it was observed in a kernel. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type KeyService, settle, type Upcall } from "../src/index.ts";
import { bytes, describeText, errorOf, linksIn, ok, onBench, procLine, readText, SESSION } from "./kit.ts";

/** The line of an authorisation key, found by the key that it is for. */
const authorityLine = (service: KeyService, process: Upcall["helper"], target: number): string | undefined =>
  service
    .procKeys(process)
    .split("\n")
    .find((line) => line.includes(`key:${target.toString(16)} pid:`))
    ?.replace(/^.*\.request_ /, "");

for (const keepsInner of [false, true]) {
  describe(`a nested request ${keepsInner ? "into the requester's keyring" : "by the helper's own defaults"}`, () => {
    it(
      keepsInner ? "leaves both keys there" : "leaves the outer key only: the inner one goes with the helper",
      onBench(async (bench) => {
        const { service } = bench;
        const events: string[] = [];
        const asker = bench.process(0);
        const session = ok(service.getKeyringId(asker, SESSION, false));
        const caller = ok(service.addKey(asker, "user", "callerkey", bytes("c"), SESSION));
        let innerKey = 0;
        let outerSession = 0;

        const inner = async ({ helper, target, argv }: Upcall): Promise<number> => {
          assert.deepEqual(
            argv,
            ["create", target, 0, 0, 0, 0, outerSession].map(String),
            "the rings are the helper's",
          );
          ok(service.assumeAuthority(helper, target));
          assert.equal(authorityLine(service, helper, target), `key:${target.toString(16)} pid:${asker.pid} ci:8`);
          assert.equal(ok(service.requestKey(helper, "user", "callerkey", null, 0)), caller);
          events.push("inner helper finds the requester's key");
          ok(service.instantiate(helper, target, bytes("inner"), 0));
          assert.equal(errorOf(service.assumeAuthority(helper, target)), "ENOKEY");
          events.push("inner key instantiated");
          return 0;
        };

        const outer = async ({ helper, target, argv }: Upcall): Promise<number> => {
          assert.deepEqual(argv, ["create", target, 0, 0, 0, 0, session].map(String));
          assert.match(procLine(service, asker, target)!, /^---QU-- /);
          assert.equal(authorityLine(service, helper, target), `key:${target.toString(16)} pid:${asker.pid} ci:2`);
          outerSession = ok(service.getKeyringId(helper, SESSION, false));
          assert.equal(describeText(service, helper, outerSession), `keyring;0;0;3f030000;_req.${target}`);
          ok(service.assumeAuthority(helper, target));
          assert.equal(describeText(service, helper, target), "user;0;0;3f010000;xo:nest:a");
          assert.equal(readText(service, helper, -7), "ci");
          events.push("outer helper has the authority");
          innerKey = ok(
            await settle(service.requestKey(helper, "user", "xo:dump:inner", "inner-ci", keepsInner ? -8 : 0)),
          );
          assert.equal(readText(service, helper, innerKey), "inner");
          const holder = keepsInner ? session : outerSession;
          assert.ok(linksIn(service, helper, holder).includes(innerKey));
          events.push("outer helper has the inner key");
          ok(service.instantiate(helper, target, bytes("outer"), 0));
          events.push("outer key instantiated");
          return 0;
        };

        bench.helper = async (upcall) => await (bench.upcalls.length === 1 ? outer : inner)(upcall);
        const key = ok(await settle(service.requestKey(asker, "user", "xo:nest:a", "ci", 0)));
        assert.equal(readText(service, asker, key), "outer");
        assert.deepEqual(events, [
          "outer helper has the authority",
          "inner helper finds the requester's key",
          "inner key instantiated",
          "outer helper has the inner key",
          "outer key instantiated",
        ]);
        const kept = linksIn(service, asker, SESSION);
        assert.deepEqual(new Set(kept), new Set([caller, key, ...(keepsInner ? [innerKey] : [])]));
        assert.equal(procLine(service, asker, innerKey) !== undefined, keepsInner);
      }),
    );
  });
}
