import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { freeFrameCount } from "../src/buddy.ts";
import { createDomain } from "../src/domain-create.ts";
import { setTarget } from "../src/domain-ops.ts";
import { beginDestroy, continueDestroy, reapDomains } from "../src/domain-reap.ts";
import { MAX_PAGES_MAX, memoryLimits, setExtraPages, setMaxPages, setOwnPages } from "../src/memory-limits.ts";
import { Machine, peek, poke, pokeWords, RAM_FRAMES } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { EBUSY, EINVAL, EPERM, ESRCH } = abi;
const ARG = 0x1000;
const LIST = 0x2000;
const { u } = abi.xen_domctl;
/** What the kit gives every guest as max_pages. */
const OWN = 4 * RAM_FRAMES;
const EXTRA = 6;

interface Stage {
  readonly machine: Machine;
  readonly model: Guest;
  readonly target: Guest;
  readonly other: Guest;
}

const stage = (deviceModelPages = EXTRA): Stage => {
  const machine = new Machine();
  const target = machine.guest({ deviceModelPages });
  const model = machine.guest();
  const other = machine.guest({ deviceModelPages });
  assert.equal(setTarget(machine.hypervisor, model.slot, target.slot), 0);
  return { machine, model, target, other };
};

const domctl = (machine: Machine, caller: Guest, command: number, domid: number, fill?: (view: DataView) => void) => {
  const view = new DataView(new ArrayBuffer(abi.xen_domctl.sizeBytes));
  abi.xen_domctl.cmd.set(view, 0, command);
  abi.xen_domctl.interface_version.set(view, 0, abi.XEN_DOMCTL_INTERFACE_VERSION);
  abi.xen_domctl.domain.set(view, 0, domid);
  fill?.(view);
  poke(caller, ARG, new Uint8Array(view.buffer));
  return machine.call(caller, abi.__HYPERVISOR_domctl, ARG);
};

const maxMem = (machine: Machine, caller: Guest, domid: number, pages: bigint | number): number =>
  domctl(machine, caller, abi.XEN_DOMCTL_max_mem, domid, (view) =>
    view.setBigUint64(u.max_mem.max_memkb.offset, BigInt.asUintN(64, BigInt(pages) * 4n), true),
  );

/** Populates one gfn after the other, from `gfn`, until the hypervisor says no; returns how many. */
const populateAll = (machine: Machine, caller: Guest, domid: number, gfn: number): number => {
  for (let count = 0; ; count += 1) {
    pokeWords(caller, LIST, gfn + count);
    pokeWords(caller, ARG, LIST, 1, 0, 0, domid);
    if (machine.call(caller, abi.__HYPERVISOR_memory_op, abi.XENMEM_populate_physmap, ARG) !== 1) return count;
  }
};

const limitsOf = ({ machine }: Stage, guest: Guest) => memoryLimits(machine.hypervisor, guest.slot);

describe("device models and max_pages", () => {
  it("H16: the attack: max_pages = -1 and populate everything gets what the builder allowed, and no more", () => {
    const actors = stage();
    const { machine, model, target } = actors;
    const free = freeFrameCount(machine.hypervisor);
    for (const pages of [-1n, 2n ** 62n - 1n, 2n ** 32n - 1n, 2n ** 31n, OWN + EXTRA + 1]) {
      assert.equal(maxMem(machine, model, target.domid, pages), -EPERM, `${pages}`);
      assert.equal(limitsOf(actors, target).maxPages, OWN);
    }
    // The control case, and then every page that can be had, by both of them.
    assert.equal(maxMem(machine, model, target.domid, OWN + EXTRA), 0);
    assert.equal(maxMem(machine, model, target.domid, OWN + EXTRA + 1), -EPERM);
    const taken = populateAll(machine, model, target.domid, 0x100);
    assert.equal(populateAll(machine, target, abi.DOMID_SELF, 0x200), 0);
    assert.equal(taken, OWN + EXTRA - RAM_FRAMES);
    assert.equal(limitsOf(actors, target).totPages, OWN + EXTRA);
    assert.equal(freeFrameCount(machine.hypervisor), free - taken);
  });

  it("T12: a device model acts on its target only: not on itself, not on others, not on who is not there", () => {
    const actors = stage();
    const { machine, model, target, other } = actors;
    for (const domid of [model.domid, other.domid, 0, 77, abi.DOMID_SELF, abi.DOMID_IDLE, abi.DOMID_XEN]) {
      assert.equal(maxMem(machine, model, domid, OWN + 1), -EPERM, `domid ${domid}`);
      assert.equal(domctl(machine, model, abi.XEN_DOMCTL_get_memory_limits, domid), -EPERM);
      if (domid !== model.domid && domid !== abi.DOMID_SELF) {
        pokeWords(model, LIST, 0x100);
        pokeWords(model, ARG, LIST, 1, 0, 0, domid);
        assert.equal(machine.call(model, abi.__HYPERVISOR_memory_op, abi.XENMEM_populate_physmap, ARG), 0);
      }
    }
    for (const caller of [target, other]) assert.equal(maxMem(machine, caller, target.domid, OWN + 1), -EPERM);
    assert.equal(maxMem(machine, target, target.domid, OWN - 1), -EPERM);
    assert.equal(maxMem(machine, model, target.domid, OWN + 1), 0);
    for (const guest of [model, other]) assert.equal(limitsOf(actors, guest).maxPages, OWN);
  });

  it("T12: before it has a target a device model has no rights, and after its target's end it has none either", () => {
    const machine = new Machine();
    const target = machine.guest({ deviceModelPages: EXTRA });
    const model = machine.guest();
    assert.equal(maxMem(machine, model, target.domid, OWN + 1), -EPERM);
    assert.equal(setTarget(machine.hypervisor, model.slot, target.slot), 0);
    assert.equal(maxMem(machine, model, target.domid, OWN + 1), 0);
    assert.equal(setTarget(machine.hypervisor, model.slot, machine.guest().slot), -EINVAL);
    beginDestroy(machine.hypervisor, target.slot);
    assert.equal(maxMem(machine, model, target.domid, OWN + 2), -ESRCH);
    while (!continueDestroy(machine.hypervisor, target.slot));
    assert.equal(maxMem(machine, model, target.domid, OWN + 2), -ESRCH);
    // Its row stays as long as the device model names it: nobody else gets the number.
    assert.equal(createDomain(machine.hypervisor, { vcpus: 1, domid: target.domid }), -abi.EEXIST);
    beginDestroy(machine.hypervisor, model.slot);
    for (let round = 0; round < 10; round += 1) reapDomains(machine.hypervisor);
    machine.check();
    assert.equal(machine.hypervisor.domains.slotOf(target.domid), -1);
  });

  it("H16: raising and lowering in cycles does not creep, whatever the administrator writes back meanwhile", () => {
    const actors = stage();
    const { machine, model, target, other } = actors;
    const { hypervisor } = machine;
    const second = other;
    assert.equal(setTarget(hypervisor, second.slot, target.slot), 0);
    for (let cycle = 0; cycle < 200; cycle += 1) {
      const { maxPages, extraPages } = limitsOf(actors, target);
      assert.equal(extraPages, 0);
      assert.equal(maxMem(machine, cycle % 2 === 0 ? model : second, target.domid, maxPages + 4), 0);
      // The administrator reads and writes back, as toolstacks do.
      assert.equal(setMaxPages(hypervisor, target.slot, limitsOf(actors, target).maxPages), 0);
      assert.equal(maxMem(machine, second, target.domid, maxPages + 4 + 3), -EPERM, "two models have one bound");
      assert.equal(maxMem(machine, second, target.domid, maxPages + EXTRA), 0);
      assert.equal(maxMem(machine, model, target.domid, maxPages - 1), -EPERM, "not below what it was");
      assert.equal(maxMem(machine, model, target.domid, maxPages), 0);
    }
    assert.deepEqual(limitsOf(actors, target), {
      maxPages: OWN,
      totPages: RAM_FRAMES,
      extraPagesMax: EXTRA,
      extraPages: 0,
      isFrozen: false,
    });
  });

  it("the administrator resizes the domain itself, and what the device model added comes on top", () => {
    const actors = stage();
    const { machine, model, target } = actors;
    const { hypervisor } = machine;
    assert.equal(maxMem(machine, model, target.domid, OWN + 4), 0);
    assert.equal(setOwnPages(hypervisor, target.slot, 2 * RAM_FRAMES), 0);
    assert.equal(limitsOf(actors, target).maxPages, 2 * RAM_FRAMES + 4);
    assert.equal(maxMem(machine, model, target.domid, 2 * RAM_FRAMES + EXTRA), 0);
    assert.equal(maxMem(machine, model, target.domid, 2 * RAM_FRAMES + EXTRA + 1), -EPERM);
    // max_mem below what it owns stays legal, and so does a limit of all that there is; the bound holds there too.
    assert.equal(maxMem(machine, machine.dom0, target.domid, 1), 0);
    assert.equal(maxMem(machine, model, target.domid, 2), -EPERM);
    assert.equal(maxMem(machine, machine.dom0, target.domid, -1n), 0);
    assert.equal(limitsOf(actors, target).maxPages, MAX_PAGES_MAX);
    assert.equal(maxMem(machine, model, target.domid, 0xffff_ffffn), -EPERM);
  });

  it("the bound is 0 unless the builder says otherwise; the administrator sets and sees it", () => {
    const actors = stage(0);
    const { machine, model, target } = actors;
    assert.equal(maxMem(machine, model, target.domid, OWN + 1), -EPERM);
    assert.equal(maxMem(machine, model, target.domid, OWN), 0);
    const set = (caller: Guest, pages: number): number =>
      domctl(machine, caller, abi.XEN_DOMCTL_set_memory_limits, target.domid, (view) => {
        u.memory_limits.what.set(view, 0, abi.XEN_MEMORY_LIMIT_extra);
        u.memory_limits.extra_pages_max.set(view, 0, pages);
      });
    assert.equal(set(model, 3), -EPERM);
    assert.equal(set(machine.dom0, 0xffff_ffff), -EINVAL);
    assert.equal(set(machine.dom0, 3), 0);
    assert.equal(maxMem(machine, model, target.domid, OWN + 3), 0);
    assert.equal(setExtraPages(machine.hypervisor, target.slot, 1), 0);
    assert.equal(maxMem(machine, model, target.domid, OWN + 4), -EPERM);
    for (const caller of [model, machine.dom0]) {
      assert.equal(domctl(machine, caller, abi.XEN_DOMCTL_get_memory_limits, target.domid), 0);
      const view = new DataView(peek(caller, ARG, abi.xen_domctl.sizeBytes).buffer);
      const { memory_limits: layout } = u;
      assert.equal(layout.max_pages.get(view, 0), OWN + 3);
      assert.equal(layout.tot_pages.get(view, 0), RAM_FRAMES);
      assert.equal(layout.extra_pages_max.get(view, 0), 1);
      assert.equal(layout.extra_pages.get(view, 0), 3);
    }
    for (const bad of [-1, 0.5, NaN, 2 ** 32]) {
      assert.equal(createDomain(machine.hypervisor, { vcpus: 1, deviceModelPages: bad }), -EINVAL);
      assert.equal(setExtraPages(machine.hypervisor, target.slot, bad), -EINVAL);
    }
  });
});

describe("pages of the target in a device model", () => {
  const WINDOW = 0x100;
  const mapAll = (
    machine: Machine,
    caller: Guest,
    foreign: number,
    indexes: readonly number[],
    gfn: number,
  ): number => {
    const size = indexes.length;
    pokeWords(caller, LIST, ...indexes, ...indexes.map((_, at) => gfn + at), ...indexes.map(() => 0x7777));
    const bytes = new DataView(new ArrayBuffer(abi.xen_add_to_physmap_batch.sizeBytes));
    const batch = abi.xen_add_to_physmap_batch;
    batch.domid.set(bytes, 0, abi.DOMID_SELF);
    batch.space.set(bytes, 0, abi.XENMAPSPACE_gmfn_foreign);
    batch.size.set(bytes, 0, size);
    batch.u.foreign_domid.set(bytes, 0, foreign);
    batch.idxs.set(bytes, 0, LIST);
    batch.gpfns.set(bytes, 0, LIST + 4 * size);
    batch.errs.set(bytes, 0, LIST + 8 * size);
    poke(caller, ARG, new Uint8Array(bytes.buffer));
    return machine.call(caller, abi.__HYPERVISOR_memory_op, abi.XENMEM_add_to_physmap_batch, ARG);
  };
  const map = (machine: Machine, caller: Guest, foreign: number, index: number, gfn: number): number => {
    const result = mapAll(machine, caller, foreign, [index], gfn);
    return result === 0 ? new DataView(peek(caller, LIST + 8, 4).buffer).getInt32(0, true) : result;
  };
  const unmap = (machine: Machine, caller: Guest, gfn: number): number => {
    pokeWords(caller, ARG, abi.DOMID_SELF, gfn);
    return machine.call(caller, abi.__HYPERVISOR_memory_op, abi.XENMEM_remove_from_physmap, ARG);
  };

  it("the device model sees and writes its target's RAM, and nobody else's", () => {
    const { machine, model, target, other } = stage();
    poke(target, 3 * 4096, Uint8Array.of(7));
    assert.equal(map(machine, model, target.domid, 3, WINDOW), 0);
    assert.deepEqual([...peek(model, WINDOW * 4096, 1)], [7]);
    poke(model, WINDOW * 4096, Uint8Array.of(8));
    assert.deepEqual([...peek(target, 3 * 4096, 1)], [8]);
    for (const domid of [other.domid, 0]) assert.equal(map(machine, model, domid, 3, WINDOW + 1), -EPERM);
    assert.equal(map(machine, other, target.domid, 3, WINDOW), -EPERM);
    assert.equal(map(machine, model, target.domid, 3, WINDOW), -EINVAL, "not a hole");
    for (const index of [0x3ff, 0x400, 0xffff_ffff]) {
      assert.equal(map(machine, model, target.domid, index, WINDOW + 1), -EINVAL, "no RAM");
    }
    assert.equal(map(machine, model, target.domid, 3, 0xffff_ffff), -EINVAL);
    assert.equal(unmap(machine, model, WINDOW), 0);
    assert.equal(unmap(machine, model, WINDOW), -abi.ENOENT);
  });

  it("a batch that is longer than a slice maps all of its pages, with the rights of each slice looked at", () => {
    const { machine, model, target, other } = stage();
    const indexes = Array.from({ length: 150 }, (_, at) => at % RAM_FRAMES);
    assert.equal(mapAll(machine, other, target.domid, indexes, WINDOW), -EPERM);
    assert.equal(mapAll(machine, model, target.domid, indexes, WINDOW), 0);
    const errors = peek(model, LIST + 8 * indexes.length, 4 * indexes.length);
    assert.deepEqual([...errors], [...new Uint8Array(errors.length)]);
    poke(target, 4096, Uint8Array.of(9));
    assert.deepEqual([...peek(model, (WINDOW + RAM_FRAMES + 1) * 4096, 1)], [9]);
    machine.check();
  });

  it("a page that the target gives up stays in its accounts until the device model lets go, also over its end", () => {
    const actors = stage();
    const { machine, model, target } = actors;
    const { hypervisor } = machine;
    assert.equal(map(machine, model, target.domid, 5, WINDOW), 0);
    assert.equal(map(machine, model, target.domid, 6, WINDOW + 1), 0);
    pokeWords(target, LIST, 5);
    pokeWords(target, ARG, LIST, 1, 0, 0, abi.DOMID_SELF);
    assert.equal(machine.call(target, abi.__HYPERVISOR_memory_op, abi.XENMEM_decrease_reservation, ARG), 1);
    assert.equal(limitsOf(actors, target).totPages, RAM_FRAMES);
    assert.equal(unmap(machine, model, WINDOW), 0);
    assert.equal(limitsOf(actors, target).totPages, RAM_FRAMES - 1);
    beginDestroy(hypervisor, target.slot);
    for (let round = 0; round < 10; round += 1) reapDomains(hypervisor);
    assert.equal(limitsOf(actors, target).totPages, 1);
    assert.equal(map(machine, model, target.domid, 6, WINDOW + 2), -ESRCH);
    beginDestroy(hypervisor, model.slot);
    for (let round = 0; round < 10; round += 1) reapDomains(hypervisor);
    machine.check();
    assert.equal(hypervisor.domains.slotOf(target.domid), -1);
  });
});

describe("freezing of max_pages", () => {
  const freeze = (machine: Machine, caller: Guest, domid: number, wanted = 1, token = 0): number =>
    domctl(machine, caller, abi.XEN_DOMCTL_freeze_memory, domid, (view) => {
      u.freeze_memory.freeze.set(view, 0, wanted);
      u.freeze_memory.token.set(view, 0, token);
    });
  const tokenOf = (caller: Guest): number =>
    u.freeze_memory.token.get(new DataView(peek(caller, ARG, abi.xen_domctl.sizeBytes).buffer), 0);
  const setLimits = (machine: Machine, caller: Guest, domid: number, what: number, pages: number, token = 0): number =>
    domctl(machine, caller, abi.XEN_DOMCTL_set_memory_limits, domid, (view) => {
      u.memory_limits.what.set(view, 0, what);
      u.memory_limits.max_pages.set(view, 0, pages);
      u.memory_limits.extra_pages_max.set(view, 0, pages);
      u.memory_limits.token.set(view, 0, token);
    });
  const { XEN_MEMORY_LIMIT_extra, XEN_MEMORY_LIMIT_max, XEN_MEMORY_LIMIT_own } = abi;

  it("everybody is told EBUSY but who has the token: another toolstack, dom0 itself, the device model", () => {
    const actors = stage();
    const { machine, model, target } = actors;
    const toolstack = machine.guest({ privileged: true });
    assert.equal(freeze(machine, model, target.domid), -EPERM);
    assert.equal(freeze(machine, machine.dom0, target.domid), 0);
    const token = tokenOf(machine.dom0);
    assert.notEqual(token, 0);
    for (const caller of [toolstack, machine.dom0]) {
      assert.equal(maxMem(machine, caller, target.domid, OWN), -EBUSY);
      assert.equal(freeze(machine, caller, target.domid), -EBUSY);
      assert.equal(freeze(machine, caller, target.domid, 0, token + 1), -EBUSY);
      assert.equal(setLimits(machine, caller, target.domid, XEN_MEMORY_LIMIT_extra, 9), -EBUSY);
      assert.equal(setLimits(machine, caller, target.domid, XEN_MEMORY_LIMIT_max, 9, token + 1), -EBUSY);
    }
    assert.equal(maxMem(machine, model, target.domid, OWN + 1), -EBUSY);
    const before = limitsOf(actors, target);
    assert.deepEqual([before.maxPages, before.extraPagesMax, before.isFrozen], [OWN, EXTRA, true]);
    // Who froze it may, also below what the domain owns.
    assert.equal(setLimits(machine, machine.dom0, target.domid, XEN_MEMORY_LIMIT_own, 1, token), 0);
    assert.equal(limitsOf(actors, target).maxPages, 1);
    assert.equal(freeze(machine, machine.dom0, target.domid, 0, token), 0);
    assert.equal(freeze(machine, machine.dom0, target.domid, 0, token), -EINVAL);
    assert.equal(maxMem(machine, toolstack, target.domid, OWN), 0);
    assert.equal(maxMem(machine, model, target.domid, OWN + 1), 0);
  });

  it("reading goes on while it is frozen, and so do the domain's own allocations below its limit", () => {
    const actors = stage();
    const { machine, model, target } = actors;
    assert.equal(freeze(machine, machine.dom0, target.domid), 0);
    assert.equal(populateAll(machine, target, abi.DOMID_SELF, 0x100), OWN - RAM_FRAMES);
    assert.equal(domctl(machine, model, abi.XEN_DOMCTL_get_memory_limits, target.domid), 0);
    assert.equal(domctl(machine, machine.dom0, abi.XEN_DOMCTL_getdomaininfo, target.domid), 0);
    const view = new DataView(peek(machine.dom0, ARG, abi.xen_domctl.sizeBytes).buffer);
    assert.equal(u.getdomaininfo.tot_pages.get(view, 0), OWN);
  });

  it("a freeze ends with who made it, and with its domain; a token is never one twice", () => {
    const actors = stage();
    const { machine, target, other } = actors;
    const toolstack = machine.guest({ privileged: true });
    assert.equal(freeze(machine, toolstack, target.domid), 0);
    const first = tokenOf(toolstack);
    assert.equal(freeze(machine, machine.dom0, other.domid), 0);
    beginDestroy(machine.hypervisor, toolstack.slot);
    for (let round = 0; round < 10; round += 1) reapDomains(machine.hypervisor);
    assert.equal(limitsOf(actors, target).isFrozen, false);
    assert.equal(limitsOf(actors, other).isFrozen, true);
    assert.equal(freeze(machine, machine.dom0, target.domid), 0);
    assert(tokenOf(machine.dom0) > first);
    beginDestroy(machine.hypervisor, target.slot);
    beginDestroy(machine.hypervisor, other.slot);
    for (let round = 0; round < 10; round += 1) reapDomains(machine.hypervisor);
    machine.check();
  });

  it("what is no request is refused: unknown bits, both kinds of limit, a padding that is not 0", () => {
    const { machine, target } = stage();
    assert.equal(freeze(machine, machine.dom0, target.domid, 2), -EINVAL);
    for (const what of [0, 8, XEN_MEMORY_LIMIT_max | XEN_MEMORY_LIMIT_own]) {
      assert.equal(setLimits(machine, machine.dom0, target.domid, what, 9), -EINVAL);
    }
    assert.equal(setLimits(machine, machine.dom0, target.domid, XEN_MEMORY_LIMIT_own | XEN_MEMORY_LIMIT_extra, 9), 0);
    assert.equal(freeze(machine, machine.dom0, 77), -ESRCH);
  });
});
