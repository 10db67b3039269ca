/**
 * The balloon of the guest library: domains in C on a real host follow what the store says, whatever that is.
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { after, afterEach, before, describe, it } from "node:test";
import { Host } from "@xenolith/host";
import { mappingsIn } from "@xenolith/sys";
import type { XenstoreClient } from "@xenolith/xenstore";
import { compileTest, type Guest, startGuest } from "./c-domains.ts";

const MIB = 2 ** 20;
const PAGES_PER_MIB = 256;
const MACHINE_MIB = 64;

let host: Host;
let store: XenstoreClient;
let program: Uint8Array;
before(async () => {
  program = await compileTest("c-balloon.c");
  host = await Host.open({ memoryBytes: MACHINE_MIB * MIB });
  store = await host.xenstore();
});
after(async () => {
  const findings = host.audit();
  const free = host.info().memoryFreeBytes;
  await host.close();
  assert.deepEqual(findings, []);
  assert.equal(free, freeAtStart);
});

const guests = new Set<Guest>();
// A test that failed must not starve the others.
afterEach(async () => {
  for (const guest of guests) await guest.destroy();
  guests.clear();
});

let freeAtStart = 0;
const home = ({ domain }: Guest): string => `/local/domain/${domain.domid}`;
const pages = ({ domain }: Guest): number => domain.stats().pages;

const boot = async (commandLine: string, memoryMib = 32): Promise<Guest> => {
  const guest = await start(commandLine, memoryMib);
  // The longest sleep between two tries, so that these tests need not wait for longer ones.
  await store.write(`${home(guest)}/memory/balloon/max_schedule_delay`, "1");
  return guest;
};

/** As `boot`, without an event of the store: the library takes a page for those that come while it waits for an answer. */
const start = async (commandLine: string, memoryMib = 32): Promise<Guest> => {
  if (freeAtStart === 0) freeAtStart = host.info().memoryFreeBytes;
  const guest = await startGuest(host, program, commandLine, { memoryBytesMax: memoryMib * MIB });
  guests.add(guest);
  await guest.printed(/started\n/);
  return guest;
};

const aim = (guest: Guest, kib: number | string): Promise<void> =>
  store.write(`${home(guest)}/memory/target`, `${kib}`);

/** Waits until `isSo`; the test runner's own patience is the limit. */
const until = async (isSo: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await isSo())) await sleep(2);
};
const owns = (guest: Guest, mib: number): Promise<void> => until(() => pages(guest) === mib * PAGES_PER_MIB);
const statistic = async (guest: Guest, name: string): Promise<number> =>
  Number(await store.readIfPresent(`${home(guest)}/data/balloon/${name}`));

describe("the library's balloon", () => {
  for (const way of ["loop", "sleep"]) {
    it(`does nothing until the target changes, then follows it up and down (${way})`, async () => {
      const guest = await boot(way);
      await aim(guest, 32 * 1024);
      const atBoot = pages(guest);
      assert.ok(atBoot < PAGES_PER_MIB);
      await aim(guest, 24 * 1024);
      await owns(guest, 24);
      await aim(guest, 8 * 1024);
      await owns(guest, 8);
      await aim(guest, 32 * 1024);
      await owns(guest, 32);
      await until(async () => (await statistic(guest, "info/current_kb")) === 32 * 1024);
      for (const [name, value] of [
        ["target_kb", 32 * 1024],
        ["info/low_kb", 0],
        ["schedule_delay", 1],
        ["retry_count", 1],
      ] as const)
        await until(async () => (await statistic(guest, name)) === value);
      await guest.destroy();
    });
  }

  it("gives back what the program frees, and serves the program from what it holds", async () => {
    const guest = await boot(`take ${16 * PAGES_PER_MIB}`);
    await guest.printed(/taken\n/);
    const taken = pages(guest);
    await aim(guest, 4 * 1024);
    await until(async () => (await statistic(guest, "retry_count")) >= 2);
    assert.equal(pages(guest), taken);
    await store.write(`${home(guest)}/data/free`, "1");
    await guest.printed(/freed\n/);
    await owns(guest, 4);
    await guest.destroy();
  });

  it("adds no more than two mappings for a contiguous run", async () => {
    const guest = await boot("loop");
    const { domains, p2m } = host.hypervisor;
    const slot = domains.slotOf(guest.domain.domid);
    const base = domains.spaceBase[slot]!;
    const mappings = (): number => mappingsIn(base, base + 2 ** 32).length;
    // Where the library keeps pages; the machine may have had no single run for them.
    const runs = (): number => {
      let count = 0;
      for (let gfn = 0x80000; gfn < 0xc0000; gfn += 1) {
        const [entry, previous] = [p2m.get(slot, gfn), p2m.get(slot, gfn - 1)];
        if (entry !== 0 && entry !== previous + 16) count += 1;
      }
      return count;
    };
    const before = mappings();
    for (const mib of [24, 12, 30]) {
      await aim(guest, mib * 1024);
      await owns(guest, mib);
      assert.ok(mappings() <= before + 2 * runs(), `${before} before, ${mappings()} after, ${runs()} runs`);
    }
    await guest.destroy();
  });

  it("2009: one guest grows while the other shrinks; it keeps partial pages and needs no second write", async () => {
    const [shrinking, growing] = [await boot("loop", 48), await boot("loop", 48)];
    await aim(shrinking, 40 * 1024);
    await owns(shrinking, 40);
    await aim(growing, 44 * 1024);
    await until(async () => (await statistic(growing, "retry_count")) >= 2);
    // All that the host has is the growing one's, and it keeps it while it waits.
    const partial = pages(growing);
    assert.ok(partial > 8 * PAGES_PER_MIB && partial < 44 * PAGES_PER_MIB);
    assert.equal(host.info().memoryFreeBytes, 0);
    let least = partial;
    await aim(shrinking, 24 * 1024);
    await owns(shrinking, 24);
    await until(() => {
      least = Math.min(least, pages(growing));
      return pages(growing) >= partial + 15 * PAGES_PER_MIB;
    });
    const second = pages(growing);
    await aim(shrinking, 8 * 1024);
    await until(() => {
      least = Math.min(least, pages(growing) >= second ? least : pages(growing));
      return pages(growing) === 44 * PAGES_PER_MIB;
    });
    assert.equal(least, partial);
    await until(async () => (await statistic(growing, "retry_count")) === 1);
    await shrinking.destroy();
    await growing.destroy();
  });
});

describe("targets that make no sense", () => {
  it("0 takes all that is free; what is no number of KiB is ignored; above the maximum means the maximum", async () => {
    const guest = await boot("loop", 16);
    await aim(guest, 12 * 1024);
    await owns(guest, 12);
    for (const value of ["-1", "8192.5", "", "8 MiB", "0x800", "99999999999999999999"]) await aim(guest, value);
    await store.write(`${home(guest)}/data/asked`, "1");
    await sleep(20);
    assert.equal(pages(guest), 12 * PAGES_PER_MIB);
    await aim(guest, 0);
    await until(async () => pages(guest) < PAGES_PER_MIB);
    await aim(guest, 1024 * 1024);
    await owns(guest, 16);
    await guest.destroy();
  });

  it("above the host: it takes what there is and goes on trying", async () => {
    const guest = await boot("loop", MACHINE_MIB);
    await aim(guest, MACHINE_MIB * 1024 - 4);
    await until(async () => (await statistic(guest, "retry_count")) >= 3);
    assert.equal(host.info().memoryFreeBytes, 0);
    await aim(guest, 8 * 1024);
    await owns(guest, 8);
    await guest.destroy();
  });

  it("a thousand in a second, some while the one before is being followed: the last one counts", async () => {
    const guest = await boot("loop", 48);
    for (let round = 0; round < 1000; round += 1) {
      await aim(guest, ((round * 7919) % 48) * 1024);
      if (round % 10 === 0) await sleep(1);
    }
    await aim(guest, 20 * 1024);
    await owns(guest, 20);
    await sleep(20);
    assert.equal(pages(guest), 20 * PAGES_PER_MIB);
    await guest.destroy();
  });

  it("a bounded number of tries ends until there is another target", async () => {
    const guest = await boot(`take ${16 * PAGES_PER_MIB}`);
    await guest.printed(/taken\n/);
    await store.write(`${home(guest)}/memory/balloon/max_retry_count`, "2");
    await aim(guest, 4 * 1024);
    await until(async () => (await statistic(guest, "retry_count")) === 2);
    await until(async () => (await statistic(guest, "retry_count")) === 1);
    await aim(guest, 24 * 1024);
    await owns(guest, 24);
    await guest.destroy();
  });
});

describe("guests that do not play along", () => {
  it("one that ignores its target keeps what it has, and no more than its maximum", async () => {
    const guest = await boot("deaf");
    const before = pages(guest);
    await aim(guest, 1024);
    guest.domain.setMemoryMax(MIB);
    await sleep(20);
    assert.equal(pages(guest), before);
    await guest.destroy();
  });

  it("one that dies in mid-balloon leaves nothing behind", async () => {
    for (const delayMs of [0, 1, 3, 8]) {
      const guest = await boot("touch", 48);
      await aim(guest, 40 * 1024);
      await sleep(delayMs);
      await guest.destroy();
      await until(() => host.info().memoryFreeBytes === freeAtStart);
    }
  });

  it("one that gives back every second page pays with its own mappings", async () => {
    const guest = await boot(`alternate ${12 * PAGES_PER_MIB}`);
    const [, given] = await guest.printed(/gave (\d+) of/);
    const { vmas, vmaBudget } = guest.domain.stats();
    assert.ok(vmas <= vmaBudget);
    assert.ok(Number(given) > 0);
    const other = await boot("loop");
    await aim(other, 16 * 1024);
    await owns(other, 16);
    await other.destroy();
    await guest.destroy();
  });

  it("one that frees a page which it has granted: it stays counted until the mapper lets go", async () => {
    const guest = await start("granted");
    const [, ref] = await guest.printed(/ref (\d+)\n/);
    const mapped = host.grants.map(guest.domain.domid, [Number(ref)]);
    assert.equal(mapped.bytes[0], 42);
    await store.write(`${home(guest)}/data/free`, "1");
    const [, difference] = await guest.printed(/counted (\S+)\n/);
    assert.equal(difference, "0");
    const counted = pages(guest);
    mapped.unmap();
    await until(() => pages(guest) === counted - 1);
    await guest.destroy();
  });
});
