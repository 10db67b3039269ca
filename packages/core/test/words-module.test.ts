import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import wabtInit from "wabt";
import { wordsModule } from "../src/words-module.ts";

it("the module of atomic operations is what its text says", async () => {
  const source = readFileSync(new URL("../../src/words-module.ts", import.meta.url), "utf8");
  const text = source
    .split("\n")
    .filter((line) => line.startsWith(" *     "))
    .map((line) => line.slice(" *     ".length))
    .join("\n");
  assert.match(text, /^\(module[\s\S]+\)$/);
  const wabt = await wabtInit();
  const { buffer } = wabt.parseWat("words.wat", text, { threads: true, bulk_memory: true }).toBinary({});
  assert.deepEqual(wordsModule(), new Uint8Array(buffer));
});
