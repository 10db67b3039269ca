/**
 * The balloon's state machine and its driver for reactors.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { Host } from "@xenolith/host";
import {
  aimBalloon,
  type Balloon,
  balloonPages,
  balloonStatistics,
  parseTarget,
  restingBalloon,
  settleBalloon,
  targetDiff,
} from "../src/balloon.ts";
import { type BalloonedDomain, BalloonDriver, driveBalloon } from "../src/balloon-driver.ts";

const root = path.join(import.meta.dirname, "../../../..");
const { compileGuest } = (await import(path.join(root, "guest/xencc.mjs"))) as {
  compileGuest: (sources: Record<string, string>, options?: object) => Promise<Uint8Array<ArrayBuffer>>;
};

/** balloon-machine.c behind functions that keep one machine. */
const shim = `
#include "balloon-machine.h"
static struct xen_balloon b;
#define X(name) __attribute__((export_name(#name)))
X(reset) void reset(uint32_t p, uint32_t max_delay, uint32_t max_retry) { xen_balloon_reset(&b, p); b.max_schedule_delay = max_delay; b.max_retry_count = max_retry; }
X(aim) uint32_t aim(uint32_t p) { return xen_balloon_aim(&b, p); }
X(settle) uint32_t settle(uint32_t c, uint32_t n) { return xen_balloon_settle(&b, c, n); }
X(pages) uint32_t pages(uint32_t t, uint32_t m, uint32_t d) { return xen_balloon_pages(t, m, d); }
X(field) uint32_t field(uint32_t i) { return ((uint32_t *)&b)[i]; }
`;

type Machine = Record<"aim" | "field" | "pages" | "reset" | "settle", (...words: number[]) => number>;
let machine: Machine;
let host: Host;
let reactor: Uint8Array;
before(async () => {
  const source = readFileSync(path.join(root, "guest/lib/balloon-machine.c"), "utf8");
  const module = await compileGuest(
    { "shim.c": shim, "balloon-machine.h": "#include <xenolith/balloon.h>\n", "machine.c": source },
    { library: false },
  );
  const { instance } = await WebAssembly.instantiate(module);
  machine = instance.exports as unknown as Machine;
  reactor = await compileGuest(
    {
      "reactor.c": `#include <xenolith/balloon.h>
#include <xenolith/guest.h>
XEN_BALLOON_EXPORTS
__attribute__((export_name("take"))) int take(int n) {
  char *pages = xen_pages_alloc_run((uint32_t)n);
  for (int i = 0; pages && i < n; i++) pages[i * 4096] = 1;
  return (int)(uintptr_t)pages;
}
__attribute__((export_name("give"))) void give(int at, int n) { xen_pages_free_run((void *)(uintptr_t)at, (uint32_t)n); }
`,
    },
    { wasi: true, flags: ["-mexec-model=reactor"] },
  );
  host = await Host.open({ memoryBytes: 64 * 2 ** 20 });
});
after(async () => {
  assert.deepEqual(host.audit(), []);
  await host.close();
});

/** The machine in C as an object, to compare. */
const machineInC = (): Balloon => {
  const [currentPages, targetPages, scheduleDelay, scheduleDelayMax, retryCount, retryCountMax, state] = Array.from(
    { length: 7 },
    (_, index) => machine.field(index) >>> 0,
  );
  return {
    currentPages: currentPages!,
    targetPages: targetPages!,
    scheduleDelay: scheduleDelay!,
    scheduleDelayMax: scheduleDelayMax!,
    retryCount: retryCount!,
    retryCountMax: retryCountMax!,
    state: (["done", "again", "canceled"] as const)[state!]!,
  };
};

describe("the state machine", () => {
  it("is the same in C and in TypeScript", () => {
    const small = fc.integer({ min: 0, max: 6 });
    const event = fc.oneof(fc.tuple(fc.constant("aim"), small, small), fc.tuple(fc.constant("settle"), small, small));
    fc.assert(
      fc.property(
        small,
        fc.integer({ min: 1, max: 40 }),
        small,
        fc.array(event),
        (start, delayMax, retryMax, events) => {
          machine.reset(start, delayMax, retryMax);
          let ours = restingBalloon(start, { scheduleDelayMax: delayMax, retryCountMax: retryMax });
          for (const [kind, first, second] of events) {
            if (kind === "aim") {
              const aimed = aimBalloon(ours, first);
              assert.equal(aimed.isDue, machine.aim(first) !== 0);
              ours = aimed.balloon;
            } else {
              const settled = settleBalloon(ours, first, second);
              assert.equal(settled.sleep ?? 0xffff_ffff, machine.settle(first, second) >>> 0);
              ours = settled.balloon;
            }
            assert.deepEqual(ours, machineInC());
          }
        },
      ),
    );
  });

  it("waits 2, 4, 8, 16, 32 and then always 32 seconds, without an end, in both directions", () => {
    for (const target of [0, 100]) {
      let { balloon } = aimBalloon(restingBalloon(50), target);
      const waits: (number | undefined)[] = [];
      for (let round = 0; round < 8; round += 1) {
        const settled = settleBalloon(balloon, 50, 0);
        balloon = settled.balloon;
        waits.push(settled.sleep);
      }
      assert.deepEqual(waits, [2, 4, 8, 16, 32, 32, 32, 32]);
      assert.deepEqual([balloon.state, balloon.retryCount], ["again", 9]);
    }
  });

  it("with four tries gives up at the fourth failure, until there is another target", () => {
    let { balloon } = aimBalloon(restingBalloon(50, { retryCountMax: 4 }), 60);
    const waits: (number | undefined)[] = [];
    for (let round = 0; round < 4; round += 1) {
      const settled = settleBalloon(balloon, 50, 0);
      balloon = settled.balloon;
      waits.push(settled.sleep);
    }
    assert.deepEqual(waits, [2, 4, 8, undefined]);
    assert.deepEqual([balloon.state, balloon.retryCount, balloon.scheduleDelay], ["canceled", 1, 1]);
    assert.equal(aimBalloon(balloon, 60).isDue, false);
    assert.equal(aimBalloon(balloon, 61).isDue, true);
  });

  it("keeps partial pages and starts again with short waits", () => {
    const { balloon } = aimBalloon(restingBalloon(50), 100);
    const failed = settleBalloon(settleBalloon(balloon, 50, 0).balloon, 50, 0);
    assert.equal(failed.balloon.scheduleDelay, 4);
    const partial = settleBalloon(failed.balloon, 70, 20);
    assert.equal(partial.sleep, 0);
    assert.equal(partial.balloon.targetPages, 100);
    assert.deepEqual([partial.balloon.scheduleDelay, partial.balloon.retryCount], [1, 1]);
  });

  it("targets: KiB to pages, below static-max, less what the driver does not count", () => {
    for (const [target, max, diff] of [
      [4096, 8192, 0],
      [9000, 8192, 0],
      [4099, 8192, 10],
      [0, 8192, 5],
      [7, 3, 0],
    ] as const)
      assert.equal(balloonPages(target, max, diff), machine.pages(target, max, diff));
    assert.equal(balloonPages(4096, 8192, 0), 1024);
    assert.equal(balloonPages(9000, 8192, 48), 2000);
    assert.equal(balloonPages(4, 8192, 48), 0);
    assert.equal(targetDiff(8192, 2000), 48);
    assert.equal(targetDiff(8192), 0);
    for (const text of ["", "-1", "1.5", "64 MiB", "0x10", " 5", "99999999999", "4294967296"])
      assert.equal(parseTarget(text), undefined, text);
    assert.equal(parseTarget("4294967295"), 2 ** 32 - 1);
    assert.equal(parseTarget("0"), 0);
  });

  it("statistics have the names of Linux", () => {
    assert.deepEqual(balloonStatistics(restingBalloon(1024), 8192), {
      "info/current_kb": 4096,
      "info/low_kb": 4096,
      "info/high_kb": 0,
      target_kb: 4096,
      schedule_delay: 1,
      max_schedule_delay: 32,
      retry_count: 1,
      max_retry_count: 0,
    });
  });
});

describe("the driver", () => {
  /** Memory of which at most `available` pages can be had. */
  const fake = (start: number): BalloonedDomain & { available: number; owned: number } => ({
    available: 100,
    owned: start,
    pages() {
      return this.owned;
    },
    up(count) {
      const got = Math.min(count, this.available);
      this.available -= got;
      this.owned += got;
      return Promise.resolve(got);
    },
    down(count) {
      this.owned -= count;
      this.available += count;
      return Promise.resolve(count);
    },
  });

  it("goes on by itself when memory appears, and keeps what it got before", async () => {
    const domain = fake(10);
    const sizes: number[] = [];
    const driver = new BalloonDriver(domain, {
      secondMs: 1,
      onRest: ({ currentPages }) => void sizes.push(currentPages),
    });
    driver.aim(200);
    await driver.rested();
    assert.equal(domain.owned, 110);
    domain.available = 500;
    while (domain.owned < 200) await new Promise((resolve) => setTimeout(resolve, 1));
    await driver.rested();
    assert.equal(Math.min(...sizes), 110);
    assert.equal(driver.balloon.state, "done");
    driver.close();
  });

  it("ends when the domain does", async () => {
    const domain = { ...fake(10), up: () => Promise.reject(new Error("gone")) };
    const driver = new BalloonDriver(domain, { secondMs: 1 });
    driver.aim(200);
    await driver.rested();
    driver.aim(300);
    await driver.rested();
    assert.equal(domain.owned, 10);
  });

  it("moves a reactor's memory by the store, between its calls", async () => {
    const store = await host.xenstore();
    const domain = await host.createDomain({ image: reactor, memoryBytesMax: 32 * 2 ** 20 });
    await domain.start();
    const home = `/local/domain/${domain.domid}`;
    const driven = await driveBalloon(store, domain, { secondMs: 1 });
    const owns = async (pages: number): Promise<void> => {
      while (domain.stats().pages !== pages) await new Promise((resolve) => setTimeout(resolve, 1));
    };
    const atBoot = domain.stats().pages;
    await store.write(`${home}/memory/target`, String(16 * 1024));
    await owns(4096);
    const taken = Number(await domain.call("take", 2048));
    assert.equal(domain.stats().pages, 4096);
    await store.write(`${home}/memory/target`, "4096");
    await owns(atBoot + 2048);
    await domain.call("give", taken, 2048);
    await owns(1024);
    while ((await store.readIfPresent(`${home}/data/balloon/info/current_kb`)) !== "4096") await driven.driver.rested();
    await driven.stop();
    await domain.destroy();
  });
});
