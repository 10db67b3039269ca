/**
 * Events between two guests: ping-pong over an event channel between two domains, beside the same game of two bare
 * Workers over shared memory. One turn is there and back. Sleeping is measured on one processor, where each turn is two
 * wake-ups, and wherever the kernel puts the threads. Spinning needs a processor for each side: what else runs on the
 * machine stops a player in the middle of a turn, so the fastest tenth of the rounds is what counts.
 */
import assert from "node:assert/strict";
import { allocateUnbound, bindInterdomain } from "@xenolith/core";
import type { Domain, Host } from "@xenolith/host";
import { BareThread } from "./bare-thread.ts";
import { numberOf, startDomain, withHost } from "./bench-host.ts";
import { eventGuest, type Waiting } from "./event-guest.ts";
import { onOneProcessor } from "./one-processor.ts";
import { type Bench, comparePair, fastestPair, type Result, result } from "./harness.ts";

const MIB = 2 ** 20;

interface Player {
  readonly domain: Domain;
  readonly port: number;
}

/** Two domains with a channel between them; polling guests mask their port, blocking ones want the upcall. */
const openTable = async (host: Host, masked: boolean): Promise<readonly [Player, Player]> => {
  const image = eventGuest();
  const options = { image, memoryBytesMax: 2 * MIB };
  const [first, second] = [await startDomain(host, options), await startDomain(host, options)];
  const { hypervisor } = host;
  const slotOf = (domain: Domain): number => hypervisor.domains.slotOf(domain.domid);
  const port = allocateUnbound(hypervisor, slotOf(first), second.domid);
  const peer = bindInterdomain(hypervisor, slotOf(second), first.domid, port);
  assert(port > 0 && peer > 0);
  const players = [
    { domain: first, port },
    { domain: second, port: peer },
  ] as const;
  for (const player of players) {
    assert.equal(await player.domain.call("setup", player.port, Number(masked)), 0);
  }
  return players;
};

const playGuests =
  ([ping, pong]: readonly [Player, Player], waiting: Waiting) =>
  async (turns: number): Promise<number> => {
    const answered = pong.domain.call(`pong_${waiting}`, pong.port, turns);
    const elapsedNs = await ping.domain.call(`ping_${waiting}`, ping.port, turns);
    await answered;
    return numberOf(elapsedNs);
  };

const playBare =
  ([ping, pong]: readonly [BareThread, BareThread], suffix: "Sleeping" | "Spinning", board: () => unknown) =>
  async (turns: number): Promise<number> => {
    const shared = board();
    const answered = pong.call("bare-waiting.js", `pong${suffix}`, shared, turns);
    const elapsedNs = await ping.call<number>("bare-waiting.js", `ping${suffix}`, shared, turns);
    await answered;
    return elapsedNs;
  };

const spinningBoard = (): (() => WebAssembly.Memory) => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  return () => {
    new Int32Array(memory.buffer).fill(0);
    return memory;
  };
};

export const bench: Bench = ({ small }) =>
  withHost({ memoryBytes: 64 * MIB, warmVcpuCount: 2 }, async (host) => {
    const threads = [new BareThread(), new BareThread()] as const;
    try {
      const polling = await openTable(host, true);
      const blocking = await openTable(host, false);
      const sleeping = { count: small ? 20 : 2000, rounds: small ? 1 : 31, warmup: small ? 0 : 5 };
      const spinning = { count: small ? 20 : 2000, rounds: small ? 1 : 200, warmup: small ? 0 : 50 };
      const sleep = playBare(threads, "Sleeping", () => new Int32Array(new SharedArrayBuffer(8)));
      const results: Result[] = [];
      const poll = { value: playGuests(polling, "poll"), floor: sleep };
      const block = { value: playGuests(blocking, "block"), floor: sleep };
      await onOneProcessor(async () => {
        results.push(result("ping-pong-poll-one-processor", "ns", await comparePair(poll, sleeping), { limit: 1.3 }));
        results.push(result("ping-pong-block-one-processor", "ns", await comparePair(block, sleeping), { limit: 1.3 }));
      });
      results.push(result("ping-pong-poll", "ns", await comparePair(poll, sleeping)));
      results.push(result("ping-pong-block", "ns", await comparePair(block, sleeping)));
      const spin = { value: playGuests(polling, "spin"), floor: playBare(threads, "Spinning", spinningBoard()) };
      results.push(result("ping-pong-both-spin", "ns", await fastestPair(spin, spinning), { limit: 2 }));
      return results;
    } finally {
      for (const thread of threads) await thread.close();
    }
  });
