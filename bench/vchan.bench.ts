/**
 * A vchan between two guests in C (guests/vchan.c), with rings of 1 MiB: a stream beside memcpy, and ping-pong of 64
 * bytes beside the bare Atomics.wait and notify that two threads wake each other with. Both also beside a MessagePort and
 * a Unix socket between two Workers.
 *
 * A stream is measured out of and into 64 MiB, as data really comes, and out of and into memory that stays in a processor's
 * own cache, where memcpy is fastest; beside it stands what two bare threads get through the same ring, that is, what comes
 * from one processor to the other at all. It needs both processors; the fastest tenth of the rounds counts, as what else runs stops one end and with it the
 * other. Ping-pong is measured on one processor, where each turn is two wake-ups, and wherever the kernel puts the threads.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MessageChannel } from "node:worker_threads";
import type { Host } from "@xenolith/host";
import { BareThread } from "./bare-thread.ts";
import { withHost } from "./bench-host.ts";
import { type Bench, comparePair, fastestPair, type Measurement, type Result, result, type Rounds } from "./harness.ts";
import { compileMailboxGuest, MailboxGuest } from "./mailbox-guest.ts";
import { onOneProcessor } from "./one-processor.ts";

const MIB = 2 ** 20;
const RING_BYTES = MIB;
const PIECE_BYTES = MIB / 4;
const MESSAGE_BYTES = 64;
/** What the bare ring's ends tell each other at a time; and other lengths, of which one may be better. */
const BARE_PIECE_BYTES = MIB / 16;
const BARE_PIECES = [MIB / 256, MIB / 64, MIB / 16, MIB / 4];
const BARE_PAGES = (130 * MIB) / 65_536;
/** Memory that fits into a processor's own cache, and memory that fits into none. */
const CACHED_BYTES = MIB / 4;
const BULK_BYTES = 64 * MIB;

/** Commands of guests/vchan.c, in its order. */
const OPEN_SERVER = 1;
const OPEN_CLIENT = 2;
const SEND = 3;
const RECEIVE = 4;
const PING = 5;
const PONG = 6;

/** 60 % of the floor's rate. */
const RATIO_MAX = 1.67;

interface Stage {
  readonly server: MailboxGuest;
  readonly client: MailboxGuest;
  readonly threads: readonly [BareThread, BareThread];
  readonly small: boolean;
}

/** One of the ways in which two ends talk: `count` operations, and the nanoseconds that they took. */
type Talk = (count: number) => Promise<number>;

/** The server streams to the client, out of `window` bytes of memory again and again, into as many. */
const vchanStream =
  ({ server, client }: Stage, window: number): Talk =>
  async (pieces) => {
    const sent = server.perform(SEND, pieces + 1, PIECE_BYTES, window);
    const [elapsedNs = 0] = await client.perform(RECEIVE, pieces + 1, PIECE_BYTES, window);
    await sent;
    return elapsedNs;
  };

const vchanPing =
  ({ server, client }: Stage): Talk =>
  async (turns) => {
    const answered = server.perform(PONG, turns, MESSAGE_BYTES);
    const [elapsedNs = 0] = await client.perform(PING, turns, MESSAGE_BYTES);
    await answered;
    return elapsedNs;
  };

/** Calls an end of bare-channels.ts in each thread; the second one's answer counts. */
const between =
  ({ threads: [near, far] }: Stage, first: string, second: string, extra: number, bytes: number): Talk =>
  async (count) => {
    const done = near.call("bare-channels.js", first, count + extra, bytes);
    const elapsedNs = await far.call<number>("bare-channels.js", second, count + extra, bytes);
    await done;
    return elapsedNs;
  };

const sleeping =
  ({ threads: [near, far] }: Stage): Talk =>
  async (turns) => {
    const words = new Int32Array(new SharedArrayBuffer(8));
    const answered = near.call("bare-waiting.js", "pongSleeping", words, turns);
    const elapsedNs = await far.call<number>("bare-waiting.js", "pingSleeping", words, turns);
    await answered;
    return elapsedNs;
  };

const memcpy =
  ({ threads: [near] }: Stage, window: number): Talk =>
  (pieces) =>
    near.call<number>("bare-stream.js", "copy", PIECE_BYTES, pieces, window);

/** The same ring of 1 MiB, by threads that do nothing but copy and spin. */
const bareStream =
  ({ threads: [near, far] }: Stage, window: number, bytes = BARE_PIECE_BYTES): Talk =>
  async (pieces) => {
    const count = (pieces * PIECE_BYTES) / bytes;
    await near.call("bare-stream.js", "reset");
    const sent = near.call("bare-stream.js", "send", bytes, count, window);
    const elapsedNs = await far.call<number>("bare-stream.js", "receive", bytes, count, window);
    await sent;
    return elapsedNs;
  };

/**
 * What either end takes when the other one waits: filling the ring, or emptying it. Both threads spin, so each has a
 * processor of its own, with what it did last in its cache.
 */
const bareTurn =
  ({ threads: [near, far] }: Stage, part: "fill" | "empty"): Talk =>
  async (pieces) => {
    const turns = (pieces * PIECE_BYTES) / RING_BYTES;
    const filled = near.call<number>("bare-stream.js", "fill", turns, CACHED_BYTES);
    const emptied = await far.call<number>("bare-stream.js", "empty", turns, CACHED_BYTES);
    return part === "empty" ? emptied : filled;
  };

const openChannels = async ({ server, client, threads: [near, far] }: Stage): Promise<void> => {
  const [ref = 0, port = 0] = await server.perform(OPEN_SERVER, client.domid, RING_BYTES);
  await client.perform(OPEN_CLIENT, server.domid, ref, port);
  const { port1, port2 } = new MessageChannel();
  await near.call("bare-channels.js", "usePort", port1);
  await far.call("bare-channels.js", "usePort", port2);
  const directory = mkdtempSync(join(tmpdir(), "xenolith-bench-"));
  const path = join(directory, "socket");
  const served = near.call("bare-channels.js", "serveSocket", path);
  await far.call("bare-channels.js", "openSocket", path);
  await served;
  rmSync(directory, { recursive: true, force: true });
  const memory = new WebAssembly.Memory({ initial: BARE_PAGES, maximum: BARE_PAGES, shared: true });
  for (const thread of [near, far]) await thread.call("bare-stream.js", "open", memory);
};

/** Nanoseconds of a piece as GB/s; the ratio stays floor / value, so that above 1 we are slower. */
const asRate = ({ value, floor, ratio, spread }: Measurement): Measurement => ({
  value: PIECE_BYTES / value,
  floor: PIECE_BYTES / floor,
  ratio,
  ...(spread === undefined ? {} : { spread }),
});

const measureStream = async (stage: Stage): Promise<Result[]> => {
  const { small } = stage;
  const rounds = { count: small ? 4 : 256, rounds: small ? 1 : 41, warmup: small ? 0 : 5 };
  const few = { ...rounds, rounds: Math.ceil(rounds.rounds / 4) };
  const cached = vchanStream(stage, CACHED_BYTES);
  const bulk = vchanStream(stage, BULK_BYTES);
  const memory = memcpy(stage, CACHED_BYTES);
  const port = between(stage, "portSend", "portReceive", 1, PIECE_BYTES);
  const socket = between(stage, "socketSend", "socketReceive", 1, PIECE_BYTES);
  const beside = async (id: string, value: Talk, floor: Talk, at = rounds, limit?: number): Promise<Result> =>
    result(id, "GB/s", asRate(await fastestPair({ value, floor }, at)), limit === undefined ? {} : { limit });
  return [
    await beside("stream-64MiB-beside-memcpy", bulk, memcpy(stage, BULK_BYTES), rounds, RATIO_MAX),
    await beside("stream-64MiB-beside-bare-ring", bulk, bareStream(stage, BULK_BYTES)),
    await beside("stream-cached-beside-memcpy", cached, memory, rounds, RATIO_MAX),
    await beside("stream-cached-beside-bare-ring", cached, bareStream(stage, CACHED_BYTES)),
    await boundOfRing(stage, rounds),
    await beside("bare-read-of-what-was-written-beside-memcpy", bareTurn(stage, "empty"), memory),
    await beside("bare-write-over-what-was-read-beside-memcpy", bareTurn(stage, "fill"), memory),
    await beside("stream-beside-message-port", cached, port, few),
    await beside("stream-beside-unix-socket", cached, socket, few),
  ];
};

/** What any stream can come to out of and into the cache: the bare ring with the best length of pieces, beside memcpy. */
const boundOfRing = async (stage: Stage, rounds: Rounds): Promise<Result> => {
  const floor = memcpy(stage, CACHED_BYTES);
  let best: Measurement | undefined;
  for (const bytes of BARE_PIECES) {
    const measured = await fastestPair({ value: bareStream(stage, CACHED_BYTES, bytes), floor }, rounds);
    if (best === undefined || measured.ratio < best.ratio) best = measured;
  }
  return result("best-bare-ring-cached-beside-memcpy", "GB/s", asRate(best!));
};

const measurePing = async (stage: Stage): Promise<Result[]> => {
  const { small } = stage;
  const rounds = { count: small ? 20 : 2000, rounds: small ? 1 : 31, warmup: small ? 0 : 5 };
  const value = vchanPing(stage);
  const port = between(stage, "portPong", "portPing", 0, MESSAGE_BYTES);
  const socket = between(stage, "socketPong", "socketPing", 0, MESSAGE_BYTES);
  const few = { ...rounds, rounds: Math.ceil(rounds.rounds / 3) };
  const results: Result[] = [];
  await onOneProcessor(async () => {
    const alone = await comparePair({ value, floor: sleeping(stage) }, rounds);
    results.push(result("ping-pong-64B-one-processor", "ns", alone, { limit: 1.5 }));
  });
  const free = await comparePair({ value, floor: sleeping(stage) }, rounds);
  results.push(result("ping-pong-64B", "ns", free));
  results.push(result("ping-pong-64B-beside-message-port", "ns", await comparePair({ value, floor: port }, few)));
  results.push(result("ping-pong-64B-beside-unix-socket", "ns", await comparePair({ value, floor: socket }, few)));
  return results;
};

const play = async (host: Host, image: Uint8Array<ArrayBuffer>, small: boolean): Promise<readonly Result[]> => {
  const threads = [new BareThread(), new BareThread()] as const;
  try {
    const options = { image, memoryBytesMax: 80 * MIB };
    const server = await MailboxGuest.start(host, options);
    const client = await MailboxGuest.start(host, options);
    const stage: Stage = { server, client, threads, small };
    await openChannels(stage);
    return [...(await measureStream(stage)), ...(await measurePing(stage))];
  } finally {
    for (const thread of threads) await thread.close();
  }
};

export const bench: Bench = async ({ small }) => {
  const image = await compileMailboxGuest("vchan.c");
  return withHost({ memoryBytes: 256 * MIB, warmVcpuCount: 2 }, (host) => play(host, image, small));
};
