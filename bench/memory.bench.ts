/**
 * Giving a guest memory and taking it back, beside the bare system calls for the same runs on a bare Worker. Memory that
 * was never touched costs nothing but the call; it is reported too, without a promise.
 */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { mappingsIn, memfdResidentBytes } from "@xenolith/sys";
import type { Domain, Host } from "@xenolith/host";
import { BareThread } from "./bare-thread.ts";
import type { MappingTimes } from "./bare-mapping.ts";
import { numberOf, startDomain, withHost } from "./bench-host.ts";
import { type Bench, compareCycles, type Result, result, single } from "./harness.ts";
import { memoryGuest } from "./memory-guest.ts";

const MIB = 2 ** 20;
const FRAME_BYTES = 4096;
const NS_PER_US = 1000;

interface Shape {
  readonly name: string;
  readonly sizeBytes: number;
  /** log2 of the frames of one extent. */
  readonly order: number;
  readonly rounds: number;
}

const shapes: readonly Shape[] = [
  { name: "1MiB", sizeBytes: MIB, order: 0, rounds: 101 },
  { name: "16MiB", sizeBytes: 16 * MIB, order: 0, rounds: 51 },
  { name: "512MiB", sizeBytes: 512 * MIB, order: 0, rounds: 11 },
  { name: "512MiB-in-2MiB-extents", sizeBytes: 512 * MIB, order: 9, rounds: 11 },
];
const smallShapes: readonly Shape[] = [{ name: "1MiB", sizeBytes: MIB, order: 0, rounds: 1 }];

const timeOf = async (domain: Domain, step: string): Promise<number> => {
  const elapsedNs = numberOf(await domain.call(step));
  assert(elapsedNs >= 0, `${step} was not done whole`);
  return elapsedNs;
};

const cycleGuest = async (domain: Domain, isTouched: boolean): Promise<MappingTimes> => ({
  map: await timeOf(domain, "populate"),
  touch: isTouched ? await timeOf(domain, "touch") : 0,
  unmap: await timeOf(domain, "decrease"),
});

const measure = async (domain: Domain, thread: BareThread, shape: Shape): Promise<Result[]> => {
  const { name, sizeBytes, order, rounds } = shape;
  await domain.call("prepare", sizeBytes / FRAME_BYTES / 2 ** order, order);
  const run = async (isTouched: boolean) => {
    const cycles: [MappingTimes, MappingTimes][] = [];
    for (let round = -2; round < rounds; round += 1) {
      const bare = await thread.call<MappingTimes>("bare-mapping.js", "cycle", sizeBytes, isTouched);
      const ours = await cycleGuest(domain, isTouched);
      if (round >= 0) cycles.push([ours, bare]);
    }
    return cycles;
  };
  const touched = await run(true);
  const untouched = await run(false);
  return [
    result(
      `populate-touch-${name}`,
      "us",
      compareCycles(touched, ({ map, touch }) => map + touch, NS_PER_US),
      { limit: 1.3 },
    ),
    result(
      `decrease-${name}`,
      "us",
      compareCycles(touched, ({ unmap }) => unmap, NS_PER_US),
      { limit: 1.3 },
    ),
    result(
      `populate-untouched-${name}`,
      "us",
      compareCycles(untouched, ({ map }) => map, NS_PER_US),
    ),
    result(
      `decrease-untouched-${name}`,
      "us",
      compareCycles(untouched, ({ unmap }) => unmap, NS_PER_US),
    ),
  ];
};

/** Bytes of machine memory that the kernel really keeps. */
const residentBytes = (): number => {
  const fds = readdirSync("/proc/self/fd").filter((fd) => linkOf(fd).startsWith("/memfd:xenolith-bank"));
  return fds.reduce((sum, fd) => sum + memfdResidentBytes(Number(fd)), 0);
};

const linkOf = (fd: string): string => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    // Closed since the directory was read: that one was the directory's own.
    return "";
  }
};

/** Mappings that the kernel keeps for a domain's address space. */
const mappingCount = ({ hypervisor }: Host, { domid }: Domain): number => {
  const base = hypervisor.domains.spaceBase[hypervisor.domains.slotOf(domid)]!;
  return mappingsIn(base, base + 2 ** 32).length;
};

/** One contiguous request is one mapping, and memory that was given back is gone. */
const account = async (host: Host, domain: Domain, shape: Shape): Promise<Result[]> => {
  const { name, sizeBytes, order } = shape;
  await domain.call("prepare", sizeBytes / FRAME_BYTES / 2 ** order, order);
  const [vmasBefore, residentBefore] = [mappingCount(host, domain), residentBytes()];
  await timeOf(domain, "populate");
  const vmas = mappingCount(host, domain) - vmasBefore;
  await timeOf(domain, "touch");
  const populated = residentBytes() - residentBefore;
  await timeOf(domain, "decrease");
  const left = residentBytes() - residentBefore;
  const bytes = (value: number) => ({ value: value / MIB, floor: sizeBytes / MIB });
  return [
    // The run itself, and the hole behind it, which was one with the hole before it.
    single(`mappings-added-${name}`, "mappings", { value: vmas, floor: 2 }, { limit: 1 }),
    single(`resident-touched-${name}`, "MiB", bytes(populated), { limit: 1 }),
    single(`resident-after-decrease-${name}`, "MiB", bytes(left), { limit: 0 }),
  ];
};

export const bench: Bench = ({ small }) =>
  withHost({ memoryBytes: 1024 * MIB, warmVcpuCount: 1 }, async (host) => {
    const thread = new BareThread();
    try {
      const domain = await startDomain(host, { image: memoryGuest(), memoryBytesMax: 768 * MIB });
      const results: Result[] = [];
      for (const shape of small ? smallShapes : shapes) results.push(...(await measure(domain, thread, shape)));
      results.push(...(await account(host, domain, small ? smallShapes[0]! : shapes[2]!)));
      return results;
    } finally {
      await thread.close();
    }
  });
