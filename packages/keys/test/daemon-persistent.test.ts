/** Persistent keyrings survive the daemon, encrypted; nothing else does. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { KeyClient } from "../src/client/index.ts";
import { DamagedRecord, decodeKeys, encodeKeys, type SavedKey } from "../src/daemon/persistent-record.ts";
import { seal, unseal } from "../src/daemon/sealed-file.ts";
import { findingsOf, startTestDaemon } from "./daemon-kit.ts";
import { Random } from "./random.ts";

interface Place extends Disposable {
  readonly file: string;
  readonly key: string;
  readonly options: readonly string[];
}

const place = (): Place => {
  const directory = mkdtempSync(path.join(tmpdir(), "persistent-"));
  const file = path.join(directory, "persistent");
  const key = path.join(directory, "key");
  writeFileSync(key, `${"5a".repeat(32)}\n`);
  const options = ["--persistent", file, "--persistent-key", key];
  return { file, key, options, [Symbol.dispose]: () => rmSync(directory, { recursive: true }) };
};

describe("a persistent keyring", () => {
  it("is there after a restart, with all that it leads to, and can be read only with the key", async () => {
    using kept = place();
    {
      await using test = await startTestDaemon(kept.options);
      await using keys = await KeyClient.connect({ socket: test.socket });
      await keys.joinSession();
      const serial = await keys.connection.result("getPersistent", [0xffff_ffff, -3]);
      await keys.add("user", "tgt", Buffer.from("s3cret"), serial);
      await keys.add("logon", "svc:name", Buffer.from("hidden"), serial);
      const within = await keys.addRing("within", serial);
      const deep = await keys.add("user", "deep", Buffer.alloc(5000, 7), within);
      await deep.setPermissions(0x3f3f0000);
      await deep.setTimeout(5000);
      const gone = await keys.add("user", "revoked", Buffer.from("x"), serial);
      await gone.revoke();
      await keys.add("user", "elsewhere", Buffer.from("x"), "session");
      const locked = await keys.addRing("locked", serial);
      await keys.connection.result("restrict", [locked.serial, null, null]);
      for (let count = 0; count < 8; count += 1) await keys.add("user", `k${count}`, Buffer.of(count + 1), within);
      const order = await Promise.all((await keys.list(within)).map((key) => key.describe()));
      writeFileSync(`${kept.file}.order`, order.map(({ description }) => description).join());
    }
    const bytes = readFileSync(kept.file);
    const { mode } = statSync(kept.file);
    const order = readFileSync(`${kept.file}.order`, "utf8");
    const seen: unknown[] = [];
    let findings: readonly string[];
    {
      await using test = await startTestDaemon(kept.options);
      {
        await using keys = await KeyClient.connect({ socket: test.socket });
        await keys.joinSession();
        const serial = await keys.connection.result("getPersistent", [0xffff_ffff, -3]);
        const names = await Promise.all(
          (await keys.list(serial)).map(async (key) => (await key.describe()).description),
        );
        seen.push(names.toSorted());
        const buffer = Buffer.alloc(5000);
        const key = await keys.request("user", "tgt");
        seen.push(buffer.toString("latin1", 0, await key.read(buffer)));
        const deep = await keys.request("user", "deep");
        seen.push(await deep.read(buffer), (await deep.describe()).permissions.toString(16));
        const within = await keys.search(serial, "keyring", "within");
        const now = await Promise.all((await keys.list(within)).map((each) => each.describe()));
        seen.push(now.map(({ description }) => description).join() === order);
        const locked = await keys.search(serial, "keyring", "locked");
        seen.push(await keys.connection.result("addKey", ["user", "no", Buffer.of(1), locked.serial]));
        seen.push((await test.keyctl(["--keys"])).out.match(/ 1h 3f3f0000 .*deep: 5000$/m) !== null);
      }
      findings = await findingsOf(test);
    }
    assert.deepEqual(seen, [["locked", "svc:name", "tgt", "within"], "s3cret", 5000, "3f3f0000", true, -1, true]);
    for (const secret of ["s3cret", "hidden", "tgt"]) assert.ok(!bytes.includes(secret));
    assert.equal(mode & 0o777, 0o600);
    assert.deepEqual(findings, []);
  });

  it("is not given up for another key, or a file that was changed: the daemon does not start", async () => {
    using kept = place();
    {
      await using test = await startTestDaemon(kept.options);
      await using keys = await KeyClient.connect({ socket: test.socket });
      await keys.connection.result("getPersistent", [0xffff_ffff, -4]);
    }
    const good = readFileSync(kept.file);
    const refusal = (): Promise<string> =>
      startTestDaemon(kept.options).then(
        () => "started",
        (error: unknown) => String(error),
      );
    const changed = Buffer.from(good);
    changed[good.length - 1]! ^= 1;
    writeFileSync(kept.file, changed);
    const damaged = await refusal();
    writeFileSync(kept.file, good);
    writeFileSync(kept.key, Buffer.alloc(32, 1));
    const otherKey = await refusal();
    writeFileSync(kept.key, "short");
    const shortKey = await refusal();
    assert.match(damaged, /was not written with this key, or is damaged/);
    assert.match(otherKey, /was not written with this key, or is damaged/);
    assert.match(shortKey, /neither 32 bytes nor 64 hexadecimal digits/);
    assert.deepEqual(readFileSync(kept.file), good);
  });
});

describe("xkeyd", () => {
  it("does not start with persistent keyrings and no key for them", async () => {
    const refusal = await startTestDaemon(["--persistent", "/nonexistent/file"]).then(
      () => "started",
      (error: unknown) => String(error),
    );
    assert.match(refusal, /--persistent needs --persistent-key/);
  });
});

describe("a sealed file", () => {
  it("opens with its key and not when any byte of it is another", () => {
    const key = Buffer.alloc(32, 1);
    const sealed = seal(key, Buffer.from("plain"));
    assert.equal(unseal(key, sealed)?.toString(), "plain");
    assert.equal(unseal(Buffer.alloc(32, 2), sealed), undefined);
    for (let at = 0; at < sealed.length; at += 1) {
      const changed = Buffer.from(sealed);
      changed[at]! ^= 0x80;
      assert.equal(unseal(key, changed), undefined);
      assert.equal(unseal(key, sealed.subarray(0, at)), undefined);
    }
  });
});

describe("a record of keys", () => {
  const key: SavedKey = {
    type: "user",
    description: "a\u00ff;b",
    uid: 2 ** 32 - 2,
    gid: -1,
    permissions: 0x3f010000,
    isRestricted: false,
    expiry: -1,
    payload: Buffer.from("bytes"),
    links: [],
  };
  const ring = {
    ...key,
    type: "keyring",
    payload: Buffer.alloc(0),
    links: [1, 1],
    isRestricted: true,
    expiry: 2 ** 40,
  };
  const saved = { roots: 1, keys: [ring, key] };

  it("reads as it was written", () => {
    assert.deepEqual(decodeKeys(encodeKeys(saved)), saved);
  });

  const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
  it(`that was changed is refused or read, and does no harm (seed ${seed})`, () => {
    const random = new Random(seed);
    const good = encodeKeys(saved);
    for (let round = 0; round < 5000; round += 1) {
      const bytes = Buffer.from(good.subarray(0, random.chance(0.3) ? random.below(good.length) : good.length));
      for (let changes = random.below(4); changes > 0 && bytes.length > 0; changes -= 1) {
        bytes[random.below(bytes.length)] = random.pick([0, 1, 127, 128, 255, random.below(256)]);
      }
      try {
        decodeKeys(bytes);
      } catch (error) {
        assert.ok(error instanceof DamagedRecord, String(error));
      }
    }
  });
});
