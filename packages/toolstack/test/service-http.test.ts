import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, readFileSync, statSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { READER_COUNT_MAX } from "../src/daemon/event-log.ts";
import { BYTES_MAX, JSON_BYTES_MAX } from "../src/daemon/router.ts";
import { boundDelivery, HEAD_BYTES_MAX, listenAtSocket } from "../src/daemon/http-server.ts";
import { ServiceProcess } from "./service-process.ts";
import { Workbench } from "./xl-harness.ts";

/** Sends bytes to a socket and returns everything that comes back until the other end closes. */
const exchange = async (socketPath: string, bytes: string | Buffer): Promise<string> => {
  const socket = net.createConnection(socketPath);
  socket.on("error", () => {});
  let text = "";
  socket.on("data", (piece) => (text += piece.toString("latin1")));
  socket.write(bytes);
  await once(socket, "close");
  return text;
};

const isAlive = async (service: ServiceProcess): Promise<boolean> =>
  (await service.ask("GET", "/healthz")).status === 200;

describe("a client of the service's socket that does not read its answer", () => {
  it("loses the connection before all of the answer has arrived", async () => {
    using bench = new Workbench();
    const place = `${bench.directory}/stalled.sock`;
    const size = 16 * 2 ** 20;
    let isGone = (): void => {};
    const gone = new Promise<void>((resolve) => (isGone = resolve));
    const server = http.createServer((_request, response) => {
      boundDelivery(response, 50);
      response.once("close", isGone);
      response.end("x".repeat(size));
    });
    server.listen(place);
    await once(server, "listening");
    const socket = net.createConnection(place);
    socket.on("error", () => {});
    socket.pause();
    socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await gone;
    let length = 0;
    socket.on("data", (piece) => (length += piece.length));
    socket.resume();
    await once(socket, "close");
    server.close();
    assert.ok(length < size, `${length} bytes of ${size} arrived`);
  });
});

describe("a stream", () => {
  it("may stay with a client that does not read for longer than an answer may, and arrives whole when it does", async () => {
    using bench = new Workbench();
    const piece = "x".repeat(2 ** 20);
    const streams: http.ServerResponse[] = [];
    const gone: string[] = [];
    const server = http.createServer((request, response) => {
      boundDelivery(response, 50);
      response.once("close", () => gone.push(request.url!));
      if (request.url === "/answer") response.end(piece.repeat(16));
      else {
        response.write(piece.repeat(16));
        streams.push(response);
      }
    });
    const place = `${bench.directory}/stream.sock`;
    server.listen(place);
    await once(server, "listening");
    const open = (path: string): net.Socket => {
      const socket = net.createConnection(place);
      socket.on("error", () => {});
      socket.pause();
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      return socket;
    };
    const stream = open("/stream");
    while (streams.length === 0) await delay(1);
    // Begun later, and ended for its slowness: so the stream had at least its time, several times over.
    for (let round = 0; round < 3; round += 1) {
      const answer = open("/answer");
      while (gone.length === round) await delay(1);
      answer.destroy();
    }
    const seen = [...gone];
    let length = 0;
    stream.on("data", (bytes) => (length += bytes.length));
    stream.resume();
    while (length <= piece.length * 16 && !stream.closed) await delay(1);
    streams[0]!.end();
    stream.destroy();
    server.close();
    assert.deepEqual(seen, ["/answer", "/answer", "/answer"]);
    assert.ok(length > piece.length * 16, `${length} bytes arrived`);
  });
});

describe("the service's socket", () => {
  it("can be opened by its owner only", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    assert.equal(statSync(service.socketPath).mode & 0o777, 0o600);
  });
  it(
    "another user who can reach it is refused by the kernel",
    { skip: process.getuid!() === 0 ? false : "needs root to become another user" },
    async () => {
      using bench = new Workbench();
      await using service = await ServiceProcess.start(bench);
      chmodSync(bench.directory, 0o755);
      const script = `require("net").connect(${JSON.stringify(service.socketPath)}).on("error", (e) => console.log(e.code)).on("connect", () => { console.log("connected"); process.exit(); })`;
      const asNobody = (uid: number): string =>
        spawnSync(process.execPath, ["-e", script], { uid, cwd: "/", encoding: "utf8" }).stdout.trim();
      assert.equal(asNobody(65_534), "EACCES");
      assert.equal(asNobody(0), "connected");
    },
  );
  it("is replaced when the service that made it is gone, and kept from a second service while it lives", async () => {
    using bench = new Workbench();
    await using first = await ServiceProcess.start(bench);
    await first.end("SIGKILL");
    assert.ok(statSync(first.socketPath).isSocket());
    await using second = await ServiceProcess.start(bench);
    assert.equal(second.firstLine, "ready");
    const answer = (): Response => new Response();
    await assert.rejects(listenAtSocket(answer, second.socketPath, false), { code: "SERVICE_RUNNING" });
    assert.ok(await isAlive(second));
  });
  it("does not take the place of a file", async () => {
    using bench = new Workbench();
    const file = bench.file("xl.sock", "mine");
    await assert.rejects(
      listenAtSocket(() => new Response(), file, false),
      { code: "SYSTEM_CALL" },
    );
    assert.equal(readFileSync(file, "utf8"), "mine");
  });
  it("is removed when the service ends on SIGTERM, with exit code 0", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    assert.equal(await service.end("SIGTERM"), 0);
    assert.equal(statSync(service.socketPath, { throwIfNoEntry: false }), undefined);
  });
});

describe("the service's clients", () => {
  it("garbage is answered with 400 and the connection ends", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    for (const bytes of [
      Buffer.from([0, 255, 10, 13, 10]),
      "GET\r\n\r\n",
      "\u0016\u0003\u0001\u0002",
      "X".repeat(100) + "\r\n\r\n",
    ]) {
      assert.match(await exchange(service.socketPath, bytes), /^HTTP\/1\.1 400 /);
    }
    assert.ok(await isAlive(service));
  });
  it("a head over the limit is answered with 431", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    const head = `GET /healthz HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(HEAD_BYTES_MAX)}\r\n\r\n`;
    assert.match(await exchange(service.socketPath, head), /^HTTP\/1\.1 431 /);
    assert.ok(await isAlive(service));
  });
  it("a body over the limit is refused by its length, and while it comes when it does not tell", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    for (const [target, limit] of [
      ["/v1/domains", JSON_BYTES_MAX],
      ["/v1/domains/0/console", BYTES_MAX],
    ] as const) {
      const declared = `POST ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${limit + 1}\r\n\r\n`;
      assert.match(await exchange(service.socketPath, declared), /^HTTP\/1\.1 413 [\s\S]*REQUEST_TOO_LARGE/);
      const chunk = `${(limit + 1).toString(16)}\r\n${"z".repeat(limit + 1)}\r\n0\r\n\r\n`;
      const chunked = `POST ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n`;
      assert.match(await exchange(service.socketPath, chunked + chunk), /^HTTP\/1\.1 413 [\s\S]*REQUEST_TOO_LARGE/);
    }
    assert.ok(await isAlive(service));
  });
  it("a request that does not come to its end is given up, and others are answered meanwhile", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    const slow = exchange(service.socketPath, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ");
    assert.ok(await isAlive(service));
    assert.match(await slow, /^HTTP\/1\.1 408 /);
  });
  it("JSON that is none, nests too deep or names prototypes is refused", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    const post = async (body: string): Promise<string> => {
      const head = `POST /v1/domains HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n`;
      return /"code":"(\w+)"/.exec(await exchange(service.socketPath, head + body))?.[1] ?? "";
    };
    assert.equal(await post("{"), "REQUEST_INVALID");
    assert.equal(await post("[".repeat(100_000)), "REQUEST_INVALID");
    assert.equal(await post(`{"config":${"[".repeat(50_000)}${"]".repeat(50_000)}}`), "CONFIG_INVALID");
    assert.equal(await post(`{"config":{"a":${"[".repeat(50_000)}${"]".repeat(50_000)}}}`), "CONFIG_INVALID");
    assert.equal(await post('{"__proto__":{"definition":"x"}}'), "REQUEST_INVALID");
    assert.equal(await post('{"config":{"__proto__":{"name":"x"}}}'), "CONFIG_INVALID");
    assert.equal(await post("\u00ff\u00fe"), "REQUEST_INVALID");
    assert.ok(await isAlive(service));
  });
  it("200 clients at once are all answered", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    const request = "GET /v1/domains HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const answers = await Promise.all(Array.from({ length: 200 }, () => exchange(service.socketPath, request)));
    assert.equal(answers.filter((text) => text.startsWith("HTTP/1.1 200 ") && text.includes("Domain-0")).length, 200);
  });
  it("readers of events that do not read cost a bounded number, and others are answered", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    const request = "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n";
    const sockets = Array.from({ length: READER_COUNT_MAX }, () => net.createConnection(service.socketPath));
    for (const socket of sockets) {
      socket.on("error", () => {});
      socket.pause();
      socket.write(request);
    }
    const readersAre = async (count: number): Promise<void> => {
      const line = `xenolith_event_readers ${count}\n`;
      while (!(await service.ask("GET", "/metrics")).text.includes(line)) await delay(10);
    };
    await readersAre(READER_COUNT_MAX);
    assert.match((await service.ask("GET", "/v1/events")).text, /CLIENT_LIMIT/);
    for (let index = 0; index < 400; index += 1) {
      const config = { name: "n", kernel: "/nowhere.wasm", weight: index + 1 };
      assert.equal((await service.ask("PUT", "/v1/definitions/n", { config })).status, 200);
    }
    for (const socket of sockets) socket.destroy();
    await readersAre(0);
    assert.ok(await isAlive(service));
  });
});
