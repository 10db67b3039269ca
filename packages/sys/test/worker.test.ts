import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import {
  baseAddress,
  closeDescriptor,
  createMemfd,
  mapFrames,
  PAGE_BYTES,
  PROT_READ,
  PROT_READ_WRITE,
  threadCpuTimeNs,
  threadId,
} from "@xenolith/sys";

const indexUrl = new URL("../src/index.js", import.meta.url).href;
const guestMemory = (): WebAssembly.Memory => new WebAssembly.Memory({ initial: 65536, maximum: 65536, shared: true });

/** Runs a program in a Worker that has `sys`, `workerData` and `parentPort`. */
const startWorker = (program: string, workerData: unknown): Worker =>
  new Worker(
    `const { parentPort, workerData } = require("node:worker_threads");
     import(${JSON.stringify(indexUrl)}).then(async (sys) => { ${program} });`,
    { eval: true, workerData },
  );

describe("Workers", () => {
  it("map frames into the same memory at the same address, and errors stay each thread's own", async () => {
    const fd = createMemfd({ name: "test-worker", sizeBytes: 16 * PAGE_BYTES });
    const memory = guestMemory();
    const worker = startWorker(
      `const base = sys.baseAddress(workerData.memory);
       const mapped = sys.mapFrames(base, ${String(PAGE_BYTES)}, sys.PROT_READ_WRITE, workerData.fd, 0);
       const refused = sys.mapFrames(base, ${String(PAGE_BYTES)}, sys.PROT_READ, 1000000, 0);
       new Uint8Array(workerData.memory.buffer)[9] = 99;
       parentPort.postMessage({ base, mapped, refused, tid: sys.threadId() });`,
      { memory, fd },
    );
    const [message] = (await once(worker, "message")) as [Record<string, number>];
    assert.equal(message["base"], baseAddress(memory));
    assert.equal(message["mapped"], 0);
    assert.equal(message["refused"], -9);
    assert.notEqual(message["tid"], threadId());
    assert.equal(new Uint8Array(memory.buffer)[9], 99);
    await worker.terminate();
    assert.equal(new Uint8Array(memory.buffer)[9], 99, "mappings outlive the thread that made them");
    closeDescriptor(fd);
  });

  it("one thread swaps a page while another reads it: the reader sees the old page or the new one, never a fault", async () => {
    const fd = createMemfd({ name: "test-swap", sizeBytes: 4 * PAGE_BYTES });
    const memory = guestMemory();
    const base = baseAddress(memory);
    const words = new Int32Array(memory.buffer);
    assert.equal(mapFrames(base, 2 * PAGE_BYTES, PROT_READ_WRITE, fd, 0), 0);
    words[0] = 1;
    words[PAGE_BYTES / 4] = 2;
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const reader = startWorker(
      `const words = new Int32Array(workerData.buffer);
       const seen = new Set();
       parentPort.postMessage("ready");
       while (Atomics.load(workerData.stop, 0) === 0) seen.add(words[0]);
       parentPort.postMessage([...seen].sort());`,
      { buffer: memory.buffer, stop },
    );
    await once(reader, "message");
    for (let round = 0; round < 20_000; round++) {
      assert.equal(mapFrames(base, PAGE_BYTES, PROT_READ, fd, (round & 1) * PAGE_BYTES), 0);
    }
    Atomics.store(stop, 0, 1);
    const [seen] = (await once(reader, "message")) as [readonly number[]];
    assert.deepEqual(seen, [1, 2]);
    await reader.terminate();
    closeDescriptor(fd);
  });

  it("any thread reads any other's CPU time", async () => {
    const worker = startWorker(
      `let sum = 0; for (let n = 0; n < 2e7; n++) sum += n;
       parentPort.postMessage({ tid: sys.threadId(), main: sys.threadCpuTimeNs(${String(process.pid)}), sum });
       await new Promise(() => setInterval(() => {}, 1000));`,
      null,
    );
    const [message] = (await once(worker, "message")) as [{ tid: number; main: number }];
    assert.ok(threadCpuTimeNs(message.tid) > 1_000_000);
    assert.ok(message.main > 0);
    await worker.terminate();
  });
});
