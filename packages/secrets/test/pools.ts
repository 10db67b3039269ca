/** What the tests of this package share. */
import assert from "node:assert/strict";
import { XenolithError } from "@xenolith/abi";
import { createSecretMemfd, closeDescriptor, PAGE_BYTES } from "@xenolith/sys";
import { type PoolOptions, SecretPool } from "@xenolith/secrets";

/** Why tests of hidden memory are skipped here; false where the kernel has it. */
export const withoutSecretMemory = ((): string | false => {
  try {
    closeDescriptor(createSecretMemfd(PAGE_BYTES));
    return false;
  } catch (error) {
    return `this kernel gives no secret memory: ${String(error)}`;
  }
})();

/** A pool of whichever kind this kernel can give, that is never short of memory unless a test says so. */
export const openPool = (options: PoolOptions = {}): SecretPool =>
  SecretPool.open({ policy: "degraded", underPressure: () => false, ...options });

/** Asserts that `act` throws a XenolithError of this code whose message matches. */
export const refused = (act: () => unknown, code: string, message = /./): void => {
  assert.throws(act, (error: unknown) => {
    assert.ok(error instanceof XenolithError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
};
