/** xkeyd as a program: options, start and end, sockets handed over, metrics, the log, the units; and xkeyctl under its other name. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { KeyClient } from "../src/client/index.ts";
import { packageRoot, startTestDaemon, xkeyctl } from "./daemon-kit.ts";

const xkeyd = path.join(packageRoot, "bin/xkeyd.js");

interface Program extends Disposable {
  readonly directory: string;
  readonly socket: string;
  readonly child: ChildProcess;
  /** Lines of its log so far. */
  readonly lines: string[];
  serving(): Promise<void>;
}

/** Runs xkeyd with these options; `listener`, if given, is handed over as systemd does it. */
const runDaemon = (words: readonly string[], listener?: { readonly descriptor: number }): Program => {
  const directory = mkdtempSync(path.join(tmpdir(), "xkeyd-program-"));
  const socket = path.join(directory, "keys.sock");
  const all = [xkeyd, "--socket", socket, "--config", path.join(directory, "rules.conf"), ...words];
  const script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"';
  const child =
    listener === undefined
      ? spawn(process.execPath, all, { stdio: ["ignore", "pipe", "pipe"] })
      : spawn("/bin/sh", ["-c", script, process.execPath, ...all], {
          stdio: ["ignore", "pipe", "pipe", listener.descriptor],
        });
  const lines: string[] = [];
  child.stderr!.on("data", (piece: Buffer) => lines.push(...piece.toString().split("\n").filter(Boolean)));
  return {
    directory,
    socket,
    child,
    lines,
    serving: async () => {
      while (!lines.some((line) => line.includes('"serving"')) && child.exitCode === null) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      assert.equal(child.exitCode, null, lines.join("\n"));
    },
    [Symbol.dispose]: () => {
      child.kill("SIGKILL");
      rmSync(directory, { recursive: true, force: true });
    },
  };
};

const ended = async ({ child }: Program): Promise<number | null> => {
  if (child.exitCode === null) await once(child, "exit");
  return child.exitCode;
};

const descriptorOf = (server: Server): number => (server as unknown as { _handle: { fd: number } })._handle.fd;

const get = (socketPath: string, url: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const asked = request({ socketPath, path: url }, (response) => {
      let text = `${response.statusCode} `;
      response.on("data", (piece: Buffer) => (text += piece.toString())).on("end", () => resolve(text));
    });
    asked.on("error", reject).end();
  });

describe("xkeyd", () => {
  it("serves until SIGTERM, removes its socket and ends with 0", async () => {
    using program = runDaemon([]);
    await program.serving();
    {
      await using keys = await KeyClient.connect({ socket: program.socket });
      await keys.ring("user");
    }
    program.child.kill("SIGTERM");
    const code = await ended(program);
    assert.deepEqual([code, existsSync(program.socket)], [0, false]);
    assert.match(program.lines.at(-1)!, /"event":"ended"/);
  });

  it("does not take the place of another daemon, but that of one that was killed", async () => {
    using program = runDaemon([]);
    await program.serving();
    const second = spawnSync(process.execPath, [xkeyd, "--socket", program.socket], { encoding: "utf8" });
    program.child.kill("SIGKILL");
    await ended(program);
    const stays = existsSync(program.socket);
    const third = spawn(process.execPath, [xkeyd, "--socket", program.socket], { stdio: ["ignore", "ignore", "pipe"] });
    await once(third.stderr, "data");
    third.kill("SIGTERM");
    await once(third, "exit");
    assert.deepEqual(
      [second.status, second.stderr],
      [1, `xkeyd: listen at ${program.socket}: another daemon listens there\n`],
    );
    assert.deepEqual([stays, third.exitCode], [true, 0]);
  });

  it("serves on a socket that systemd listens on, and leaves it", async () => {
    const directory = mkdtempSync(path.join(tmpdir(), "xkeyd-listener-"));
    const socket = path.join(directory, "handed.sock");
    const listener = createServer().listen(socket);
    await once(listener, "listening");
    using program = runDaemon([], { descriptor: descriptorOf(listener) });
    await program.serving();
    // Both have the listening socket; only the daemon may answer.
    (listener as unknown as { _handle: { unref: () => void } })._handle.unref();
    const answered = spawnSync(process.execPath, [xkeyctl, "--socket", socket, "id", "@u"], { encoding: "utf8" });
    program.child.kill("SIGTERM");
    const code = await ended(program);
    const stays = existsSync(socket);
    listener.close();
    rmSync(directory, { recursive: true });
    assert.match(answered.stdout, /^\d+\n$/, answered.stderr);
    assert.deepEqual([code, stays, existsSync(program.socket)], [0, true, false]);
  });

  const wrong: readonly (readonly [words: string, message: string])[] = [
    ["--nosuch", "Unknown option '--nosuch'"],
    ["extra", "Unexpected argument 'extra'"],
    ["--socket-mode 9", "--socket-mode 9: not an octal mode"],
    ["--limit maxkeys", "--limit maxkeys: not one of maxkeys, maxbytes"],
    ["--limit nosuch=1", "--limit nosuch=1: not one of maxkeys, maxbytes"],
    ["--upcall-timeout x", "--upcall-timeout x: not 0 to 2147483 seconds"],
    ["--error-priority x", "--error-priority x: unknown"],
    ["--payloads some", "--payloads some: not strict, degraded or off"],
    ["--payload-memory 1T", "--payload-memory 1T: not a size such as 65536, 512K or 64M"],
    ["--payload-quota x", "--payload-quota x: not a size such as"],
    ["--log-level x", "--log-level x: not error, warning, info or debug"],
  ];
  for (const [words, message] of wrong) {
    it(`refuses ${words} with 2: ${message}`, () => {
      const { status, stderr } = spawnSync(process.execPath, [xkeyd, ...words.split(" ")], { encoding: "utf8" });
      assert.equal(status, 2);
      assert.ok(stderr.startsWith(`xkeyd: ${message}`), stderr);
    });
  }

  it("tells all of its options", () => {
    const { stdout } = spawnSync(process.execPath, [xkeyd, "--help"], { encoding: "utf8" });
    assert.match(stdout, /^Usage: xkeyd/);
    assert.equal(spawnSync(process.execPath, [xkeyd, "--version"], { encoding: "utf8" }).stdout, "xkeyd 0.1.0\n");
  });
});

describe("the log", () => {
  it("names every malformed rule at the start, and no description unless asked to", async () => {
    await using test = await startTestDaemon();
    const helper = test.script("helper", "#!/bin/sh\necho told about $2 >&2\nexit 1\n");
    const rules = `create user sec:* * ${helper} %k %d\ncreate user bad:*\n`;
    test.rules(rules);
    await using other = await startTestDaemon(["--log-descriptions"]);
    other.rules(rules);
    for (const { socket } of [test, other]) {
      await using keys = await KeyClient.connect({ socket });
      for (const name of ["sec:ret", "bad:name", "none"]) {
        await keys.request("user", name, { callout: "", destination: "user" }).catch(() => {});
      }
    }
    const config = path.join(test.directory, "request-key.conf");
    await using third = await startTestDaemon(["--config", config]);
    await Promise.all([test.daemon.close(), other.daemon.close(), third.daemon.close()]);
    const [text, told, start] = [test.log, other.log, third.log].map((lines) => lines.join(""));
    assert.doesNotMatch(text!, /sec:ret|bad:name/);
    assert.match(text!, /request-key.conf:2: Syntax error: a callout is missing/);
    assert.match(text!, /create: No matching action/);
    assert.match(told!, /"event":"helper says","key":\d+,"line":"told about sec:ret"/);
    assert.match(start!, /"event":"malformed rule","problem":"[^"]*:2: Syntax error: a callout is missing"/);
    for (const line of test.log) assert.ok(typeof JSON.parse(line) === "object");
  });
});

describe("metrics", () => {
  it("count operations, errors, helpers and keys, in the format of Prometheus", async () => {
    const directory = mkdtempSync(path.join(tmpdir(), "metrics-"));
    const place = path.join(directory, "metrics.sock");
    await using test = await startTestDaemon(["--metrics", place]);
    test.rules("create user debug:* * |/bin/cat\n");
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      await keys.request("user", "debug:a", { callout: "x", destination: "user" });
      await keys.request("user", "none").catch(() => {});
    }
    const text = await get(place, "/metrics");
    const other = await get(place, "/");
    await test.daemon.close();
    rmSync(directory, { recursive: true });
    for (const line of [
      'xkeyd_operations_total{operation="requestKey"} 2',
      'xkeyd_errors_total{error="ENOKEY"} 1',
      "xkeyd_upcalls_total 1",
      "xkeyd_connections_total 1",
      "# TYPE xkeyd_keys gauge",
    ]) {
      assert.ok(text.includes(`${line}\n`), `${line} in ${text}`);
    }
    assert.match(other, /^404 /);
  });
});

describe("xkeyctl", () => {
  it("is keyctl where a symbolic link calls it so", async () => {
    await using test = await startTestDaemon();
    const link = path.join(test.directory, "keyctl");
    symlinkSync(xkeyctl, link);
    const { out, code } = await test.run(link, ["rdescribe", "@u"]);
    await test.daemon.close();
    assert.deepEqual([out, code], [`keyring;${process.getuid!()};65534;1f3f0000;_uid.${process.getuid!()}\n`, 0]);
  });

  it("prints JSON where that is asked for, errors too", async () => {
    await using test = await startTestDaemon();
    const { serial } = JSON.parse((await test.keyctl(["--json", "add", "user", "a", "b", "@u"])).out) as {
      serial: number;
    };
    const shown = JSON.parse((await test.keyctl(["--json", "show", "@u"])).out) as object;
    const printed = JSON.parse((await test.keyctl(["--json", "print", "%user:a"])).out) as object;
    const failed = await test.keyctl(["--json", "search", "@u", "user", "none"]);
    await test.daemon.close();
    const uid = process.getuid!();
    const key = { serial, type: "user", uid, gid: process.getgid!(), permissions: "3f010000", description: "a" };
    assert.deepEqual((shown as { keys: object[] }).keys, [key]);
    assert.deepEqual(printed, { bytes: 1, base64: "Yg==" });
    assert.deepEqual(JSON.parse(failed.err), {
      error: "keyctl_search: Required key not available",
      call: "keyctl_search",
      errno: 126,
    });
    assert.equal(failed.code, 1);
  });

  it("passes on descriptions and data that are no UTF-8, byte for byte", async () => {
    await using test = await startTestDaemon();
    const script =
      'D=$(printf \'a\\377\\200\'); keyctl add user "$D" "$(printf \'\\376\')" @u >/dev/null; keyctl rdescribe %user:"$D"; keyctl pipe %user:"$D"';
    const { out } = await test.run("/bin/sh", ["-c", script]);
    await test.daemon.close();
    assert.match(out, /^user;\d+;\d+;3f010000;a\u00ff\u0080\n\u00fe$/);
  });

  it("without a daemon says where it looked", () => {
    const { status, stderr } = spawnSync(process.execPath, [xkeyctl, "--socket", "/nonexistent/s", "show"], {
      encoding: "utf8",
    });
    assert.equal(status, 1);
    assert.match(stderr, /the key daemon at \/nonexistent\/s: /);
  });

  it("waits for a daemon that is being started", async () => {
    const directory = mkdtempSync(path.join(tmpdir(), "xkeyctl-waits-"));
    const socket = path.join(directory, "keys.sock");
    const script =
      '"$0" "$1" --socket "$3" id @u & asked=$!; sleep 0.3; "$0" "$2" --socket "$3" & wait $asked; kill $!';
    const words = ["-c", script, process.execPath, xkeyctl, xkeyd, socket];
    const { stdout } = spawnSync("/bin/sh", words, { encoding: "utf8" });
    rmSync(directory, { recursive: true, force: true });
    assert.match(stdout, /^\d+\n$/);
  });

  it("draws the tree again when it has changed", async () => {
    await using test = await startTestDaemon();
    const child = spawn(process.execPath, [xkeyctl, "--socket", test.socket, "show", "--watch", "@u"]);
    let out = "";
    child.stdout.on("data", (piece: Buffer) => (out += piece.toString()));
    await once(child.stdout, "data");
    await test.keyctl(["add", "user", "new", "x", "@u"]);
    while (!out.includes("user: new")) await once(child.stdout, "data");
    child.kill();
    await test.daemon.close();
    assert.equal(out.match(/^Keyring$/gm)?.length, 2);
  });
});

describe("the systemd units", () => {
  const read = (name: string): string => readFileSync(path.join(packageRoot, "systemd", name), "utf8");

  it("start xkeyd with options that it has, and listen where its clients look", async () => {
    const help = spawnSync(process.execPath, [xkeyd, "--help"], { encoding: "utf8" }).stdout;
    const [, command = ""] = /^ExecStart=xkeyd (.*)$/m.exec(read("xkeyd.service")) ?? [];
    const options = command.split(" ").filter((word) => word.startsWith("--"));
    assert.ok(options.length > 0 && options.every((option) => help.includes(`  ${option} `)), command);
    const [, place = ""] = /^ListenStream=(.*)$/m.exec(read("xkeyd.socket")) ?? [];
    assert.ok(help.includes(place));
    assert.match(read("xkeyd.service"), /LoadCredentialEncrypted=xkeyd\.persistent:/);
  });

  const hasSystemd = spawnSync("systemd-analyze", ["--version"]).status === 0;
  it("are such that systemd understands them", { skip: !hasSystemd && "there is no systemd-analyze" }, () => {
    const directory = mkdtempSync(path.join(tmpdir(), "units-"));
    const service = path.join(directory, "xkeyd.service");
    // What verify cannot know here is where xkeyd is installed.
    writeFileSync(service, read("xkeyd.service").replace("ExecStart=xkeyd", `ExecStart=${process.execPath}`));
    writeFileSync(path.join(directory, "xkeyd.socket"), read("xkeyd.socket"));
    const { stderr, status } = spawnSync("systemd-analyze", ["verify", "--man=no", service], { encoding: "utf8" });
    rmSync(directory, { recursive: true });
    assert.doesNotMatch(stderr, /xkeyd\./);
    assert.equal(status, 0, stderr);
  });
});
