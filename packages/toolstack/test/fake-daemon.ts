/**
 * A server that answers as a test says: for the client's own rules, which a real daemon cannot be made to break.
 */
import { once } from "node:events";
import http from "node:http";
import type { Workbench } from "./xl-harness.ts";

/** What was asked. */
export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body: string;
}

/** An answer: its body is sent as JSON, or `stream` writes what it likes. */
export interface Answer {
  readonly status?: number;
  readonly body?: unknown;
  readonly stream?: (response: http.ServerResponse) => void;
}

/** Serves at `socket` until it is disposed of, and remembers what was asked. */
export class FakeDaemon implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly socket: string;
  readonly #server: http.Server;

  private constructor(socket: string, answer: (asked: Asked) => Answer) {
    this.socket = socket;
    this.#server = http.createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const asked = { method: request.method!, path: request.url!, body: Buffer.concat(chunks).toString() };
        this.asked.push(asked);
        const { status = 200, body, stream } = answer(asked);
        if (stream === undefined) {
          response.writeHead(status, { "content-type": "application/json" });
          response.end(body === undefined ? "" : JSON.stringify(body));
        } else stream(response);
      });
    });
  }

  /** Starts one in the directory of a bench. */
  static async start(bench: Workbench, answer: (asked: Asked) => Answer): Promise<FakeDaemon> {
    const daemon = new FakeDaemon(`${bench.directory}/fake-${performance.now()}.sock`, answer);
    daemon.#server.listen(daemon.socket);
    await once(daemon.#server, "listening");
    return daemon;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}
