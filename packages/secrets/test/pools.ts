/** What the tests of this package share. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
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

/** How a child of a test is run. */
export interface ChildOptions {
  /** Shell commands before it, such as limits. */
  readonly before?: string;
  /** Its descriptors from 3 on. */
  readonly files?: readonly number[];
  readonly flags?: readonly string[];
  readonly input?: string | Buffer;
  readonly env?: NodeJS.ProcessEnv;
}

/** What became of it. */
export interface ChildOutcome {
  readonly output: string;
  readonly errors: string;
  readonly signal: NodeJS.Signals | null;
  readonly status: number | null;
}

const PRELUDE = `
import { createHash } from "node:crypto";
import * as secrets from ${JSON.stringify(import.meta.resolve("@xenolith/secrets"))};
import * as sys from ${JSON.stringify(import.meta.resolve("@xenolith/sys"))};
const open = (options) => secrets.SecretPool.open({ underPressure: () => false, ...options });
const codeOf = (act) => { try { act(); return "none"; } catch (error) { return error.code ?? String(error); } };
// A process that changed its user may not read its own /proc/self/auxv, so the library looks before.
const dropRights = () => { sys.addressOf(new Uint8Array(8)); if (process.getuid() === 0) { process.setgid(65534); process.setuid(65534); } };
`;

/**
 * Runs a module in a child process through a shell. `using` is not known to all versions of Node, so a pool that a
 * program opens with it is closed by the end of the process.
 */
export const runChild = (program: string, options: ChildOptions = {}): ChildOutcome => {
  const { before = "", files = [], flags = [], input = "", env = process.env } = options;
  const source = PRELUDE + program.replaceAll("using ", "const ");
  const command = `ulimit -c 0; ${before} exec "$0" "$@"`;
  const words = ["-c", command, process.execPath, ...flags, "--input-type=module", "--eval", source];
  const child = spawnSync("sh", words, {
    encoding: "utf8",
    input,
    env,
    stdio: ["pipe", "pipe", "pipe", ...files],
    maxBuffer: 2 ** 26,
  });
  const { stdout, stderr, signal, status } = child;
  return { output: stdout.trim(), errors: `${stderr}\n${String(signal)}`, signal, status };
};
