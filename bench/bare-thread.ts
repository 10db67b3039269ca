/** Threads for floors: Workers that call functions of bench modules. */
import { MessagePort, Worker } from "node:worker_threads";
import type { BareCall } from "./bare-worker.ts";

/** One such thread. Calls run one after the other. */
export class BareThread {
  readonly #worker = new Worker(new URL("bare-worker.js", import.meta.url));

  /** Calls `name` of the bench module `module` (a file of this directory) in the thread. */
  async call<T>(module: string, name: string, ...values: readonly unknown[]): Promise<T> {
    const answer = new Promise<T>((resolve, reject) => {
      this.#worker.once("message", resolve);
      this.#worker.once("error", reject);
    });
    const call: BareCall = { module: new URL(module, import.meta.url).href, name, values };
    this.#worker.postMessage(
      call,
      values.filter((value) => value instanceof MessagePort),
    );
    try {
      return await answer;
    } finally {
      this.#worker.removeAllListeners("error");
    }
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}
