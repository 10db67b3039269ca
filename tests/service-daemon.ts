/**
 * `xl daemon` in a process of its own, for campaigns that kill it: everything that it prints is kept, and an end that
 * nobody asked for is told with it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import http from "node:http";
import path from "node:path";

const XL = path.join(import.meta.dirname, "../../packages/toolstack/bin/xl.js");
const PRINTED_LENGTH_MAX = 64 * 1024;
const SHOWN_LENGTH_MAX = 8192;
const ERROR_LEVEL = '"level":50';
const READY = "the daemon answers at";

/** An answer of the API; its body is undefined when it was empty. */
export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** The connection ended before the answer was there: what was asked for may have happened or not. */
export class Unanswered extends Error {}

/** Where a daemon runs and how much memory it governs. */
export interface DaemonPlace {
  readonly directory: string;
  readonly memoryBytes: number;
}

/** One daemon process. */
export class ServiceDaemon {
  /** Its end: undefined while it lives. */
  end: string | undefined;
  readonly ended: Promise<void>;
  /** Whether it answers. False when it ended before. */
  readonly ready: Promise<boolean>;
  readonly #child: ChildProcess;
  readonly #socketPath: string;
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
  #printed = "";
  #isMeant = false;

  constructor({ directory, memoryBytes }: DaemonPlace) {
    this.#socketPath = path.join(directory, "xl.sock");
    const words = ["daemon", "--socket", this.#socketPath, "--state", path.join(directory, "state")];
    const child = spawn(
      process.execPath,
      ["--enable-source-maps", XL, ...words, "--memory", `${memoryBytes / 2 ** 20}M`],
      {
        env: { ...process.env, XDG_CACHE_HOME: path.join(directory, "cache") },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    this.#child = child;
    this.ended = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        this.end = signal ?? String(code);
        this.#agent.destroy();
        resolve();
      });
    });
    const answers = new Promise<boolean>((resolve) => {
      const hear = (chunk: unknown): void => {
        this.#printed = (this.#printed + String(chunk)).slice(-PRINTED_LENGTH_MAX);
        if (this.#printed.includes(READY)) resolve(true);
      };
      child.stdout.on("data", hear);
      child.stderr.on("data", hear);
    });
    this.ready = Promise.race([answers, this.ended.then(() => false)]);
  }

  /** What it ended with and printed last, when nobody had asked it to end. */
  get surprise(): string | undefined {
    if (this.end === undefined || this.#isMeant) return undefined;
    return `the daemon ended with ${this.end}: ${this.printed}`;
  }

  /** The last of what it printed. */
  get printed(): string {
    return this.#printed.slice(-SHOWN_LENGTH_MAX);
  }

  /** What it logged of its own failures, the latest. */
  get errors(): string {
    const lines = this.#printed.split("\n").filter((line) => line.includes(ERROR_LEVEL));
    return lines.slice(-3).join("\n");
  }

  /** Ends it by a signal. */
  async kill(signal: NodeJS.Signals): Promise<string> {
    this.#isMeant = this.end === undefined;
    this.#child.kill(signal);
    await this.ended;
    return this.end!;
  }

  /** Asks. Throws `Unanswered`. */
  ask(method: string, target: string, body?: unknown): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const fail = (cause: Error): void => reject(new Unanswered(`${method} ${target}: ${cause.message}`, { cause }));
      const options = { socketPath: this.#socketPath, agent: this.#agent, method, path: target };
      const request = http.request(options, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (piece: string) => (text += piece));
        response.on("error", fail);
        response.on("end", () => {
          resolve({ status: response.statusCode!, body: text === "" ? undefined : JSON.parse(text) });
        });
      });
      request.on("error", fail);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}
