/**
 * The memory manager with fifty guests whose targets are set anew at once: half of them grow by what the others give back.
 * Beside it the bare system calls for the same memory, and how often a guest turned back on its way.
 */
import { setTimeout } from "node:timers/promises";
import type { Hypervisor } from "@xenolith/core";
import type { Domain, Host } from "@xenolith/host";
import { MemoryManager } from "@xenolith/toolstack";
import { compileBalloons, FRAME_BYTES, touchKept } from "./balloon-guest.ts";
import type { MappingTimes } from "./bare-mapping.ts";
import { BareThread } from "./bare-thread.ts";
import { withHost } from "./bench-host.ts";
import { type Bench, median, quartiles, type Result, result, single } from "./harness.ts";

const MIB = 2 ** 20;
/** What a guest has when it is small; it grows by `stepMib`. */
const SMALL_MIB = 4;
/** Free beside what the guests have. */
const SPARE_MIB = 64;
/** The promises: twice the time of the bare calls, one change of direction. */
const RATIO_MAX = 2;
const TURNS_MAX = 1;

/** Rounds before the first that counts: fifty guests are fifty isolates, and none has compiled its balloon yet. */
const WARM_ROUNDS = 6;

interface Track {
  readonly slot: number;
  last: number;
  direction: number;
  turns: number;
}

/**
 * Waits until every guest is where it should be; returns the most changes of direction of any. It looks at the
 * hypervisor's own column: the thread that looks is the one that serves the guests.
 */
const settle = async (
  { domains: table }: Hypervisor,
  domains: readonly Domain[],
  targetOf: (index: number) => number,
): Promise<number> => {
  const tracks = domains.map(({ domid }): Track => {
    const slot = table.slotOf(domid);
    return { slot, last: table.totPages[slot]!, direction: 0, turns: 0 };
  });
  for (;;) {
    let away = 0;
    for (const [index, track] of tracks.entries()) {
      follow(track, table.totPages[track.slot]!);
      away += track.last === targetOf(index) / FRAME_BYTES ? 0 : 1;
    }
    if (away === 0) return Math.max(...tracks.map(({ turns }) => turns));
    await setTimeout(1);
  }
};

const follow = (track: Track, now: number): void => {
  const direction = Math.sign(now - track.last);
  if (direction === 0) return;
  if (track.direction !== 0 && direction !== track.direction) track.turns += 1;
  track.direction = direction;
  track.last = now;
};

/** Milliseconds of the bare calls that give half of the guests' steps back and take them again. */
const bareMs = async (thread: BareThread, guestCount: number, stepMib: number): Promise<number> => {
  let elapsedNs = 0;
  for (let guest = 0; guest < guestCount / 2; guest += 1) {
    const times = await thread.call<MappingTimes>("bare-mapping.js", "cycle", stepMib * MIB, true);
    elapsedNs += times.map + times.unmap;
  }
  return elapsedNs / 1e6;
};

interface Size {
  readonly guestCount: number;
  readonly stepMib: number;
  readonly rounds: number;
}

const retarget = async (
  host: Host,
  image: Uint8Array<ArrayBuffer>,
  { guestCount, stepMib, rounds }: Size,
): Promise<Result[]> => {
  const thread = new BareThread();
  await using manager = new MemoryManager(host);
  manager.start();
  const memoryBytesMax = (SMALL_MIB + stepMib + 4) * MIB;
  const domains: Domain[] = [];
  for (let guest = 0; guest < guestCount; guest += 1) {
    const domain = await host.createDomain({ image, memoryBytesMax });
    domains.push(domain);
    await manager.manage(domain, { memoryBytes: memoryBytesMax, memoryBytesMin: MIB });
  }
  for (const domain of domains) await domain.start();
  const ours: number[] = [];
  const bare: number[] = [];
  let turns = 0;
  for (let round = -WARM_ROUNDS; round < rounds; round += 1) {
    const targetOf = (index: number): number => (SMALL_MIB + ((index + round + WARM_ROUNDS) % 2) * stepMib) * MIB;
    for (const domain of domains) touchKept(host, domain);
    const bareNow = await bareMs(thread, guestCount, stepMib);
    const start = performance.now();
    const written = Promise.all(domains.map((domain, index) => manager.setTarget(domain, targetOf(index))));
    const turned = await settle(host.hypervisor, domains, targetOf);
    const elapsedMs = performance.now() - start;
    await written;
    if (round < 0) continue;
    ours.push(elapsedMs);
    bare.push(bareNow);
    turns = Math.max(turns, turned);
  }
  await thread.close();
  const ratios = ours.map((elapsed, index) => elapsed / bare[index]!);
  const measured = { value: median(ours), floor: median(bare), ratio: median(ratios), spread: quartiles(ratios) };
  return [
    result(`settled-${guestCount}x${stepMib}MiB`, "ms", measured, { limit: RATIO_MAX }),
    single("changes-of-direction", "changes", { value: turns, floor: TURNS_MAX }, { maximum: TURNS_MAX }),
  ];
};

export const bench: Bench = async ({ small }) => {
  const [, loop] = await compileBalloons();
  const size = small ? { guestCount: 4, stepMib: 2, rounds: 2 } : { guestCount: 50, stepMib: 16, rounds: 15 };
  const memoryMib = size.guestCount * (SMALL_MIB + size.stepMib / 2) + SPARE_MIB;
  return withHost({ memoryBytes: memoryMib * MIB, warmVcpuCount: 1 }, (host) => retarget(host, loop!, size));
};
