import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { once } from "node:events";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { listenAtPath } from "../src/unix-socket.ts";

const directory = mkdtempSync(join(tmpdir(), "xenolith-socket-"));
after(() => rmSync(directory, { recursive: true, force: true }));

describe("listening at a path", () => {
  for (const mode of [0o600, 0o666]) {
    it(`makes a socket with mode ${mode.toString(8)}, leaves nothing beside it, and removes it`, async () => {
      const place = mkdtempSync(join(directory, "made-"));
      const path = join(place, "socket");
      const server = createServer();
      const remove = await listenAtPath(server, path, mode);
      assert.equal(statSync(path).mode & 0o777, mode);
      assert.deepEqual(readdirSync(place), ["socket"]);
      await remove();
      assert.equal(existsSync(path), false);
      server.close();
    });
  }

  it("replaces what a daemon that is gone left, and refuses beside one that lives", async () => {
    const path = join(directory, "left");
    const left = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", left]);
    assert.equal(existsSync(path), true);
    const first = createServer();
    const second = createServer();
    const remove = await listenAtPath(first, path, 0o600);
    await assert.rejects(listenAtPath(second, path, 0o600), {
      code: "SERVICE_RUNNING",
      message: `listen at ${path}: another daemon listens there`,
    });
    assert.deepEqual([first.listening, second.listening], [true, false]);
    await remove();
    first.close();
  });

  it("touches neither what is no socket nor a socket that took its place", async () => {
    const file = join(directory, "file");
    writeFileSync(file, "precious");
    await assert.rejects(listenAtPath(createServer(), file, 0o600), { code: "SYSTEM_CALL" });
    assert.equal(readFileSync(file, "utf8"), "precious");
    const [path, other] = [join(directory, "first"), join(directory, "second")];
    const servers = [createServer(), createServer()] as const;
    const remove = await listenAtPath(servers[0], path, 0o600);
    await listenAtPath(servers[1], other, 0o600);
    renameSync(other, path);
    await remove();
    assert.equal(existsSync(path), true);
    for (const server of servers) server.close();
  });

  it("says why it cannot, and leaves nothing behind", async () => {
    const below = join(directory, "file", "socket");
    await assert.rejects(listenAtPath(createServer(), below, 0o600), { code: "SYSTEM_CALL", message: /listen at .*E/ });
    const nowhere = join(directory, "missing", "socket");
    await assert.rejects(listenAtPath(createServer(), nowhere, 0o600), { code: "SYSTEM_CALL", message: /ENOENT/ });
    assert.deepEqual(
      readdirSync(directory).filter((name) => name.startsWith(".")),
      [],
    );
  });

  it("takes a path of 107 bytes and refuses one of 108, which no client could name", async () => {
    const path = join(directory, "x".repeat(106 - directory.length));
    const server = createServer();
    const remove = await listenAtPath(server, path, 0o600);
    const client = createConnection(path);
    await once(client, "connect");
    client.destroy();
    await remove();
    server.close();
    await assert.rejects(listenAtPath(createServer(), `${path}x`, 0o600), {
      code: "SYSTEM_CALL",
      message: `listen at ${path}x: the path has 108 bytes, that of a socket has at most 107`,
    });
  });
});
