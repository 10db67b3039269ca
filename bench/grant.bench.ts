/**
 * Grants between two guests, beside the bare system calls that change the same pages of a bare Worker's memory, and
 * beside memory.copy. All hypercalls are made by guests in C (guests/grant.c), which take the times themselves.
 *
 * Revoking is measured while the mapper does nothing, and while it spins on the very page; the floor likewise.
 */
import { GNTMAP_readonly, GTF_revokable } from "@xenolith/abi";
import type { Domain, Host } from "@xenolith/host";
import { BareThread } from "./bare-thread.ts";
import type { Duties } from "./bare-duties.ts";
import type { MappingTimes } from "./bare-mapping.ts";
import { withHost } from "./bench-host.ts";
import {
  type Bench,
  compareCycles,
  comparePair,
  fastestPair,
  type Measurement,
  type Result,
  result,
  type Rounds,
} from "./harness.ts";
import { compileMailboxGuest, MailboxGuest } from "./mailbox-guest.ts";

const MIB = 2 ** 20;
const PAGE = 4096;
const BATCH = 512;
const NS_PER_US = 1000;

/** Commands of guests/grant.c, in its order. */
const GRANT = 1;
const MAP_CONTROL = 2;
const MAP_ONE = 3;
const MAP_RUN = 4;
const HOLD = 5;
const RELEASE = 6;
const NULL_CALL = 7;
const COPY = 8;
const MAP_REVOKABLE = 9;
const ARM = 10;
const REVOKE = 11;
const FOLLOW = 12;
const UNMAP_REVOKABLE = 13;

/** Turns of a round that is shorter than the time for which the kernel lets a thread run. */
const SHORT = 200;
/** Contiguous batches mapped and unmapped in one round. */
const TURNS = 8;
/** Pages revoked in one round. */
const REVOKED = 64;
const DOMAINS = 200;
const LIVE = [10, 1000, 30_000] as const;

interface Pair {
  readonly host: Host;
  readonly image: Uint8Array<ArrayBuffer>;
  readonly granter: MailboxGuest;
  readonly mapper: MailboxGuest;
  readonly bare: BareThread;
  /** Another thread in the same bare memory. */
  readonly reader: BareThread;
  readonly small: boolean;
}

const rounds = ({ small }: Pair, count: number): Rounds => ({
  count: small ? 8 : count,
  rounds: small ? 1 : 101,
  warmup: small ? 0 : 20,
});

const bareCall = <T>(thread: BareThread, name: string, ...values: readonly unknown[]): Promise<T> =>
  thread.call<T>("bare-grants.js", name, ...values);

/** Shares every `step`-th page of a new run with the mapper; the first reference and the first page's address. */
const grant = async ({ granter, mapper }: Pair, count: number, step: number, flags = 0) => {
  const [ref = 0, address = 0] = await granter.perform(GRANT, mapper.domid, count, step, flags);
  return { ref, address };
};

const first = (values: readonly number[]): number => values[0]!;

/** One page, there and away again. */
const measureOne = async (pair: Pair, id: string): Promise<Result> => {
  const { granter, mapper, bare } = pair;
  const { ref } = await grant(pair, 1, 1);
  const measured = await comparePair(
    {
      value: async (count) => first(await mapper.perform(MAP_ONE, granter.domid, ref, count)),
      floor: (count) => bareCall(bare, "mapOne", count),
    },
    rounds(pair, SHORT),
  );
  return result(id, "ns", measured, { limit: 1.5 });
};

/** A batch of 512: contiguous frames beside one system call, scattered ones beside 512. */
const measureBatch = async (pair: Pair, name: string, step: number): Promise<Result[]> => {
  const { granter, mapper, bare, small } = pair;
  const { ref } = await grant(pair, BATCH, step);
  const turns = small || step > 1 ? 1 : TURNS;
  const run = async (isTouched: boolean) => {
    const cycles: [MappingTimes, MappingTimes][] = [];
    for (let round = -20; round < 101; round += 1) {
      const theirs = await bareCall<MappingTimes>(bare, "mapRun", BATCH, step, isTouched, turns);
      const values = await mapper.perform(MAP_RUN, granter.domid, ref, BATCH, Number(isTouched), turns);
      const [map = 0, touch = 0, unmap = 0] = values;
      if (round >= 0 || small) cycles.push([{ map, touch, unmap }, theirs]);
      if (small) break;
    }
    return cycles;
  };
  const touched = await run(true);
  const untouched = await run(false);
  const all = ({ map, touch }: MappingTimes): number => map + touch;
  const end = ({ unmap }: MappingTimes): number => unmap;
  return [
    result(`map-read-512-${name}`, "us", compareCycles(touched, all, turns * NS_PER_US), { limit: 1.3 }),
    result(`map-512-${name}`, "us", compareCycles(untouched, all, turns * NS_PER_US), { limit: 1.3 }),
    result(`unmap-read-512-${name}`, "us", compareCycles(touched, end, turns * NS_PER_US)),
    result(`unmap-512-${name}`, "us", compareCycles(untouched, end, turns * NS_PER_US)),
  ];
};

/**
 * What mapping 512 contiguous frames that nobody touches takes at least: the system call and the duties of each frame in
 * a bare loop, beside the system call alone.
 */
const measureLeast = async (small: boolean): Promise<Result> => {
  const thread = new BareThread();
  try {
    const memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
    await thread.call("bare-duties.js", "open", memory);
    const cycles: [number, number][] = [];
    for (let round = small ? 0 : -20; round < (small ? 1 : 101); round += 1) {
      const { map, duties } = await thread.call<Duties>("bare-duties.js", "mapRun", BATCH, TURNS);
      if (round >= 0) cycles.push([map + duties, map]);
    }
    return result("best-bare-map-512-beside-mmap", "us", compareCycles(cycles, Number, TURNS * NS_PER_US));
  } finally {
    await thread.close();
  }
};

/** Revoking one page after the other. */
const measureRevoke = async (pair: Pair): Promise<Result[]> => {
  const { granter, mapper, bare, reader } = pair;
  const { ref } = await grant(pair, REVOKED, 1, GTF_revokable);
  const control = await grant(pair, 1, 1);
  await mapper.perform(MAP_CONTROL, granter.domid, control.ref);
  const ours = (isWritable: boolean, hasReader: boolean) => async (): Promise<number> => {
    await granter.perform(ARM, ref, REVOKED);
    await mapper.perform(MAP_REVOKABLE, granter.domid, ref, REVOKED, isWritable ? 0 : GNTMAP_readonly);
    const read = hasReader ? mapper.perform(FOLLOW, REVOKED) : undefined;
    // The control word is the first of its page, which begins with a 1 as all do.
    const revoked = granter.perform(REVOKE, ref, REVOKED, hasReader ? control.address : 0);
    const [elapsedNs] = await Promise.all([revoked, read]);
    await mapper.perform(UNMAP_REVOKABLE, REVOKED);
    return first(elapsedNs);
  };
  const theirs = (isWritable: boolean, hasReader: boolean) => async (): Promise<number> => {
    await bareCall(bare, "arm", REVOKED, isWritable);
    const read = hasReader ? bareCall(reader, "follow", REVOKED) : undefined;
    const [elapsedNs] = await Promise.all([bareCall<number>(bare, "revoke", REVOKED, isWritable, hasReader), read]);
    await bareCall(bare, "disarm", REVOKED);
    return elapsedNs;
  };
  const results: Result[] = [];
  for (const hasReader of [false, true]) {
    for (const isWritable of [false, true]) {
      // With a reader both threads have to run, and what else runs stops them.
      const compare = hasReader ? fastestPair : comparePair;
      const measured = await compare(
        { value: ours(isWritable, hasReader), floor: theirs(isWritable, hasReader) },
        { ...rounds(pair, REVOKED), count: REVOKED },
      );
      const id = `revoke-${isWritable ? "writable" : "read-only"}-${hasReader ? "reader-spinning" : "idle"}`;
      results.push(result(id, "ns", measured, { limit: 1.5 }));
    }
  }
  return results;
};

/**
 * Copies out of a granted page, above what the hypercall that does least costs. They take so little that what else runs
 * on the machine does not slow them down but stop: the fastest tenth of short rounds counts.
 */
const measureCopies = async (pair: Pair): Promise<Result[]> => {
  const { granter, mapper, bare } = pair;
  const { ref } = await grant(pair, BATCH, 1);
  const copy = (count: number, bytes: number) => async (turns: number) =>
    first(await mapper.perform(COPY, granter.domid, ref, count, bytes, turns));
  const nothing = async (turns: number) => first(await mapper.perform(NULL_CALL, turns));
  const memcpy = (bytes: number) => (turns: number) => bareCall<number>(bare, "copy", bytes, turns);
  const single = async (bytes: number): Promise<Measurement> => {
    const least = await fastestPair({ value: copy(1, bytes), floor: memcpy(bytes) }, rounds(pair, 10_000));
    const none = await fastestPair({ value: nothing, floor: nothing }, rounds(pair, 50_000));
    const value = least.value - none.value;
    return { value, floor: least.floor, ratio: value / least.floor };
  };
  // Lists go other ways than single copies, which the engine has to meet often enough before it compiles them.
  const lists = { ...rounds(pair, 10), warmup: pair.small ? 0 : 150 };
  const batch = await fastestPair({ value: copy(BATCH, PAGE), floor: memcpy(BATCH * PAGE) }, lists);
  return [
    result("copy-64B-above-null", "ns", await single(64), { maximum: 150 }),
    result("copy-4KiB-above-null", "ns", await single(PAGE), { limit: 3 }),
    result("copy-512x4KiB", "ns", batch, { limit: 1.3 }),
  ];
};

/** Time for one page while many others are granted and mapped, beside the time while ten are. */
const measureLive = async (pair: Pair): Promise<Result[]> => {
  const { granter, mapper, small } = pair;
  const [few = 0, ...more] = small ? [10, 100] : LIVE;
  const one = await grant(pair, 1, 1);
  const others = await grant(pair, more.at(-1)!, 1);
  const under = (live: number) => async (turns: number) => {
    await mapper.perform(RELEASE);
    await mapper.perform(HOLD, granter.domid, others.ref, live);
    return first(await mapper.perform(MAP_ONE, granter.domid, one.ref, turns));
  };
  const results: Result[] = [];
  for (const live of more) {
    const measured = await comparePair({ value: under(live), floor: under(few) }, rounds(pair, SHORT));
    results.push(result(`map-unmap-1-live-${live}`, "ns", measured, { limit: 1.1 }));
  }
  await mapper.perform(RELEASE);
  return results;
};

/** One page in a crowd of domains that do nothing. */
const measureCrowd = async (pair: Pair): Promise<Result> => {
  const { host, image, small } = pair;
  const count = small ? 3 : DOMAINS;
  const crowd: Domain[] = [];
  while (crowd.length < count - 2) crowd.push(await host.createDomain({ image, memoryBytesMax: 2 * MIB }));
  const measured = await measureOne(pair, `map-unmap-1-domains-${count}`);
  for (const domain of crowd) await domain.destroy();
  return measured;
};

export const bench: Bench = async ({ small }) => {
  const image = await compileMailboxGuest("grant.c");
  return withHost({ memoryBytes: 1024 * MIB, warmVcpuCount: 1 }, async (host) => {
    const bare = new BareThread();
    const reader = new BareThread();
    try {
      const memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
      await bareCall(bare, "openWindow", memory);
      await bareCall(reader, "open", memory);
      const granter = await MailboxGuest.start(host, { image, memoryBytesMax: 192 * MIB });
      const mapper = await MailboxGuest.start(host, { image, memoryBytesMax: 16 * MIB, vmaBudget: 8192 });
      const pair: Pair = { host, image, granter, mapper, bare, reader, small };
      return [
        await measureOne(pair, "map-unmap-1-domains-2"),
        ...(await measureRevoke(pair)),
        ...(await measureBatch(pair, "contiguous", 1)),
        await measureLeast(small),
        ...(await measureBatch(pair, "scattered", 2)),
        ...(await measureCopies(pair)),
        ...(await measureLive(pair)),
        await measureCrowd(pair),
      ];
    } finally {
      await bare.close();
      await reader.close();
    }
  });
};
