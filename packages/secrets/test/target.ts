/** A process that holds one marker in secret memory and one in ordinary memory, for tests that look for both. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import type { Writable } from "node:stream";
import { randomBytes } from "node:crypto";
import { seek, Whence } from "@xenolith/sys";

/** Such a process, which lives until `end`. */
export interface Target {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly secret: Buffer;
  readonly plain: Buffer;
  readonly secretAddress: number;
  readonly plainAddress: number;
  /** Runs a command of the program's and gives the line that it prints. */
  ask(command: string): Promise<string>;
  end(): Promise<void>;
}

const PROGRAM = `
import { readSync } from "node:fs";
import { createInterface } from "node:readline";
import { writeHeapSnapshot } from "node:v8";
import { readSecretInput, SecretPool } from ${JSON.stringify(import.meta.resolve("@xenolith/secrets"))};
import { addressOf } from ${JSON.stringify(import.meta.resolve("@xenolith/sys"))};
const pool = SecretPool.open({ policy: process.argv[1] });
const secret = readSecretInput(pool.owner("target"), 3);
const plain = Buffer.alloc(32);
readSync(4, plain);
globalThis.kept = { text: plain.toString("hex"), secret, pool };
console.log(JSON.stringify([secret.withBytes(addressOf), addressOf(plain)]));
for await (const line of createInterface({ input: process.stdin })) {
  const [command, file] = line.split(" ");
  if (command === "snapshot") writeHeapSnapshot(file);
  if (command === "report") { process.env.KEPT = kept.text; process.report.writeReport(file); }
  if (command === "print") console.error(kept, JSON.stringify(kept.secret), String(kept.secret));
  if (command === "abort") process.abort();
  console.log("done");
}`;

/** Starts one; `before`: shell commands, such as limits. */
export const startTarget = async (policy: "strict" | "degraded", before = "ulimit -c 0;"): Promise<Target> => {
  const words = ["-c", `${before} exec "$0" "$@"`, process.execPath, "--input-type=module", "--eval", PROGRAM, policy];
  const child = spawn("sh", words, { stdio: ["pipe", "pipe", "pipe", "pipe", "pipe"] });
  const [secret, plain] = [randomBytes(32), randomBytes(32)];
  (child.stdio[3] as Writable).end(secret);
  (child.stdio[4] as Writable).end(plain);
  const lines = linesOf(child);
  const first = await lines.next();
  assert.ok(!first.done, "the target did not start");
  const [secretAddress, plainAddress] = JSON.parse(first.value) as [number, number];
  const ask = async (command: string): Promise<string> => {
    child.stdin?.write(`${command}\n`);
    return String((await lines.next()).value);
  };
  const end = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.stdin?.end();
    await gone;
  };
  return { child, pid: child.pid!, secret, plain, secretAddress, plainAddress, ask, end };
};

const linesOf = async function* (child: ChildProcess): AsyncGenerator<string> {
  let rest = "";
  for await (const part of child.stdout!) {
    const lines = (rest + String(part)).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
};

/** How often `marker` is in the memory of a process, as /proc shows it. */
export const countInMemory = (pid: number, marker: Buffer): number => {
  const memory = openSync(`/proc/${pid}/mem`, "r");
  let count = 0;
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, "latin1").split("\n")) {
      const [, start, end] = /^([0-9a-f]+)-([0-9a-f]+) r.*(?<!\[v\w+\])$/.exec(line) ?? [];
      if (start !== undefined && end !== undefined) {
        count += countInRange(memory, [Number.parseInt(start, 16), Number.parseInt(end, 16)], marker);
      }
    }
  } finally {
    closeSync(memory);
  }
  return count;
};

const WINDOW = 2 ** 22;

const countInRange = (memory: number, [start, end]: readonly [number, number], marker: Buffer): number => {
  const window = Buffer.alloc(WINDOW + marker.length - 1);
  let count = 0;
  for (let at = start; at < end; at += WINDOW) {
    const wanted = Math.min(window.length, end - at);
    try {
      const length = readSync(memory, window, 0, wanted, at);
      count += countIn(window.subarray(0, length), marker);
    } catch {
      // EIO: memory that is not there, or that the kernel cannot read.
    }
  }
  return count;
};

/** How often `marker` is in `bytes`. */
export const countIn = (bytes: Buffer, marker: Buffer): number => {
  let count = 0;
  for (let at = bytes.indexOf(marker); at >= 0; at = bytes.indexOf(marker, at + 1)) count += 1;
  return count;
};

/** How often `marker` is in a file, which may have large holes. */
export const countInFile = (name: string, marker: Buffer): number => {
  const file = openSync(name, "r");
  let count = 0;
  try {
    for (let start = seek(file, 0, Whence.DATA); start >= 0;) {
      const end = seek(file, start, Whence.HOLE);
      count += countInRange(file, [start, end], marker);
      start = seek(file, end, Whence.DATA);
    }
  } finally {
    closeSync(file);
  }
  return count;
};
