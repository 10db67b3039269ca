/** Clients that do not keep to the protocol, do not read, or go away. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import path from "node:path";
import { describe, it } from "node:test";
import { FrameInput } from "../src/client/frame-input.ts";
import { FrameOutput } from "../src/client/frame-output.ts";
import { KeyClient, KeyConnection } from "../src/client/index.ts";
import { FRAME_BYTES_MAX, NO_REQUEST, operations, PROTOCOL_MAGIC, PROTOCOL_VERSION } from "../src/client/protocol.ts";
import { findingsOf, packageRoot, startTestDaemon, type TestDaemon } from "./daemon-kit.ts";
import { Random } from "./random.ts";

const open = async (test: TestDaemon): Promise<Socket> => {
  const socket = createConnection(test.socket);
  await once(socket, "connect");
  socket.on("error", () => {});
  return socket;
};

const greeting = (): Buffer => {
  const output = new FrameOutput();
  output.begin(1, operations.hello.code);
  output.word(PROTOCOL_MAGIC);
  output.word(PROTOCOL_VERSION);
  output.end();
  return Buffer.from(output.take());
};

/** Everything that the daemon sends until it hangs up: result and text of each frame, by request id. */
const readAll = async (socket: Socket): Promise<[id: number, result: number, text: string][]> => {
  const input = new FrameInput();
  const replies: [number, number, string][] = [];
  socket.on("data", (piece: Buffer) => {
    input.push(piece);
    for (let frame = input.next(); frame !== undefined && frame !== "broken"; frame = input.next()) {
      replies.push([frame.readUInt32LE(0), frame.readInt32LE(4), frame.toString("latin1", 8)]);
    }
  });
  await once(socket, "close");
  return replies;
};

const words = (...values: readonly number[]): Buffer => {
  const buffer = Buffer.alloc(values.length * 4);
  for (const [at, value] of values.entries()) buffer.writeUInt32LE(value >>> 0, at * 4);
  return buffer;
};

const works = async (test: TestDaemon): Promise<boolean> => {
  await using keys = await KeyClient.connect({ socket: test.socket });
  return (await keys.connection.result("getKeyringId", [-4, 0])) > 0;
};

describe("a client that breaks the protocol is told how, and cut off", () => {
  const hello = greeting();
  const {
    describe: { code: describeCode },
    addKey: { code: addCode },
    cancel: { code: cancelCode },
  } = operations;
  const specification: readonly (readonly [what: string, sent: Buffer, reason: string])[] = [
    ["a request of the web", Buffer.from("GET / HTTP/1.1\r\n\r\n"), "a frame of impossible length"],
    ["an operation before the greeting", words(16, 1, describeCode, -3, 0), "not greeted"],
    ["another magic number", words(16, 1, 0, 7, PROTOCOL_VERSION), "not greeted"],
    ["a second greeting", Buffer.concat([hello, hello]), "greeted twice"],
    ["a frame of 4 bytes", Buffer.concat([hello, words(4, 1)]), "a frame of impossible length"],
    [
      "a frame over the limit",
      Buffer.concat([hello, words(FRAME_BYTES_MAX + 1, 1, 2)]),
      "a frame of impossible length",
    ],
    ["arguments that are missing", Buffer.concat([hello, words(12, 2, describeCode, -3)]), "malformed describe"],
    ["arguments too many", Buffer.concat([hello, words(20, 2, describeCode, -3, 0, 0)]), "malformed describe"],
    ["a text longer than its frame", Buffer.concat([hello, words(16, 2, addCode, 100, 0)]), "malformed addKey"],
    ["half a word", Buffer.concat([hello, words(10, 2, describeCode), Buffer.alloc(2)]), "malformed describe"],
    ["a malformed cancel", Buffer.concat([hello, words(8, 2, cancelCode)]), "malformed cancel"],
  ];
  for (const [what, sent, reason] of specification) {
    it(`${what}: ${reason}`, async () => {
      await using test = await startTestDaemon();
      const socket = await open(test);
      const all = readAll(socket);
      socket.write(sent);
      const last = (await all).at(-1);
      const isWorking = await works(test);
      await test.daemon.close();
      assert.deepEqual(last, [NO_REQUEST, -22, reason]);
      assert.ok(isWorking);
      assert.ok(test.log.some((line) => line.includes(`"reason":"${reason}"`)));
    });
  }

  it("one of another version learns which the daemon speaks", async () => {
    await using test = await startTestDaemon();
    const socket = await open(test);
    const all = readAll(socket);
    socket.write(words(16, 1, 0, PROTOCOL_MAGIC, PROTOCOL_VERSION + 1));
    const replies = await all;
    await test.daemon.close();
    assert.deepEqual(replies, [[1, PROTOCOL_VERSION, ""]]);
  });

  it("unknown operations are refused and nothing else", async () => {
    await using test = await startTestDaemon();
    const socket = await open(test);
    const all = readAll(socket);
    socket.write(Buffer.concat([greeting(), words(8, 2, 99), words(8, 3, 0xffff_ffff), words(12, 4, 22)]));
    socket.end();
    const replies = await all;
    await test.daemon.close();
    assert.deepEqual(replies.slice(0, 3), [
      [1, PROTOCOL_VERSION, ""],
      [2, -95, ""],
      [3, -95, ""],
    ]);
  });
});

describe("a client", () => {
  it("that sends its frames byte by byte is served as any other", async () => {
    await using test = await startTestDaemon();
    const socket = await open(test);
    const all = readAll(socket);
    for (const byte of Buffer.concat([greeting(), words(16, 2, operations.getKeyringId.code, -4, 0)])) {
      socket.write(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    socket.end();
    const replies = await all;
    await test.daemon.close();
    assert.deepEqual(
      replies.map(([id, result]) => [id, result > 0]),
      [
        [1, true],
        [2, true],
      ],
    );
  });

  it("that does not read is not read from either: the daemon holds little for it", async () => {
    await using test = await startTestDaemon(["--limit", "maxbytes=100000"]);
    const socket = await open(test);
    socket.pause();
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      await keys.add("user", "large", Buffer.alloc(30_000, 1), "user");
      const key = await keys.request("user", "large");
      socket.write(greeting());
      const read = words(16, 9, operations.read.code, key.serial, 32_768);
      for (let count = 0; count < 20_000; count += 1) socket.write(read);
      await keys.list("user");
      for (let turn = 0; turn < 50; turn += 1) await keys.list("user");
    }
    const { sentBytes } = test.daemon.metrics;
    socket.destroy();
    const isWorking = await works(test);
    await test.daemon.close();
    assert.ok(sentBytes < 4 * 2 ** 20, `${sentBytes} bytes were sent to a client that does not read`);
    assert.ok(isWorking);
  });

  const skip = process.getuid!() !== 0 && "only user 0 can become another";
  it("that floods the daemon with connections is turned away, and others are not", { skip }, async () => {
    await using test = await startTestDaemon();
    // One after the other; where too many wait to be accepted it fails, and is tried again.
    const flood = `let count = 0;
      const next = () => {
        if (count === 600) return;
        const again = () => setTimeout(next, 5);
        const socket = require("node:net").connect(process.env.XKEYD_SOCKET).on("error", () => {});
        socket.once("error", again).once("connect", () => {
          count += 1;
          socket.off("error", again);
          next();
        });
      };
      next();`;
    const flooding = test.run(process.execPath, ["-e", flood], { uid: 12_345 });
    const { metrics } = test.daemon;
    while (metrics.connections + metrics.refusedConnections < 600)
      await new Promise((resolve) => setTimeout(resolve, 10));
    const { connections, refusedConnections } = metrics;
    const isWorking = await works(test);
    await test.daemon.close();
    await flooding;
    assert.deepEqual([connections, refusedConnections], [512, 88]);
    assert.ok(isWorking);
  });

  it("that goes away while its requests wait is forgotten; the helper goes on", async () => {
    await using test = await startTestDaemon();
    const slow = test.script("slow", "#!/bin/sh\nsleep 1\nexec keyctl instantiate $1 built 0\n");
    test.rules(`create user slow:* * ${slow} %k\n`);
    const first = await KeyConnection.connect(test.socket);
    void first.call("requestKey", ["user", "slow:it", "", -4]).catch(() => {});
    const second = await KeyConnection.connect(test.socket);
    await second.result("getKeyringId", [-4, 0]);
    void second.call("requestKey", ["user", "slow:it", "", -4]).catch(() => {});
    await second.result("getKeyringId", [-4, 0]);
    const waiting = test.daemon.service.statistics().waits;
    await second.close();
    await first.close();
    let built: string;
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      const bytes = Buffer.alloc(16);
      const key = await keys.request("user", "slow:it", { callout: "" });
      built = bytes.toString("latin1", 0, await key.read(bytes));
    }
    // The first requester's own wait is over when the helper has ended, a little after the key is built.
    while (test.daemon.service.statistics().waits > 0) await new Promise((resolve) => setTimeout(resolve, 10));
    const findings = await findingsOf(test);
    const { upcallsTotal } = test.daemon.metrics;
    await test.daemon.close();
    assert.ok(waiting >= 1);
    assert.deepEqual([built, upcallsTotal], ["built", 1]);
    assert.deepEqual(findings, []);
  });

  it("that aborts a wait gets its rejection at once, and the connection goes on", async () => {
    await using test = await startTestDaemon();
    const slow = test.script("slow", "#!/bin/sh\nsleep 1\nexec keyctl instantiate $1 built 0\n");
    test.rules(`create user slow:* * ${slow} %k\n`);
    let reason: unknown;
    let serial: number;
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      const abort = new AbortController();
      const request = keys.request("user", "slow:it", { callout: "", destination: "user", signal: abort.signal });
      await keys.list("user");
      abort.abort();
      reason = await request.catch((error: unknown) => error);
      ({ serial } = await keys.request("user", "slow:it", { callout: "" }));
    }
    await test.daemon.close();
    assert.equal((reason as { code?: string }).code, "ABORTED");
    assert.ok(serial > 0);
  });
});

describe("random bytes", () => {
  const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
  it(`do no harm, greeted or not (seed ${seed})`, async () => {
    const numbers = new Random(seed);
    const random = (limit: number): number => numbers.below(limit);
    await using test = await startTestDaemon();
    for (let round = 0; round < 150; round += 1) {
      const socket = await open(test);
      const all = readAll(socket);
      if (random(4) > 0) socket.write(greeting());
      for (let frames = random(20); frames > 0; frames -= 1) {
        const length = random(3) === 0 ? random(64) : 8 + 4 * random(8);
        const frame = Buffer.alloc(4 + length);
        for (let at = 0; at < frame.length; at += 1)
          frame[at] = random(3) === 0 ? random(256) : random(5) === 0 ? 255 : 0;
        if (random(10) > 0) frame.writeUInt32LE(length, 0);
        if (random(10) > 0 && length >= 8) frame.writeUInt32LE(random(36), 8);
        socket.write(frame);
      }
      if (random(2) === 0) socket.end();
      else setTimeout(() => socket.destroy(), random(4));
      await all;
    }
    const isWorking = await works(test);
    const findings = await findingsOf(test);
    await test.daemon.close();
    assert.ok(isWorking);
    assert.deepEqual(findings, []);
  });
});

describe("a client that dies", () => {
  const framed = (...parts: readonly Buffer[]): Buffer => {
    const frame = Buffer.concat([words(0), ...parts]);
    frame.writeUInt32LE(frame.length - 4, 0);
    return frame;
  };
  const text = (content: string): Buffer => Buffer.concat([words(content.length), Buffer.from(content)]);
  const requestFor = (description: string, id = 2): Buffer =>
    framed(words(id, operations.requestKey.code), text("user"), text(description), text(""), words(-4));
  const request = requestFor("a:it");
  const addition = framed(
    words(2, operations.addKey.code),
    text("user"),
    text("large"),
    text("x".repeat(30_000)),
    words(-4),
  );
  const steps: readonly (readonly [when: string, sent: Buffer])[] = [
    ["before it said anything", Buffer.alloc(0)],
    ["within its greeting", greeting().subarray(0, 7)],
    ["after its greeting", greeting()],
    ["within its request", Buffer.concat([greeting(), request.subarray(0, request.length - 3)])],
    ["while its key is built", Buffer.concat([greeting(), request])],
    ["while two of its requests wait for one key", Buffer.concat([greeting(), request, requestFor("a:it", 3)])],
    ["while the helper of its key asks for another", Buffer.concat([greeting(), requestFor("nested:it")])],
    ["within a payload", Buffer.concat([greeting(), addition.subarray(0, 20_000)])],
    [
      "before it reads an answer",
      Buffer.concat([greeting(), addition, words(16, 3, operations.getKeyringId.code, -4, 0)]),
    ],
  ];
  for (const [when, sent] of steps) {
    it(`${when} leaves nothing behind, and the next one is served`, async () => {
      await using test = await startTestDaemon();
      const helper = test.script("helper", "#!/bin/sh\nsleep 0.3\nexec keyctl instantiate $1 built 0\n");
      const nesting = test.script(
        "nesting",
        "#!/bin/sh\nkeyctl request2 user a:inner x @s >/dev/null\nexec keyctl instantiate $1 built 0\n",
      );
      test.rules(`create user a:* * ${helper} %k\ncreate user nested:* * ${nesting} %k\n`);
      const code = `const socket = require("node:net").connect(process.env.XKEYD_SOCKET);
        socket.write(Buffer.from("${sent.toString("hex")}", "hex"), () => setTimeout(() => process.kill(process.pid, "SIGKILL"), 50));`;
      await test.run(process.execPath, ["-e", code]);
      let built: string;
      {
        await using keys = await KeyClient.connect({ socket: test.socket });
        const bytes = Buffer.alloc(16);
        const key = await keys.request("user", "a:it", { callout: "", destination: "user" });
        built = bytes.toString("latin1", 0, await key.read(bytes));
      }
      const isBusy = (): boolean => {
        const { connections, upcalls } = test.daemon.metrics;
        return test.daemon.service.statistics().waits + connections + upcalls > 0;
      };
      while (isBusy()) await new Promise((resolve) => setTimeout(resolve, 10));
      test.daemon.registry.sweep();
      const findings = await findingsOf(test);
      const { processes } = test.daemon.service.statistics();
      await test.daemon.close();
      assert.equal(built, "built");
      // This process is still known.
      assert.equal(processes, 1);
      assert.deepEqual(findings, []);
    });
  }
});

describe("a machine without room for another process", () => {
  const USER = 54_321;
  const xkeyd = path.join(packageRoot, "bin/xkeyd.js");
  const skip = process.getuid!() !== 0 && "only user 0 can become another";
  it("the request is answered with EAGAIN, the next ones with ENOKEY, and all else goes on", { skip }, async () => {
    await using test = await startTestDaemon();
    test.rules("create user a:* * |/bin/cat\n");
    const { directory } = test;
    const own = `${directory}/own/keys.sock`;
    await test.run("/bin/sh", ["-c", `mkdir ${directory}/own; chown ${USER} ${directory}/own`]);
    // The daemon's user may have 80 processes and threads, and soon has as many others.
    const limited = [
      "--nproc=80:80",
      "setpriv",
      `--reuid=${USER}`,
      `--regid=${USER}`,
      "--clear-groups",
      process.execPath,
    ];
    const options = ["--socket", own, "--config", `${directory}/request-key.conf`];
    const daemon = spawn("prlimit", [...limited, xkeyd, ...options], { stdio: ["ignore", "ignore", "pipe"] });
    await once(daemon.stderr, "data");
    const others = Array.from({ length: 80 }, () =>
      spawn("sleep", ["1000"], { uid: USER, gid: USER, stdio: "ignore" }),
    );
    const client = `const { KeyConnection } = await import("${new URL("../src/client/index.js", import.meta.url).href}");
      const keys = await KeyConnection.connect("${own}");
      const ask = () => keys.result("requestKey", ["user", "a:it", "told", -4]);
      console.log(await ask(), await ask(), await keys.result("getKeyringId", [-4, 0]) > 0);
      await keys.close();`;
    const { out } = await test.run(process.execPath, ["--input-type=module", "-e", client], {});
    for (const other of others) other.kill();
    daemon.kill();
    await once(daemon, "exit");
    await test.daemon.close();
    assert.equal(out, "-11 -126 true\n");
  });
});
