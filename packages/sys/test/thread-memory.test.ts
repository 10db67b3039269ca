import assert from "node:assert/strict";
import { test } from "node:test";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { releaseThreadMemory, type ThreadMemory, vmaCount } from "../src/index.ts";

const library = new URL("../src/index.js", import.meta.url).href;
const source = `
  const { parentPort } = require("node:worker_threads");
  import(${JSON.stringify(library)}).then(({ threadMemory }) => parentPort.postMessage(threadMemory(true)));
`;

const runThread = async (): Promise<void> => {
  const worker = new Worker(source, { eval: true, execArgv: [] });
  const [memory] = (await once(worker, "message")) as [ThreadMemory];
  assert.ok(memory.stackBytes > 0 && memory.heapBytes > 0);
  await worker.terminate();
  releaseThreadMemory(memory);
};

test("threads that called the C library leave no mappings behind once their memory is released", async () => {
  for (let round = 0; round < 5; round += 1) await runThread();
  const before = vmaCount();
  for (let round = 0; round < 30; round += 1) await runThread();
  // Each thread would leave three mappings; the engine's own come and go.
  assert.ok(vmaCount() < before + 45, `${vmaCount()} mappings, ${before} before`);
});
