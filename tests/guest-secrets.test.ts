/**
 * What can be seen from outside of a guest's secret pages: two markers of the same kind are looked for in the same way,
 * that in ordinary memory is found, that in secret memory is not. Where the kernel can read secret memory (degraded), both
 * are found, and that is said.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { constants, tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
// oxlint-disable-next-line eslint/no-restricted-imports -- reads another process's memory, which no package does.
import koffi from "koffi";
import { EAGAIN, ENOSYS } from "@xenolith/abi";
import { closeDescriptor, createSecretMemfd, NativeBuffer, seek, Whence } from "@xenolith/sys";
import { compileReactor, compileTest } from "./c-domains.ts";
import { countIn, countInMemory } from "./memory-scan.ts";

const MARKER_BYTES = 64;
const directory = mkdtempSync(path.join(tmpdir(), "xenolith-guest-secrets-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const withoutSecretMemory = ((): string | false => {
  try {
    closeDescriptor(createSecretMemfd(4096));
    return false;
  } catch (error) {
    return `this kernel gives no secret memory: ${String(error)}`;
  }
})();

/** What c-secrets-marker.c makes from a seed. */
const markerOf = (seed: number): Buffer => {
  const bytes = Buffer.alloc(MARKER_BYTES);
  let value = seed;
  for (let at = 0; at < MARKER_BYTES; at += 1) {
    value = (Math.imul(value, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[at] = value >>> 24;
  }
  return bytes;
};

/** What the target tells of itself. */
interface Facts {
  readonly areSame: boolean;
  readonly hidden: boolean;
  readonly secretAddress: number;
  readonly plainAddress: number;
  readonly self: { readonly secret: number | string; readonly plain: number | string };
}

/** A process with a guest that has both markers, and another that sees the secret one. */
class Target {
  readonly facts: Facts;
  readonly secret: Buffer;
  readonly plain: Buffer;
  readonly #child: ChildProcess;
  readonly #next: () => Promise<string>;

  private constructor(
    child: ChildProcess,
    next: () => Promise<string>,
    facts: Facts,
    seeds: readonly [number, number],
  ) {
    this.#child = child;
    this.#next = next;
    this.facts = facts;
    this.secret = markerOf(seeds[0]);
    this.plain = markerOf(seeds[1]);
  }

  static async start(image: string, policy: "strict" | "degraded"): Promise<Target> {
    const seeds = [randomInt(1, 2 ** 31), randomInt(1, 2 ** 31)] as const;
    const program = path.join(import.meta.dirname, "secrets-target.js");
    const child = spawn(process.execPath, [program, image, policy, ...seeds.map(String)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const next = async (): Promise<string> => String((await lines.next()).value);
    return new Target(child, next, JSON.parse(await next()) as Facts, seeds);
  }

  get pid(): number {
    return this.#child.pid!;
  }

  ask(command: string): Promise<string> {
    this.#child.stdin!.write(`${command}\n`);
    return this.#next();
  }

  async end(): Promise<string> {
    const gone = once(this.#child, "exit");
    const last = await this.ask("end");
    await gone;
    return last;
  }
}

/** How often a marker is in the memory of the machine itself: what the hypervisor's direct map shows. */
const countInBanks = (pid: number, marker: Buffer): number => {
  let count = 0;
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    const file = `/proc/${pid}/fd/${name}`;
    if (readlinkSync(file).startsWith("/memfd:xenolith-bank")) count += countInFile(file, marker);
  }
  return count;
};

const countInFile = (name: string, marker: Buffer): number => {
  const file = openSync(name, "r");
  let count = 0;
  for (let start = seek(file, 0, Whence.DATA); start >= 0;) {
    const end = seek(file, start, Whence.HOLE);
    const bytes = Buffer.alloc(end - start);
    readSync(file, bytes, 0, bytes.length, start);
    count += countIn(bytes, marker);
    start = seek(file, end, Whence.DATA);
  }
  closeSync(file);
  return count;
};

/** Reads another process's memory as a debugger does: what is there, or a negative errno. */
const readFrom = (pid: number, address: number): Buffer | number => {
  const process_vm_readv = koffi
    .load(null)
    .func("intptr_t process_vm_readv(int, uintptr_t, unsigned long, uintptr_t, unsigned long, unsigned long)");
  const [here, local, remote] = [new NativeBuffer(MARKER_BYTES), new NativeBuffer(16), new NativeBuffer(16)];
  local.view.setBigUint64(0, BigInt(here.address), true);
  local.view.setBigUint64(8, BigInt(MARKER_BYTES), true);
  remote.view.setBigUint64(0, BigInt(address), true);
  remote.view.setBigUint64(8, BigInt(MARKER_BYTES), true);
  // SAFETY: both lists have one entry; the local one is a native buffer of that size.
  const read = Number(process_vm_readv(pid, local.address, 1, remote.address, 1, 0));
  return read < 0 ? -koffi.errno() : Buffer.from(here.bytes.subarray(0, read));
};

let image = "";
let alone = "";
let want = "";
before(async () => {
  alone = path.join(directory, "alone.wasm");
  writeFileSync(alone, await compileTest("c-secrets.c"));
  want = path.join(directory, "want.wasm");
  writeFileSync(want, await compileTest("c-secrets-want.c"));
  // Another user is to read them.
  chmodSync(directory, 0o755);
  image = path.join(directory, "marker.wasm");
  const source = readFileSync(path.join(import.meta.dirname, "..", "c-secrets-marker.c"), "utf8");
  writeFileSync(image, await compileReactor("c-secrets-marker.c", source));
});

describe("a guest's secret page", { skip: withoutSecretMemory }, () => {
  it("is read by the guests that have it and by nothing else; ordinary memory is", async () => {
    const target = await Target.start(image, "strict");
    const { facts, pid, secret, plain } = target;
    const memory = { plain: countInMemory(pid, plain), secret: countInMemory(pid, secret) };
    const banks = { plain: countInBanks(pid, plain), secret: countInBanks(pid, secret) };
    const peeked = { plain: readFrom(pid, facts.plainAddress), secret: readFrom(pid, facts.secretAddress) };
    const heap = path.join(directory, "guest.heapsnapshot");
    const done = await target.ask(`snapshot ${heap}`);
    const snapshot = readFileSync(heap);
    const released = await target.ask("release");
    const afterwards = countInMemory(pid, secret) + countInBanks(pid, secret);
    const end = await target.end();
    assert.deepEqual([done, released, end], ["done", "done", "sound"]);
    assert.ok(facts.areSame && facts.hidden);
    assert.ok(memory.plain > 0 && banks.plain > 0, "control");
    assert.deepEqual([memory.secret, banks.secret, afterwards], [0, 0, 0]);
    assert.deepEqual(peeked, { plain, secret: -constants.errno.EFAULT });
    assert.deepEqual(facts.self, { plain: plain[0], secret: "EIO" });
    for (const form of ["hex", "base64", "latin1"] as const) {
      assert.equal(countIn(snapshot, Buffer.from(secret.toString(form), "latin1")), 0, form);
    }
  });
});

describe("a guest's secret page where the kernel can read it", () => {
  it("is in no frame of the machine, but in what /proc shows, and says so", async () => {
    const target = await Target.start(image, "degraded");
    const { facts, pid, secret, plain } = target;
    const memory = { plain: countInMemory(pid, plain), secret: countInMemory(pid, secret) };
    const banks = { plain: countInBanks(pid, plain), secret: countInBanks(pid, secret) };
    const end = await target.end();
    assert.equal(end, "sound");
    assert.ok(facts.areSame && !facts.hidden);
    assert.ok(memory.plain > 0 && memory.secret > 0 && banks.plain > 0);
    assert.equal(banks.secret, 0);
  });
});

/** How the process of a guest is run. */
interface RunOptions {
  /** memfd_secret fails. */
  readonly isForbidden?: boolean;
  /** By a user without privileges, where that can be arranged; else it is one. */
  readonly isUnprivileged?: boolean;
  /** What it may lock at most. */
  readonly lockKiB?: number;
}

/** What a guest prints on a host of its own. */
const run = (program: string, policy: string, options: RunOptions = {}): string => {
  const { isForbidden = false, isUnprivileged = false, lockKiB = 8192 } = options;
  const target = path.join(import.meta.dirname, "secrets-run.js");
  const words = [process.execPath, target, program, policy, ...(isForbidden ? ["forbidden"] : [])];
  const user = isUnprivileged && process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
  const { stdout, stderr } = spawnSync("sh", ["-c", `ulimit -l ${lockKiB} && exec "$0" "$@"`, ...words], {
    encoding: "utf8",
    ...user,
  });
  assert.notEqual(stdout, "", stderr);
  return stdout;
};

/** The whole of c-secrets.c is content. */
const assertWhole = (text: string): void => {
  assert.ok(!text.includes("FAILED"), text);
  assert.match(text, /sound\n$/);
  assert.equal(text.match(/^ok /gm)?.length, 53, text);
};

describe("secret memory in guests of a process", () => {
  for (const [user, isUnprivileged] of [
    ["whoever runs the tests", false],
    ["a user without privileges", true],
  ] as const) {
    it(`of ${user}: all of it is there`, { skip: withoutSecretMemory }, () => {
      assertWhole(run(alone, "strict", { isUnprivileged }));
    });

    it(`of ${user}, degraded: all of it is there`, () => {
      assertWhole(run(alone, "degraded", { isUnprivileged, isForbidden: true }));
    });
  }

  it("Z04: a strict host gives none where the kernel has none", () => {
    assert.equal(run(want, "strict", { isForbidden: true }), `${-ENOSYS} ${-ENOSYS} 0 0\nsound\n`);
  });

  for (const lockKiB of [0, 64]) {
    it(`that may lock ${lockKiB} KiB: a guest that wants some is told so, and nothing else happens`, () => {
      assert.equal(run(want, "strict", { isUnprivileged: true, lockKiB }), `${-EAGAIN} ${-EAGAIN} 0 0\nsound\n`);
    });
  }
});
