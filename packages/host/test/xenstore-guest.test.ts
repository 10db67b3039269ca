/**
 * xenstore with guests in C, which speak over their rings with the guest library, or misuse them.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { requestShutdown } from "@xenolith/xenstore";
import type { Domain, Host } from "../src/index.ts";
import { assertClean, openHost } from "./support.ts";

const root = path.join(import.meta.dirname, "../../../..");
const { compileGuest } = (await import(
  path.join(root, "guest/xencc.mjs")
)) as typeof import("../../../guest/xencc.mjs");

let host: Host;
let image: Uint8Array;
before(async () => {
  const source = readFileSync(path.join(import.meta.dirname, "../../test/xenstore-guest.c"));
  image = await compileGuest({ "xenstore-guest.c": source }, { flags: ["-Wextra", "-Werror"] });
  host = await openHost({ warmVcpuCount: 2 });
});
after(() => host.close());

const start = async (mode: string): Promise<Domain> => {
  const domain = await host.createDomain({ image, name: mode, commandLine: mode, memoryBytesMax: 4 * 2 ** 20 });
  await domain.start();
  return domain;
};

/** Runs a guest that ends by itself; returns what it printed. */
const printed = async (mode: string): Promise<string[]> => {
  const domain = await start(mode);
  const text = domain.console.text();
  assert.equal((await domain.exited).reason, "poweroff");
  await domain.destroy();
  return (await text).trimEnd().split("\n");
};

describe("a guest in C", () => {
  it("reads, writes, watches, is refused, and has transactions", async () => {
    const domain = await start("polite");
    const text = domain.console.text();
    await domain.exited;
    await domain.destroy();
    const lines = (await text).trimEnd().split("\n");
    assert.deepEqual(
      lines.filter((line) => !line.startsWith("changed")),
      [
        "name 6 polite",
        `domid ${domain.domid} self ${domain.domid}`,
        "watch 1",
        "write 0",
        "forbidden -13",
        "absent -2",
        "owner 1 1 n",
        "start 0",
        "hidden -2",
        "commit 0",
        "shown 1",
      ],
    );
    const changed = lines.filter((line) => line.startsWith("changed"));
    assert.deepEqual(changed, ["changed data/topic", "changed data/topic/a"]);
    assertClean(host);
  });

  it("is asked to shut down through control/shutdown, and acknowledges it", async () => {
    const domain = await start("obedient");
    const text = domain.console.text();
    const store = await host.xenstore();
    await requestShutdown(store, domain.domid, "poweroff");
    assert.equal((await domain.exited).reason, "poweroff");
    await domain.destroy();
    assert.equal(await text, "asked to poweroff\n");
  });

  it("may give its page and its channel back", async () => {
    assert.deepEqual(await printed("vanish"), ["gave back 1", "closed 0"]);
    assertClean(host);
  });
});

describe("hostile guests", () => {
  for (const mode of ["jump", "lengths", "garbage", "deaf", "knock"]) {
    it(`${mode}: others are served meanwhile, and nothing of it is left at its end`, async () => {
      const store = await host.xenstore();
      const free = host.info().memoryFreeBytes;
      const bad = await start(mode);
      assert.deepEqual(await printed("busy"), ["counted to 200"]);
      assert.equal(await store.read(`/local/domain/${bad.domid}/name`), mode);
      await bad.destroy();
      assert.deepEqual(await store.directory("/local/domain"), []);
      assert.equal(await store.control("check"), "OK");
      assert.equal(host.info().memoryFreeBytes, free);
      assertClean(host);
    });
  }

  it("all at once: two others are served, and so is the control domain", async () => {
    const store = await host.xenstore();
    const bad = await Promise.all(["jump", "lengths", "garbage", "deaf", "knock"].map(start));
    const served = await Promise.all([printed("busy"), printed("busy")]);
    assert.deepEqual(served, [["counted to 200"], ["counted to 200"]]);
    await store.write("/t", "1");
    assert.equal(await store.read("/t"), "1");
    await store.rm("/t");
    await Promise.all(bad.map((domain) => domain.destroy()));
    assert.deepEqual(await store.directory("/local/domain"), []);
    assertClean(host);
  });
});
