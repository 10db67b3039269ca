import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { XenolithError } from "@xenolith/abi";
import { type SecretFlags, secretPlan } from "../src/secret-options.ts";

describe("the options about secret memory", () => {
  const right: readonly (readonly [SecretFlags, object])[] = [
    [{}, {}],
    [{ secrets: "degraded" }, { policy: "degraded" }],
    [
      { secrets: "strict", secretMemory: "1G" },
      { policy: "strict", bytesMax: 2 ** 30 },
    ],
    [{ secretMemory: "512K" }, { bytesMax: 2 ** 19 }],
  ];
  for (const [flags, secrets] of right) {
    it(`${JSON.stringify(flags)} is ${JSON.stringify(secrets)}`, () =>
      assert.deepEqual(secretPlan(flags), { secrets }));
  }

  const wrong: readonly (readonly [SecretFlags, string])[] = [
    [{ secrets: "lenient" }, "INVALID_ARGUMENT"],
    [{ secrets: "" }, "INVALID_ARGUMENT"],
    [{ secretMemory: "0" }, "INVALID_SIZE"],
    [{ secretMemory: "1025M" }, "INVALID_SIZE"],
    [{ secretMemory: "much" }, "INVALID_SIZE"],
  ];
  for (const [flags, code] of wrong) {
    it(`${JSON.stringify(flags)} is refused with ${code}`, () => {
      assert.throws(
        () => secretPlan(flags),
        (error) => error instanceof XenolithError && error.code === code,
      );
    });
  }
});
