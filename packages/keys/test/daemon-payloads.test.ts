/** Where xkeyd keeps payloads: in memory that nobody else can read, within quotas, and said loudly where that is not so. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { XenolithError } from "@xenolith/abi";
import { closeDescriptor, createSecretMemfd, PAGE_BYTES } from "@xenolith/sys";
import { KeyClient } from "../src/client/index.ts";
import { packageRoot, startTestDaemon, xkeyctl } from "./daemon-kit.ts";

const xkeyd = path.join(packageRoot, "bin/xkeyd.js");
const preload = path.join(import.meta.dirname, "without-secret-memory.js");

const withoutSecretMemory = ((): string | false => {
  try {
    closeDescriptor(createSecretMemfd(PAGE_BYTES));
    return false;
  } catch (error) {
    return `this kernel gives no secret memory: ${String(error)}`;
  }
})();

/** A daemon in a process of its own, which ends with this. */
class Daemon implements AsyncDisposable {
  readonly directory = mkdtempSync(path.join(tmpdir(), "xkeyd-payloads-"));
  readonly socket = path.join(this.directory, "keys.sock");
  readonly child: ChildProcess;
  log = "";

  constructor(words: readonly string[], flags: readonly string[] = []) {
    const own = ["--socket", this.socket, "--metrics", path.join(this.directory, "metrics.sock")];
    this.child = spawn(process.execPath, [...flags, xkeyd, ...own, ...words], { stdio: ["ignore", "ignore", "pipe"] });
    this.child.stderr!.on("data", (piece: Buffer) => (this.log += piece.toString()));
  }

  async serving(): Promise<void> {
    while (!this.log.includes('"serving"') && this.child.exitCode === null) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.equal(this.child.exitCode, null, this.log);
  }

  /** Lines of its metrics. */
  async metrics(): Promise<readonly string[]> {
    const socketPath = path.join(this.directory, "metrics.sock");
    const text = await new Promise<string>((resolve, reject) => {
      const asked = request({ socketPath, path: "/metrics" }, (response) => {
        let body = "";
        response.on("data", (piece: Buffer) => (body += piece.toString())).on("end", () => resolve(body));
      });
      asked.on("error", reject).end();
    });
    return text.split("\n");
  }

  /** How often these bytes are in its memory, as far as it can be read. */
  countOf(marker: Uint8Array): number {
    const memory = openSync(`/proc/${this.child.pid}/mem`, "r");
    let count = 0;
    for (const line of readFileSync(`/proc/${this.child.pid}/maps`, "latin1").split("\n")) {
      const [, low, high] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? [];
      if (low === undefined || high === undefined) continue;
      const bytes = Buffer.alloc(Number.parseInt(high, 16) - Number.parseInt(low, 16));
      try {
        readSync(memory, bytes, 0, bytes.length, Number.parseInt(low, 16));
      } catch {
        continue;
      }
      for (let at = bytes.indexOf(marker); at >= 0; at = bytes.indexOf(marker, at + 1)) count += 1;
    }
    closeSync(memory);
    return count;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, "exit");
    rmSync(this.directory, { recursive: true, force: true });
  }
}

describe("payloads of xkeyd", () => {
  for (const [words, isHidden] of [
    [[], true],
    [["--payloads", "off"], false],
  ] as const) {
    const title = isHidden
      ? "are nowhere in the memory of the daemon that can be read"
      : "are, as a control, with --payloads off";
    it(title, { skip: withoutSecretMemory }, async () => {
      await using daemon = new Daemon(words);
      await daemon.serving();
      const markers = ["user", "big_key", "logon"].map((type) => ({ type, bytes: randomBytes(40) }));
      {
        await using keys = await KeyClient.connect({ socket: daemon.socket });
        for (const { type, bytes } of markers) await keys.add(type, `service:${type}`, bytes, "user");
        // A second round of each, so that buffers for input and output have been used for something else.
        for (const { type, bytes } of markers) await keys.add(type, `service:${type}`, bytes, "user");
      }
      const counts = markers.map(({ bytes }) => daemon.countOf(bytes));
      const metrics = await daemon.metrics();
      if (isHidden) assert.deepEqual(counts, [0, 0, 0]);
      else for (const count of counts) assert.ok(count >= 1, String(counts));
      assert.ok(metrics.includes(`xkeyd_payload_memory{kind="${isHidden ? "secret" : "heap"}"} 1`), metrics.join("\n"));
      const owner = `xenolith_secrets_owner_slots{owner="uid:${process.getuid!()}"} 3`;
      assert.equal(metrics.includes(owner), isHidden, metrics.join("\n"));
    });
  }

  it("that helpers print are nowhere there either", { skip: withoutSecretMemory }, async () => {
    const directory = mkdtempSync(path.join(tmpdir(), "xkeyd-helpers-"));
    const markers = ["one", "two", "three"].map((name) => ({ name, bytes: randomBytes(40) }));
    const rules = markers.map(({ name, bytes }) => {
      const file = path.join(directory, name);
      writeFileSync(`${file}.secret`, bytes);
      writeFileSync(file, `#!/bin/sh\nexec cat ${file}.secret\n`, { mode: 0o755 });
      return `create user ${name} * |${file}\n`;
    });
    const config = path.join(directory, "rules.conf");
    writeFileSync(config, rules.join(""));
    const sizes: number[] = [];
    let counts: readonly number[];
    {
      await using daemon = new Daemon(["--config", config]);
      await daemon.serving();
      {
        await using keys = await KeyClient.connect({ socket: daemon.socket });
        for (const { name } of markers) {
          const key = await keys.request("user", name, { callout: "", destination: "user" });
          sizes.push(await key.read(Buffer.alloc(64)));
        }
      }
      counts = markers.map(({ bytes }) => daemon.countOf(bytes));
    }
    rmSync(directory, { recursive: true });
    assert.deepEqual(sizes, [40, 40, 40]);
    assert.deepEqual(counts, [0, 0, 0]);
  });

  it("are refused with EDQUOT to who has its quota, and to nobody else", async () => {
    await using test = await startTestDaemon(["--payload-quota", "256"]);
    const isRoot = process.getuid!() === 0;
    const add = async (name: string, size: number): Promise<string> => {
      const words = [xkeyctl, "padd", "user", name, "@u"];
      const { code, err } = await test.run(process.execPath, words, {
        input: "x".repeat(size),
        ...(isRoot ? { uid: 65_534 } : {}),
      });
      return code === 0 ? "done" : err;
    };
    const results = [await add("a", 40), await add("b", 200), await add("c", 100)];
    let own: string | undefined;
    if (isRoot) {
      await using keys = await KeyClient.connect({ socket: test.socket });
      own = (await keys.add("user", "mine", Buffer.alloc(4000), "user")) === undefined ? "none" : "done";
    }
    await test.daemon.close();
    assert.match(results[1]!, /quota exceeded/i);
    assert.deepEqual([results[0], results[2], own], ["done", "done", isRoot ? "done" : undefined]);
  });

  it("are in locked memory where the kernel has no other, which the log and the metrics say", async () => {
    await using daemon = new Daemon([], ["--import", preload]);
    await daemon.serving();
    await using keys = await KeyClient.connect({ socket: daemon.socket });
    await keys.add("user", "a", Buffer.from("payload"), "user");
    const metrics = await daemon.metrics();
    assert.match(
      daemon.log,
      /"level":"error","event":"payloads are in locked memory only[^"]*","remedy":"needs memfd_secret/,
    );
    for (const line of [
      'xkeyd_payload_memory{kind="locked"} 1',
      'xkeyd_payload_memory{kind="secret"} 0',
      "xenolith_secrets_hidden 0",
      "xenolith_secrets_degraded_slots 1",
    ]) {
      assert.ok(metrics.includes(line), `${line} in ${metrics.join("\n")}`);
    }
  });

  it("are in secret memory or nowhere with --payloads strict", async () => {
    await using daemon = new Daemon(["--payloads", "strict"], ["--import", preload]);
    const [code] = (await once(daemon.child, "close")) as [number];
    assert.equal(code, 1);
    assert.match(daemon.log, /^xkeyd: the kernel gives no secret memory: /);
  });

  it("that may not be locked at all keep the daemon from starting, and it says what to do", () => {
    const isRoot = process.getuid!() === 0;
    const { status, stderr } = spawnSync(
      "sh",
      [
        "-c",
        'ulimit -l 0; exec "$0" "$@"',
        process.execPath,
        xkeyd,
        "--socket",
        path.join(tmpdir(), "xkeyd-none.sock"),
      ],
      { encoding: "utf8", ...(isRoot ? { uid: 65_534, gid: 65_534 } : {}) },
    );
    assert.match(
      stderr,
      /^xkeyd: .*RLIMIT_MEMLOCK reached: 0\/0 bytes: raise it \(ulimit -l, LimitMEMLOCK=\), or .*--payloads off$/m,
    );
    assert.equal(status, 1);
  });

  it("have no room for sizes that are none", async () => {
    for (const words of [
      ["--payload-memory", "0"],
      ["--payload-memory", "2G"],
    ]) {
      await assert.rejects(
        startTestDaemon(words),
        (error) => error instanceof XenolithError && error.code === "INVALID_ARGUMENT",
      );
    }
  });
});
