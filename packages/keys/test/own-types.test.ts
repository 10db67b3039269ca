import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { KeyService, KeyType } from "../src/index.ts";
import { bytes, errorLater, errorOf, linksIn, ok, onBench, SESSION } from "./kit.ts";

describe("a type whose functions throw", () => {
  for (const where of ["preparse", "vetDescription", "instantiate", "update"] as const) {
    it(
      `in ${where}: the caller gets it thrown, and the books are sound`,
      onBench((bench) => {
        const { service } = bench;
        let isBroken = false;
        const step = (name: string): number => {
          if (isBroken && name === where) throw new RangeError(name);
          return 0;
        };
        const freed: unknown[] = [];
        const type: KeyType = {
          name: "broken",
          vetDescription: () => step("vetDescription"),
          preparse: () => step("preparse"),
          freePreparse: () => void freed.push(1),
          instantiate: () => step("instantiate"),
          update: () => step("update"),
        };
        assert.equal(service.registerType(type), 0);
        const process = bench.process();
        const key = Number(service.addKey(process, "broken", "old", null, SESSION));
        isBroken = true;
        const description = where === "update" ? "old" : "new";
        assert.throws(() => service.addKey(process, "broken", description, null, SESSION), RangeError);
        assert.deepEqual(service.audit(), []);
        assert.deepEqual(linksIn(service, process, SESSION), [key]);
        isBroken = false;
        assert.ok(Number(service.addKey(process, "broken", description, null, SESSION)) > 0);
        assert.equal(freed.length, where === "preparse" ? 2 : 3);
      }),
    );
  }
});

describe("types that build their keys themselves", () => {
  const built: unknown[] = [];
  const type = (service: () => KeyService): KeyType => ({
    name: "own",
    preparse: () => 0,
    instantiate: (key, prepared) => {
      key.payload = Buffer.from(prepared.bytes).toString();
      return 0;
    },
    read: (key, target) => {
      const text = Buffer.from(String(key.payload));
      if (target !== undefined && target.length >= text.length) target.set(text);
      return text.length;
    },
    requestKey: (authority, aux) => {
      built.push(aux);
      if (aux === "throw") throw new Error("secret in a message");
      if (aux === "forget") return;
      if (aux === "reject") service().trusted.reject(authority, { seconds: 5, error: 5 });
      else service().trusted.instantiate(authority, Buffer.from(`${Buffer.from(authority.callout).toString()}!`));
      service().trusted.completeRequest(authority, 0);
    },
  });

  it(
    "get what the caller in the process passed on, and hand over a key that is linked nowhere",
    onBench(async (bench) => {
      const { service } = bench;
      assert.equal(service.registerType(type(() => service)), 0);
      assert.equal(errorOf(service.registerType(type(() => service))), "EEXIST");
      const asker = bench.process();
      const aux = { socket: 1 };
      const found = await service.trusted.requestKeyWithAuxdata(asker, "own", "o", { callout: "hello", aux });
      assert.ok(typeof found === "object");
      assert.equal(built.at(-1), aux);
      const target = Buffer.alloc(6);
      assert.equal(found.read(target), 6);
      assert.equal(target.toString(), "hello!");
      assert.deepEqual(linksIn(service, asker, SESSION), []);
      assert.equal(bench.upcalls.length, 0);
      found.release();
      assert.throws(() => found.read(), TypeError);
      const refused: (string | number)[] = [];
      for (const each of ["throw", "forget", "reject"]) {
        const result = await service.trusted.requestKeyWithAuxdata(asker, "own", each, { callout: "c", aux: each });
        assert.ok(typeof result === "number");
        refused.push(errorOf(result));
      }
      assert.deepEqual(refused, ["ENOKEY", "ENOKEY", "EIO"]);
      const nothing = await service.trusted.requestKeyWithAuxdata(asker, "own", "o");
      assert.equal(nothing, -126, "without a callout it is only searched for");
    }),
  );

  it(
    "are found without being built, and without a wait, in the caller's own keyrings only",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      const find = (description: string): string | number => {
        const found = service.trusted.findKey(asker, "user", description);
        if (typeof found === "number") return errorOf(found);
        using reference = found;
        return reference.serial;
      };
      const ring = ok(service.addKey(asker, "keyring", "ring", null, SESSION));
      ok(service.addKey(asker, "user", "deep", bytes("v"), ring));
      const key = ok(service.addKey(asker, "user", "own", bytes("v"), SESSION));
      const expired = ok(service.addKey(asker, "user", "expired", bytes("v"), SESSION));
      const revoked = ok(service.addKey(asker, "user", "revoked", bytes("v"), SESSION));
      ok(service.setTimeout(asker, expired, 1));
      ok(service.revoke(asker, revoked));
      bench.clock.advance(2);
      assert.deepEqual(["own", "deep", "expired", "revoked", "none", ""].map(find), [
        key,
        "ENOKEY",
        "ENOKEY",
        "EKEYREVOKED",
        "ENOKEY",
        "ENOKEY",
      ]);
      assert.equal(service.trusted.findKey(asker, "nonesuch", "own"), -126);
      bench.helper = (upcall) => {
        assert.equal(find("built"), upcall.target);
        return 0;
      };
      assert.equal(await errorLater(service.requestKey(asker, "user", "built", "", SESSION)), "ENOKEY");
      assert.equal(bench.upcalls.length, 1);
    }),
  );
});
