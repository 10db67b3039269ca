import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { KeyClient, KeyError } from "../src/client/index.ts";
import { findingsOf, startTestDaemon } from "./daemon-kit.ts";

describe("a program that keeps its keys in the daemon", () => {
  it("adds, finds, reads, changes and ends them", async () => {
    await using test = await startTestDaemon();
    const seen: unknown[] = [];
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      await keys.joinSession();
      const key = await keys.add("user", "db:orders", Buffer.from("s3cret"), "session");
      const found = await keys.request("user", "db:orders");
      const bytes = Buffer.alloc(16);
      seen.push(found.serial === key.serial, await found.read(bytes), bytes.toString("latin1", 0, 6));
      seen.push(await found.read(Buffer.alloc(3)), await found.describe());
      await key.update(Buffer.from("other"));
      seen.push(await key.read(bytes), bytes.toString("latin1", 0, 5), (await keys.list("session")).length);
      await key.revoke();
      seen.push(await key.read(bytes).catch((error: unknown) => error));
    }
    const findings = await findingsOf(test);
    await test.daemon.close();
    const failure = seen.pop();
    const uid = process.getuid!();
    const description = {
      type: "user",
      uid,
      gid: process.getgid!(),
      permissions: 0x3f010000,
      description: "db:orders",
    };
    assert.deepEqual(seen, [true, 6, "s3cret", 6, description, 5, "other", 1]);
    assert.ok(failure instanceof KeyError && failure.errorName === "EKEYREVOKED");
    assert.equal(failure.message, "read: Key has been revoked");
    assert.deepEqual(findings, []);
  });

  it("gets what it asks for from a helper that is told the callout", async () => {
    await using test = await startTestDaemon();
    test.rules("create user debug:* * |/bin/cat\n");
    const bytes = Buffer.alloc(16);
    let size: number;
    let missing: unknown;
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      await keys.joinSession();
      const key = await keys.request("user", "debug:it", { callout: "told" });
      size = await key.read(bytes);
      missing = await keys.request("user", "other:it", { callout: "told" }).catch((error: unknown) => error);
    }
    await test.daemon.close();
    assert.equal(bytes.toString("latin1", 0, size), "told");
    assert.ok(missing instanceof KeyError && missing.errorName === "ENOKEY");
  });
});
