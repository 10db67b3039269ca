/**
 * The key daemon in a process of its own: pipelined operations of one connection beside a bare Unix socket that echoes as many
 * bytes; its start beside Node's own, that of xkeyctl beside Node's and keyctl's together; and a key built by a helper beside the
 * bare start of that program, and beside a kernel that has it built by the same.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { KeyConnection } from "@xenolith/keys/client";
import { type Bench, comparePair, result, type Result, type Rounds, scaled } from "./harness.ts";
import { KernelUpcall, LOOP_RULE, LOOPED } from "./kernel-upcall.ts";
import { originalKeyctl } from "./original-keyctl.ts";
import { Undo } from "./undo.ts";

const bins = path.join(import.meta.dirname, "../../packages/keys/bin");
const USER_RING = -4;
const PAYLOAD = Buffer.alloc(32, 7);
/** Requests that are under way together. */
const WINDOW = 256;
const MS = 1e6;

const now = (): bigint => process.hrtime.bigint();
const since = (start: bigint): number => Number(process.hrtime.bigint() - start);

const appears = async (file: string): Promise<void> => {
  while (!existsSync(file)) await new Promise((resolve) => setTimeout(resolve, 1));
};

/** A directory, a daemon and an echo, which go when it is disposed. */
class Stage implements Disposable {
  readonly #undo = new Undo();
  readonly directory = this.#undo.put(
    () => mkdtempSync(path.join(tmpdir(), "keyd-bench-")),
    (directory) => rmSync(directory, { recursive: true, force: true }),
  );
  readonly socket = path.join(this.directory, "keys.sock");
  readonly echo = path.join(this.directory, "echo.sock");
  readonly config = path.join(this.directory, "request-key.conf");

  start(words: readonly string[]): void {
    this.#undo.put(
      () => spawn(process.execPath, words, { stdio: "ignore" }),
      (child) => child.kill(),
    );
  }

  startDaemon(socket = this.socket): void {
    this.start([
      path.join(bins, "xkeyd.js"),
      "--socket",
      socket,
      "--config",
      this.config,
      "--limit",
      "root_maxbytes=1000000000",
    ]);
  }

  [Symbol.dispose](): void {
    this.#undo[Symbol.dispose]();
  }
}

/** So many calls, a window of them under way at any time; the nanoseconds that they took. */
const pipelined = async (count: number, call: (index: number) => Promise<number>): Promise<number> => {
  const start = now();
  for (let from = 0; from < count; from += WINDOW) {
    const results = await Promise.all(
      Array.from({ length: Math.min(WINDOW, count - from) }, (_, at) => call(from + at)),
    );
    assert(results.every((each) => each >= 0));
  }
  return since(start);
};

/** The same bytes there and back through a bare socket. */
const echoed = async (socket: Socket, count: number, frame: Buffer): Promise<number> => {
  const start = now();
  for (let from = 0; from < count; from += WINDOW) {
    const frames = Math.min(WINDOW, count - from);
    let missing = frames * frame.length;
    const back = new Promise<void>((resolve) => {
      const onData = (piece: Buffer): void => {
        missing -= piece.length;
        if (missing > 0) return;
        socket.off("data", onData);
        resolve();
      };
      socket.on("data", onData);
    });
    for (let index = 0; index < frames; index += 1) socket.write(frame);
    await back;
  }
  return since(start);
};

const operations = async (stage: Stage, rounds: Rounds): Promise<Result[]> => {
  const keys = await KeyConnection.connect(stage.socket);
  const socket = createConnection(stage.echo);
  await once(socket, "connect");
  const serials: number[] = [];
  for (let index = 0; index < 64; index += 1)
    serials.push(await keys.result("addKey", ["user", `key:${index}`, PAYLOAD, USER_RING]));
  const target = Buffer.alloc(64);
  const calls: readonly (readonly [string, Buffer, (index: number) => Promise<number>])[] = [
    [
      "add-update",
      Buffer.alloc(80),
      (index) => keys.result("addKey", ["user", `key:${index % 64}`, PAYLOAD, USER_RING]),
    ],
    [
      "read-32B",
      Buffer.alloc(20),
      async (index) => (await keys.call("read", [serials[index % 64]!, 64], { target })).result,
    ],
    ["search", Buffer.alloc(36), (index) => keys.result("search", [USER_RING, "user", `key:${index % 64}`, 0])],
  ];
  const results: Result[] = [];
  for (const [name, frame, call] of calls) {
    const pair = {
      value: (count: number) => pipelined(count, call),
      floor: (count: number) => echoed(socket, count, frame),
    };
    // 10 us for one are 100,000 in a second.
    results.push(result(`pipelined-${name}`, "ns", await comparePair(pair, rounds), { maximum: 10_000 }));
  }
  socket.destroy();
  await keys.close();
  return results;
};

/** Nanoseconds of one run of a program to its end. */
const oneRun = (file: string, words: readonly string[], environment: NodeJS.ProcessEnv = process.env): number => {
  const start = now();
  const { status } = spawnSync(file, words, { env: environment, stdio: "ignore" });
  const taken = since(start);
  assert.equal(status, 0, `${file} ${words.join(" ")}`);
  return taken;
};

const times = (count: number, once: () => number): number => {
  let sum = 0;
  for (let index = 0; index < count; index += 1) sum += once();
  return sum;
};

const starts = async (stage: Stage, rounds: Rounds): Promise<Result[]> => {
  const environment = { ...process.env, XKEYD_SOCKET: stage.socket };
  const command = path.join(bins, "xkeyctl.js");
  const node = (): number => oneRun(process.execPath, ["-e", "0"]);
  const original = originalKeyctl();
  const keyctl = (): number => (original === undefined ? 0 : oneRun(original, ["rlist", "@s"]));
  const oneShot = await comparePair(
    {
      value: (count) => times(count, () => oneRun(process.execPath, [command, "rlist", "@u"], environment)),
      floor: (count) => times(count, () => node() + keyctl()),
    },
    rounds,
  );
  let number = 0;
  const daemonStart = async (): Promise<number> => {
    const socket = path.join(stage.directory, `other-${(number += 1)}.sock`);
    const start = now();
    stage.startDaemon(socket);
    await appears(socket);
    return since(start);
  };
  const ready = await comparePair({ value: daemonStart, floor: node }, { ...rounds, count: 1 });
  const results = [
    result("xkeyctl-one-shot", "ms", scaled(oneShot, MS), { limit: 2 }),
    result("xkeyd-ready", "ms", scaled(ready, MS), { maximum: 300 }),
  ];
  if (original === undefined) return results;
  const pair = { value: (count: number) => times(count, keyctl), floor: (count: number) => times(count, node) };
  return [...results, result("keyctl-beside-node-start", "ms", scaled(await comparePair(pair, rounds), MS))];
};

/** Nanoseconds that so many starts of the helper take which nobody asked for a key. */
const bareStarts = async (count: number): Promise<number> => {
  const start = now();
  for (let index = 0; index < count; index += 1) {
    const child = spawn("/bin/cat", { stdio: ["pipe", "pipe", "ignore"] });
    child.stdin.end("told");
    child.stdout.resume();
    await once(child, "close");
  }
  return since(start);
};

const upcalls = async (stage: Stage, rounds: Rounds): Promise<Result[]> => {
  writeFileSync(stage.config, LOOP_RULE);
  const keys = await KeyConnection.connect(stage.socket);
  let number = 0;
  const value = async (count: number): Promise<number> => {
    const start = now();
    for (let index = 0; index < count; index += 1) {
      const serial = await keys.result("requestKey", ["user", `${LOOPED}${(number += 1)}`, "told", USER_RING]);
      assert(serial > 0);
    }
    return since(start);
  };
  const promised = { limit: 1.5 };
  const besideStart = await comparePair({ value, floor: bareStarts }, rounds);
  const results = [result("request-beside-start-of-helper", "ms", scaled(besideStart, MS), promised)];
  using kernel = KernelUpcall.open();
  if (kernel !== undefined) {
    const floor = (count: number): number => times(count, () => kernel.timed());
    const besideKernel = await comparePair({ value, floor }, rounds);
    results.push(result("request-beside-kernel", "ms", scaled(besideKernel, MS), promised));
  }
  await keys.close();
  return results;
};

export const bench: Bench = async ({ small }) => {
  using stage = new Stage();
  writeFileSync(stage.config, "");
  stage.startDaemon();
  const echo = `require("node:net").createServer((socket) => socket.pipe(socket)).listen(${JSON.stringify(stage.echo)})`;
  stage.start(["-e", echo]);
  await appears(stage.socket);
  await appears(stage.echo);
  return [
    ...(await operations(stage, {
      count: small ? 512 : 50_000,
      rounds: small ? 1 : 7,
      ...(small ? { warmup: 0 } : {}),
    })),
    ...(await starts(stage, { count: small ? 1 : 5, rounds: small ? 1 : 5, warmup: small ? 0 : 1 })),
    ...(await upcalls(stage, { count: small ? 3 : 50, rounds: small ? 1 : 7 })),
  ];
};
