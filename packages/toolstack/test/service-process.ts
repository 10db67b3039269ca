/**
 * A service in a process of its own, and a client of its socket that keeps connections open.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Workbench } from "./xl-harness.ts";

const CHILD = path.join(import.meta.dirname, "service-child.js");

/** An answer. */
export interface SocketAnswer {
  readonly status: number;
  readonly text: string;
}

/** One service process. */
export class ServiceProcess implements AsyncDisposable {
  readonly socketPath: string;
  readonly stateDirectory: string;
  /** What it said first: `ready`, or why not. */
  readonly firstLine: string;
  readonly child: ChildProcess;
  readonly #agent: http.Agent;

  private constructor(child: ChildProcess, places: { socketPath: string; stateDirectory: string }, firstLine: string) {
    this.child = child;
    this.socketPath = places.socketPath;
    this.stateDirectory = places.stateDirectory;
    this.firstLine = firstLine;
    this.#agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  }

  /** Starts one in the directory of `bench`; `wrapper` are words before node's own, such as `prlimit`. */
  static async start(bench: Workbench, wrapper: readonly string[] = []): Promise<ServiceProcess> {
    const places = {
      socketPath: path.join(bench.directory, "xl.sock"),
      stateDirectory: path.join(bench.directory, "state"),
    };
    const words = [
      ...wrapper,
      process.execPath,
      CHILD,
      places.socketPath,
      places.stateDirectory,
      path.join(bench.directory, "cache"),
    ];
    const child = spawn(words[0]!, words.slice(1), { stdio: ["ignore", "pipe", "inherit"] });
    let firstLine = "";
    for await (const line of createInterface({ input: child.stdout })) {
      firstLine = line;
      break;
    }
    child.stdout.resume();
    return new ServiceProcess(child, places, firstLine);
  }

  /** Asks; fails when the service goes away before it has answered. */
  ask(method: string, target: string, body?: unknown): Promise<SocketAnswer> {
    return new Promise((resolve, reject) => {
      const { socketPath } = this;
      const request = http.request({ socketPath, agent: this.#agent, method, path: target }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (piece: string) => (text += piece));
        response.on("end", () => resolve({ status: response.statusCode!, text }));
        response.on("error", reject);
        response.on("aborted", () => reject(new Error("aborted")));
      });
      request.on("error", reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** Ends it with `signal`, and waits until it is gone. Returns its exit code; null after a signal. */
  async end(signal: NodeJS.Signals): Promise<number | null> {
    this.#agent.destroy();
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const gone = once(this.child, "exit");
      this.child.kill(signal);
      await gone;
    }
    return this.child.exitCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
  }
}
