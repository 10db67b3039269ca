import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import path from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { whyNoKernelKeys } from "./kernel-keys.ts";

const run = promisify(execFile);
const STEPS = 5000;
const WHO = process.getuid!() === 0 ? "three users" : "one user";

describe("the library and the kernel of this machine", () => {
  const reason = whyNoKernelKeys();
  if (reason !== undefined) console.error(`NOT COMPARED WITH THE KERNEL: ${reason}`);

  it(`agree on every result and tree of ${STEPS} random operations by ${WHO}`, { skip: reason }, async () => {
    const seed = Date.now() % 1_000_000;
    console.log(`seed ${seed}`);
    const program = path.join(import.meta.dirname, "oracle-main.js");
    const words = ["--enable-source-maps", program, "--steps", String(STEPS), "--seed", String(seed)];
    const { stdout } = await run(process.execPath, words);
    assert.match(stdout, new RegExp(`${STEPS} steps agree`));
  });
});
