/** The guide to the service is true: its configuration, its commands and its requests work as they stand. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { describe, it } from "node:test";
import { errorCodes } from "@xenolith/abi";
import { guestTexts } from "./service-harness.ts";
import { Workbench } from "./xl-harness.ts";

const page = readFileSync(path.join(import.meta.dirname, "../../../../docs/guide/service.md"), "utf8");
const linesOf = (start: string): string[] => page.split("\n").filter((line) => line.startsWith(start));
const get = (socketPath: string, target: string): Promise<number> =>
  new Promise((resolve, reject) => {
    http
      .get({ socketPath, path: target }, (response) => {
        response.resume();
        response.on("end", () => resolve(response.statusCode!));
      })
      .on("error", reject);
  });

describe("the guide to the service", () => {
  it("can be followed: daemon, configuration, commands, requests", async () => {
    using bench = new Workbench();
    await bench.image("echo.wasm", guestTexts.echo);
    const [, file, toml] = /`(\w+\.toml)`[^`]*```toml\n([^`]*)```/.exec(page)!;
    bench.file(file!, toml!);
    const socket = path.join(bench.directory, "xl.sock");
    const daemon = bench.start([
      "daemon",
      "--socket",
      socket,
      "--state",
      path.join(bench.directory, "state"),
      "--memory",
      "64M",
      "--log-level",
      "silent",
    ]);
    try {
      await new Promise((resolve) => daemon.child.stderr.once("data", resolve));
      const words = linesOf("xl ").map((line) => line.split(" ").slice(1));
      const asked = words.filter(
        ([command, ...rest]) => command !== "daemon" && command !== "console" && !rest.includes("--connect"),
      );
      assert.deepEqual(
        asked.map(([command]) => command),
        ["create", "list", "shutdown"],
      );
      for (const [command, ...rest] of asked) {
        if (command === "shutdown") {
          for (const target of linesOf("curl ").map((line) => /http:\/\/xl(\S*)/.exec(line)![1]!))
            assert.equal(await get(socket, target), 200, target);
        }
        const run = await bench.xl([command!, "--socket", socket, ...rest]);
        assert.equal(run.code, 0, run.stderr);
        if (command === "list") assert.match(run.stdout, /^echo\s+1\s/m);
      }
    } finally {
      daemon.child.kill("SIGTERM");
      await daemon.done;
    }
  });
  it("names only options and error codes that there are", async () => {
    using bench = new Workbench();
    const { stdout } = await bench.xl(["daemon", "--help"]);
    const options = linesOf("xl daemon").flatMap((line) => line.match(/--[\w-]+/g) ?? []);
    assert.ok(options.length > 0);
    for (const option of options) assert.ok(stdout.includes(`  ${option} <`), option);
    for (const [, code] of page.matchAll(/`([A-Z]+_[A-Z]+|CONFLICT)`/g)) assert.ok(code! in errorCodes, code);
  });
});
