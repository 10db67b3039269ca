import assert from "node:assert/strict";
import { once } from "node:events";
import { linkSync, mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, describe, it } from "node:test";
import { ApiClient } from "../src/client/api-client.ts";
import { atSocket } from "../src/client/place.ts";

const directory = mkdtempSync(path.join(tmpdir(), "xenolith-test-"));
after(() => rmSync(directory, { recursive: true, force: true }));

let count = 0;
const freshSocket = (): string => path.join(directory, `${(count += 1)}.sock`);

/** Runs `use` beside a server on a socket of its own. */
const beside = async (server: net.Server, use: (socket: string) => Promise<void>): Promise<void> => {
  const socket = freshSocket();
  const connections = new Set<net.Socket>();
  server.on("connection", (each: net.Socket) => connections.add(each));
  server.listen(socket);
  await once(server, "listening");
  try {
    await use(socket);
  } finally {
    for (const each of connections) each.destroy();
    server.close();
  }
};

const answering = (status: number, body: string): net.Server =>
  http.createServer((_, response) => response.writeHead(status).end(body));

const ask = (socket: string): Promise<unknown> => new ApiClient(atSocket(socket)).ask({ method: "GET", path: "/" });

describe("the API client", () => {
  it("returns the JSON of an answer, and null for an empty one", async () => {
    await beside(answering(200, '{"a":[1]}'), async (socket) => assert.deepEqual(await ask(socket), { a: [1] }));
    await beside(answering(204, ""), async (socket) => assert.equal(await ask(socket), null));
  });

  it("sends method, path and body as they are given", async () => {
    const seen: unknown[] = [];
    const server = http.createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        seen.push([request.method, request.url, request.headers["content-type"], Buffer.concat(chunks).toString()]);
        response.end("{}");
      });
    });
    await beside(server, async (socket) => {
      const client = new ApiClient(atSocket(socket));
      await client.ask({ method: "POST", path: "/domains/a%2Fb?x=1", body: { name: "ü" } });
    });
    assert.deepEqual(seen, [["POST", "/domains/a%2Fb?x=1", "application/json", '{"name":"ü"}']]);
  });

  it("throws a refusal with the code and the message of the daemon, wherever they stand", async () => {
    const refusal = { code: "DOMAIN_NOT_FOUND", message: 'no domain "x"' };
    for (const body of [refusal, { error: refusal }]) {
      await beside(answering(404, JSON.stringify(body)), (socket) => assert.rejects(ask(socket), refusal));
    }
  });

  it("adds the remedy of a refusal, unless it is about requests", async () => {
    const refusal = { code: "DOMAIN_EXISTS", message: "there is one" };
    for (const [remedy, message] of [
      ["take another name", "there is one (take another name)"],
      ["GET /v1/domains lists them", "there is one"],
      ["", "there is one"],
    ] as const) {
      const body = JSON.stringify({ ...refusal, remedy });
      await beside(answering(409, body), (socket) => assert.rejects(ask(socket), { code: "DOMAIN_EXISTS", message }));
    }
  });

  it("throws what a refusal without a known code says, shortened", async () => {
    const body = JSON.stringify({ code: "constructor", text: "x".repeat(1000) });
    await beside(answering(500, body), (socket) =>
      assert.rejects(ask(socket), { code: "DAEMON_ANSWER", message: /^the daemon refused with status 500: .{80}$/ }),
    );
  });

  it("where there is no socket, or nobody listens, names the remedy", async () => {
    const expected = { code: "DAEMON_UNREACHABLE", message: /no daemon answers at .*xl daemon.*--socket/ };
    await assert.rejects(ask(freshSocket()), expected);
    const stale = freshSocket();
    const holder = net.createServer().listen(stale);
    await once(holder, "listening");
    // The file of a server that was killed stays: linked elsewhere, it survives the close.
    linkSync(stale, `${stale}.left`);
    holder.close();
    await assert.rejects(ask(`${stale}.left`), expected);
  });

  it("refuses an answer that is not JSON, shows its beginning", async () => {
    await beside(answering(200, `<html>${"x".repeat(10_000)}`), (socket) =>
      assert.rejects(ask(socket), { code: "DAEMON_ANSWER", message: /status 200, "<html>x+"$/ }),
    );
  });

  it("refuses an answer without the members that it is asked for", async () => {
    for (const body of ["{}", "[]", "null", "7", ""]) {
      await beside(answering(200, body), (socket) =>
        assert.rejects(
          new ApiClient(atSocket(socket)).ask<{ domains: [] }>({ method: "GET", path: "/" }, ["domains"]),
          {
            code: "DAEMON_ANSWER",
            message: /has no "domains"/,
          },
        ),
      );
    }
  });

  it("refuses what is not HTTP", async () => {
    const server = net.createServer((connection) => connection.end("220 mail.example ESMTP\r\n"));
    await beside(server, (socket) =>
      assert.rejects(ask(socket), { code: "DAEMON_ANSWER", message: /does not speak HTTP/ }),
    );
  });

  it("stops reading an answer that has no end", async () => {
    const block = Buffer.alloc(2 ** 20, 0x20);
    let closed: Promise<unknown> | undefined;
    const server = http.createServer((_, response) => {
      const more = (): void => {
        while (!response.destroyed && response.write(block));
      };
      response.on("drain", more);
      closed = once(response, "close");
      more();
    });
    await beside(server, async (socket) => {
      await assert.rejects(ask(socket), { code: "DAEMON_ANSWER", message: /over 67108864 bytes, the limit/ });
      await closed;
    });
  });

  it("says that the daemon broke off when an answer ends before its length", async () => {
    const server = http.createServer((_, response) => {
      response.writeHead(200, { "content-length": "100" });
      response.write('{"a":');
      setImmediate(() => response.destroy());
    });
    await beside(server, (socket) => assert.rejects(ask(socket), { code: "DAEMON_UNREACHABLE", message: /broke off/ }));
  });

  it("says once that it waits when the answer takes over a second, and takes it when it comes", async () => {
    const server = http.createServer((_, response) => void setTimeout(() => response.end("1"), 1300));
    await beside(server, async (socket) => {
      const notices: string[] = [];
      const client = new ApiClient(atSocket(socket), (message) => notices.push(message));
      assert.equal(await client.ask({ method: "GET", path: "/" }), 1);
      assert.deepEqual(notices, [`waiting for the daemon at ${socket} (Ctrl-C ends the wait, not what it does)`]);
    });
  });

  it("withdraws a question when its signal fires", async () => {
    const server = http.createServer(() => {});
    await beside(server, async (socket) => {
      const signal = AbortSignal.timeout(20);
      await assert.rejects(new ApiClient(atSocket(socket)).ask({ method: "GET", path: "/", signal }), {
        code: "ABORTED",
      });
    });
  });

  it("hands out a stream piece by piece, and refuses as with other answers", async () => {
    const server = http.createServer((request, response) => {
      if (request.url !== "/stream")
        return void response.writeHead(404).end('{"code":"DOMAIN_NOT_FOUND","message":"no"}');
      response.write("one");
      setTimeout(() => response.end("two"), 20);
    });
    await beside(server, async (socket) => {
      const client = new ApiClient(atSocket(socket));
      const pieces: string[] = [];
      for await (const piece of (await client.open({ method: "GET", path: "/stream" })).body)
        pieces.push(String(piece));
      assert.equal(pieces.join(""), "onetwo");
      await assert.rejects(client.open({ method: "GET", path: "/" }), { code: "DOMAIN_NOT_FOUND" });
    });
  });
});
