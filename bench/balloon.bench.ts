/**
 * The balloon of the guest library, beside the bare system calls for the same run on a bare Worker: memory taken and
 * touched, and given back; and how soon after a target was written a guest's free memory is the host's.
 */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { memfdResidentBytes } from "@xenolith/sys";
import type { Domain, Host } from "@xenolith/host";
import type { XenstoreClient } from "@xenolith/xenstore";
import { compileBalloons, FRAME_BYTES, touchKept } from "./balloon-guest.ts";
import { BareThread } from "./bare-thread.ts";
import type { MappingTimes } from "./bare-mapping.ts";
import { numberOf, startDomain, withHost } from "./bench-host.ts";
import { type Bench, compareCycles, median, type Result, result, single } from "./harness.ts";

const MIB = 2 ** 20;
const KIB_PER_MIB = 1024;
const NS_PER_US = 1000;
/** The promises: 0.75 of the bare calls' rate, 50 ms, 2 mappings. */
const RATIO_MAX = 1 / 0.75;
const LATENCY_MS_MAX = 50;
const MAPPINGS_MAX = 2;
const LATENCY_MIB = 64;
/** What the guest keeps. */
const REST_MIB = 4;
const LOOK_MS = 1;
/** What the guest's own work may make resident meanwhile: its stack, the rings. */
const OWN_BYTES_MAX = 256 * 1024;

const timeOf = async (domain: Domain, step: string, pages: number): Promise<number> => {
  const elapsedNs = numberOf(await domain.call(step, pages));
  assert(elapsedNs >= 0, `${step} was not done whole`);
  return elapsedNs;
};

const rates = async (
  host: Host,
  image: Uint8Array<ArrayBuffer>,
  sizeMib: number,
  rounds: number,
): Promise<Result[]> => {
  const thread = new BareThread();
  try {
    const domain = await startDomain(host, { image, memoryBytesMax: (sizeMib + 64) * MIB });
    const pages = (sizeMib * MIB) / FRAME_BYTES;
    const cycles: [MappingTimes, MappingTimes][] = [];
    for (let round = -1; round < rounds; round += 1) {
      const bare = await thread.call<MappingTimes>("bare-mapping.js", "cycle", sizeMib * MIB, true);
      const map = await timeOf(domain, "up", pages);
      const touch = await timeOf(domain, "touch", pages);
      const ours = { map, touch, unmap: await timeOf(domain, "down", pages) };
      if (round >= 0) cycles.push([ours, bare]);
    }
    const vmas = domain.stats().vmas;
    await timeOf(domain, "up", pages);
    const added = domain.stats().vmas - vmas;
    await timeOf(domain, "down", pages);
    await domain.destroy();
    const limit = { limit: RATIO_MAX };
    return [
      result(
        `up-and-touch-${sizeMib}MiB`,
        "us",
        compareCycles(cycles, ({ map, touch }) => map + touch, NS_PER_US),
        limit,
      ),
      result(
        `down-${sizeMib}MiB`,
        "us",
        compareCycles(cycles, ({ unmap }) => unmap, NS_PER_US),
        limit,
      ),
      single(`mappings-added-${sizeMib}MiB`, "mappings", { value: added, floor: MAPPINGS_MAX }, { limit: 1 }),
    ];
  } finally {
    await thread.close();
  }
};

/** Bytes of machine memory that the kernel really keeps. */
const residentBytes = (): number =>
  readdirSync("/proc/self/fd")
    .filter((fd) => isBank(fd))
    .reduce((sum, fd) => sum + memfdResidentBytes(Number(fd)), 0);

const isBank = (fd: string): boolean => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith("/memfd:xenolith-bank");
  } catch {
    // Closed since the directory was read: that one was the directory's own.
    return false;
  }
};

const until = async (isSo: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await isSo())) await setTimeout(LOOK_MS);
};

/** Milliseconds from the write of a target until the memory is the host's, of a guest that touched it. */
const latencyMs = async (host: Host, store: XenstoreClient, domain: Domain, sizeMib: number): Promise<number> => {
  const target = `/local/domain/${domain.domid}/memory/target`;
  const owns = (mib: number): Promise<void> => until(() => domain.stats().pages === (mib * MIB) / FRAME_BYTES);
  await store.write(target, String((sizeMib + REST_MIB) * KIB_PER_MIB));
  await owns(sizeMib + REST_MIB);
  touchKept(host, domain);
  const before = residentBytes();
  const start = performance.now();
  await store.write(target, String(REST_MIB * KIB_PER_MIB));
  await until(() => before - residentBytes() >= sizeMib * MIB - OWN_BYTES_MAX);
  const elapsedMs = performance.now() - start;
  await owns(REST_MIB);
  return elapsedMs;
};

const latency = async (
  host: Host,
  image: Uint8Array<ArrayBuffer>,
  sizeMib: number,
  rounds: number,
): Promise<Result> => {
  const store = await host.xenstore();
  const domain = await startDomain(host, { image, memoryBytesMax: (sizeMib + 8) * MIB });
  const values: number[] = [];
  for (let round = 0; round < rounds; round += 1) values.push(await latencyMs(host, store, domain, sizeMib));
  await domain.destroy();
  const figures = { value: median(values), floor: LATENCY_MS_MAX };
  return single(`back-on-the-host-${sizeMib}MiB`, "ms", figures, { maximum: LATENCY_MS_MAX });
};

export const bench: Bench = async ({ small }) => {
  const [reactor, loop] = await compileBalloons();
  const sizeMib = small ? 4 : 512;
  return withHost({ memoryBytes: 1024 * MIB, warmVcpuCount: 1 }, async (host) => [
    ...(await rates(host, reactor!, sizeMib, small ? 1 : 11)),
    await latency(host, loop!, small ? 4 : LATENCY_MIB, small ? 1 : 21),
  ]);
};
