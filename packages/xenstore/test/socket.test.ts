import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { after, describe, it } from "node:test";
import { listenXenstore, XenstoreClient, XenstoreServer } from "../src/index.ts";
import { encodeMessage, joinStrings, MessageReader } from "../src/wire.ts";
import * as abi from "@xenolith/abi";

const directory = mkdtempSync(join(tmpdir(), "xenstore-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let sockets = 0;
const newPath = (): string => join(directory, `s${(sockets += 1)}`);

describe("the Unix socket", () => {
  it("serves the control domain, for its owner alone, and is gone after close", async () => {
    const path = newPath();
    const server = new XenstoreServer();
    const socket = await listenXenstore(server, path);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const client = await XenstoreClient.connect(path);
    await client.write("/a", "1");
    assert.equal(await client.read("/a"), "1");
    await socket.close();
    await socket.close();
    assert.equal(existsSync(path), false);
    assert.deepEqual(readdirSync(directory), []);
    await assert.rejects(client.read("/a"), { code: "HOST_CLOSED" });
    assert.equal(server.connectionCount, 0);
  });

  it("replaces the socket of a daemon that is gone, and refuses beside one that lives", async () => {
    const path = newPath();
    const left = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", left]);
    assert.equal(existsSync(path), true);
    const first = await listenXenstore(new XenstoreServer(), path);
    await assert.rejects(listenXenstore(new XenstoreServer(), path), { code: "SERVICE_RUNNING" });
    const client = await XenstoreClient.connect(path);
    assert.deepEqual(await client.directory("/"), ["local", "tool"]);
    client.close();
    await first.close();
  });

  it("does not touch what is not a socket, nor a socket that took its place", async () => {
    const file = newPath();
    writeFileSync(file, "precious");
    await assert.rejects(listenXenstore(new XenstoreServer(), file), { code: "SYSTEM_CALL" });
    await assert.rejects(listenXenstore(new XenstoreServer(), join(directory, "missing", "s")), {
      code: "SYSTEM_CALL",
    });
    const path = newPath();
    const socket = await listenXenstore(new XenstoreServer(), path);
    rmSync(path);
    const other = createServer().listen(path);
    await once(other, "listening");
    await socket.close();
    assert.equal(existsSync(path), true);
    other.close();
  });

  it("connecting where nobody listens, or with a signal that fired, is told apart", async () => {
    await assert.rejects(XenstoreClient.connect(newPath()), { code: "SYSTEM_CALL" });
    await assert.rejects(XenstoreClient.connect(newPath(), { signal: AbortSignal.abort() }), { code: "ABORTED" });
  });

  it("a signal for connecting does not end the connection later", async () => {
    const path = newPath();
    await using _socket = await listenXenstore(new XenstoreServer(), path);
    const controller = new AbortController();
    const client = await XenstoreClient.connect(path, { signal: controller.signal });
    controller.abort();
    await new Promise(setImmediate);
    assert.equal(await client.read("/"), "");
    client.close();
  });

  it("a payload above 4096 bytes cuts the connection, and the others stay", async () => {
    const path = newPath();
    await using socket = await listenXenstore(new XenstoreServer(), path);
    assert.equal(socket.path, path);
    const other = await XenstoreClient.connect(path);
    const hostile = createConnection(path);
    const head = new Uint8Array(16);
    new DataView(head.buffer).setUint32(12, 4097, true);
    hostile.write(head);
    hostile.resume();
    await once(hostile, "close");
    await other.write("/a", "1");
    assert.equal(await other.read("/a"), "1");
    other.close();
  });

  it("messages may come a byte at a time", async () => {
    const path = newPath();
    await using _socket = await listenXenstore(new XenstoreServer(), path);
    const peer = createConnection(path).setNoDelay(true);
    const request = encodeMessage({
      type: abi.XS_DIRECTORY,
      requestId: 5,
      transactionId: 0,
      payload: joinStrings(["/"]),
    });
    for (const byte of request) {
      peer.write(Uint8Array.of(byte));
      await new Promise(setImmediate);
    }
    const [chunk] = (await once(peer, "data")) as [Buffer];
    const reader = new MessageReader();
    for (const byte of chunk) {
      reader.room[0] = byte;
      reader.advance(1);
    }
    assert.equal(Buffer.from(reader.take()!.payload).toString(), "local\0tool\0");
    peer.destroy();
  });

  it("a client that does not read is not read from, and the others are served", async () => {
    const path = newPath();
    const server = new XenstoreServer();
    await using _socket = await listenXenstore(server, path);
    const other = await XenstoreClient.connect(path);
    await other.write("/big", "x".repeat(4000));
    const deaf = createConnection(path);
    deaf.pause();
    const request = encodeMessage({
      type: abi.XS_READ,
      requestId: 1,
      transactionId: 0,
      payload: joinStrings(["/big"]),
    });
    const many = Buffer.concat(Array.from({ length: 1000 }, () => request));
    let accepted = true;
    for (let turn = 0; turn < 200 && accepted; turn += 1) {
      accepted = deaf.write(many);
      await new Promise(setImmediate);
    }
    for (let turn = 0; turn < 50; turn += 1) assert.equal((await other.read("/big")).length, 4000);
    assert.equal(accepted, false, "the daemon stopped reading");
    deaf.destroy();
    other.close();
  });
});
