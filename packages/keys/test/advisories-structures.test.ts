/** Published bugs of key retention as rules: tables, lists, and payloads that somebody else wrote. */
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { describe, it } from "node:test";
import { type KeyType, Pending, settle } from "../src/index.ts";
import { makeCertificate } from "./certificates.ts";
import { assumeAndBuild, bytes, errorOf, linksIn, ok, onBench, procLine, SESSION } from "./kit.ts";
import { Random } from "./random.ts";

describe("advisories of keys: structures", () => {
  it(
    "K07: sixteen keyrings and one key in a ring, many names that begin alike, and expiry while adding",
    onBench((bench) => {
      const { service, clock } = bench;
      const process = bench.process(0);
      const ring = ok(service.addKey(process, "keyring", "r", null, SESSION));
      const rings = Array.from({ length: 16 }, (_, index) =>
        ok(service.addKey(process, "keyring", `ring${index}`, null, ring)),
      );
      const key = ok(service.addKey(process, "user", "k", bytes("v"), ring));
      assert.deepEqual(new Set(linksIn(service, process, ring)), new Set([...rings, key]));
      const prefix = "same".repeat(60);
      for (let index = 0; index < 500; index += 1) {
        const each = ok(service.addKey(process, "user", `${prefix}${index}`, bytes("v"), ring));
        if (index % 2 === 0) ok(service.setTimeout(process, each, 1 + (index % 50)));
        if (index % 10 === 0) clock.advance(1);
      }
      clock.advance(400);
      assert.equal(linksIn(service, process, ring).length, 17 + 250);
      ok(service.search(process, ring, "user", `${prefix}499`, 0));
      assert.equal(errorOf(service.search(process, ring, "user", `${prefix}498`, 0)), "ENOKEY");
      for (const each of linksIn(service, process, ring)) ok(service.unlink(process, each, ring));
      assert.deepEqual(linksIn(service, process, ring), []);
    }),
  );

  it(
    "K07: the keyrings of a user are made once, whoever of its processes comes first",
    onBench((bench) => {
      const { service } = bench;
      const processes = Array.from({ length: 20 }, (_, pid) => service.attach({ pid, uid: 1000, gid: 1000 }));
      assert.equal(new Set(processes.map((each) => ok(service.getKeyringId(each, -4, false)))).size, 1);
      assert.equal(new Set(processes.map((each) => ok(service.getKeyringId(each, -5, false)))).size, 1);
    }),
  );

  it(
    "K18: times of every size have their place in the list",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const expected: readonly (readonly [number, string])[] = [
        [0, "perm"],
        [1, "1s"],
        [59, "59s"],
        [60, "1m"],
        [3599, "59m"],
        [86_399, "23h"],
        [604_799, "6d"],
        [2 ** 31, "3550w"],
        [2 ** 32 - 1, "7101w"],
      ];
      for (const [seconds, shown] of expected) {
        const key = ok(service.addKey(process, "user", `k${seconds}`, bytes("v"), SESSION));
        ok(service.setTimeout(process, key, seconds));
        const line = procLine(service, process, key)!;
        assert.equal(line, `I--Q---     1 ${shown.padStart(4)} 3f010000  1000  1000 user      k${seconds}: 1`);
      }
    }),
  );

  it(
    "K29: a search for certificates by a number that is none is refused",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      ok(service.addKey(process, "asymmetric", null, makeCertificate({ name: "a" }).der, SESSION));
      for (const selector of ["id:", "ex:", "id:xyz", "id:abc"]) {
        assert.equal(errorOf(service.search(process, SESSION, "asymmetric", selector, 0)), "EINVAL");
      }
      assert.equal(errorOf(service.search(process, SESSION, "asymmetric", "", 0)), "EINVAL");
    }),
  );

  it(
    "K30: certificates that are damaged anywhere are refused, and never believed",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process(0);
      const { der } = makeCertificate({ name: "fuzzed" });
      const seed = Date.now() % 1_000_000;
      const random = new Random(seed);
      const tries: Uint8Array[] = [
        new Uint8Array(0),
        Uint8Array.of(0x30),
        Uint8Array.of(0x30, 0x80, 0, 0),
        Uint8Array.of(0x30, 0x84, 0xff, 0xff, 0xff, 0xff),
        Uint8Array.of(0x30, 0x88, 1, 1, 1, 1, 1, 1, 1, 1),
        Uint8Array.of(0x30, 0x02, 0x30, 0x00),
        new Uint8Array(65_536).fill(0x30),
        new Uint8Array(2 ** 20 - 1).fill(0x1f),
        Buffer.concat([der, Buffer.from([0])]),
      ];
      for (let index = 0; index < der.length; index += 1) {
        tries.push(der.subarray(0, index));
        const damaged = Buffer.from(der);
        damaged[index] = random.below(256);
        tries.push(damaged);
      }
      for (const each of tries) {
        const result = errorOf(service.addKey(process, "asymmetric", "c", each, SESSION));
        assert.ok(typeof result === "number" || result === "EBADMSG" || result === "EINVAL", `seed ${seed}: ${result}`);
      }
      assert.equal(errorOf(service.addKey(process, "asymmetric", "c", tries[3]!, SESSION)), "EBADMSG");
    }),
  );

  it(
    "K30: an RSA key with the exponent 1 is no key",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
      const good = privateKey.export({ format: "der", type: "pkcs8" });
      const key = ok(service.addKey(process, "asymmetric", "good", good, SESSION));
      assert.match(procLine(service, process, key)!, /asymmetri good: PKCS8\.rsa/);
      const exponent = Buffer.from("0203010001", "hex");
      const bad = Buffer.from(good);
      const at = bad.indexOf(exponent);
      assert.ok(at > 0);
      bad.set([0, 0, 1], at + 2);
      assert.equal(errorOf(service.addKey(process, "asymmetric", "bad", bad, SESSION)), "EBADMSG");
    }),
  );

  it(
    "K31: two names that a type takes for the same key make one entry",
    onBench(async (bench) => {
      const { service } = bench;
      const plain = (name: string): string => name.replace(/\.$/, "");
      const type: KeyType = {
        name: "host",
        preparse: () => 0,
        instantiate: () => 0,
        matchPreparse: (match) => {
          match.iterate = true;
          match.compare = (key) => plain(key.description) === plain(match.description);
          return 0;
        },
      };
      assert.equal(service.registerType(type), 0);
      const process = bench.process();
      bench.helper = async (upcall) => await assumeAndBuild(service, upcall, "v");
      const answers = ["a", "a.", "a"].map((name) => service.requestKey(process, "host", name, "c", SESSION));
      assert.ok(answers.every((answer) => answer instanceof Pending));
      const keys = await Promise.all(answers.map(settle));
      assert.equal(new Set(keys).size, 1);
      assert.deepEqual(linksIn(service, process, SESSION), [ok(keys[0]!)]);
      assert.equal(bench.upcalls.length, 1);
    }),
  );
});
