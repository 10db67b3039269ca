/** A daemon in this process, over a real socket in a directory of its own, and programs that talk to it. */
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { KeyConnection } from "../src/client/index.ts";
import {
  loadPeerCredentials,
  loadQuickLaunch,
  parseDaemonOptions,
  type RunningDaemon,
  startDaemon,
} from "../src/daemon/index.ts";

/** Where this package is. */
export const packageRoot = path.join(import.meta.dirname, "../..");
/** The command line, as a script for node. */
export const xkeyctl = path.join(packageRoot, "bin/xkeyctl.js");

/** What a program printed, and how it ended. */
export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** A daemon under test. */
export interface TestDaemon extends AsyncDisposable {
  readonly daemon: RunningDaemon;
  readonly directory: string;
  readonly socket: string;
  readonly log: string[];
  connect(): Promise<KeyConnection>;
  /** Runs xkeyctl; the text, if any, is its standard input. */
  keyctl(words: readonly string[], input?: string): Promise<Ended>;
  /** Runs a program with the daemon's socket in its environment, and keyctl in its path. */
  run(
    file: string,
    words: readonly string[],
    options?: { readonly input?: string; readonly uid?: number },
  ): Promise<Ended>;
  /** Puts an executable script into the directory; returns its path. */
  script(name: string, text: string): string;
  /** Replaces the rules. */
  rules(text: string): void;
}

/** Starts a daemon with these options besides those of the test itself. */
export const startTestDaemon = async (words: readonly string[] = []): Promise<TestDaemon> => {
  const directory = mkdtempSync(path.join(tmpdir(), "xkeyd-"));
  chmodSync(directory, 0o755);
  const socket = path.join(directory, "keys.sock");
  const config = path.join(directory, "request-key.conf");
  const own = ["--socket", socket, "--socket-mode", "666", "--config", config, "--log-level", "debug"];
  const options = parseDaemonOptions([...own, ...words], {}, 0);
  if (typeof options === "string") throw new Error(options);
  const log: string[] = [];
  const daemon = await startDaemon(options, {
    environment: {},
    peerCredentials: await loadPeerCredentials(),
    launch: await loadQuickLaunch(),
    write: (line) => void log.push(line),
  });
  const environment = {
    ...process.env,
    XKEYD_SOCKET: socket,
    PATH: `${path.join(packageRoot, "bin/for-helpers")}:${process.env["PATH"]}:${path.dirname(process.execPath)}`,
  };
  const run: TestDaemon["run"] = (file, given, { input, uid } = {}) =>
    new Promise((resolve, reject) => {
      const ids = uid === undefined ? {} : { uid, gid: uid };
      const child = spawn(file, given, { env: environment, cwd: "/", stdio: "pipe", ...ids });
      const out: Buffer[] = [];
      const err: Buffer[] = [];
      child.stdout.on("data", (piece: Buffer) => out.push(piece));
      child.stderr.on("data", (piece: Buffer) => err.push(piece));
      child.stdin.on("error", () => {});
      child.stdin.end(input);
      child.on("error", reject);
      const text = (pieces: readonly Buffer[]): string => Buffer.concat(pieces).toString("latin1");
      child.on("close", (code) => resolve({ code, out: text(out), err: text(err) }));
    });
  return {
    daemon,
    directory,
    socket,
    log,
    connect: () => KeyConnection.connect(socket),
    run,
    keyctl: (given, input) => run(process.execPath, [xkeyctl, ...given], input === undefined ? {} : { input }),
    script: (name, text) => {
      const file = path.join(directory, name);
      writeFileSync(file, text);
      chmodSync(file, 0o755);
      return file;
    },
    rules: (text) => writeFileSync(config, text),
    [Symbol.asyncDispose]: async () => {
      await daemon.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
};

/** What the service itself finds wrong, when nobody is connected any more. */
export const findingsOf = async ({ daemon }: TestDaemon): Promise<readonly string[]> => {
  daemon.registry.sweep();
  return await Promise.resolve(daemon.service.audit());
};
