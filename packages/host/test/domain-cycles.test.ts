import assert from "node:assert/strict";
import { after, test } from "node:test";
import { vmaCount } from "@xenolith/sys";
import { VcpuThread } from "../src/vcpu-thread.ts";
import { assertClean, descriptorCount, eventually, guest, openHost, program, run } from "./support.ts";

const host = await openHost({ warmVcpuCount: 0 });
after(() => host.close());

/** 1,000 in a long run: CYCLES=1000. */
const CYCLES = Number(process.env["CYCLES"] ?? 30);

test("domains come and go without leaving anything behind: memory, mappings, descriptors, threads", async () => {
  const images = await Promise.all(
    [
      program(""),
      program("unreachable"),
      program("(loop $again (br $again))"),
      program("(loop $again (drop (call $sched_op (i32.const 1) (i32.const 0))) (br $again))"),
      guest(
        `(module (memory (export "memory") 2) (data (i32.const 8) "text") (func (export "xen_start") (param i32)))`,
      ),
      guest(`(module (memory (export "memory") 1) (func (export "f") (result i32) (i32.const 1)))`),
    ].map((image) => host.loadImage(image)),
  );
  const cycle = async (round: number): Promise<void> => {
    const domain = await host.createDomain({ image: images[round % images.length]! });
    await domain.start();
    if (domain.kind === "reactor") assert.equal(await domain.call("f"), 1);
    await domain.destroy();
  };
  for (let round = 0; round < images.length; round += 1) await cycle(round);
  const before = { info: host.info(), descriptors: descriptorCount(), vmas: vmaCount() };
  for (let round = 0; round < CYCLES; round += 1) await cycle(round);
  assert.deepEqual(host.info(), before.info);
  assert.equal(descriptorCount(), before.descriptors);
  // The engine's own heap comes and goes in mappings of its own.
  assert.ok(vmaCount() <= before.vmas + 64, `${vmaCount()} mappings, ${before.vmas} before`);
  assertClean(host);
});

test("many domains run at once", async () => {
  const image = await host.loadImage(
    program(
      "(i32.store (i32.const 0) (i32.const 7)) (loop $again (drop (call $sched_op (i32.const 1) (i32.const 0))) (br $again))",
    ),
  );
  const domains = await Promise.all(
    Array.from({ length: 12 }, async () => {
      const domain = await host.createDomain({ image });
      await domain.start();
      return domain;
    }),
  );
  for (const domain of domains) await eventually(() => domain.read(0, 1)[0] === 7);
  assert.equal(new Set(domains.map(({ domid }) => domid)).size, 12);
  assert.deepEqual(host.domains, domains);
  assertClean(host);
  await Promise.all(domains.map((domain) => domain.destroy()));
  assert.deepEqual(host.domains, []);
  assert.equal(host.info().threadCount, 0);
  assertClean(host);
});

test("a vCPU thread that dies by itself crashes its domain with the reason, and holds nothing (W28)", async () => {
  // oxlint-disable-next-line typescript/unbound-method -- called with each thread as `this` below.
  const { post } = VcpuThread.prototype;
  const threads: VcpuThread[] = [];
  VcpuThread.prototype.post = function remember(this: VcpuThread, command) {
    threads.push(this);
    post.call(this, command);
  };
  const busy = program("(loop $again (drop (memory.grow (i32.const 0))) (br $again))");
  const domains = [await run(host, busy), await run(host, busy)];
  VcpuThread.prototype.post = post;
  const [dying, other] = domains as [(typeof domains)[0], (typeof domains)[0]];
  // Wherever it is: also inside the hypervisor, with a lock held.
  await threads[0]!.end();
  const exit = await dying.exited;
  assert.equal(exit.crashed, true);
  assert.match(exit.reason, /^thread of vCPU 0 died/);
  assert.equal(other.state, "running");
  await Promise.all(domains.map((domain) => domain.destroy()));
  assertClean(host);
});
