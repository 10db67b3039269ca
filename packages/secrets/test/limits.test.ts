/** What a pool does where the machine gives less than it wants: each in a child process that has less. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { controlGroupMemory } from "@xenolith/sys";
import { runChild, withoutSecretMemory } from "./pools.ts";

const drain = `
  const drain = (owner, size) => {
    for (let count = 0; ; count += 1) {
      const secret = owner.tryAllocate(size);
      if (secret instanceof secrets.SecretRefusal) return [count, secret.code, secret.message];
    }
  };`;

/** Every program runs for memory that is hidden, where the kernel has it, and for memory that is only locked. */
const kinds = [
  { kind: "hidden", skip: withoutSecretMemory, policy: "strict", prelude: "" },
  { kind: "degraded", skip: false, policy: "degraded", prelude: "forbidSecretMemory(38);" },
] as const;

/** Has the kernel refuse memfd_secret with an error number, as a container's seccomp profile does. */
const forbid = `
  import { createRequire } from "node:module";
  const koffi = createRequire(${JSON.stringify(import.meta.url)})("koffi");
  const forbidSecretMemory = (errno) => {
    const prctl = koffi.load(null).func("int prctl(int, unsigned long, uintptr_t, unsigned long, unsigned long)");
    const rules = [[0x20, 0, 0, 0], [0x15, 0, 1, 447], [0x06, 0, 0, 0x50000 + errno], [0x06, 0, 0, 0x7fff0000]];
    const filter = new sys.NativeBuffer(8 * rules.length);
    for (const [index, [code, yes, no, value]] of rules.entries()) {
      filter.view.setUint16(8 * index, code, true);
      filter.view.setUint8(8 * index + 2, yes);
      filter.view.setUint8(8 * index + 3, no);
      filter.view.setUint32(8 * index + 4, value, true);
    }
    const program = new sys.NativeBuffer(16);
    program.view.setUint16(0, rules.length, true);
    program.view.setBigUint64(8, BigInt(filter.address), true);
    if (prctl(38, 1, 0, 0, 0) !== 0 || prctl(22, 2, program.address, 0, 0) !== 0) throw new Error("no seccomp");
  };`;

describe("a pool of an unprivileged process", () => {
  for (const { kind, skip, policy, prelude } of kinds) {
    const run = (limitKiB: number | string, program: string): string => {
      const { output, errors } = runChild(`${forbid} ${drain} ${prelude} dropRights(); ${program}`, {
        before: `ulimit -l ${limitKiB};`,
      });
      assert.notEqual(output, "", errors);
      return output;
    };

    it(`with RLIMIT_MEMLOCK 0 is refused, with used and limit (${kind})`, { skip }, () => {
      const output = run(
        0,
        `try { open({ policy: "${policy}" }); } catch (error) { console.log(error.code, error.message); }`,
      );
      assert.match(output, /^SECRET_MEMLOCK .*RLIMIT_MEMLOCK reached: 0\/0 bytes$/);
    });

    it(`with RLIMIT_MEMLOCK 64 KiB is one small chunk, and says which limit was reached (${kind})`, { skip }, () => {
      const output = run(
        64,
        `const pool = open({ policy: "${policy}" });
        const [count, code, message] = drain(pool.owner("child"), 32);
        console.log(pool.hidden, pool.statistics().chunks, count, code, message);`,
      );
      assert.match(output, new RegExp(`^${policy === "strict"} 1 7\\d\\d SECRET_MEMLOCK `));
      assert.match(output, /RLIMIT_MEMLOCK reached: 49152\/65536 bytes/);
    });

    it(`with RLIMIT_MEMLOCK 8 MiB is three chunks, and a region in what is left (${kind})`, { skip }, () => {
      const output = run(
        8192,
        `const pool = open({ policy: "${policy}", reserveShare: 0, lowWaterBytes: 0 });
        const owner = pool.owner("child");
        const [count, code] = drain(owner, 2 ** 21 - 16);
        owner.allocateRegion(2 ** 20);
        console.log(count, code, codeOf(() => owner.allocateRegion(2 ** 20)), pool.statistics().lockedBytes / 2 ** 20);`,
      );
      assert.equal(output, "3 SECRET_MEMLOCK SECRET_MEMLOCK 7");
    });

    it(`whose limit others use up meanwhile is told so by the kernel, and goes on (${kind})`, { skip }, () => {
      const output = run(
        8192,
        `const pool = open({ policy: "${policy}", lowWaterBytes: 0 });
        const owner = pool.owner("child");
        const first = owner.allocate(2 ** 21 - 16);
        const fd = sys.createMemfd({ name: "others", sizeBytes: 5 * 2 ** 20 });
        const others = sys.mapAnywhere({ fd, offsetBytes: 0, lengthBytes: 5 * 2 ** 20, protection: 3 });
        const locked = sys.lockMemory(others, 5 * 2 ** 20);
        const refusal = owner.tryAllocate(1);
        console.log(locked, refusal.code, refusal.message);
        sys.unmap(others, 5 * 2 ** 20);
        owner.allocate(1);
        console.log(first.isLive, pool.statistics().chunks);`,
      );
      assert.match(output, /^0 SECRET_MEMLOCK RLIMIT_MEMLOCK reached: 7340032\/8388608 bytes\ntrue 2$/);
    });
  }
});

describe("a kernel without secret memory", () => {
  const run = (program: string): string => {
    const { output, errors } = runChild(`${forbid} ${program}`);
    assert.notEqual(output, "", errors);
    return output;
  };

  for (const [name, errno] of [
    ["ENOSYS", 38],
    ["EPERM", 1],
  ] as const) {
    it(`is an error to who is strict, and degraded memory to who allows it: ${name}`, () => {
      const output = run(
        `forbidSecretMemory(${errno});
        console.log(codeOf(() => open()), codeOf(() => open({ policy: "strict" })));
        const pool = open({ policy: "degraded" });
        const secret = pool.owner("child").allocate(32);
        console.log(pool.hidden, secret.hidden, pool.statistics().hidden, pool.statistics().degradedSlots);
        console.log(secrets.formatSecretMetrics(pool.statistics()).includes("xenolith_secrets_hidden 0"));`,
      );
      assert.equal(output, "SECRET_UNSUPPORTED SECRET_UNSUPPORTED\nfalse false false 1\ntrue");
    });
  }

  it("gives strict owners of a degraded pool nothing, nor those below them", () => {
    const output = run(
      `forbidSecretMemory(38);
      const pool = open({ policy: "degraded" });
      const strict = pool.owner("strict", { policy: "strict" });
      const below = strict.owner("below", { policy: "degraded" });
      console.log(codeOf(() => strict.allocate(1)), codeOf(() => below.allocate(1)), codeOf(() => below.allocateRegion(4096)));
      console.log(codeOf(() => pool.owner("other").allocate(1)));`,
    );
    assert.equal(output, "SECRET_UNSUPPORTED SECRET_UNSUPPORTED SECRET_UNSUPPORTED\nnone");
  });

  it("has its degraded memory locked, in no core file and not forked, and read by the kernel", () => {
    const output = run(
      `import { openSync, readFileSync, readSync } from "node:fs";
      forbidSecretMemory(38);
      const pool = open({ policy: "degraded" });
      const secret = pool.owner("child").keep(Buffer.from("degraded"));
      const address = secret.withBytes(sys.addressOf);
      const [entry] = sys.mappingsIn(address, address + 1);
      const text = readFileSync("/proc/self/smaps", "latin1").split("\\n" + entry.startAddress.toString(16) + "-")[1];
      const flags = text.match(/VmFlags: (.*)/)[1].trim().split(" ");
      const word = Buffer.alloc(8);
      readSync(openSync("/proc/self/mem", "r"), word, 0, 8, address);
      console.log(["lo", "dd", "dc"].every((flag) => flags.includes(flag)), String(word));`,
    );
    assert.equal(output, "true degraded");
  });
});

/** A memory control group of version 1 or 2 that a test may make, or why not. */
const makeGroup = (): { readonly directory: string; readonly limitFile: string } | string => {
  if (controlGroupMemory() === undefined) return "there is no memory control group here";
  const first = "/sys/fs/cgroup/memory";
  const root = existsSync(first) ? first : "/sys/fs/cgroup";
  const directory = path.join(root, `secrets-test-${process.pid}`);
  try {
    mkdirSync(directory);
  } catch (error) {
    return `no control group can be made here: ${String(error)}`;
  }
  const limitFile = existsSync(first) ? "memory.limit_in_bytes" : "memory.max";
  if (existsSync(path.join(directory, limitFile))) return { directory, limitFile };
  rmdirSync(directory);
  return "control groups made here have no memory limit";
};

/** Removes a group; the kernel has its dead processes in it for a while. */
const removeGroup = (directory: string): void => {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let attempt = 1; ; attempt += 1) {
    try {
      rmdirSync(directory);
      return;
    } catch (error) {
      if (attempt === 500) throw error;
      Atomics.wait(pause, 0, 0, 20);
    }
  }
};

describe("a control group near its limit", () => {
  it("is not one whose memory is in files that were read: what it must not use, it can have back", (t) => {
    const group = makeGroup();
    if (typeof group === "string") {
      t.skip(group);
      return;
    }
    const { directory, limitFile } = group;
    const file = path.join(tmpdir(), `secrets-test-${process.pid}`);
    try {
      const { output, errors } = runChild(
        `import { closeSync, openSync, readFileSync, readSync, ftruncateSync, writeFileSync } from "node:fs";
        const limit = ${JSON.stringify(path.join(directory, limitFile))};
        const usage = limit.replace(/limit_in_bytes$/, "usage_in_bytes").replace(/max$/, "current");
        const MIB = 2 ** 20;
        const pool = open({ policy: "degraded", lowWaterBytes: 0 });
        const owner = pool.owner("child");
        owner.allocate(2 * MIB - 16);
        // A helper cannot be started from here on: whoever needs one is refused.
        process.execPath = "/nonexistent";
        const before = Number(readFileSync(usage, "latin1"));
        writeFileSync(limit, String(before + 200 * MIB));
        const fd = openSync(${JSON.stringify(file)}, "w+");
        ftruncateSync(fd, 160 * MIB);
        const piece = Buffer.alloc(MIB);
        for (let at = 0; at < 160; at += 1) readSync(fd, piece, 0, MIB, at * MIB);
        closeSync(fd);
        const cached = Number(readFileSync(usage, "latin1")) - before;
        const whileCached = codeOf(() => owner.allocate(2 * MIB - 16));
        const used = Buffer.alloc(160 * MIB, 1);
        console.log(cached > 140 * MIB, whileCached, codeOf(() => owner.allocate(2 * MIB - 16)), used.length / MIB);`,
        { before: `echo $$ >${path.join(directory, "cgroup.procs")};` },
      );
      if (output.startsWith("false")) {
        t.skip("files that were read here are not in the group's cache");
        return;
      }
      assert.equal(output, "true none SECRET_MEMORY 160", errors);
    } finally {
      removeGroup(directory);
      rmSync(file, { force: true });
    }
  });

  it("kills the helper that makes secret memory, and the program is told", (t) => {
    const group = makeGroup();
    if (typeof group === "string") {
      t.skip(group);
      return;
    }
    const { directory, limitFile } = group;
    try {
      const { output, errors } = runChild(
        `import { readFileSync, writeFileSync } from "node:fs";
        const warm = open({ policy: "degraded", lowWaterBytes: 0, growth: "helper" });
        const other = open({ policy: "degraded", lowWaterBytes: 0 });
        const owner = other.owner("child");
        const first = owner.allocate(2 ** 21 - 16);
        const limit = ${JSON.stringify(path.join(directory, limitFile))};
        const usage = limit.replace(/limit_in_bytes$/, "usage_in_bytes").replace(/max$/, "current");
        // How much a helper needs depends on the version of Node: less and less is left until one is killed.
        let refusal;
        for (let left = 32; refusal?.code === undefined && left > 0; left -= 4) {
          writeFileSync(limit, String(Number(readFileSync(usage, "latin1")) + left * 2 ** 20));
          refusal = owner.tryAllocate(2 ** 21 - 16);
        }
        console.log(refusal.code, refusal.message);
        writeFileSync(limit, String(2 ** 40));
        const again = owner.allocate(1);
        console.log(first.isLive, again.isLive);`,
        { before: `echo $$ >${path.join(directory, "cgroup.procs")};` },
      );
      assert.match(output, /^SECRET_MEMORY the helper .* ended by (SIGKILL|exit code 137)\ntrue true$/, errors);
      const events = ["memory.oom_control", "memory.events"].map((name) => path.join(directory, name)).find(existsSync);
      assert.match(readFileSync(events!, "latin1"), /oom_kill [1-9]/);
    } finally {
      removeGroup(directory);
    }
  });
});
