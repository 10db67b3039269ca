/**
 * Secrets in a pool, beside sodium-native, which gives each secret pages of its own; growing by a chunk, beside the bare
 * stores to its pages; what a secret takes of what is scarce: locked memory, mappings, the kernel's large pages; and
 * mapping secret memory into a guest, beside the bare mmap.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setImmediate as turn } from "node:timers/promises";
import { CHUNK_BYTES, type Secret, type SecretOwner, SecretPool } from "@xenolith/secrets";
import {
  addressOf,
  check,
  closeDescriptor,
  createMemfd,
  createSecretMemfd,
  lockedBytes,
  mapAnywhere,
  mappingsIn,
  PAGE_BYTES,
  PROT_READ_WRITE,
  unmap,
  viewMemory,
  vmaCount,
} from "@xenolith/sys";
import { type Bench, comparePair, type Result, result, single, timeNs } from "./harness.ts";
import { secretMapping } from "./secret-mapping.ts";

/** What is used of sodium-native. */
interface Sodium {
  sodium_malloc(size: number): Buffer;
  sodium_memzero(buffer: Buffer): void;
  sodium_free(buffer: Buffer): void;
}

const require = createRequire(import.meta.url);
const sodium = require("sodium-native") as Sodium;

const KEY = new Uint8Array(32).fill(7);
/** sodium-native gives pages back when its buffers are collected: more at once than this, and mappings run out. */
const SODIUM_AT_ONCE = 1000;

export const bench: Bench = async ({ small }) => {
  using pool = SecretPool.open({ policy: "degraded", lowWaterBytes: 0, underPressure: () => true });
  using owner = pool.owner("bench");
  // A program has secrets; without one, each collection between the rounds has V8 forget how to make them.
  using secret = owner.keep(KEY);
  const rounds = { count: small ? 100 : SODIUM_AT_ONCE, rounds: small ? 1 : 25 };
  const cycle = await comparePair({ value: (count) => cycles(owner, count), floor: sodiumCycles }, rounds);
  const loan = await comparePair({ value: (count) => loans(secret, count), floor: bareViews }, rounds);
  const growth = await comparePair(
    { value: (count) => growths(pool, owner, count), floor: (count) => bareGrowths(pool.hidden, count) },
    { count: small ? 1 : 4, rounds: small ? 1 : 15 },
  );
  return [
    result("cycle-32B-beside-sodium", "ns", cycle, { limit: 0.02, maximum: 1000 }),
    result("lend-beside-view", "ns", loan),
    result("grow-chunk-beside-touch", "ns", growth, { limit: 1.2 }),
    ...(await scarce(pool, owner, small ? 500 : 4000)),
    directMap(owner, small ? 2 : 100),
    ...(await secretMapping(small)),
  ];
};

/** For each cycle of sodium's so many of ours: what the kernel still does for the former in the background is over soon. */
const CYCLES_FOR_ONE = 100;

const cycles = (owner: SecretOwner, count: number): number =>
  timeNs(() => {
    for (let index = 0; index < CYCLES_FOR_ONE * count; index += 1) {
      const secret = owner.allocate(KEY.length);
      secret.copyFrom(KEY);
      secret.release();
    }
  }) / CYCLES_FOR_ONE;

const sodiumCycles = async (count: number): Promise<number> => {
  const took = timeNs(() => {
    for (let index = 0; index < count; index += 1) {
      const buffer = sodium.sodium_malloc(KEY.length);
      buffer.set(KEY);
      sodium.sodium_memzero(buffer);
      sodium.sodium_free(buffer);
    }
  });
  await collect();
  return took;
};

/** Lets sodium-native's finalisers run. */
const collect = async (): Promise<void> => {
  for (let times = 0; times < 3; times += 1) {
    globalThis.gc?.();
    await turn();
  }
};

const loans = (secret: Secret, count: number): number =>
  timeNs(() => {
    for (let index = 0; index < count; index += 1) secret.withBytes((bytes) => bytes[0]);
  });

const bareViews = (count: number): number => {
  const bytes = new Uint8Array(64);
  const address = addressOf(bytes);
  return timeNs(() => {
    for (let index = 0; index < count; index += 1) assert.equal(new Uint8Array(viewMemory(address, 32))[0], 0);
  });
};

/** Each secret fills a chunk that must be made for it; the chunk is given back afterwards, untimed. */
const growths = (pool: SecretPool, owner: SecretOwner, count: number): number => {
  let took = 0;
  for (let index = 0; index < count; index += 1) {
    const secret = owner.allocate(CHUNK_BYTES - 16);
    took += pool.statistics().lastGrowthMs * 1e6;
    secret.release();
    pool.shrink();
  }
  return took;
};

const bareGrowths = (hidden: boolean, count: number): number => {
  let took = 0;
  for (let index = 0; index < count; index += 1) {
    let [fd, address] = [-1, 0];
    took += timeNs(() => {
      fd = hidden ? createSecretMemfd(CHUNK_BYTES) : createMemfd({ name: "bench", sizeBytes: CHUNK_BYTES });
      address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes: CHUNK_BYTES, protection: PROT_READ_WRITE });
      const bytes = new Uint8Array(viewMemory(address, CHUNK_BYTES));
      for (let at = 0; at < CHUNK_BYTES; at += PAGE_BYTES) bytes[at] = 0;
    });
    check(unmap(address, CHUNK_BYTES), "munmap", { address });
    closeDescriptor(fd);
  }
  return took;
};

/** Locked memory of a secret, and mappings of 30,000: ours as they are, sodium's from as many as fit. */
const scarce = async (pool: SecretPool, owner: SecretOwner, sodiumCount: number): Promise<Result[]> => {
  pool.shrink();
  const count = (pool.statistics().freeBytes + CHUNK_BYTES) / 64;
  const secrets = Array.from({ length: count }, () => owner.allocate(KEY.length));
  const locked = pool.statistics().lockedBytes / pool.statistics().slots;
  const chunkAt = secrets[0]!.withBytes((bytes) => addressOf(new Uint8Array(bytes.buffer)));
  const mappings = mappingsIn(chunkAt, chunkAt + CHUNK_BYTES + 2 * PAGE_BYTES).length;
  for (const secret of secrets) secret.release();

  const before = { locked: lockedBytes(), mappings: vmaCount() };
  const buffers = Array.from({ length: sodiumCount }, () => sodium.sodium_malloc(KEY.length));
  const theirs = { locked: lockedBytes() - before.locked, mappings: vmaCount() - before.mappings };
  for (const buffer of buffers) sodium.sodium_free(buffer);
  await collect();
  const sodiumMappings = (theirs.mappings / sodiumCount) * 30_000;
  return [
    single("locked-per-32B-secret", "bytes", { value: locked, floor: theirs.locked / sodiumCount }, { maximum: 66 }),
    single("mappings-of-30000-secrets", "mappings", { value: mappings, floor: sodiumMappings }, { maximum: 4 }),
  ];
};

/** Large pages of the kernel's that were split while a chunk was filled and emptied again and again, in KiB. */
const directMap = (owner: SecretOwner, times: number): Result => {
  const splitKiB = (): number =>
    Number(/^DirectMap4k:\s+(\d+)/m.exec(readFileSync("/proc/meminfo", "latin1"))?.[1] ?? 1);
  const before = splitKiB();
  for (let index = 0; index < times; index += 1) owner.allocate(CHUNK_BYTES / 2).release();
  const value = splitKiB() - before;
  return single("direct-map-split-by-reuse", "KiB", { value, floor: before }, { maximum: 0 });
};
