/**
 * A Worker that knows nothing of Xenolith: the floor of what runs on vCPU threads. It calls exported functions of
 * modules that it is told, one after the other.
 */
import { parentPort } from "node:worker_threads";

/** A function to call. */
export interface BareCall {
  readonly module: string;
  readonly name: string;
  readonly values: readonly unknown[];
}

type BareFunction = (...values: readonly unknown[]) => unknown;

const answer = async ({ module, name, values }: BareCall): Promise<void> => {
  const functions = (await import(module)) as Record<string, BareFunction>;
  parentPort!.postMessage(await functions[name]!(...values));
};

parentPort!.on("message", (call: BareCall) => void answer(call));
