/**
 * What the service answers: reads over its Unix socket, beside a bare HTTP server of Node that sends the same bytes, both
 * on one processor; and `xl list` of many domains with the start of its process, beside the start of an empty program.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { assembleGuest } from "./guest-text.ts";
import { type Bench, comparePair, type Result, result, type Rounds, scaled } from "./harness.ts";

const XL = path.join(import.meta.dirname, "../../packages/toolstack/bin/xl.js");
const CLIENT_COUNT = 16;
const READS_PER_SECOND_MIN = 3000;
const LIST_MS_MAX = 100;

export const bench: Bench = async ({ small }) => {
  const directory = mkdtempSync(path.join(tmpdir(), "xenolith-bench-"));
  const socketPath = path.join(directory, "xl.sock");
  const state = path.join(directory, "state");
  const daemon = onFirstProcessor([XL, "daemon", "--socket", socketPath, "--state", state, "--log-level", "silent"]);
  try {
    await answering(socketPath);
    const domainCount = small ? 3 : 200;
    await createDomains(socketPath, directory, domainCount);
    return [
      await reads(socketPath, directory, { count: small ? 32 : 6400, rounds: small ? 1 : 9 }),
      await list(socketPath, domainCount, { count: 1, rounds: small ? 1 : 15 }),
    ];
  } finally {
    await end(daemon);
    rmSync(directory, { recursive: true, force: true });
  }
};

/** Node with `words`, on the first processor where taskset can say so. */
const onFirstProcessor = (words: readonly string[]): ChildProcess => {
  const isPinnable = spawnSync("taskset", ["-c", "0", "true"]).status === 0;
  const command = [...(isPinnable ? ["taskset", "-c", "0"] : []), process.execPath, ...words];
  return spawn(command[0]!, command.slice(1), { stdio: "ignore" });
};

const end = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGTERM");
  await gone;
};

const answering = async (socketPath: string): Promise<void> => {
  for (;;) {
    const status = await ask(socketPath, "GET", "/healthz").catch(() => 0);
    if (status === 200) return;
    await delay(20);
  }
};

const ask = (socketPath: string, method: string, target: string, body?: unknown): Promise<number> =>
  new Promise((resolve, reject) => {
    const request = http.request({ socketPath, method, path: target }, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode ?? 0));
    });
    request.on("error", reject);
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });

/** Domains that do not run: what they cost is a row in the table. */
const createDomains = async (socketPath: string, directory: string, count: number): Promise<void> => {
  const kernel = path.join(directory, "guest.wasm");
  writeFileSync(kernel, assembleGuest(`(module (memory (export "memory") 1) (func (export "_start")))`));
  for (let index = 0; index < count; index += 1) {
    const config = { name: `domain-${index}`, kernel, memory: 1 };
    assert.equal(await ask(socketPath, "POST", "/v1/domains", { config, paused: true }), 201);
  }
};

/** Reads of one domain by several clients, each with one request under way. */
const reads = async (socketPath: string, directory: string, rounds: Rounds): Promise<Result> => {
  const target = "/v1/domains/domain-1";
  const floorPath = path.join(directory, "floor.sock");
  const script = `
    const body = ${JSON.stringify(JSON.stringify(await readJson(socketPath, target)))};
    require("http").createServer((_, response) => {
      response.writeHead(200, { "content-type": "application/json", "content-length": body.length });
      response.end(body);
    }).listen(${JSON.stringify(floorPath)});`;
  const floor = onFirstProcessor(["-e", script]);
  try {
    await answering(floorPath);
    const pair = {
      value: (count: number) => timeReads(socketPath, target, count),
      floor: (count: number) => timeReads(floorPath, target, count),
    };
    const { value, floor: floorNs, ratio, spread } = await comparePair(pair, rounds);
    const rates = { value: 1e9 / value, floor: 1e9 / floorNs, ratio };
    return result("reads", "reads/s", spread === undefined ? rates : { ...rates, spread }, {
      minimum: READS_PER_SECOND_MIN,
    });
  } finally {
    await end(floor);
  }
};

const readJson = async (socketPath: string, target: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    http
      .get({ socketPath, path: target }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (piece: string) => (text += piece));
        response.on("end", () => resolve(JSON.parse(text)));
      })
      .on("error", reject);
  });

const timeReads = async (socketPath: string, target: string, count: number): Promise<number> => {
  const request = `GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`;
  const sockets = await Promise.all(
    Array.from({ length: CLIENT_COUNT }, async () => {
      const socket = net.createConnection(socketPath);
      await once(socket, "connect");
      return socket;
    }),
  );
  const start = process.hrtime.bigint();
  await Promise.all(sockets.map((socket) => readMany(socket, request, count / CLIENT_COUNT)));
  const spent = Number(process.hrtime.bigint() - start);
  for (const socket of sockets) socket.destroy();
  return spent;
};

/** Sends the next request when the answer to the one before is complete. */
const readMany = (socket: net.Socket, request: string, count: number): Promise<void> =>
  new Promise((resolve, reject) => {
    let left = count;
    let received = "";
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("the connection was closed")));
    socket.on("data", (piece) => {
      received += piece.toString("latin1");
      const headEnd = received.indexOf("\r\n\r\n");
      if (headEnd < 0) return;
      const length = Number(/^content-length: (\d+)/im.exec(received)?.[1] ?? Number.NaN);
      if (!(received.length >= headEnd + 4 + length)) return;
      assert.ok(received.startsWith("HTTP/1.1 200 "));
      received = "";
      left -= 1;
      if (left > 0) socket.write(request);
      else resolve();
    });
    socket.write(request);
  });

/** `xl list` as a person calls it. */
const list = async (socketPath: string, domainCount: number, rounds: Rounds): Promise<Result> => {
  const timed =
    (words: readonly string[], lines: number) =>
    (count: number): number => {
      const start = process.hrtime.bigint();
      for (let index = 0; index < count; index += 1) {
        const { status, stdout } = spawnSync(process.execPath, words, { encoding: "utf8" });
        assert.equal(status, 0);
        assert.equal(stdout.split("\n").length - 1, lines);
      }
      return Number(process.hrtime.bigint() - start);
    };
  // A header, dom0, the domains.
  const value = timed([XL, "list", "--socket", socketPath], domainCount + 2);
  const pair = { value, floor: timed(["-e", "0"], 0) };
  return result(`list-${domainCount}-domains`, "ms", scaled(await comparePair(pair, rounds), 1e6), {
    maximum: LIST_MS_MAX,
  });
};
