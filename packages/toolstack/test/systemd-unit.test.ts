import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";
import { Workbench } from "./xl-harness.ts";

const unit = readFileSync(path.join(import.meta.dirname, "../../systemd/xenolith.service"), "utf8");
const valueOf = (key: string): string => new RegExp(`^${key}=(.*)$`, "m").exec(unit)?.[1] ?? "";

describe("the systemd unit", () => {
  it("starts a command of xl with options that it has, each with a value", async () => {
    using bench = new Workbench();
    const [program, command, ...words] = valueOf("ExecStart").split(" ");
    assert.equal(program, "xl");
    const { code, stdout } = await bench.xl([command!, "--help"]);
    assert.equal(code, 0);
    const known = new Set([...stdout.matchAll(/^ {2}(--[\w-]+) </gm)].map(([, option]) => option));
    assert.ok(known.size > 0);
    const options = words.filter((word) => word.startsWith("--"));
    assert.deepEqual(
      options.filter((option) => !known.has(option)),
      [],
    );
    assert.equal(words.length, 2 * options.length);
  });
  it("keeps socket and state in directories that systemd makes for it, which are its own", () => {
    const command = valueOf("ExecStart");
    assert.equal(valueOf("RuntimeDirectory"), "xenolith");
    assert.match(command, /--socket \/run\/xenolith\//);
    assert.equal(valueOf("StateDirectory"), "xenolith");
    assert.match(command, /--state \/var\/lib\/xenolith( |$)/);
    assert.equal(valueOf("RuntimeDirectoryMode"), "0700");
    assert.equal(valueOf("StateDirectoryMode"), "0700");
  });
  const hasSystemd = spawnSync("systemd-analyze", ["--version"]).status === 0;
  it("is one that systemd understands", { skip: hasSystemd ? false : "there is no systemd-analyze" }, () => {
    using bench = new Workbench();
    const file = path.join(bench.directory, "xenolith.service");
    // What verify cannot know here is where xl is installed.
    writeFileSync(file, unit.replace("ExecStart=xl", `ExecStart=${process.execPath}`));
    const { status, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", file], { encoding: "utf8" });
    assert.doesNotMatch(stderr, /xenolith\.service/);
    assert.equal(status, 0, stderr);
  });
});
