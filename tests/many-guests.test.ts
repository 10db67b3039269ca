/** The guide to many guests is true: its guest, its configuration and its commands work as they stand. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, describe, it } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");
const page = readFileSync(path.join(root, "docs/guide/many-guests.md"), "utf8");
const directory = mkdtempSync(path.join(tmpdir(), "xenolith-test-"));
const socket = path.join(directory, "xl.sock");
after(() => rmSync(directory, { recursive: true, force: true }));

const MEMORY_KIB = 64 * 1024;
const LEAST_KIB = 4 * 1024;

/** Commands of the page that begin with `xl`, each as its words. */
const commands = page
  .split("\n")
  .filter((line) => line.startsWith("xl "))
  .map((line) => line.replace(/ &$/, "").split(" ").slice(1));

const xl = async (words: readonly string[]) => {
  const program = [path.join(root, "packages/toolstack/bin/xl.js"), ...words, "--socket", socket];
  const environment = { ...process.env, XDG_CACHE_HOME: path.join(directory, "cache") };
  return run(process.execPath, program, { cwd: directory, env: environment });
};

const startDaemon = async () => {
  const [, ...words] = commands.find(([command]) => command === "daemon")!;
  const program = [path.join(root, "packages/toolstack/bin/xl.js"), "daemon", ...words];
  const child = spawn(
    process.execPath,
    [...program, "--socket", socket, "--state", path.join(directory, "state"), "--log-level", "silent"],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  await once(child.stderr, "data");
  child.stderr.resume();
  return child;
};

interface Row {
  readonly name: string;
  readonly memory: { readonly currentBytes: number; readonly balloon?: { readonly targetBytes: number } };
}

/** What the guests own, in KiB, once all have reached their targets. */
const settled = async (count: number): Promise<ReadonlyMap<string, number>> => {
  for (;;) {
    const { stdout } = await xl(["list", "--json"]);
    const guests = (JSON.parse(stdout) as readonly Row[]).filter(({ memory }) => memory.balloon !== undefined);
    assert.equal(guests.length, count);
    const sizes = new Map(guests.map(({ name, memory }) => [name, memory.currentBytes / 1024]));
    const total = [...sizes.values()].reduce((sum, kib) => sum + kib, 0);
    assert.ok(total <= MEMORY_KIB, `${total} KiB of guests`);
    const isThere = guests.every(({ memory }) => memory.currentBytes === memory.balloon!.targetBytes);
    if (isThere && total > MEMORY_KIB * 0.9) return sizes;
  }
};

const isNear = (a: number, b: number): boolean => Math.abs(a - b) <= 1024;

describe("the guide to many guests", () => {
  it("can be followed: guests share what there is, make room for another, and one too many is refused", async () => {
    const [, c] = /```c\n([^`]*)```/.exec(page)!;
    const [, toml] = /```toml\n([^`]*)```/.exec(page)!;
    writeFileSync(path.join(directory, "idle.c"), c!);
    writeFileSync(path.join(directory, "guest.toml"), toml!);
    await run(process.execPath, [path.join(root, "guest/xencc.mjs"), "idle.c", "-o", "idle.wasm"], { cwd: directory });
    const creations = commands.filter(([command]) => command === "create");
    assert.equal(creations.length, 6);
    const daemon = await startDaemon();
    try {
      for (const words of creations.slice(0, 4)) await xl(words);
      const four = await settled(4);
      assert.ok(isNear(four.get("one")!, four.get("two")!) && isNear(four.get("two")!, four.get("three")!));
      assert.ok(four.get("four")! > 2 * four.get("one")!);
      await xl(creations[4]!);
      const five = await settled(5);
      for (const kib of five.values()) assert.ok(kib >= LEAST_KIB);
      await assert.rejects(xl(creations[5]!), { code: 1, stderr: /"big" needs 60\.0 MiB.*\[MEMORY_EXHAUSTED\]/ });
      const byHand = commands.filter(([command]) => command!.startsWith("mem-"));
      assert.equal(byHand.length, 3);
      await xl(byHand[0]!);
      assert.equal((await settled(5)).get("one"), 8192);
      for (const words of byHand.slice(1)) await xl(words);
      assert.match((await xl(["list", "-m", "one"])).stdout, / 24576 /);
      assert.equal((await xl(["debug", "audit"])).stdout, "no findings\n");
    } finally {
      daemon.kill();
      await once(daemon, "exit");
    }
  });
});
