import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";

const source = (name: string): string => JSON.stringify(new URL(`../src/${name}.js`, import.meta.url).href);

/** Loads the FFI and binds C functions for ever. */
const worker = `
  import { parentPort, workerData } from "node:worker_threads";
  import { useExitGuard } from ${source("exit-guard")};
  import { bind } from ${source("libc")};
  useExitGuard(workerData);
  parentPort.postMessage("here");
  for (;;) bind("int getpid()")();
`;

/** Ends the process that many milliseconds after a thread has begun: in the middle of whatever they do. */
const program = `
  import { Worker } from "node:worker_threads";
  import { exitGuard } from ${source("exit-guard")};
  const url = new URL("data:text/javascript," + encodeURIComponent(${JSON.stringify(worker)}));
  const end = () => setTimeout(() => process.exit(7), Number(process.argv[1]));
  for (let count = 0; count < 3; count += 1) new Worker(url, { workerData: exitGuard() }).on("message", end);
`;

test("a program may end while its threads load and bind C functions", async () => {
  for (let round = 0; round < 8; round += 1) {
    const ended = promisify(execFile)(process.execPath, ["--input-type=module", "-e", program, String(round)]);
    await assert.rejects(ended, { code: 7, signal: null });
  }
});
