/** Programs as children, each with what it was given and nothing else of this process. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { Socket } from "node:net";
import { constants } from "node:os";
import { describe, it } from "node:test";
import { canStartPrograms, createPipe, type Program, type ProgramEnd, programEnd, startProgram } from "@xenolith/sys";

const { E2BIG, EACCES, EBADF, ECHILD, EINVAL, ENOENT } = constants.errno;

/** Asks again and again; a listener of SIGCHLD would not keep this process alive. */
const endOf = async (pid: number): Promise<ProgramEnd | number> => {
  for (;;) {
    const end = programEnd(pid);
    if (end !== undefined) return end;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

const program = (script: string, more: Partial<Program> = {}): Program => ({
  file: "/bin/sh",
  words: ["sh", "-c", script],
  environment: ["PATH=/usr/bin:/bin"],
  directory: "/",
  descriptors: [null, null, null],
  ...more,
});

/** What a program prints, and how it ends. */
const run = async (script: string, more: Partial<Program> = {}): Promise<readonly [string, ProgramEnd | number]> => {
  const pipe = createPipe({ nonBlocking: false });
  assert.ok(typeof pipe !== "number");
  const pid = startProgram(program(script, { descriptors: [null, pipe.writeFd, null], ...more }));
  closeSync(pipe.writeFd);
  assert.ok(pid > 0, `refused with ${pid}`);
  const output = new Socket({ fd: pipe.readFd, readable: true, writable: false });
  let text = "";
  output.on("data", (piece: Buffer) => (text += piece.toString("latin1")));
  const [end] = await Promise.all([endOf(pid), once(output, "end")]);
  return [text, end];
};

describe("a program that is started", { skip: !canStartPrograms() && "the C library is too old" }, () => {
  it("has its words, environment and directory, byte for byte", async () => {
    const words = ["called so", "-c", 'printf "%s|%s|%s|%s" "$0" "$1" "$WORD" "$PWD"', Buffer.from([0xff, 0x20]), "ä"];
    const [text] = await run("", { words, environment: ["WORD=a b", Buffer.from("PATH=/bin")], directory: "/usr" });
    assert.equal(text, `\u00ff |${Buffer.from("ä").toString("latin1")}|a b|/usr`);
  });

  it("leads a session of its own, blocks and ignores no signal, and has no descriptor but three", async () => {
    const [kept, alsoKept] = [openSync("/dev/null", "r"), openSync("/dev/null", "r")];
    const [text] = await run(
      "cut -d ' ' -f 6 /proc/self/stat; echo $$; grep -E 'SigBlk' /proc/self/status; trap; ls /proc/self/fd",
    );
    closeSync(kept);
    closeSync(alsoKept);
    const [session, own, blocked, ...descriptors] = text.trim().split("\n");
    assert.equal(session, own);
    assert.equal(blocked, "SigBlk:\t0000000000000000");
    // The fourth is the directory that ls reads.
    assert.deepEqual(descriptors, ["0", "1", "2", "3"]);
  });

  it("can be ended by SIGPIPE, which Node ignores", async () => {
    assert.deepEqual((await run("kill -PIPE $$"))[1], { signal: constants.signals.SIGPIPE });
  });

  it("ends with its code, or with the signal that ended it; asked again, it is unknown", async () => {
    assert.deepEqual((await run("exit 7"))[1], { code: 7 });
    assert.deepEqual((await run("kill -9 $$"))[1], { signal: 9 });
    const pid = startProgram(program("exit 0"));
    assert.deepEqual(await endOf(pid), { code: 0 });
    assert.equal(programEnd(pid), -ECHILD);
  });

  it("is undefined while it runs", async () => {
    const pipe = createPipe({ nonBlocking: false });
    assert.ok(typeof pipe !== "number");
    const pid = startProgram(program("read line", { descriptors: [pipe.readFd, null, null] }));
    const end = programEnd(pid);
    closeSync(pipe.writeFd);
    closeSync(pipe.readFd);
    const last = await endOf(pid);
    assert.equal(end, undefined);
    assert.deepEqual(last, { code: 1 });
  });

  const refusals: readonly (readonly [what: string, more: Partial<Program>, errno: number])[] = [
    ["a file that is not there", { file: "/nonexistent" }, ENOENT],
    ["a directory that is not there", { directory: "/nonexistent" }, ENOENT],
    ["a file that is no program", { file: "/etc/passwd" }, EACCES],
    ["a file without a name", { file: "" }, ENOENT],
    ["a word with a NUL", { words: ["sh", "a\0b"] }, EINVAL],
    ["an environment with a NUL", { environment: ["A=\0"] }, EINVAL],
    ["a word of a million bytes", { words: ["sh", "a".repeat(1_000_000)] }, E2BIG],
    ["a descriptor that is not open", { descriptors: [null, 1_000_000, null] }, EBADF],
  ];
  for (const [what, more, errno] of refusals) {
    it(`is none with ${what}`, () => {
      assert.equal(startProgram(program("exit 0", more)), -errno);
    });
  }
});
