import assert from "node:assert/strict";
import { test } from "node:test";
import { bounded, checkBounds } from "../src/action.ts";

const never = new Promise<never>(() => {});

test("an action without bounds settles as its work does", async () => {
  assert.equal(await bounded("work", Promise.resolve(1)), 1);
  await assert.rejects(bounded("work", Promise.reject(new Error("broken"))), /broken/);
});

test("work that is done in time is not given up", async () => {
  let givenUp = 0;
  const { signal } = new AbortController();
  assert.equal(await bounded("work", Promise.resolve(1), { timeoutMs: 1000, signal }, () => (givenUp += 1)), 1);
  await assert.rejects(
    bounded("work", Promise.reject(new Error("broken")), { timeoutMs: 1000 }, () => (givenUp += 1)),
    /broken/,
  );
  assert.equal(givenUp, 0);
});

test("work is given up when its time is over or its signal fires, and the error says which", async () => {
  const givenUp: string[] = [];
  await assert.rejects(
    bounded("work", never, { timeoutMs: 1 }, () => givenUp.push("time")),
    { code: "TIMEOUT", message: /work.*1 ms/ },
  );
  const controller = new AbortController();
  const aborted = bounded("work", never, { signal: controller.signal }, () => givenUp.push("signal"));
  controller.abort(new Error("why"));
  await assert.rejects(
    aborted,
    (error: Error & { code?: string }) => error.code === "ABORTED" && (error.cause as Error).message === "why",
  );
  await assert.rejects(bounded("work", never, { signal: AbortSignal.abort() }), { code: "ABORTED" });
  assert.deepEqual(givenUp, ["time", "signal"]);
});

test("bounds that make no sense are refused", () => {
  for (const timeoutMs of [-1, Number.NaN])
    assert.throws(() => checkBounds("work", { timeoutMs }), { code: "INVALID_ARGUMENT" });
  assert.throws(() => checkBounds("work", { signal: AbortSignal.abort() }), { code: "ABORTED" });
  checkBounds("work", { timeoutMs: Infinity });
});
