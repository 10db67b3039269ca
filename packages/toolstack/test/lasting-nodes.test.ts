/**
 * What the control domain's programs write below /tool, and a daemon that is killed.
 */
import assert from "node:assert/strict";
import path from "node:path";
import { describe, it } from "node:test";
import { XenstoreClient } from "@xenolith/xenstore";
import { NODE_COUNT_MAX } from "../src/daemon/lasting-nodes.ts";
import { DaemonBench } from "./daemon-bench.ts";

/** A daemon in a bench, and its xenstore. */
const started = async (at: DaemonBench): Promise<XenstoreClient> => {
  await at.start(["--memory", "64M", "--log-level", "silent"]);
  return XenstoreClient.connect(path.join(at.bench.directory, "xenstore.sock"));
};

describe("nodes below /tool", () => {
  it("outlive kill -9 as they were acknowledged, whoever wrote or removed them", async () => {
    await using at = new DaemonBench();
    let store = await started(at);
    const socket = path.join(at.bench.directory, "xenstore.sock");
    assert.equal((await at.bench.xl(["xenstore", "write", "--socket", socket, "/tool/a/by-xl", "1"])).code, 0);
    await store.write("/tool/a/by-socket", Buffer.from([0, 255, 10]));
    await store.write("/tool/gone/below", "x");
    await store.write("/tool/changed", "before");
    await store.transaction(async (tree) => {
      await tree.write("/tool/changed", "after");
      await tree.write("/tool/gone/too", "x");
      await tree.rm("/tool/gone");
      await tree.mkdir("/tool/empty");
    });
    await store.write("/local/of-this-run", "1");
    store.close();
    await at.end("SIGKILL");
    store = await started(at);
    assert.equal(await store.read("/tool/a/by-xl"), "1");
    assert.deepEqual(Buffer.from(await store.readBytes("/tool/a/by-socket")), Buffer.from([0, 255, 10]));
    assert.equal(await store.read("/tool/changed"), "after");
    assert.equal(await store.read("/tool/empty"), "");
    assert.equal(await store.readIfPresent("/tool/gone"), undefined);
    assert.equal(await store.readIfPresent("/local/of-this-run"), undefined);
    await store.rm("/tool/a");
    store.close();
    await at.end("SIGKILL");
    store = await started(at);
    assert.equal(await store.readIfPresent("/tool/a"), undefined);
    assert.equal(await store.read("/tool/changed"), "after");
    store.close();
  });

  it("are no more than can be kept: what is too much is refused, and changes nothing", async () => {
    await using at = new DaemonBench();
    const store = await started(at);
    const fill = async (tree: { write(path: string, value: string): Promise<void> }): Promise<void> => {
      for (let node = 0; node < NODE_COUNT_MAX; node += 1) await tree.write(`/tool/n${node}`, "x");
    };
    await store.transaction(fill);
    await assert.rejects(store.write("/tool/more", "x"), { message: /ENOSPC/ });
    await assert.rejects(store.write(`/tool/${"long/".repeat(110)}x`, "x"), { message: /ENOSPC/ });
    assert.equal(await store.readIfPresent("/tool/more"), undefined);
    assert.equal((await store.directory("/tool")).length, NODE_COUNT_MAX + 1);
    await store.rm("/tool/n0");
    await store.write("/tool/more", "x");
    await store.write("/local/others", "are not counted");
    store.close();
  });
});
