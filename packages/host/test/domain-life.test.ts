import assert from "node:assert/strict";
import { after, test } from "node:test";
import { assertClean, descriptorCount, eventually, guest, openHost, program, run } from "./support.ts";

const host = await openHost();
after(() => host.close());

const endless = program("(loop $again (br $again))");
/** Blocks for ever: no event will come. */
const blocking = program("(loop $again (drop (call $sched_op (i32.const 1) (i32.const 0))) (br $again))");
const busyCalling = program("(loop $again (drop (call $memory_op (i32.const 3) (i32.const 0))) (br $again))");

test("a program that returns powers its domain off with exit code 0", async () => {
  await using domain = await run(host, program(""));
  assert.deepEqual(await domain.exited, { code: 0, reason: "exit", crashed: false, where: undefined });
  assert.equal(domain.state, "shutdown");
});

for (const code of [0, 1, 42, 255, 4_000_000_000]) {
  test(`proc_exit(${code}) ends the domain with that code`, async () => {
    await using domain = await run(host, program(`(call $proc_exit (i32.const ${code | 0}))`));
    assert.equal((await domain.exited).code, code);
  });
}

test("text printed with console_io arrives, the last line without an end included", async () => {
  const text = String.raw`(data (i32.const 0) "one\ntwo")`;
  const domain = await run(host, program("(drop (call $console_io (i32.const 0) (i32.const 7) (i32.const 0)))", text));
  await domain.exited;
  await domain.destroy();
  assert.equal(await domain.console.text(), "one\ntwo");
});

test("a trap crashes that domain alone and names function and address", async () => {
  await using other = await run(host, blocking);
  const trapping = program("(call $culprit)", "(func $culprit (drop (i32.load (i32.const 0x7fffffff))))");
  await using domain = await run(host, trapping);
  const exit = await domain.exited;
  assert.equal(exit.crashed, true);
  assert.equal(exit.code, 134);
  assert.equal(exit.reason, "memory access out of bounds");
  assert.match(exit.where ?? "", /^culprit \(wasm-function\[\d+\]:0x[0-9a-f]+\)$/);
  assert.equal(other.state, "running");
});

test("unreachable and a stack overflow are crashes with their own reasons", async () => {
  await using broken = await run(host, program("unreachable"));
  assert.equal((await broken.exited).reason, "unreachable");
  await using deep = await run(host, program("(call $deeper)", "(func $deeper (call $deeper))"));
  const exit = await deep.exited;
  assert.equal(exit.reason, "stack overflow");
  assert.match(exit.where ?? "", /^deeper /);
});

for (const [what, image] of [
  ["loops for ever", endless],
  ["sits in block", blocking],
  ["makes hypercalls without end", busyCalling],
] as const) {
  test(`a guest that ${what} can be destroyed, and nothing is left`, async () => {
    const before = { free: host.info().memoryFreeBytes, descriptors: descriptorCount() };
    const domain = await run(host, image);
    await new Promise((resolve) => setTimeout(resolve, 5));
    await domain.destroy();
    assert.deepEqual(await domain.exited, { code: 137, reason: "destroyed", crashed: false, where: undefined });
    assert.equal(domain.state, "free");
    assert.equal(host.info().memoryFreeBytes, before.free);
    await host.warm();
    assert.ok(descriptorCount() <= before.descriptors + 8);
    assertClean(host);
  });

  test(`a guest that ${what} can be shut down and then destroyed`, async () => {
    await using domain = await run(host, image);
    const exit = await domain.shutdown();
    assert.deepEqual(exit, { code: 0, reason: "poweroff", crashed: false, where: undefined });
  });
}

test("a paused domain makes no progress until it is unpaused", async () => {
  const counting = program(
    `(loop $again
       (drop (call $memory_op (i32.const 3) (i32.const 0)))
       (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
       (br $again))`,
  );
  await using domain = await run(host, counting);
  const count = (): number => new DataView(domain.read(64, 4).buffer).getUint32(0, true);
  await eventually(() => count() > 0);
  await domain.pause();
  await domain.pause();
  const paused = count();
  await new Promise((resolve) => setTimeout(resolve, 20));
  // The one loop turn that was outside of the hypervisor may end.
  assert.ok(count() <= paused + 1);
  assertClean(host);
  domain.unpause();
  assert.equal(domain.state, "paused");
  domain.unpause();
  await eventually(() => count() > paused + 1);
  assert.throws(() => domain.unpause(), { code: "DOMAIN_STATE" });
});

test("a domain is started once, and not after its end", async () => {
  const domain = await host.createDomain({ image: blocking });
  assert.equal(domain.state, "paused");
  await domain.start();
  await assert.rejects(domain.start(), { code: "DOMAIN_STATE" });
  await domain.destroy();
  await domain.destroy();
  await assert.rejects(domain.start(), { code: "DOMAIN_STATE" });
  await assert.rejects(domain.pause(), { code: "DOMAIN_STATE" });
  assert.throws(() => domain.read(0, 1), { code: "DOMAIN_STATE" });
});

test("a domain that was never started can be destroyed", async () => {
  const free = host.info().memoryFreeBytes;
  const domain = await host.createDomain({ image: endless });
  assert.ok(host.info().memoryFreeBytes < free);
  await domain.destroy();
  assert.equal(host.info().memoryFreeBytes, free);
  assertClean(host);
});

test("a domain can be destroyed at every point of its start", async () => {
  const free = host.info().memoryFreeBytes;
  for (let turns = 0; turns < 12; turns += 1) {
    const domain = await host.createDomain({ image: endless });
    const started = domain.start();
    for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    await domain.destroy();
    await started;
    assert.equal(domain.state, "free");
  }
  assert.equal(host.info().memoryFreeBytes, free);
  assertClean(host);
});

test("an action that is given up says so: TIMEOUT, ABORTED", async () => {
  await using domain = await run(host, blocking);
  const controller = new AbortController();
  const waiting = domain.callWith({ signal: controller.signal }, "memory");
  await assert.rejects(waiting, { code: "DOMAIN_STATE" });
  controller.abort();
  await assert.rejects(domain.pause({ signal: controller.signal }), { code: "ABORTED" });
  await assert.rejects(domain.pause({ timeoutMs: -1 }), { code: "INVALID_ARGUMENT" });
  assert.equal(domain.state, "running");
});

test("listeners hear of the exit and of the destruction", async () => {
  const domain = await host.createDomain({ image: program("") });
  const heard: string[] = [];
  domain.events.on("exit", ({ reason }) => heard.push(reason));
  domain.events.on("destroyed", () => heard.push("destroyed"));
  await domain.start();
  await domain.exited;
  await domain.destroy();
  assert.deepEqual(heard, ["exit", "destroyed"]);
});

test("a guest that suspends itself can be let go on", async () => {
  const suspending = program(
    "(i32.store (i32.const 0) (i32.const 2)) (drop (call $sched_op (i32.const 2) (i32.const 0))) (call $proc_exit (i32.const 7))",
  );
  const domain = await host.createDomain({ image: suspending });
  const suspended = new Promise<void>((resolve) => domain.events.once("suspend", () => resolve()));
  await domain.start();
  await suspended;
  assert.equal(domain.state, "shutdown");
  domain.unpause();
  assert.equal((await domain.exited).code, 7);
  await domain.destroy();
});

const TURNS_BETWEEN_LOOKS = 10_000;
/** Counts at address 0 for ever, without a hypercall. */
const counter = guest(`(module (memory (export "memory") 1)
  (func (export "_start") (loop $again
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (br $again))))`);

for (const preemptible of [true, false]) {
  test(`a domain that computes ${preemptible ? "stops" : "goes on"} when it is paused, created with preemptible: ${preemptible}`, async () => {
    const host = await openHost();
    await using domain = await run(host, counter, { preemptible });
    const count = (): number => new Uint32Array(domain.read(0, 4).buffer)[0]!;
    await eventually(() => count() > 0);
    await domain.pause();
    if (preemptible) {
      // The vCPU may be anywhere between two looks for a pause: at most so many turns follow.
      const most = count() + TURNS_BETWEEN_LOOKS;
      for (let look = 0; look < 20; look += 1) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        assert.ok(count() <= most);
      }
      domain.unpause();
      await eventually(() => count() > most);
    } else {
      const most = count() + TURNS_BETWEEN_LOOKS;
      await eventually(() => count() > most);
    }
    await domain.destroy();
    assertClean(host);
    await host.close();
  });
}

test("a domain cannot be preemptible when its image was loaded otherwise", async () => {
  await using host = await openHost();
  const image = await host.loadImage(counter);
  await assert.rejects(host.createDomain({ image, preemptible: true }), { code: "INVALID_ARGUMENT" });
  await using domain = await host.createDomain({
    image: await host.loadImage(counter, { preemptible: true }),
    preemptible: true,
  });
  assert.equal(domain.state, "paused");
});
