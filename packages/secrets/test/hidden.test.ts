/**
 * What cannot be read from outside. Each test looks for two markers in the same way: that in ordinary memory is found,
 * that in secret memory is not.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";
// oxlint-disable-next-line eslint/no-restricted-imports -- reads another process's memory, which the package never does.
import koffi from "koffi";
import { addressOf, NativeBuffer } from "@xenolith/sys";
import { openPool, runChild, withoutSecretMemory } from "./pools.ts";
import { countIn, countInFile, countInMemory, startTarget, type Target } from "./target.ts";

const directory = mkdtempSync(path.join(tmpdir(), "secrets-"));
after(() => {
  rmSync(directory, { recursive: true });
});

describe("a secret in another process", { skip: withoutSecretMemory }, () => {
  let target: Target;
  before(async () => {
    target = await startTarget("strict");
  });
  after(async () => {
    await target.end();
  });

  it("is not in what /proc/PID/mem shows; ordinary memory is", () => {
    assert.ok(countInMemory(target.pid, target.plain) > 0, "control");
    assert.equal(countInMemory(target.pid, target.secret), 0);
    const memory = openSync(`/proc/${target.pid}/mem`, "r");
    const word = Buffer.alloc(32);
    assert.equal(readSync(memory, word, 0, 32, target.plainAddress), 32);
    assert.deepEqual(word, target.plain, "control");
    assert.throws(() => readSync(memory, word, 0, 32, target.secretAddress), { code: "EIO" });
    closeSync(memory);
  });

  it("is not read by process_vm_readv; ordinary memory is", () => {
    const process_vm_readv = koffi
      .load(null)
      .func("intptr_t process_vm_readv(int, uintptr_t, unsigned long, uintptr_t, unsigned long, unsigned long)");
    const [here, local, remote] = [new NativeBuffer(32), new NativeBuffer(16), new NativeBuffer(16)];
    local.view.setBigUint64(0, BigInt(here.address), true);
    local.view.setBigUint64(8, 32n, true);
    remote.view.setBigUint64(8, 32n, true);
    const readFrom = (address: number): number => {
      here.bytes.fill(0);
      remote.view.setBigUint64(0, BigInt(address), true);
      // SAFETY: both lists have one entry; the local one is a native buffer of 32 bytes.
      const read = Number(process_vm_readv(target.pid, local.address, 1, remote.address, 1, 0));
      return read < 0 ? -koffi.errno() : read;
    };
    assert.equal(readFrom(target.plainAddress), 32);
    assert.deepEqual(Buffer.from(here.bytes), target.plain, "control");
    assert.equal(readFrom(target.secretAddress), -constants.errno.EFAULT);
    assert.equal(countIn(Buffer.from(here.bytes), target.secret), 0);
  });

  it("is not peeked at by a debugger that has stopped the process; ordinary memory is", (t) => {
    const library = koffi.load(null);
    const syscall = library.func(
      "long syscall(long number, long request, long pid, uintptr_t address, uintptr_t data)",
    );
    const waitpid = library.func("int waitpid(int pid, uintptr_t status, int options)");
    const word = new NativeBuffer(8);
    const ptrace = (request: number, address = 0, data = 0): number => {
      const number = process.arch === "arm64" ? 117 : 101;
      return Number(syscall(number, request, target.pid, address, data)) < 0 ? -koffi.errno() : 0;
    };
    const [PEEKDATA, ATTACH, DETACH, WALL] = [2, 16, 17, 0x4000_0000];
    if (ptrace(ATTACH) === -constants.errno.EPERM) {
      t.skip("nobody may attach to a process here");
      return;
    }
    assert.equal(waitpid(target.pid, word.address, WALL), target.pid);
    const peek = (address: number): number => {
      word.bytes.fill(0);
      return ptrace(PEEKDATA, address, word.address);
    };
    const control = [peek(target.plainAddress), Buffer.from(word.bytes).equals(target.plain.subarray(0, 8))];
    const found = [peek(target.secretAddress), Buffer.from(word.bytes).equals(Buffer.alloc(8))];
    assert.equal(ptrace(DETACH), 0);
    assert.deepEqual(control, [0, true], "control");
    assert.deepEqual(found, [-constants.errno.EIO, true]);
  });

  it("is not in a heap snapshot; text of the heap is", async () => {
    const file = path.join(directory, "heap.heapsnapshot");
    assert.equal(await target.ask(`snapshot ${file}`), "done");
    const snapshot = readFileSync(file);
    assert.ok(countIn(snapshot, Buffer.from(target.plain.toString("hex"))) > 0, "control");
    for (const form of ["hex", "base64", "latin1"] as const) {
      assert.equal(countIn(snapshot, Buffer.from(target.secret.toString(form), "latin1")), 0, form);
    }
  });

  it("is not in a diagnostic report; the environment is", async () => {
    const file = path.join(directory, "report.json");
    assert.equal(await target.ask(`report ${file}`), "done");
    const report = readFileSync(file);
    assert.ok(countIn(report, Buffer.from(target.plain.toString("hex"))) > 0, "control");
    assert.equal(countIn(report, Buffer.from(target.secret.toString("hex"))), 0);
  });

  it("is not printed", async () => {
    let printed = "";
    target.child.stderr?.on("data", (part: Buffer) => {
      printed += part.toString();
    });
    assert.equal(await target.ask("print"), "done");
    while (!printed.includes("[object Secret]")) await once(target.child.stderr!, "data");
    assert.ok(printed.includes(target.plain.toString("hex")), "control");
    assert.match(printed, /secret: Secret \{\}/);
    assert.ok(!printed.includes(target.secret.toString("hex")));
  });

  const noGcore =
    process.env["XENOLITH_GCORE"] === undefined
      ? "gcore writes 11 GB of zeros; XENOLITH_GCORE=1 runs it"
      : spawnSync("gcore").error?.message;
  it("is not in what gcore takes; ordinary memory is", { skip: noGcore ?? false }, (t) => {
    const { status, stderr } = spawnSync("gcore", ["-o", path.join(directory, "core"), String(target.pid)]);
    const file = readdirSync(directory).find((name) => name.startsWith("core."));
    if (status !== 0 || file === undefined) {
      t.skip(`gcore may not attach: ${String(stderr)}`);
      return;
    }
    const core = path.join(directory, file);
    assert.ok(countInFile(core, target.plain) > 0, "control");
    assert.equal(countInFile(core, target.secret), 0);
  });
});

const corePattern = readFileSync("/proc/sys/kernel/core_pattern", "latin1").trim();
const noCore = /^[\w.%-]+$/.test(corePattern) ? false : `core files go to ${corePattern}`;

describe("the kernel's core file", { skip: noCore }, () => {
  for (const policy of ["strict", "degraded"] as const) {
    const skip = policy === "strict" ? withoutSecretMemory : false;
    it(`has what a process had in ordinary memory, and not its secrets (${policy})`, { skip }, async (t) => {
      const place = mkdtempSync(path.join(directory, "core-"));
      const target = await startTarget(policy, `cd ${place}; ulimit -c unlimited;`);
      const gone = once(target.child, "exit");
      void target.ask("abort");
      await gone;
      const file = readdirSync(place)[0];
      if (file === undefined) {
        t.skip("no core file was written here");
        return;
      }
      const core = path.join(place, file);
      assert.ok(countInFile(core, target.plain) > 0, "control");
      assert.equal(countInFile(core, target.secret), 0);
    });
  }
});

describe("a secret in its own process", () => {
  it("is not in what /proc/self/mem shows; ordinary memory is", { skip: withoutSecretMemory }, () => {
    const { output, errors } = runChild(`
      import { openSync, readSync } from "node:fs";
      const pool = open();
      const secret = pool.owner("child").allocate(32);
      secret.withBytes((bytes) => { for (let at = 0; at < 32; at += 1) bytes[at] = at ^ 0x5a; });
      const memory = openSync("/proc/self/mem", "r");
      const plain = Buffer.alloc(32, 7);
      const word = Buffer.alloc(32);
      const count = readSync(memory, word, 0, 32, sys.addressOf(plain));
      const address = secret.withBytes(sys.addressOf);
      console.log(count, word.equals(plain), codeOf(() => readSync(memory, word, 0, 32, address)));`);
    assert.equal(output, "32 true EIO", errors);
  });

  it("is in mappings that are locked, in no core file, and not inherited by forks", () => {
    using pool = openPool();
    const secret = pool.owner("tests").allocate(32);
    const address = secret.withBytes(addressOf);
    const flags = flagsAt(address);
    for (const flag of ["lo", "dd", "dc"]) assert.ok(flags.includes(flag), `${flag} in ${flags.join(" ")}`);
    const ordinary = flagsAt(new NativeBuffer(8).address);
    for (const flag of ["lo", "dd", "dc"]) assert.ok(!ordinary.includes(flag), `control: ${ordinary.join(" ")}`);
  });

  for (const policy of ["strict", "degraded"] as const) {
    const skip = policy === "strict" ? withoutSecretMemory : false;
    it(
      `does not leave RAM when the kernel is asked to take it out; ordinary memory does (${policy})`,
      { skip },
      (t) => {
        const { output, errors } = runChild(`
        import { fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
        const MADV_PAGEOUT = 21;
        const size = 2 ** 21;
        const atPlace = (address, name) => {
          const entry = readFileSync("/proc/self/smaps", "latin1").split("\\n" + address.toString(16).padStart(8, "0") + "-")[1];
          return Number(new RegExp("^" + name + ": +(\\\\d+) kB", "m").exec(entry)[1]);
        };
        const touch = (address) => {
          const bytes = new Uint8Array(sys.viewMemory(address, size));
          for (let at = 0; at < size; at += 4096) if (bytes[at] === 256) throw new Error();
        };
        const pool = open({ policy: "${policy}", lowWaterBytes: 0 });
        const secret = pool.owner("child").allocate(size - 16);
        const chunk = secret.withBytes(sys.addressOf);
        const fd = openSync(${JSON.stringify(path.join(directory, `paged-${policy}`))}, "w+");
        writeSync(fd, Buffer.alloc(size, 7));
        fsyncSync(fd);
        const plain = sys.mapAnywhere({ fd, offsetBytes: 0, lengthBytes: size, protection: 1 });
        touch(plain);
        const before = [atPlace(plain, "Rss"), atPlace(chunk, "Rss")];
        const answers = [sys.advise(plain, size, MADV_PAGEOUT), sys.advise(chunk, size, MADV_PAGEOUT)];
        const after = [atPlace(plain, "Rss"), atPlace(chunk, "Rss"), atPlace(chunk, "Swap"), atPlace(chunk, "Locked")];
        console.log(JSON.stringify([before, answers, after]));`);
        assert.notEqual(output, "", errors);
        const [before, answers, after] = JSON.parse(output) as [number[], number[], number[]];
        if (after[0] === before[0]) {
          t.skip("the kernel takes no pages of files out here");
          return;
        }
        assert.deepEqual(
          [before, answers],
          [
            [2048, 2048],
            [0, -constants.errno.EINVAL],
          ],
        );
        assert.ok(after[0]! < 2048, `control: ${after[0]} KiB`);
        assert.deepEqual(after.slice(1), [2048, 0, 2048]);
      },
    );
  }

  it("is not in a forked child; ordinary memory is", () => {
    // V8's code is not inherited either, so the child may not return from fork: the C library has it pause there.
    const { output, errors } = runChild(`
      import { createRequire } from "node:module";
      import { closeSync, openSync, readFileSync, readSync } from "node:fs";
      const koffi = createRequire(${JSON.stringify(import.meta.url)})("koffi");
      const library = koffi.load(null);
      const fork = library.func("int fork()");
      const dlsym = library.func("uintptr_t dlsym(uintptr_t, const char *)");
      const atfork = library.func("int __register_atfork(uintptr_t, uintptr_t, uintptr_t, uintptr_t)");
      const pool = open({ policy: "degraded" });
      const secret = pool.owner("child").allocate(32);
      const plain = new sys.NativeBuffer(32);
      plain.bytes.fill(7);
      const address = secret.withBytes(sys.addressOf);
      const isMapped = (pid, at) => readFileSync("/proc/" + pid + "/maps", "latin1").split("\\n").some((line) => {
        const [start, end] = line.split(" ")[0].split("-").map((word) => parseInt(word, 16));
        return start <= at && at < end;
      });
      atfork(0, 0, dlsym(0, "pause"), 0);
      const pid = fork();
      const memory = openSync("/proc/" + pid + "/mem", "r");
      const word = Buffer.alloc(32);
      const count = readSync(memory, word, 0, 32, plain.address);
      const found = [count, word[31], isMapped(pid, plain.address), isMapped("self", address), isMapped(pid, address)];
      found.push(codeOf(() => readSync(memory, word, 0, 32, address)));
      process.kill(pid, "SIGKILL");
      console.log(found.join(" "));`);
    assert.equal(output, "32 7 true true false EIO", errors);
  });

  it("is nowhere in its chunk once it is released", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    const marker = Buffer.from("0b7d-marker-that-is-released");
    const witness = owner.allocate(1);
    const inChunk = (): number =>
      witness.withBytes((bytes) => countIn(Buffer.from(bytes.buffer, 4096, 2 ** 21), marker));
    const sizes = [28, 60, 200, 3000, 4080, 10_000];
    const secrets = sizes.map((size) => owner.keep(Buffer.concat([Buffer.alloc(size - 28), marker])));
    assert.equal(inChunk(), sizes.length, "control");
    for (const secret of secrets) secret.release();
    assert.equal(inChunk(), 0);
  });

  it("is ready when it is had: using it faults no page in", () => {
    const { output, errors } = runChild(`
      const pool = open({ policy: "degraded", lowWaterBytes: 0 });
      const owner = pool.owner("child");
      const secret = owner.allocate(2 ** 21 - 16);
      const plain = new Uint8Array(2 ** 21);
      const touch = (bytes) => { for (let at = 0; at < 2 ** 21 - 16; at += 4096) bytes[at] = 1; };
      for (let warm = 0; warm < 2000; warm += 1) touch(new Uint8Array(4096));
      const faults = () => process.resourceUsage().minorPageFault;
      const count = (act) => { const before = faults(); act(); return faults() - before; };
      console.log(count(() => secret.withBytes(touch)) < 64, count(() => touch(plain)) >= 256);`);
    assert.equal(output, "true true", errors);
  });

  it("is guarded: an overrun by a page ends the process, at both ends of a chunk", () => {
    for (const at of ["4095", "4096 + 2 ** 21"]) {
      const { output, signal } = runChild(`
        const pool = open({ policy: "degraded" });
        const secret = pool.owner("child").allocate(32);
        secret.withBytes((bytes) => {
          const all = new Uint8Array(bytes.buffer);
          console.log(all[4096] + all[4096 + 2 ** 21 - 1]);
          all[${at}] = 1;
          console.log("written");
        });`);
      assert.deepEqual([output, signal], ["0", "SIGSEGV"]);
    }
  });
});

const flagsAt = (address: number): readonly string[] => {
  let isHere = false;
  for (const line of readFileSync("/proc/self/smaps", "latin1").split("\n")) {
    const [, start, end] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line) ?? [];
    if (start !== undefined && end !== undefined) {
      isHere = Number.parseInt(start, 16) <= address && address < Number.parseInt(end, 16);
    }
    if (isHere && line.startsWith("VmFlags:")) return line.slice("VmFlags:".length).trim().split(" ");
  }
  return [];
};
