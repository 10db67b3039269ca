import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isXenstoreError, XenstoreClient, XenstoreError, XenstoreServer } from "../src/index.ts";
import { Guest } from "./kit.ts";

const open = (): { server: XenstoreServer; client: XenstoreClient } => {
  const server = new XenstoreServer();
  return { server, client: XenstoreClient.inProcess(server) };
};

describe("the client", () => {
  it("reads and writes text and bytes, and lists", async () => {
    const { client } = open();
    await client.write("/a/text", "snö");
    assert.equal(await client.read("/a/text"), "snö");
    await client.write("/a/bytes", Uint8Array.of(0, 255, 0));
    assert.deepEqual(await client.readBytes("/a/bytes"), Uint8Array.of(0, 255, 0));
    await client.mkdir("/a/empty");
    assert.deepEqual(await client.directory("/a"), ["bytes", "empty", "text"]);
    await client.rm("/a/empty");
    assert.equal(await client.readIfPresent("/a/empty"), undefined);
    assert.equal(await client.readIfPresent("/a/text"), "snö");
  });

  it("says what the daemon refused, by name and path", async () => {
    const { client } = open();
    await assert.rejects(client.read("/missing"), (error) => {
      assert.ok(error instanceof XenstoreError && isXenstoreError(error, "ENOENT"));
      assert.equal(error.path, "/missing");
      assert.equal(error.name, "XenolithError");
      return true;
    });
    await assert.rejects(client.write("/a", new Uint8Array(4096)), { code: "INVALID_SIZE" });
    await client.write("/a", new Uint8Array(4096 - 3));
  });

  it("lists directories that do not fit into a message, also while they change", async () => {
    const { client } = open();
    const names = Array.from({ length: 2000 }, (_, index) => `name-${String(index).padStart(5, "0")}`);
    await Promise.all(names.map((name) => client.mkdir(`/big/${name}`)));
    assert.deepEqual(await client.directory("/big"), names);
    const listed = client.directory("/big");
    await client.rm(`/big/${names[1]}`);
    const result = await listed;
    assert.ok(result.length === 2000 || result.length === 1999);
    assert.equal(new Set(result).size, result.length);
  });

  it("permissions are read and set as entries", async () => {
    const { client, server } = open();
    server.createDomain(5);
    await client.mkdir("/a");
    const entries = [
      { domid: 0, access: "n" },
      { domid: 5, access: "b" },
    ] as const;
    await client.setPermissions("/a", entries);
    assert.deepEqual(await client.getPermissions("/a"), entries);
  });

  it("a transaction is run again until it meets no change, and an exception aborts it", async () => {
    const { client, server } = open();
    await client.write("/counter", "0");
    let attempts = 0;
    const add = async (): Promise<void> =>
      client.transaction(async (tree) => {
        attempts += 1;
        await tree.write("/counter", String(Number(await tree.read("/counter")) + 1));
      });
    await Promise.all(Array.from({ length: 20 }, add));
    assert.equal(await client.read("/counter"), "20");
    assert.ok(attempts > 20);
    const thrown = client.transaction(async (tree) => {
      await tree.write("/counter", "lost");
      throw new RangeError("mine");
    });
    await assert.rejects(thrown, RangeError);
    assert.equal(await client.read("/counter"), "20");
    assert.equal(server.store.domains.control.transactionCount, 0);
  });

  it("a transaction that never succeeds ends with TIMEOUT", async () => {
    const { client } = open();
    const never = client.transaction(
      async (tree) => {
        await tree.read("/");
        await client.write("/", "again");
      },
      { attemptCountMax: 5 },
    );
    await assert.rejects(never, { code: "TIMEOUT" });
    await assert.rejects(
      client.transaction(async () => {}, { signal: AbortSignal.abort() }),
      { code: "ABORTED" },
    );
  });

  it("a watch yields its path at once and every change after it; closing it leaves nothing behind", async () => {
    const { client, server } = open();
    const seen: string[] = [];
    for await (const path of client.watch("/a")) {
      seen.push(path);
      if (seen.length === 3) break;
      await client.write(`/a/${seen.length}`, "x");
    }
    assert.deepEqual(seen, ["/a", "/a/1", "/a/2"]);
    assert.equal(server.store.watches.count, 0);
    assert.equal(server.store.watches.placeCount, 0);
  });

  it("a watch that is aborted throws ABORTED, one that is refused what was refused", async () => {
    const { client, server } = open();
    const controller = new AbortController();
    const watcher = client.watch("/a", { signal: controller.signal });
    assert.deepEqual(await watcher.next(), { value: "/a", done: false });
    const next = watcher.next();
    controller.abort();
    await assert.rejects(next, { code: "ABORTED" });
    await client.read("/");
    assert.equal(server.store.watches.count, 0);
    await assert.rejects(client.watch("//wrong").next(), (error) => isXenstoreError(error, "EINVAL"));
    await assert.rejects(client.watch("/a", { signal: AbortSignal.abort() }).next(), { code: "ABORTED" });
  });

  it("everything ends when the connection does", async () => {
    const { client, server } = open();
    const watcher = client.watch("/a");
    await watcher.next();
    const next = watcher.next();
    const read = client.read("/");
    server.close();
    await assert.rejects(next, { code: "HOST_CLOSED" });
    await assert.rejects(read, { code: "HOST_CLOSED" });
    await assert.rejects(client.read("/"), { code: "HOST_CLOSED" });
    await client[Symbol.asyncDispose]();
    assert.equal(client.pendingCount, 0);
  });

  it("knows the domains of the daemon", async () => {
    const { client, server } = open();
    new Guest(server, 7);
    new Guest(server, 8);
    assert.equal(await client.getDomainPath(7), "/local/domain/7");
    assert.equal(await client.isDomainIntroduced(7), true);
    await client.setTarget(8, 7);
    await client.resume(7);
    await client.setQuota("nodes", 5, 7);
    await client.setQuota("watches", 6);
    assert.deepEqual([await client.getQuota("nodes", 7), await client.getQuota("watches", 8)], [5, 6]);
    await client.release(7);
    assert.equal(await client.isDomainIntroduced(7), false);
    await assert.rejects(client.introduce(9, 1, 1), (error) => isXenstoreError(error, "ENOSYS"));
    assert.equal(await client.control("check"), "OK");
  });

  it("X30: a reply that sends the next request from its own callback is answered once (CVE-2025-37949)", async () => {
    const { client } = open();
    await client.write("/a", "0");
    let answers = 0;
    await client.read("/a").then(async () => {
      answers += 1;
      const [left, right] = await Promise.all([client.read("/a"), client.write("/a", "1")]);
      assert.deepEqual([left, right], ["0", undefined]);
    });
    assert.equal(answers, 1);
    assert.equal(client.pendingCount, 0);
  });
});
