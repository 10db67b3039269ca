/**
 * From the wish for a domain to its guest's first instruction, which reads the hypervisor's clock; and how many domains
 * one process holds. The floor of a start is that of an empty Worker, of many domains that of as many empty Workers.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import type { Domain, Host } from "@xenolith/host";
import { processMemory } from "@xenolith/sys";
import { startDomain, withHost } from "./bench-host.ts";
import { assembleGuest } from "./guest-text.ts";
import { type Bench, median, type Result, single } from "./harness.ts";

const MIB = 2 ** 20;
const STAMP = 8;
const CLOCK_MONOTONIC = 1;
const PAGES_TOUCHED = 512;

/** Notes the time and powers off. */
const stamper = (): Uint8Array<ArrayBuffer> =>
  assembleGuest(`(module
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start") (drop (call $clock_time_get (i32.const ${CLOCK_MONOTONIC}) (i64.const 1) (i32.const ${STAMP})))))`);

/** Exports `use`, which writes to all its pages and returns how many it found written by it. */
const user = (): Uint8Array<ArrayBuffer> =>
  assembleGuest(`(module
    (memory (export "memory") ${PAGES_TOUCHED / 16})
    (func (export "use") (result i32) (local $page i32) (local $found i32)
      (loop $again
        (i32.store (i32.shl (local.get $page) (i32.const 12)) (local.get $page))
        (local.set $found (i32.add (local.get $found)
          (i32.eq (i32.load (i32.shl (local.get $page) (i32.const 12))) (local.get $page))))
        (br_if $again (i32.lt_u (local.tee $page (i32.add (local.get $page) (i32.const 1))) (i32.const ${PAGES_TOUCHED}))))
      (local.get $found)))`);

/** Nanoseconds from here to the guest's first instruction. */
const bootOnce = async (host: Host, path: string): Promise<number> => {
  const { platform } = host.hypervisor;
  const start = platform.now();
  await using domain = await startDomain(host, { image: path, memoryBytesMax: MIB });
  await domain.exited;
  const stamp = Number(new DataView(domain.read(STAMP, 8).buffer).getBigUint64(0, true));
  assert(stamp > start && stamp < platform.now());
  return stamp - start;
};

/** Nanoseconds from here to the first line of an empty Worker. */
const startWorker = async (): Promise<number> => {
  const start = process.hrtime.bigint();
  const worker = new Worker(new URL("bare-start.js", import.meta.url));
  const stamp = await new Promise<bigint>((resolve) => worker.once("message", resolve));
  await worker.terminate();
  return Number(stamp - start);
};

const measureBoot = async (path: string, rounds: number, warmVcpuCount: number) =>
  withHost({ memoryBytes: 64 * MIB, warmVcpuCount }, async (host) => {
    const boots: number[] = [];
    const workers: number[] = [];
    for (let round = -2; round < rounds; round += 1) {
      const worker = await startWorker();
      await delay(30);
      await host.warm();
      const boot = await bootOnce(host, path);
      if (round >= 0) workers.push(worker);
      if (round >= 0) boots.push(boot);
    }
    return { value: median(boots) / 1e6, floor: median(workers) / 1e6 };
  });

/** Starts `count` domains, uses each, and says what each took. */
const crowd = async (count: number): Promise<Result[]> =>
  withHost({ memoryBytes: count * 4 * MIB + 64 * MIB, warmVcpuCount: 4 }, async (host) => {
    const image = await host.loadImage(user());
    const workers = await measureWorkers(Math.max(2, Math.floor(count / 8)));
    const before = processMemory().residentBytes;
    const start = process.hrtime.bigint();
    const domains: Domain[] = [];
    for (let domain = 0; domain < count; domain += 1) {
      domains.push(await startDomain(host, { image, memoryBytesMax: 4 * MIB }));
    }
    const elapsedMs = Number(process.hrtime.bigint() - start) / 1e6;
    const answers = await Promise.all(domains.map((domain) => domain.call("use")));
    const used = answers.filter((answer) => answer === PAGES_TOUCHED).length;
    const residentMiB = (processMemory().residentBytes - before) / MIB;
    assert.deepEqual(host.audit(), []);
    return [
      single(`domains-used-of-${count}`, "domains", { value: used, floor: count }, { minimum: count }),
      single(`start-each-of-${count}`, "ms", { value: elapsedMs / count, floor: workers.startMs }),
      // Two MiB of it are the pages that the guest wrote to.
      single(`resident-each-of-${count}`, "MiB", { value: residentMiB / count, floor: workers.residentMiB }),
    ];
  });

/** What an empty Worker takes, out of `count` that live at once. */
const measureWorkers = async (count: number): Promise<{ startMs: number; residentMiB: number }> => {
  const before = processMemory().residentBytes;
  const start = process.hrtime.bigint();
  const workers: Worker[] = [];
  for (let index = 0; index < count; index += 1) {
    const worker = new Worker(new URL("bare-worker.js", import.meta.url));
    await new Promise((resolve) => worker.once("online", resolve));
    workers.push(worker);
  }
  const startMs = Number(process.hrtime.bigint() - start) / 1e6 / count;
  const residentMiB = (processMemory().residentBytes - before) / MIB / count;
  for (const worker of workers) await worker.terminate();
  return { startMs, residentMiB };
};

export const bench: Bench = async ({ small }) => {
  const directory = mkdtempSync(join(tmpdir(), "xenolith-bench-"));
  try {
    const path = join(directory, "stamper.wasm");
    writeFileSync(path, stamper());
    const rounds = small ? 1 : 25;
    const warm = await measureBoot(path, rounds, 2);
    const cold = await measureBoot(path, rounds, 0);
    return [
      single("boot-warm", "ms", warm, { maximum: 3 }),
      single("boot-cold", "ms", cold),
      single(
        "boot-cold-above-worker-start",
        "ms",
        { value: cold.value - cold.floor, floor: cold.floor },
        { maximum: 10 },
      ),
      ...(await crowd(small ? 3 : 200)),
    ];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
};
