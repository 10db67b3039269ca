import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertClean, eventually, guest, openHost, run } from "./support.ts";

const host = await openHost();
after(() => host.close());

/** A WASI program; one buffer of 60,000 bytes at 4096 described by the iovec at 0; counts come back at 8. */
const wasiProgram = (main: string, rest = ""): Uint8Array =>
  guest(`(module
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
    (memory (export "memory") 2)
    ${rest}
    (func $buffer (param $length i32)
      (i32.store (i32.const 0) (i32.const 4096))
      (i32.store (i32.const 4) (local.get $length)))
    (func (export "_start") (local $n i32) ${main}))`);

/** Copies its input to its output until the input ends. */
const cat = wasiProgram(`
  (loop $again
    (call $buffer (i32.const 60000))
    (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $proc_exit (i32.const 2))))
    (if (i32.eqz (i32.load (i32.const 8))) (then return))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (loop $rest
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $proc_exit (i32.const 3))))
      (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 8))))
      (i32.store (i32.const 4) (i32.sub (i32.load (i32.const 4)) (i32.load (i32.const 8))))
      (br_if $rest (i32.load (i32.const 4))))
    (br $again))`);

const piped = { stdio: { stdin: "pipe", stdout: "pipe", stderr: "pipe" } } as const;

test("what is written to stdin comes back through the guest, however much it is", async () => {
  await using domain = await run(host, cat, piped);
  const sent = Buffer.alloc(1_000_000, "0123456789abcdef-");
  const writing = (async (): Promise<void> => {
    await domain.stdin.write(sent);
    await domain.stdin.write("end\n");
    domain.stdin.end();
  })();
  const received = await domain.stdout.text();
  await writing;
  assert.equal(received, `${sent.toString()}end\n`);
  assert.deepEqual(await domain.exited, { code: 0, reason: "exit", crashed: false, where: undefined });
  assert.equal(await domain.stderr.text(), "");
  assertClean(host);
});

test("a guest that writes to a pipe which nobody reads waits, and can be destroyed", async () => {
  const flood = wasiProgram(
    "(call $buffer (i32.const 60000)) (loop $again (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) (br $again))",
  );
  const domain = await run(host, flood, piped);
  // The beginning, a write that fits, one that fits in part, and one that waits.
  await eventually(() => domain.stats().hypercalls >= 4);
  assert.equal(domain.state, "running");
  await domain.destroy();
  let bytes = 0;
  for await (const chunk of domain.stderr) bytes += chunk.length;
  assert.equal(bytes, 65_536);
  assertClean(host);
});

test("a guest that waits for piped input can be destroyed, and a write then fails", async () => {
  const domain = await run(host, cat, piped);
  await domain.stdin.write("x");
  await domain.destroy();
  await assert.rejects(domain.stdin.write("y"), { code: "DOMAIN_STATE" });
});

test("an ignored stdin is empty, ignored output is thrown away", async () => {
  await using domain = await run(host, cat, { stdio: { stdin: "ignore", stdout: "ignore" } });
  assert.equal((await domain.exited).code, 0);
  assert.equal(await domain.stdout.text(), "");
  await assert.rejects(domain.stdin.write("x"), { code: "DOMAIN_STATE" });
});

test("an unknown stdio mode is refused", async () => {
  await assert.rejects(host.createDomain({ image: cat, stdio: { stdin: "tty" as "pipe" } }), {
    code: "INVALID_ARGUMENT",
  });
});

test("poll_oneoff sleeps for its time, and notices input", async () => {
  // subscription at 256 (48 bytes): userdata 0, tag 0 (clock), clock 1, timeout 3 ms relative. events at 512, count at 8.
  const sleeping = wasiProgram(`
    (i32.store (i32.const 272) (i32.const 1))
    (i64.store (i32.const 280) (i64.const 3000000))
    (if (call $poll_oneoff (i32.const 256) (i32.const 512) (i32.const 1) (i32.const 8)) (then (call $proc_exit (i32.const 9))))
    (call $proc_exit (i32.load (i32.const 8)))`);
  await using slept = await run(host, sleeping);
  assert.equal((await slept.exited).code, 1);
  // tag 1 (fd_read), descriptor 0.
  const listening = wasiProgram(`
    (i32.store8 (i32.const 264) (i32.const 1))
    (if (call $poll_oneoff (i32.const 256) (i32.const 512) (i32.const 1) (i32.const 8)) (then (call $proc_exit (i32.const 9))))
    (call $proc_exit (i32.load (i32.const 8)))`);
  await using domain = await run(host, listening, piped);
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(domain.state, "running");
  await domain.stdin.write("now");
  assert.equal((await domain.exited).code, 1);
});

test("arguments, environment and a shared directory reach a WASI guest", async () => {
  const directory = mkdtempSync(join(tmpdir(), "xenolith-share-"));
  writeFileSync(join(directory, "in.txt"), "contents");
  const image = guest(`(module
    (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 1000) "out.txt")
    (func (export "_start") (local $error i32)
      (drop (call $args_get (i32.const 0) (i32.const 100)))
      (drop (call $environ_get (i32.const 32) (i32.const 200)))
      (local.set $error (call $path_open (i32.const 3) (i32.const 0) (i32.const 1000) (i32.const 7) (i32.const 9)
        (i64.const 0x40) (i64.const 0) (i32.const 0) (i32.const 64)))
      (if (local.get $error) (then (call $proc_exit (local.get $error))))
      (i32.store (i32.const 72) (i32.const 100))
      (i32.store (i32.const 76) (i32.const 7))
      (call $proc_exit (call $fd_write (i32.load (i32.const 64)) (i32.const 72) (i32.const 1) (i32.const 80)))))`);
  const options = { arguments: ["prog", "é1"], environment: { A: "b" } };
  const shared = { host: directory, guest: "/work" };
  await using domain = await run(host, image, { ...options, directories: [shared] });
  assert.equal((await domain.exited).code, 0);
  assert.equal(readFileSync(join(directory, "out.txt"), "utf8"), "prog\0é");
  assert.equal(Buffer.from(domain.read(200, 4)).toString(), "A=b\0");
  rmSync(join(directory, "out.txt"));
  await using refused = await run(host, image, { ...options, directories: [{ ...shared, readOnly: true }] });
  assert.notEqual((await refused.exited).code, 0);
  rmSync(directory, { recursive: true });
});

/** Two vCPUs read the standard input and write what they get. */
const cats = guest(`(module
  (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 1 shared)
  (func $cat (param $at i32)
    (loop $again
      (i32.store (local.get $at) (i32.add (local.get $at) (i32.const 64)))
      (i32.store offset=4 (local.get $at) (i32.const 64))
      (drop (call $read (i32.const 0) (local.get $at) (i32.const 1) (i32.add (local.get $at) (i32.const 8))))
      (i32.store offset=4 (local.get $at) (i32.load offset=8 (local.get $at)))
      (drop (call $write (i32.const 1) (local.get $at) (i32.const 1) (i32.add (local.get $at) (i32.const 12))))
      (br $again)))
  (func (export "wasi_thread_start") (param i32 i32) (call $cat (i32.const 4096)))
  (func (export "_start") (drop (call $spawn (i32.const 0))) (call $cat (i32.const 8192))))`);

for (const [what, image, vcpus] of [
  ["a guest that waits", cat, 1],
  ["a guest of which two vCPUs wait", cats, 2],
] as const) {
  test(`${what} for the process's own stdin can be destroyed`, () => destroyWaiting(image, vcpus));
}

const LINES = 30;

/** A process whose guest echoes lines is told to destroy the guest. */
const destroyWaiting = async (image: Uint8Array, vcpus: number): Promise<void> => {
  const library = new URL("../src/index.js", import.meta.url).href;
  const script = `
    import { Host } from ${JSON.stringify(library)};
    const host = await Host.open({ memoryBytes: 2 ** 26, warmVcpuCount: 0, cacheDirectory: process.argv[1] });
    const image = Buffer.from(${JSON.stringify(Buffer.from(image).toString("base64"))}, "base64");
    const domain = await host.createDomain({ image, vcpus: ${vcpus}, stdio: { stdin: "inherit", stdout: "inherit" } });
    await domain.start();
    process.on("message", async () => {
      await domain.destroy();
      const findings = host.audit();
      await host.close();
      process.send({ findings, reason: (await domain.exited).reason });
      process.disconnect();
    });
    process.send("started");
  `;
  const directory = mkdtempSync(join(tmpdir(), "xenolith-stdin-"));
  const child = spawn(process.execPath, ["--input-type=module", "-e", script, directory], {
    stdio: ["pipe", "pipe", "inherit", "ipc"],
  });
  let lines = 0;
  const answer = await new Promise((resolve) => {
    child.on("message", (message) => (message === "started" ? child.stdin!.write("echo\n") : resolve(message)));
    // The guest has read and written: from now on it waits for more.
    child.stdout!.on("data", (data: Buffer) => {
      assert.equal(data.toString(), "echo\n");
      lines += 1;
      if (lines < LINES) child.stdin!.write("echo\n");
      else child.send("destroy");
    });
  });
  assert.deepEqual(answer, { findings: [], reason: "destroyed" });
  const code = await new Promise((resolve) => child.on("exit", resolve));
  assert.equal(code, 0);
  rmSync(directory, { recursive: true });
};
