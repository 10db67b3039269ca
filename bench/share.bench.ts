/**
 * One buffer of 64 MiB for many guests: mapping a share beside a bare mmap, and beside the copies that others make of the same bytes, namely structured
 * clone to a Worker and the input of an Extism plugin; and the memory that 16 guests take which all read it.
 */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { createPlugin } from "@extism/extism";
import type { Domain, Host, Share } from "@xenolith/host";
import { baseAddress, createMemfd, mapFrames, memfdResidentBytes, PROT_READ, reserve } from "@xenolith/sys";
import { BareThread } from "./bare-thread.ts";
import { numberOf, startDomain, withHost } from "./bench-host.ts";
import { assembleGuest } from "./guest-text.ts";
import { type Bench, comparePair, type Result, result, scaled, single } from "./harness.ts";

const MIB = 2 ** 20;
const SHARE_BYTES = 64 * MIB;
const GUESTS = 16;

/** Exports `sum(address, length)`: adds up the first byte of every page. */
const reader = (): Uint8Array<ArrayBuffer> =>
  assembleGuest(`(module
    (memory (export "memory") 1)
    (func (export "sum") (param $at i32) (param $length i32) (result i32) (local $sum i32) (local $end i32)
      (local.set $end (i32.add (local.get $at) (local.get $length)))
      (loop $again
        (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $at))))
        (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (local.get $end))))
      (local.get $sum)))`);

/**
 * A plugin that copies its input into its own memory, 8 bytes at a time as the plugin kits do, and then reads it as the
 * guest does. An export of a plugin returns 0 when it is content.
 */
const plugin = (lengthBytes: number): Uint8Array<ArrayBuffer> =>
  assembleGuest(`(module
    (import "extism:host/env" "input_length" (func $input_length (result i64)))
    (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
    (memory (export "memory") ${lengthBytes / 65_536 + 1})
    (func (export "sum") (result i32) (local $at i32) (local $sum i32) (local $end i32)
      (local.set $end (i32.wrap_i64 (call $input_length)))
      (loop $again
        (i64.store (local.get $at) (call $input_load_u64 (i64.extend_i32_u (local.get $at))))
        (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (local.get $end))))
      (local.set $at (i32.const 0))
      (loop $again
        (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $at))))
        (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (local.get $end))))
      (i32.ne (local.get $sum) (i32.const ${lengthBytes / 4096}))))`);

const now = (): bigint => process.hrtime.bigint();

const timed = async (work: () => unknown): Promise<number> => {
  const start = now();
  await work();
  return Number(now() - start);
};

interface Stage {
  readonly share: Share;
  readonly domain: Domain;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly rounds: { readonly count: number; readonly rounds: number; readonly warmup: number };
}

/** Nanoseconds of mapping alone; what was mapped is taken out again. */
const mapOnly =
  ({ share, domain }: Stage) =>
  (): number => {
    const start = now();
    share.mapInto(domain, { access: "read-only" });
    const elapsedNs = Number(now() - start);
    share.unmap(domain);
    return elapsedNs;
  };

/** Nanoseconds until a guest that is called has read every page of the share. */
const mapAndRead = (stage: Stage) => async (): Promise<number> => {
  const { share, domain, bytes } = stage;
  const elapsedNs = await timed(async () => {
    const address = share.mapInto(domain, { access: "read-only" });
    assert.equal(numberOf(await domain.call("sum", address | 0, bytes.length)), bytes.length / 4096);
  });
  share.unmap(domain);
  return elapsedNs;
};

/** Nanoseconds of one bare mmap of as many bytes, into the address space of a memory that nobody uses. */
const bareMapping = (lengthBytes: number): (() => number) => {
  const memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
  const fd = createMemfd({ name: "bare-share", sizeBytes: lengthBytes });
  return () => {
    const base = baseAddress(memory);
    assert.equal(reserve(base, lengthBytes), 0);
    const start = now();
    const result = mapFrames(base, lengthBytes, PROT_READ, fd, 0);
    const elapsedNs = Number(now() - start);
    assert.equal(result, 0);
    return elapsedNs;
  };
};

/** Mapping beside a bare mmap, and when the processor's caches are full of other things. */
const measureMapping = async (stage: Stage): Promise<Result[]> => {
  const { bytes, rounds } = stage;
  const target = new Uint8Array(bytes.length);
  const memcpy = (): Promise<number> => timed(() => target.set(bytes));
  const warm = await comparePair({ value: mapOnly(stage), floor: bareMapping(bytes.length) }, rounds);
  const cold = await comparePair({ value: mapOnly(stage), floor: memcpy }, rounds);
  return [
    result("map-untouched-beside-mmap", "us", scaled(warm, 1000), { maximum: 50 }),
    result("map-untouched-cold-beside-memcpy", "us", scaled(cold, 1000)),
  ];
};

/** Mapping and reading, beside copying to where another thread, or a plugin, reads it. */
const measureCopies = async (stage: Stage, thread: BareThread): Promise<Result[]> => {
  const { bytes, rounds } = stage;
  const extism = await createPlugin({ wasm: [{ data: plugin(bytes.length) }] });
  const clone = (): Promise<number> => timed(() => thread.call("bare-share.js", "sum", bytes));
  const input = (): Promise<number> => timed(() => extism.call("sum", bytes));
  try {
    const cloned = await comparePair({ value: mapAndRead(stage), floor: clone }, rounds);
    const given = await comparePair(
      { value: mapAndRead(stage), floor: input },
      { ...rounds, rounds: Math.ceil(rounds.rounds / 4), warmup: 1 },
    );
    return [
      result("map-and-read-beside-structured-clone", "us", scaled(cloned, 1000)),
      single("times-faster-than-structured-clone", "times", { value: cloned.floor / cloned.value, floor: 1 }),
      result("map-and-read-beside-extism-input", "us", scaled(given, 1000)),
      single("times-faster-than-extism-input", "times", { value: given.floor / given.value, floor: 1 }),
    ];
  } finally {
    await extism.close();
  }
};

/** Taking it back from a guest that has read all of it. */
const measureRevoke = async ({ share, domain, bytes, rounds }: Stage): Promise<Result> => {
  const revoke = async (): Promise<number> => {
    const address = share.mapInto(domain, { access: "read-only" });
    assert.equal(numberOf(await domain.call("sum", address | 0, bytes.length)), bytes.length / 4096);
    const elapsedNs = await timed(() => share.revoke(domain));
    assert.equal(numberOf(await domain.call("sum", address | 0, bytes.length)), 0);
    share.unmap(domain);
    return elapsedNs;
  };
  const zeroed = new Uint8Array(bytes.length);
  const measured = await comparePair({ value: revoke, floor: () => timed(() => zeroed.fill(0)) }, rounds);
  return result("revoke-read-beside-memset", "us", scaled(measured, 1000));
};

const linkOf = (fd: string): string => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    // Closed since the directory was read: that one was the directory's own.
    return "";
  }
};

/** Bytes of machine memory that the kernel really keeps. */
const machineBytes = (): number => {
  const fds = readdirSync("/proc/self/fd").filter((fd) => linkOf(fd).startsWith("/memfd:xenolith-bank"));
  return fds.reduce((sum, fd) => sum + memfdResidentBytes(Number(fd)), 0);
};

/** What 16 guests that have read all of it take, beside one copy. */
const measureResident = async (host: Host, image: Uint8Array<ArrayBuffer>, bytes: Uint8Array): Promise<Result> => {
  const domains: Domain[] = [];
  for (let index = 0; index < GUESTS; index += 1) {
    domains.push(await startDomain(host, { image, memoryBytesMax: MIB }));
    assert.equal(numberOf(await domains[index]!.call("sum", 0, 4096)), 0);
  }
  const before = machineBytes();
  await using share = host.share(bytes);
  for (const domain of domains) {
    const address = share.mapInto(domain, { access: "read-only" });
    assert.equal(numberOf(await domain.call("sum", address | 0, bytes.length)), bytes.length / 4096);
  }
  const figures = { value: (machineBytes() - before) / MIB, floor: bytes.length / MIB };
  for (const domain of domains) await domain.destroy();
  return single(`resident-of-${GUESTS}-guests`, "MiB", figures, { limit: 1.02 });
};

export const bench: Bench = ({ small }) =>
  withHost({ memoryBytes: 512 * MIB, warmVcpuCount: 1 }, async (host) => {
    const thread = new BareThread();
    try {
      const image = reader();
      const bytes = new Uint8Array(small ? MIB : SHARE_BYTES).fill(1);
      await using share = host.share(bytes);
      const domain = await startDomain(host, { image, memoryBytesMax: MIB });
      const rounds = { count: 1, rounds: small ? 1 : 31, warmup: small ? 0 : 5 };
      const stage: Stage = { share, domain, bytes, rounds };
      return [
        ...(await measureMapping(stage)),
        ...(await measureCopies(stage, thread)),
        await measureRevoke(stage),
        await measureResident(host, image, bytes),
      ];
    } finally {
      await thread.close();
    }
  });
