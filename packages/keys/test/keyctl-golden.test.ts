/**
 * xkeyctl says what keyctl(1) 1.6.3 says. `keyctl-golden.txt` was printed by the original over the keyrings of a Linux 6.18 kernel;
 * it is never changed by hand. With KEYCTL naming an original, that is asked again.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";
import { KeyClient } from "../src/client/index.ts";
import { main } from "../src/command/xkeyctl.ts";
import { packageRoot, startTestDaemon } from "./daemon-kit.ts";
import { KernelKeys } from "./kernel-keys.ts";
import { type RunCommand, runScript } from "./keyctl-script.ts";

const golden = readFileSync(path.join(packageRoot, "test/keyctl-golden.txt"), "utf8");

/** Runs commands in this process, which is a program like any other to the daemon. */
const inProcess =
  (socket: string): RunCommand =>
  async (words, input) => {
    let out = "";
    let err = "";
    const bytes = words.map((word) => Buffer.from(word).toString("latin1"));
    const terminal = {
      out: (text: string | Uint8Array) =>
        void (out += typeof text === "string" ? text : Buffer.from(text).toString("latin1")),
      error: (text: string) => void (err += text),
      input: () => Buffer.from(input),
    };
    const code = await main(bytes, terminal, { ...process.env, XKEYD_SOCKET: socket });
    return { code, out, err };
  };

/** Commands one by one, so that a difference shows where it begins. */
const parts = (script: string): string[] => script.split(/^(?=\$ )/m);

describe("every command of keyctl", { skip: process.getuid!() !== 0 && "the transcript is of user 0" }, () => {
  it("prints what the original printed, to the character, and ends with its exit code", async () => {
    await using test = await startTestDaemon();
    let text: string;
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      await keys.joinSession();
      text = await runScript(golden, inProcess(test.socket));
    }
    await test.daemon.close();
    assert.deepEqual(parts(text), parts(golden));
  });

  const original = process.env["KEYCTL"];
  const skip = original === undefined && "KEYCTL does not name an original; the transcript of one is compared instead";
  it("prints what the original prints on this machine", { skip }, async () => {
    // The programs below have this process's session keyring in the kernel, which must be an empty one.
    assert.ok(new KernelKeys().join(null) > 0);
    const text = await runScript(golden, (words, input) => {
      const { status, stdout, stderr } = spawnSync(original!, words, { input });
      return Promise.resolve({ code: status!, out: stdout.toString("latin1"), err: stderr.toString("latin1") });
    });
    assert.deepEqual(parts(text), parts(golden));
  });
});
