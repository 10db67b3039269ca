/** Programs that build keys, started as Node does it and as the daemon does where it can: nobody can tell which. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { loadQuickLaunch } from "../src/daemon/index.ts";
import { OUTPUT_BYTES_MAX, RequestFailed } from "../src/request-key/act.ts";
import { launchWithNode } from "../src/request-key/launch.ts";
import { ChildPrograms, type ProgramOptions } from "../src/request-key/programs.ts";
import { bytes } from "./kit.ts";

const ENVIRONMENT = { PATH: "/usr/bin:/bin", WORD: "a b", NOTHING: undefined };
const CALLOUT_BYTES_MAX = 4095;

const quickLaunch = await loadQuickLaunch();
const ways = [
  ["by Node", launchWithNode],
  ["without a copy of the daemon", quickLaunch],
] as const;

for (const [way, launch] of ways) {
  const skip = launch === undefined && "neither @xenolith/sys nor a C library that is new enough";
  describe(`a program that is started ${way}`, { skip }, () => {
    const started: number[] = [];
    const ended: number[] = [];
    const run = async (script: string, input?: Uint8Array, more: Partial<ProgramOptions> = {}) => {
      const onStart = (pid: number): void => void started.push(pid);
      const onEnd = (pid: number): void => void ended.push(pid);
      const programs = new ChildPrograms({ environment: ENVIRONMENT, launch: launch!, onStart, onEnd, ...more });
      const { code, output } = await programs.run("/bin/sh", ["helper", "-c", script, "first"], input);
      return [code, typeof output === "string" ? output : Buffer.from(output).toString("latin1")] as const;
    };

    const specification: readonly (readonly [does: string, script: string, input: string, output: string])[] = [
      ["reads what it is told, and prints it", "cat", "told\n", "told\n"],
      ["is told nothing", "cat; echo end", "", "end\n"],
      ["does not read what it is told", "echo unread", "x".repeat(CALLOUT_BYTES_MAX), "unread\n"],
      ["is told as much as there can be", "cat", "y".repeat(CALLOUT_BYTES_MAX), "y".repeat(CALLOUT_BYTES_MAX)],
      ["prints as much as it may", `head -c ${OUTPUT_BYTES_MAX} /dev/zero`, "", "\0".repeat(OUTPUT_BYTES_MAX)],
      ["prints too much", `head -c ${OUTPUT_BYTES_MAX + 1} /dev/zero; exit 0`, "", "too much"],
      ["leaves a child that prints more", "(sleep 0.1; echo late) & echo early", "", "early\nlate\n"],
      ["has its words, its environment and the root", 'echo "$0 $WORD $PWD"', "", "first a b /\n"],
    ];
    for (const [does, script, input, output] of specification) {
      it(`and ${does}: that is what it came to`, async () => {
        const [code, printed] = await run(script, bytes(input));
        assert.equal(printed, output);
        if (printed !== "too much") assert.equal(code, 0);
      });
    }

    it("ends with its code, or without one when a signal ended it; what it prints goes nowhere", async () => {
      assert.deepEqual(await run("echo x; exit 9"), [9, ""]);
      assert.deepEqual(await run("kill -9 $$"), [undefined, ""]);
      assert.deepEqual(await run("cat; exit 0"), [0, ""]);
    });

    it("is told of, when it begins and when it has ended, whatever came of it", () => {
      assert.ok(started.length > 0);
      assert.deepEqual(new Set(ended), new Set(started));
    });

    it("leads a session of its own", async () => {
      const [, text] = await run("echo $$; cut -d ' ' -f 6 /proc/self/stat", bytes(""));
      const [own, session] = text.split("\n");
      assert.equal(own, session);
    });

    it("is heard when it complains, if anybody listens", async () => {
      const lines: string[] = [];
      await run("echo one >&2; printf two >&2", bytes(""), { onError: (line) => void lines.push(line) });
      assert.deepEqual(lines, ["one", "two"]);
    });

    it("cannot be started: the reason is the kernel's", async () => {
      const programs = new ChildPrograms({ environment: {}, launch: launch! });
      for (const [file, code] of [
        ["/nonexistent/helper", "ENOENT"],
        ["/etc/passwd", "EACCES"],
      ] as const) {
        const failure = await programs.run(file, ["x"], undefined).catch((error: unknown) => error);
        assert.ok(failure instanceof RequestFailed);
        assert.equal((failure.cause as { readonly code?: string }).code, code);
      }
    });

    it("is killed with its children when the request is given up, and not started after that", async () => {
      const abort = new AbortController();
      const running = run("sleep 1000 & wait", bytes(""), { signal: abort.signal });
      abort.abort();
      assert.deepEqual(await running, [undefined, ""]);
      const before = started.length;
      await assert.rejects(run("exit 0", undefined, { signal: abort.signal }), RequestFailed);
      assert.equal(started.length, before);
    });

    it("is one of many at once, and each ends as itself", async () => {
      const codes = Array.from({ length: 60 }, (_, index) => index);
      const ends = await Promise.all(codes.map((code) => run(`cat; exit ${code}`, bytes(String(code)))));
      assert.deepEqual(
        ends,
        codes.map((code) => [code, String(code)]),
      );
    });
  });
}
