import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { canStartPrograms, closeDescriptor, createMemfd, seek, Whence } from "@xenolith/sys";
import { type ChildProgram, launchQuickly, launchWithNode, type RunningProgram } from "../src/keys/child-program.ts";

const ways: readonly (readonly [string, (program: ChildProgram) => RunningProgram, string | false])[] = [
  ["posix_spawn", launchQuickly, canStartPrograms() ? false : "the C library is too old"],
  ["Node", launchWithNode, false],
];

for (const [way, launch, skip] of ways) {
  describe(`a program started by ${way}`, { skip }, () => {
    const run = async (words: readonly string[], input = "", file = "/bin/sh") => {
      const output = createMemfd({ name: "test", sizeBytes: 8192 });
      try {
        const environment = { PATH: "/bin:/usr/bin", SAID: "a=b c" };
        const code = await launch({ file, words, environment, input: Buffer.from(input), output }).ended;
        const size = seek(output, 0, Whence.CUR);
        return { code, text: readFileSync(`/proc/self/fd/${output}`).toString("latin1", 0, size) };
      } finally {
        closeDescriptor(output);
      }
    };

    it("has its words, environment and input, and the root directory", async () => {
      const script = 'printf "%s|%s|%s|%s" "$1" "$SAID" "$(cat)" "$(pwd)"';
      const said = "x".repeat(4095);
      const { code, text } = await run(["-c", script, "sh", "one two"], said);
      assert.equal(text, `one two|a=b c|${said}|/`);
      assert.equal(code, 0);
    });
    it("need not read what it is told", async () => {
      assert.deepEqual(await run(["-c", "exit 3"], "unread"), { code: 3, text: "" });
    });
    it("that is ended by a signal has no code", async () => {
      assert.deepEqual(await run(["-c", "printf x; kill -9 $$"]), { code: undefined, text: "x" });
    });
    it("that is not there is an error with a code", async () => {
      await assert.rejects(run([], "", "/nowhere/at/all"), { code: "ENOENT" });
    });
    it("is one of many at once", async () => {
      const runs = Array.from({ length: 20 }, async (_, index) => await run(["-c", `printf ${index}; exit ${index}`]));
      for (const [index, { code, text }] of (await Promise.all(runs)).entries())
        assert.deepEqual([code, text], [index, String(index)]);
    });
  });
}
