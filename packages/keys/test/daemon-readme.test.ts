/** The commands of the README, as they stand, in a directory of their own. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { packageRoot } from "./daemon-kit.ts";

describe("a newcomer", () => {
  it("starts the daemon, configures a helper and gets a key with the three commands of the README", async () => {
    const readme = readFileSync(path.join(packageRoot, "README.md"), "utf8");
    const [before = ""] = readme.split("```");
    const commands = [...before.matchAll(/^ {4}(\S.*)$/gm)].map(([, command = ""]) => command);
    const directory = mkdtempSync(path.join(tmpdir(), "readme-"));
    // The commands of an installed package are those of this one.
    const npx = `npx() { name=$1; shift; node ${packageRoot}/bin/$name.js "$@"; }`;
    const script = [npx, ...commands].join("\n");
    const shell = spawn("/bin/sh", ["-c", script], {
      cwd: directory,
      detached: true,
      env: { ...process.env, XKEYD_SOCKET: path.join(directory, "keys.sock") },
      stdio: ["ignore", "pipe", "ignore"],
    });
    let out = "";
    shell.stdout.on("data", (piece: Buffer) => (out += piece.toString()));
    await once(shell, "exit");
    process.kill(-shell.pid!, "SIGTERM");
    await once(shell, "close");
    rmSync(directory, { recursive: true, force: true });
    assert.equal(commands.length, 3);
    assert.equal(out, "hello from a helper\n");
  });
});
