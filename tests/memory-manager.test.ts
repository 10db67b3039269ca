/**
 * The memory manager on a real host: domains in C, reactors and guests without a balloon share a machine that is too small
 * for all of them.
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, before, beforeEach, describe, it } from "node:test";
import type { XenolithError } from "@xenolith/abi";
import { type Domain, type DomainOptions, Host } from "@xenolith/host";
import { type GuestFigures, type HostReadings, type MemoryConfig, MemoryManager } from "@xenolith/toolstack";
import type { XenstoreClient } from "@xenolith/xenstore";
import { compileReactor, compileTest, type Guest, startGuest } from "./c-domains.ts";

const MIB = 2 ** 20;
const MACHINE_MIB = 64;
const PATIENCE_MS = 200;

const calm: HostReadings = {
  someAverage10s: 0,
  fullAverage10s: 0,
  availableBytes: 2 ** 40,
  groupLeftBytes: Number.POSITIVE_INFINITY,
  groupLimitHit: false,
};

let program: Uint8Array;
let reactor: Uint8Array;
before(async () => {
  // Reactors first: a program with atomics makes V8 compile everything with its slow compiler.
  reactor = await compileReactor("balloon-reactor.c", "#include <xenolith/balloon.h>\nXEN_BALLOON_EXPORTS\n");
  program = await compileTest("c-balloon.c");
});

let host: Host;
let store: XenstoreClient;
let manager: MemoryManager;
let readings: HostReadings;
let faults: unknown[];
let freeAtStart: number;
beforeEach(async () => {
  readings = calm;
  faults = [];
  host = await Host.open({ memoryBytes: MACHINE_MIB * MIB });
  store = await host.xenstore();
  freeAtStart = host.info().memoryFreeBytes;
  const onFault = (fault: unknown): void => void faults.push(fault);
  manager = new MemoryManager(host, { intervalMs: 20, patienceMs: PATIENCE_MS, readings: () => readings, onFault });
  manager.start();
});
const guests = new Set<Guest>();
afterEach(async () => {
  await manager.close();
  const claimed = host.info().memoryClaimedBytes;
  for (const guest of guests) await guest.destroy();
  for (const domain of host.domains) await domain.destroy();
  guests.clear();
  const findings = host.audit();
  const free = host.info().memoryFreeBytes;
  await host.close();
  assert.deepEqual(findings, []);
  assert.deepEqual(faults, []);
  assert.equal(free, freeAtStart);
  assert.equal(claimed, 0);
});

/** A size in MiB as a configuration has it. */
const config = (memory: number, least: number, more: Partial<MemoryConfig> = {}): MemoryConfig => ({
  memoryBytes: memory * MIB,
  memoryBytesMin: least * MIB,
  ...more,
});

const boot = async (commandLine: string, memory: MemoryConfig, options: Partial<DomainOptions> = {}) => {
  const memoryBytesMax = memory.memoryBytesMax ?? memory.memoryBytes;
  const guest = await startGuest(host, program, commandLine, { memoryBytesMax, ...options });
  guests.add(guest);
  await guest.printed(/started\n/);
  await manager.manage(guest.domain, memory);
  return guest;
};

const until = async (isSo: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await isSo())) await sleep(2);
};
const figuresOf = ({ domid }: Domain): GuestFigures =>
  manager.figures().guests.find((figures) => figures.domid === domid)!;
const sizeMib = ({ domain }: { readonly domain: Domain }): number => (domain.stats().pages * 4096) / MIB;
const owns = (guest: { readonly domain: Domain }, mib: number, within = 0): Promise<void> =>
  until(() => Math.abs(sizeMib(guest) - mib) <= within);
const codeOf = async (action: () => Promise<unknown>): Promise<string> => {
  try {
    await action();
  } catch (error) {
    return (error as XenolithError).code;
  }
  return "";
};

describe("the memory manager", () => {
  it("2009: on a host short of memory one guest shrinks, and the other reaches its target with no further write", async () => {
    const shrinking = await boot("loop", config(48, 40));
    await manager.setTarget(shrinking.domain, 40 * MIB);
    await owns(shrinking, 40);
    const growing = await boot("loop", config(48, 2));
    await manager.setTarget(growing.domain, 44 * MIB);
    // 40 and 44 do not fit into 64: it gets what there is.
    await until(() => sizeMib(growing) > MACHINE_MIB - 40 - 2);
    let least = sizeMib(growing);
    await manager.setTarget(shrinking.domain, 8 * MIB);
    await until(() => {
      assert.ok(sizeMib(growing) >= least, "it keeps what it has got");
      least = sizeMib(growing);
      return least === 44;
    });
    await owns(shrinking, 8);
    assert.equal(figuresOf(growing.domain).isPinned, true);
  });

  it("shares by weight what is there, and no guest turns back", async () => {
    const light = await boot("loop", config(60, 4, { weight: 100 }));
    await until(() => sizeMib(light) >= 0 && figuresOf(light.domain).targetBytes === 60 * MIB);
    const heavy = await boot("loop", config(60, 4, { weight: 300 }));
    const budget = (): number => manager.figures().host.budgetBytes / MIB;
    const part = (weight: number): number => 4 + ((budget() - 8) * weight) / 400;
    const turns = watchTurns([light, heavy]);
    await owns(light, part(100), 1);
    await owns(heavy, part(300), 1);
    assert.ok(turns().every((count) => count <= 1));
  });

  it("takes memory from guests under pressure and gives it back, each at most once to and fro", async () => {
    const pair = [await boot("loop", config(60, 4)), await boot("loop", config(60, 4))];
    await until(() => sizeMib(pair[0]!) + sizeMib(pair[1]!) > 60);
    const before = pair.map(sizeMib);
    readings = { ...calm, someAverage10s: 50 };
    await until(() => sizeMib(pair[0]!) + sizeMib(pair[1]!) < 0.77 * MACHINE_MIB);
    assert.equal(manager.figures().host.level, "critical");
    const turns = watchTurns(pair);
    readings = calm;
    await until(() => pair.every((guest, index) => sizeMib(guest) >= before[index]! - 1));
    assert.ok(turns().every((count) => count <= 1));
  });

  it("makes room for a domain that is admitted, which can come to own what it was promised", async () => {
    const first = await boot("loop", config(60, 8));
    const second = await boot("loop", config(60, 8));
    await until(() => sizeMib(first) + sizeMib(second) > 58);
    const third = config(24, 24);
    const admitted = await manager.admit({ name: "third", ...third });
    assert.equal(admitted.claimBytes, 24 * MIB);
    const guest = await startGuest(host, program, "take 5120", {
      memoryBytesMax: 24 * MIB,
      memoryClaimBytes: admitted.claimBytes,
    });
    guests.add(guest);
    admitted.release();
    await manager.manage(guest.domain, third);
    await guest.printed(/taken\n/);
    assert.ok(sizeMib(first) + sizeMib(second) < 40.5);
  });

  it("refuses what cannot fit, with the numbers, and what others do not make room for", async () => {
    await boot("loop", config(40, 40));
    const refused = manager.admit({ name: "huge", ...config(32, 32) });
    await assert.rejects(refused, {
      code: "MEMORY_EXHAUSTED",
      message: /"huge" needs 32.*MiB.*free.*claimed.*give back/,
    });
    const small = await manager.admit({ name: "small", ...config(8, 8) });
    small.release();
    const deaf = await boot("deaf", config(20, 1));
    await until(() => figuresOf(deaf.domain).targetBytes < 21 * MIB);
    // It could give back nearly all, as far as the hypervisor knows; it gives nothing.
    const greedy = await startGuest(host, program, "take 4096", { memoryBytesMax: 20 * MIB });
    guests.add(greedy);
    await greedy.printed(/taken\n/);
    await manager.manage(greedy.domain, config(20, 1));
    const error = manager.admit({ name: "late", ...config(12, 12) });
    await assert.rejects(error, { code: "MEMORY_EXHAUSTED", message: /"late"/ });
    const aborted = AbortSignal.abort();
    assert.equal(await codeOf(() => manager.admit({ ...config(12, 12) }, { signal: aborted })), "ABORTED");
  });

  it("nobody else can take what a domain is left at least, also while it does not own it", async () => {
    const quiet = await boot("deaf", config(48, 30));
    assert.equal(quiet.domain.memory.figures().claimedBytes, 30 * MIB - quiet.domain.memory.figures().memoryBytes);
    const greedy = await startGuest(host, program, "touch", { memoryBytesMax: MACHINE_MIB * MIB });
    guests.add(greedy);
    await until(() => sizeMib(greedy) > 30);
    for (let look = 0; look < 20; look += 1) {
      assert.ok(host.info().memoryFreeBytes >= host.info().memoryClaimedBytes);
      assert.ok(sizeMib(greedy) <= MACHINE_MIB - 30);
      await sleep(1);
    }
  });

  it("sees how short of memory the host is while targets are set all the time", async () => {
    const { domain } = await boot("loop", config(16, 1));
    readings = { ...calm, availableBytes: 0 };
    for (let round = 0; manager.level === "calm"; round += 1) {
      await manager.setTarget(domain, (2 + (round % 2) * 8) * MIB);
      await sleep(1);
    }
    readings = calm;
    await manager.step();
    assert.equal(manager.level, "calm");
  });

  it("moves reactors by calls, also those that were not started when they came under it", async () => {
    const domain = await host.createDomain({ image: reactor, memoryBytesMax: 32 * MIB });
    await manager.manage(domain, config(32, 2));
    assert.equal(figuresOf(domain).balloon, "reactor");
    await manager.setTarget(domain, 24 * MIB);
    await domain.start();
    await owns({ domain }, 24);
    await manager.setTarget(domain, 6 * MIB);
    await owns({ domain }, 6);
    await until(() => figuresOf(domain).state === "done");
  });

  it("a guest without a balloon is bound by its limit, and its zero pages go back while the host is pressed", async () => {
    const command = await host.createDomain({ image: reactorWithout, memoryBytesMax: 32 * MIB });
    await command.start();
    await manager.manage(command, config(32, 2, { squeeze: "zero-pages" }));
    assert.equal(figuresOf(command).balloon, "none");
    let drops = 0;
    const drop = command.dropZeroPages.bind(command);
    command.dropZeroPages = async () => {
      drops += 1;
      return drop();
    };
    await manager.step();
    assert.equal(drops, 0, "the host is not pressed");
    readings = { ...calm, groupLimitHit: true };
    await until(() => drops > 1);
    await manager.setTarget(command, 4 * MIB);
    assert.equal(command.memory.figures().memoryBytesMax, 4 * MIB);
    await manager.setTarget(command, undefined);
    assert.equal(command.memory.figures().memoryBytesMax, 32 * MIB);
  });

  it("what device models add comes on top of every target", async () => {
    const guest = await boot("loop", config(32, 2), { deviceModelMemoryBytes: MIB });
    await manager.setTarget(guest.domain, 8 * MIB);
    await owns(guest, 8);
    const model = guest.domain.memory.deviceModel();
    model.raiseMax(MIB);
    model.populate(0x7000_0000, MIB);
    await manager.step();
    assert.equal(guest.domain.memory.figures().memoryBytesMax, 9 * MIB);
    await owns(guest, 9);
    await manager.setTarget(guest.domain, 4 * MIB);
    await owns(guest, 5);
    assert.equal(guest.domain.memory.figures().memoryBytesMax, 5 * MIB);
  });
});

/** A reactor that exports no balloon. */
const reactorWithout = Uint8Array.from([
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  // One function without parameters and results; one memory of two pages; both exported: "f", "memory".
  ...[
    1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 5, 3, 1, 0, 2, 7, 14, 2, 1, 0x66, 0, 0, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2,
    0,
  ],
  ...[10, 4, 1, 2, 0, 0x0b],
]);

/** Counts how often each guest changes the direction in which it goes, from now on. */
const watchTurns = (watched: readonly Guest[]): (() => number[]) => {
  const tracks = watched.map((guest) => ({ guest, last: sizeMib(guest), direction: 0, turns: 0 }));
  const timer = setInterval(() => {
    for (const track of tracks) {
      const now = sizeMib(track.guest);
      const direction = Math.sign(now - track.last);
      if (direction === 0) continue;
      if (track.direction !== 0 && direction !== track.direction) track.turns += 1;
      track.direction = direction;
      track.last = now;
    }
  }, 1);
  return () => {
    clearInterval(timer);
    return tracks.map(({ turns }) => turns);
  };
};

describe("administrators and guests that make no sense", () => {
  it("targets and maxima that cannot be are refused, and change nothing", async () => {
    const guest = await boot("loop", config(32, 2));
    const { domain } = guest;
    const figures = figuresOf(domain);
    for (const bytes of [0, -MIB, 4096.5, 4097, Number.NaN, Number.POSITIVE_INFINITY, 33 * MIB, 1024 * MIB]) {
      assert.equal(await codeOf(() => manager.setTarget(domain, bytes)), "INVALID_SIZE", `${bytes}`);
      if (bytes !== 33 * MIB)
        assert.equal(await codeOf(() => manager.setMax(domain, bytes)), "INVALID_SIZE", `${bytes}`);
    }
    const invalid = [config(0, 0), config(8, 9), config(65, 1), config(8, 4, { memoryBytesMax: 4 * MIB })];
    for (const memory of invalid) assert.equal(await codeOf(() => manager.manage(domain, memory)), "INVALID_SIZE");
    for (const weight of [0, -1, 1.5, 65_536, Number.NaN])
      assert.equal(await codeOf(() => manager.manage(domain, config(8, 4, { weight }))), "INVALID_ARGUMENT");
    assert.deepEqual(figuresOf(domain), figures);
    const stranger = await host.createDomain({ image: program, memoryBytesMax: 8 * MIB });
    assert.equal(await codeOf(() => manager.setTarget(stranger, 4 * MIB)), "DOMAIN_NOT_FOUND");
    await manager.setTarget(domain, 16 * MIB);
    await owns(guest, 16);
  });

  it("a maximum below what a domain has takes it down to that", async () => {
    const guest = await boot("loop", config(32, 8, { memoryBytesMax: 40 * MIB }));
    // A target of static-max at its first look would leave it to the program.
    await owns(guest, 32);
    await manager.setTarget(guest.domain, 40 * MIB);
    await owns(guest, 40);
    await manager.setMax(guest.domain, 6 * MIB);
    await owns(guest, 6);
    assert.equal(await store.read(`/local/domain/${guest.domain.domid}/memory/static-max`), "6144");
    const { minBytes, maxBytes, ceilingBytes } = figuresOf(guest.domain);
    assert.deepEqual([minBytes, maxBytes, ceilingBytes], [6 * MIB, 6 * MIB, 6 * MIB]);
  });

  it("a thousand targets in a second, from two administrators: the last one counts", async () => {
    const guest = await boot("loop", config(48, 1));
    const writes: Promise<void>[] = [];
    for (let round = 0; round < 1000; round += 1) {
      writes.push(manager.setTarget(guest.domain, (1 + ((round * 7919) % 47)) * MIB));
      if (round % 100 === 0) await sleep(1);
    }
    await manager.setTarget(guest.domain, 20 * MIB);
    await Promise.all(writes);
    await owns(guest, 20);
    assert.equal(guest.domain.memory.figures().memoryBytesMax, 20 * MIB);
  });

  it("what somebody else writes into the store as target does not last", async () => {
    const guest = await boot("loop", config(32, 2));
    await manager.setTarget(guest.domain, 16 * MIB);
    await owns(guest, 16);
    const path = `/local/domain/${guest.domain.domid}/memory/target`;
    for (const value of ["4096", "nonsense", ""]) {
      await store.write(path, value);
      await until(async () => (await store.read(path)) === String(16 * 1024));
    }
    await owns(guest, 16);
  });

  it("a guest that lies in the store is shown as what it says, and believed nothing", async () => {
    const guest = await boot("liar", config(32, 2));
    await guest.printed(/target refused\n/);
    await manager.setTarget(guest.domain, 8 * MIB);
    for (let look = 0; look < 10; look += 1) {
      await manager.step();
      const { currentBytes, state } = figuresOf(guest.domain);
      assert.equal(currentBytes, guest.domain.memory.figures().memoryBytes);
      assert.ok(["done", "again", "canceled", "unknown"].includes(state));
      await sleep(2);
    }
  });

  it("a guest that ignores its target keeps what it has; the others share the rest and come to rest", async () => {
    const deaf = await boot("deaf", config(48, 1));
    const kept = sizeMib(deaf);
    await manager.setTarget(deaf.domain, MIB / 2);
    const other = await boot("loop", config(64, 2));
    await until(() => figuresOf(other.domain).targetBytes > 60 * MIB);
    await until(() => figuresOf(other.domain).currentBytes >= figuresOf(other.domain).targetBytes - MIB);
    assert.equal(sizeMib(deaf), kept);
    assert.equal(figuresOf(deaf.domain).state, "unknown");
  });

  it("limits that are frozen stay, and so does the domain; it follows again afterwards", async () => {
    const guest = await boot("loop", config(32, 2));
    await manager.setTarget(guest.domain, 16 * MIB);
    await owns(guest, 16);
    const freeze = guest.domain.memory.freeze();
    assert.equal(await codeOf(() => manager.setTarget(guest.domain, 8 * MIB)), "MEMORY_FROZEN");
    assert.equal(figuresOf(guest.domain).ceilingBytes, 16 * MIB);
    await manager.step();
    assert.equal(sizeMib(guest), 16);
    freeze.thaw();
    await manager.setTarget(guest.domain, 8 * MIB);
    await owns(guest, 8);
  });

  it("guests that die while they are moved, and before, leave the others in order", async () => {
    const stays = await boot("loop", config(60, 2));
    for (const delayMs of [0, 1, 4]) {
      const dies = await boot("touch", config(60, 2));
      await manager.setTarget(dies.domain, 40 * MIB);
      await sleep(delayMs);
      await dies.destroy();
      assert.equal(await codeOf(() => manager.setTarget(dies.domain, 8 * MIB)), "DOMAIN_NOT_FOUND");
    }
    await until(() => figuresOf(stays.domain).targetBytes === 60 * MIB);
    assert.equal(manager.figures().guests.length, 1);
  });
});
