/**
 * Copies between the control domain and a guest's memory (what every hypercall with a structure, every WASI read and
 * write does), beside TypedArray.set between two ordinary arrays: memcpy as JavaScript has it.
 */
import assert from "node:assert/strict";
import { GuestMemory } from "@xenolith/core";
import { startDomain, withHost } from "./bench-host.ts";
import { assembleGuest } from "./guest-text.ts";
import { type Bench, comparePair, type Result, result, timeNs } from "./harness.ts";

const MIB = 2 ** 20;
const GUEST_PAGES = 64;
/** Behind what a structure would stand behind: aligned to 16 bytes, not to a page. */
const ADDRESS = 2 * MIB + 4096;

const guest = (): Uint8Array<ArrayBuffer> =>
  assembleGuest(`(module (memory (export "memory") ${GUEST_PAGES}) (func (export "idle")))`);

interface Size {
  readonly name: string;
  readonly bytes: number;
  readonly count: number;
}

const sizes: readonly Size[] = [
  { name: "64B", bytes: 64, count: 200_000 },
  { name: "4KiB", bytes: 4096, count: 50_000 },
  { name: "1MiB", bytes: MIB, count: 100 },
];

/** 64 bytes are promised in nanoseconds: there memcpy is less than the check of one page. */
const promiseOf = ({ bytes }: Size) => (bytes === 64 ? { maximum: 60 } : { limit: 1.5 });

const repeat =
  (operation: () => unknown) =>
  (count: number): number =>
    timeNs(() => {
      for (let turn = 0; turn < count; turn += 1) operation();
    });

const measure = async (memory: GuestMemory, size: Size, small: boolean): Promise<Result[]> => {
  const ours = Uint8Array.from({ length: size.bytes }, (_, index) => index % 251);
  const arrived = new Uint8Array(size.bytes);
  const [from, to] = [new Uint8Array(size.bytes).fill(1), new Uint8Array(size.bytes)];
  assert.equal(memory.copyToGuest(ADDRESS, ours), 0);
  assert.equal(memory.copyFromGuest(ADDRESS, arrived), 0);
  assert.deepEqual(arrived, ours);
  const floor = repeat(() => to.set(from));
  const rounds = { count: small ? 10 : size.count, rounds: small ? 1 : 25, warmup: small ? 0 : 5 };
  const copyFrom = await comparePair({ value: repeat(() => memory.copyFromGuest(ADDRESS, arrived)), floor }, rounds);
  const copyTo = await comparePair({ value: repeat(() => memory.copyToGuest(ADDRESS, ours)), floor }, rounds);
  const unit = "ns";
  return [
    result(`copyFromGuest-${size.name}`, unit, copyFrom, promiseOf(size)),
    result(`copyToGuest-${size.name}`, unit, copyTo, promiseOf(size)),
  ];
};

export const bench: Bench = ({ small }) =>
  withHost({ memoryBytes: 64 * MIB, warmVcpuCount: 1 }, async (host) => {
    const domain = await startDomain(host, { image: guest(), memoryBytesMax: 8 * MIB });
    const { hypervisor } = host;
    const memory = new GuestMemory(hypervisor, hypervisor.domains.slotOf(domain.domid));
    const results: Result[] = [];
    for (const size of sizes) results.push(...(await measure(memory, size, small)));
    return results;
  });
