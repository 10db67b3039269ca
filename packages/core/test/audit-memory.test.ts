import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hookRun } from "../src/address-space.ts";
import { auditMemory } from "../src/audit-memory.ts";
import {
  FRAME_RELEASED,
  FRAME_UNHOOKED,
  TOTAL_CLAIMED,
  TOTAL_FREE,
  TOTAL_ORDERS,
  TOTAL_VMAS,
} from "../src/frame-table.ts";
import { P2M_RAM } from "../src/p2m.ts";
import { addGuest, createWorld, populate, range, settle } from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

interface Damage {
  readonly what: string;
  readonly finding: RegExp;
  readonly plant: (world: World, guest: Guest, mfn: number) => void;
}

/** `mfn` is the frame at gfn 3 of the guest, which also has an unhooked frame. */
const damages: readonly Damage[] = [
  {
    what: "another owner",
    finding: /gfn 3: frame \d+ is owned by 77/,
    plant: ({ hypervisor }, _, mfn) => (hypervisor.frames.owner[mfn] = 77),
  },
  {
    what: "another gfn",
    finding: /frame \d+ says gfn 98/,
    plant: ({ hypervisor }, _, mfn) => (hypervisor.frames.gfn[mfn] = 99),
  },
  {
    what: "a lost p2m entry",
    finding: /not at its gfn 3/,
    plant: ({ hypervisor }, { slot }) => (hypervisor.p2m.entries[hypervisor.p2m.at(slot, 3)] = 0),
  },
  {
    what: "a reference too many",
    finding: /2 references, 1 known/,
    plant: ({ hypervisor }, _, mfn) => (hypervisor.frames.refs[mfn] = 2),
  },
  {
    what: "a release that was not noted",
    finding: /1 references, 0 known/,
    plant: ({ hypervisor }, _, mfn) => (hypervisor.frames.flags[mfn] = FRAME_RELEASED),
  },
  {
    what: "a flag of the other kind",
    finding: /flagged so true/,
    plant: ({ hypervisor }, _, mfn) => (hypervisor.frames.flags[mfn] = FRAME_UNHOOKED),
  },
  {
    what: "a frame without owner",
    finding: /neither free nor owned/,
    plant: ({ hypervisor }, _, mfn) => (hypervisor.frames.owner[mfn] = 0),
  },
  {
    what: "a free frame with a trace",
    finding: /free, but not blank/,
    plant: ({ hypervisor }) => (hypervisor.frames.gfn[hypervisor.frames.freeHead.find((head) => head > 0)! - 1] = 1),
  },
  {
    what: "a broken free list",
    finding: /misplaced, or not the head/,
    plant: ({ hypervisor }) => (hypervisor.frames.order[hypervisor.frames.freeHead.find((head) => head > 0)! - 1] = 30),
  },
  {
    what: "a wrong count of free frames",
    finding: /on the lists, \d+ counted/,
    plant: ({ hypervisor }) => Atomics.add(hypervisor.frames.totals, TOTAL_FREE, 1),
  },
  {
    what: "a wrong bit of the orders",
    finding: /its bit is/,
    plant: ({ hypervisor }) => Atomics.xor(hypervisor.frames.totals, TOTAL_ORDERS, 1 << 20),
  },
  {
    what: "a broken list of unhooked frames",
    finding: /broken at frame/,
    plant: ({ hypervisor }, { slot }, mfn) => (hypervisor.frames.prev[hypervisor.domains.unhooked[slot]! - 1] = mfn),
  },
  {
    what: "a wrong total",
    finding: /owns \d+ frames, \d+ counted/,
    plant: ({ hypervisor }, { slot }) => (hypervisor.domains.totPages[slot]! += 1),
  },
  {
    what: "a peak too low",
    finding: /peak below/,
    plant: ({ hypervisor }, { slot }) => (hypervisor.domains.peakPages[slot] = 1),
  },
  {
    what: "a lost reference to the row",
    finding: /frames, but no reference/,
    plant: ({ hypervisor }, { slot }) => (hypervisor.domains.references[slot] = 0),
  },
  {
    what: "claims that do not add up",
    finding: /claims: 0 held, 5 counted/,
    plant: ({ hypervisor }) => Atomics.add(hypervisor.frames.totals, TOTAL_CLAIMED, 5),
  },
  {
    what: "mappings that do not add up",
    finding: /boundaries: \d+ in all/,
    plant: ({ hypervisor }) => Atomics.add(hypervisor.frames.totals, TOTAL_VMAS, 1),
  },
  {
    what: "a domain's mappings miscounted",
    finding: /mapping boundaries, \d+ counted/,
    plant: ({ hypervisor }, { slot }) => (hypervisor.domains.vmaCount[slot]! += 1),
  },
];

describe("the memory auditor", () => {
  for (const { what, finding, plant } of damages) {
    it(`finds ${what}`, () => {
      const world = createWorld();
      const guest = addGuest(world, 20);
      assert.equal(populate(guest, range(0, 8)), 8);
      assert.equal(populate(guest, [7]), 1);
      settle(world);
      plant(world, guest, world.mmu.frameAt(guest.base, 3));
      const findings = auditMemory(world.hypervisor);
      assert.ok(
        findings.some((sentence) => finding.test(sentence)),
        findings.join("; "),
      );
    });
  }
  it("finds a frame that two domains have", () => {
    const world = createWorld();
    const [one, two] = [addGuest(world, 20), addGuest(world, 20)];
    assert.equal(populate(one, [3]), 1);
    const { hypervisor } = world;
    const lock = hypervisor.locks.id("p2m", two.slot);
    hypervisor.locks.acquire(lock);
    assert.equal(hookRun(hypervisor, two.slot, 5, world.mmu.frameAt(one.base, 3), 1, P2M_RAM), 0);
    hypervisor.locks.release(lock);
    assert.ok(auditMemory(hypervisor).length > 0);
  });
});
