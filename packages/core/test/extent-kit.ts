/**
 * What tests of extents share: guests that own tagged pages, and what each of them sees.
 */
import assert from "node:assert/strict";
import { audit, createExtent, mapExtent } from "../src/index.ts";
import { populateRun } from "../src/memory-populate.ts";
import { isGuestWritable, isSecret, P2M_HOLE, P2M_ZERO, p2mType } from "../src/p2m.ts";
import { secretPage, secretRow } from "../src/secret-frames.ts";
import { kernelMerges } from "../src/vma.ts";
import { PAGE } from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

/** Frame that the page-table double shows for the kernel's zero page. */
const ZERO_PAGE = 0xffff_fffe;

/** The auditor is content, every page table shows what the p2m says, and mappings are charged as they are. */
export const assertSettled = (world: World): void => {
  const { hypervisor, mmu } = world;
  assert.deepEqual(audit(hypervisor), []);
  assert.equal(hypervisor.locks.heldCount, 0);
  for (const guest of world.guests) {
    if (hypervisor.domains.spaceBase[guest.slot] !== guest.base) continue;
    for (let gfn = 0; gfn < hypervisor.p2m.gfnCount; gfn += 1) {
      const entry = hypervisor.p2m.get(guest.slot, gfn);
      if (mmu.frameAt(guest.base, gfn) !== shownFor(world, entry))
        assert.fail(`gfn ${gfn} of slot ${guest.slot} differs`);
      if (mmu.writableAt(guest.base, gfn) !== isGuestWritable(entry)) assert.fail(`rights of gfn ${gfn} differ`);
    }
    const charged = hypervisor.domains.vmaCount[guest.slot]! + 1;
    assert.equal(mmu.vmaCount(guest.base), kernelRuns(hypervisor, guest.slot));
    // Two mappings of one secret side by side are charged as two, and are one for the kernel.
    const areSecrets = hypervisor.p2m.rowsOf(guest.slot).some(isSecret);
    if (areSecrets) assert.ok(mmu.vmaCount(guest.base) <= charged);
    else assert.equal(mmu.vmaCount(guest.base), charged);
  }
};

/** What `FakeMmu.frameAt` says of a gfn with this p2m entry. */
export const shownFor = ({ hypervisor, mmu }: Pick<World, "hypervisor" | "mmu">, entry: number): number => {
  const { extents, geometry } = hypervisor;
  const frame = entry >>> 4;
  if (entry === P2M_HOLE) return -1;
  if (p2mType(entry) === P2M_ZERO) return ZERO_PAGE;
  if (!isSecret(entry)) return frame;
  return mmu.secretFrame(extents.handle[secretRow(geometry, frame)]!, secretPage(frame));
};

/** Mappings that the kernel should have. */
const kernelRuns = (hypervisor: World["hypervisor"], slot: number): number => {
  const rows = hypervisor.p2m.rowsOf(slot);
  let count = 1;
  for (let gfn = 1; gfn < rows.length; gfn += 1) {
    if (!kernelMerges(hypervisor, rows[gfn - 1]!, rows[gfn]!)) count += 1;
  }
  return count;
};

/** Gives the guest RAM at `count` gfns from `gfn`; the first byte of each page is `tag`. */
export const fill = (world: World, guest: Guest, gfn: number, count: number, tag: number): void => {
  const outcome = { count: 0, blockedGfn: -1, error: 0 };
  populateRun(world.hypervisor, guest.slot, gfn, count, outcome);
  assert.equal(outcome.count, count);
  for (let index = 0; index < count; index += 1) poke(world, guest, gfn + index, tag);
};

/** The first byte of each of `count` pages as the guest sees it; -1 where it would trap. */
export const look = (world: World, guest: Guest, gfn: number, count: number): number[] =>
  Array.from({ length: count }, (_, index) => world.mmu.read(guest.base, (gfn + index) * PAGE));

/** The guest writes the first byte of a page; false: it would trap. */
export const poke = (world: World, guest: Guest, gfn: number, value: number): boolean =>
  world.mmu.write(guest.base, gfn * PAGE, value);

/** An extent over tagged RAM of the granter. */
export const share = (world: World, granter: Guest, gfn: number, count: number, tag: number): number => {
  fill(world, granter, gfn, count, tag);
  const extent = createExtent(world.hypervisor, granter.slot, gfn, count);
  assert.ok(extent > 0, `createExtent: ${extent}`);
  return extent;
};

/** Maps an extent; returns the mapping or an errno. */
export const map = (world: World, extent: number, guest: Guest, gfn: number, isWritable = false): number =>
  mapExtent(world.hypervisor, extent, { slot: guest.slot, gfn, isWritable });
