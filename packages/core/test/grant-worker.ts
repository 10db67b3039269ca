/**
 * A vCPU of a mapping domain on a thread of its own: maps revokable and plain grants, one by one and in batches, and
 * unmaps what it or its siblings mapped, as fast as it can.
 */
import assert from "node:assert/strict";
import { workerData } from "node:worker_threads";
import * as abi from "@xenolith/abi";
import { MapBatch, mapBatch } from "../src/grant-batch.ts";
import { createMapRequest, mapGrant } from "../src/grant-map.ts";
import { UnmapBatch, unmapBatch } from "../src/grant-unbatch.ts";
import { createUnmapRequest, unmapGrant } from "../src/grant-unmap.ts";
import { Hypervisor } from "../src/hypervisor.ts";
import type { HypervisorStorage } from "../src/hypervisor.ts";
import type { Mmu } from "../src/platform.ts";
import { randomFrom } from "./advisories-kit.ts";
import { threadPlatform } from "./domain-worker.ts";

/** What the thread is told. */
export interface GrantOrder {
  readonly storage: HypervisorStorage;
  readonly mapper: number;
  readonly granter: number;
  readonly tag: number;
  readonly seed: number;
  /** Words that all threads share. */
  readonly common: SharedArrayBuffer;
}

/** Words of `GrantOrder.common`. */
export const STOP = 0;
export const ROUNDS = 1;
/** References: plain ones from here, then revokable ones. */
export const PLAIN_REF = 8;
export const REVOKABLE_REF = 16;
export const REF_COUNT = 6;
/** Every thread maps into gfns of its own, so that none is mapped over. */
export const firstGfn = (tag: number): number => 100 + tag * 64;

export const noMmu: Mmu = {
  map: () => 0,
  mapSecret: () => 0,
  protect: () => 0,
  zero: () => 0,
  unmap: () => 0,
  discard: () => 0,
};

const run = (order: GrantOrder): void => {
  const hypervisor = new Hypervisor(order.storage, { platform: threadPlatform(noMmu), tag: order.tag });
  const common = new Int32Array(order.common);
  const random = randomFrom(order.seed);
  const wish = { ...createMapRequest(), granter: order.granter, flags: abi.GNTMAP_host_map };
  const end = createUnmapRequest();
  const maps = new MapBatch();
  const unmaps = new UnmapBatch();
  const gfn = firstGfn(order.tag);
  while (Atomics.load(common, STOP) === 0) {
    Atomics.add(common, ROUNDS, 1);
    wish.isRevokable = true;
    wish.ref = REVOKABLE_REF + random(REF_COUNT);
    wish.lgfn = random(2) === 0 ? 3 : 0xffff_ffff;
    wish.gfn = gfn;
    wish.flags = abi.GNTMAP_host_map | (random(2) === 0 ? abi.GNTMAP_readonly : 0);
    const status = mapGrant(hypervisor, order.mapper, wish);
    assert.ok(status <= 0);
    // Some handle of the domain: often it is another thread's.
    end.handle = random(40);
    end.hostAddress = (firstGfn(2 + random(4)) + random(8)) * 4096 + 1;
    assert.ok(unmapGrant(hypervisor, order.mapper, end) <= 0);
    for (let index = 0; index < REF_COUNT; index += 1) {
      maps.granter[index] = order.granter;
      maps.ref[index] = PLAIN_REF + index;
      maps.flags[index] = abi.GNTMAP_host_map;
      maps.gfn[index] = gfn + 10 + index;
      maps.deviceGfn[index] = 0;
    }
    mapBatch(hypervisor, order.mapper, maps, REF_COUNT);
    for (let index = 0; index < REF_COUNT; index += 1) {
      assert.equal(maps.status[index], 0);
      unmaps.handle[index] = maps.handle[index]!;
      unmaps.hostLow[index] = (gfn + 10 + index) * 4096;
    }
    unmapBatch(hypervisor, order.mapper, unmaps, REF_COUNT);
    for (let index = 0; index < REF_COUNT; index += 1) assert.equal(unmaps.status[index], 0);
    if (status !== 0) continue;
    end.handle = wish.handle;
    end.hostAddress = gfn * 4096;
    const unmapped = unmapGrant(hypervisor, order.mapper, end);
    // Gone by another thread's hand; or the handle names another thread's mapping by now.
    assert.ok([0, abi.GNTST_bad_handle, abi.GNTST_general_error].includes(unmapped), `${unmapped}`);
  }
};

const order: GrantOrder | null = workerData;
if (order !== null && "granter" in order) run(order);
