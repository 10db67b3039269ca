import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, describe, it } from "node:test";
import { ECHO } from "./daemon-bench.ts";
import { Workbench } from "./xl-harness.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

/** A domain in the foreground that has said hello, served at a socket of its own. */
const running = async (name: string) => {
  const socket = `${bench.directory}/${name}.sock`;
  const image = await bench.image("echo.wasm", ECHO);
  const { child, done } = bench.start(["run", "--name", name, "--memory", "4M", "--socket", socket, image]);
  await new Promise((resolve) => child.stdout.once("data", resolve));
  return { socket, child, done };
};

describe("xl run --socket", () => {
  it("answers like a daemon while it runs, and not after", async () => {
    const { socket, child, done } = await running("front");
    const { stdout } = await bench.xl(["list", "--json", "--socket", socket]);
    const domains = JSON.parse(stdout) as { name: string; memory: { maxBytes: number } }[];
    assert.deepEqual(
      domains.map(({ name }) => name),
      ["Domain-0", "front"],
    );
    assert.equal(domains[1]!.memory.maxBytes, 4 * 2 ** 20);
    child.stdin.end("bye\n");
    assert.deepEqual(await done, { code: 0, stdout: "hello\nbye\n", stderr: "" });
    assert.equal(existsSync(socket), false);
    assert.equal((await bench.xl(["list", "--socket", socket])).code, 3);
  });
  it("leaves the domain to be ended by others, and ends then itself", async () => {
    const { socket, done } = await running("back");
    assert.equal((await bench.xl(["shutdown", "--wait", "--socket", socket, "back"])).code, 0);
    assert.equal((await done).stdout, "hello\n");
  });
  it("refuses a socket that cannot be made, with the domain ended", async () => {
    const image = await bench.image("echo.wasm", ECHO);
    const { code, stderr } = await bench.xl(["run", "--socket", "/nowhere/at/all.sock", image]);
    assert.equal(code, 125);
    assert.match(stderr, /\/nowhere\/at\/all\.sock/);
  });
});
