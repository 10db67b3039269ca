/**
 * Advisories about what can still be asked of a domain that dies (docs/advisories.md, sections 3 and 4).
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setClaim } from "../src/accounting.ts";
import { audit } from "../src/auditor.ts";
import { freeFrameCount } from "../src/buddy.ts";
import { setTarget } from "../src/domain-ops.ts";
import { setMaxPages } from "../src/memory-limits.ts";
import { beginDestroy, continueDestroy, reapDomains, reapStage } from "../src/domain-reap.ts";
import { pauseDomain } from "../src/domain-run.ts";
import { allocateUnbound, bindIpi, bindVirq } from "../src/event-ports.ts";
import { getFrame, putFrame } from "../src/frame-reference.ts";
import { hypercall } from "../src/hypercall.ts";
import { addToPhysmap } from "../src/memory-physmap.ts";
import { populateRun } from "../src/memory-populate.ts";
import { P2M_HOLE } from "../src/p2m.ts";
import { isIrqPermitted, permitIrq } from "../src/pirq.ts";
import * as kit from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

/** A guest with RAM at 0-15 and shared_info at 30. */
const setUp = (): { world: World; guest: Guest } => {
  const world = kit.createWorld();
  const guest = kit.addGuest(world, 64);
  assert.equal(kit.populate(guest, kit.range(0, 16)), 16);
  assert.equal(addToPhysmap(world.hypervisor, guest.slot, abi.XENMAPSPACE_shared_info, 0, 30), 0);
  return { world, guest };
};

const domctl = (world: World, command: number, domid: number, fill: (view: DataView) => void): number => {
  const { dom0 } = world;
  kit.writeArgument(dom0, abi.xen_domctl.sizeBytes, (view) => {
    abi.xen_domctl.cmd.set(view, 0, command);
    abi.xen_domctl.interface_version.set(view, 0, abi.XEN_DOMCTL_INTERFACE_VERSION);
    abi.xen_domctl.domain.set(view, 0, domid);
    fill(view);
  });
  return hypercall(dom0.cpu, abi.__HYPERVISOR_domctl, dom0.argument, 0, 0, 0, 0);
};

const setVirqHandler = (world: World, domid: number): number =>
  domctl(world, abi.XEN_DOMCTL_set_virq_handler, domid, (view) => {
    abi.xen_domctl.u.set_virq_handler.virq.set(view, 0, abi.VIRQ_CON_RING);
  });

const setMemoryMap = (world: World, domid: number): number => {
  const { dom0 } = world;
  kit.writeArgument(dom0, abi.xen_foreign_memory_map.sizeBytes, (view) => {
    abi.xen_foreign_memory_map.domid.set(view, 0, domid);
    abi.xen_foreign_memory_map.map.nr_entries.set(view, 0, 1);
    abi.xen_foreign_memory_map.map.buffer.set(view, 0, dom0.list);
  });
  return kit.memoryOp(dom0, abi.XENMEM_set_memory_map);
};

const setHvmParam = (world: World, domid: number): number => {
  const { dom0 } = world;
  kit.writeArgument(dom0, abi.xen_hvm_param.sizeBytes, (view) => {
    abi.xen_hvm_param.domid.set(view, 0, domid);
    abi.xen_hvm_param.index.set(view, 0, abi.HVM_PARAM_STORE_EVTCHN);
    abi.xen_hvm_param.value.low.set(view, 0, 77);
  });
  return hypercall(dom0.cpu, abi.__HYPERVISOR_hvm_op, abi.HVMOP_set_param, dom0.argument, 0, 0, 0);
};

describe("memory: domains that die", () => {
  /** What dom0 or a device model may still try on a domain, at any moment of its end. */
  const attempts = (world: World, guest: Guest): Readonly<Record<string, number>> => {
    const { hypervisor } = world;
    const { slot } = guest;
    const placed = { count: 0, blockedGfn: -1, error: 0 };
    populateRun(hypervisor, slot, 40, 2, placed);
    return {
      populate: placed.count,
      increase: kit.reserve(world.dom0, abi.XENMEM_increase_reservation, [0], { domid: guest.domid }),
      move: Number(addToPhysmap(hypervisor, slot, abi.XENMAPSPACE_gmfn, 1, 50) === 0),
      shared_info: Number(addToPhysmap(hypervisor, slot, abi.XENMAPSPACE_shared_info, 0, 60) === 0),
      claim: Number(setClaim(hypervisor, slot, 100) === 0),
      limit: Number(setMaxPages(hypervisor, slot, 100) === 0),
      target: Number(setTarget(hypervisor, slot, 0) === 0),
      port: Number(allocateUnbound(hypervisor, slot, 0) > 0),
      ipi: Number(bindIpi(hypervisor, slot, 0) > 0),
      pause: Number(pauseDomain(hypervisor, slot) === 0),
    };
  };

  it("M39: a dying domain gets no page, no mapping and no port at any stage of its end, and leaves none (XSA-410, XSA-11)", () => {
    const seen = new Set<string>();
    for (let slices = 0; slices < 50; slices += 1) {
      const { world, guest } = setUp();
      const { hypervisor } = world;
      const free = freeFrameCount(hypervisor) + hypervisor.domains.totPages[guest.slot]! + 2;
      const held = getFrame(hypervisor, guest.slot, 4);
      assert.equal(beginDestroy(hypervisor, guest.slot), 0);
      for (let slice = 0; slice < slices; slice += 1) continueDestroy(hypervisor, guest.slot, 30);
      seen.add(reapStage(hypervisor, guest.slot) ?? "gone");
      for (const [name, result] of Object.entries(attempts(world, guest))) {
        assert.equal(result, 0, `${name} after ${slices} slices, in stage ${reapStage(hypervisor, guest.slot)}`);
      }
      putFrame(hypervisor, held);
      while (!continueDestroy(hypervisor, guest.slot));
      assert.equal(reapDomains(hypervisor), 0);
      assert.equal(freeFrameCount(hypervisor), free);
      for (let gfn = 0; gfn < 1024; gfn += 1) assert.equal(hypervisor.p2m.get(guest.slot, gfn), P2M_HOLE);
      assert.deepEqual(audit(hypervisor), []);
    }
    assert.ok(seen.has("memory") && seen.has("zombie"), [...seen].join());
  });

  it("H25: what was asked of a dying domain does not reach the next one in its place (XSA-116, XSA-502)", () => {
    for (let slices = 0; slices < 50; slices += 3) {
      const { world, guest } = setUp();
      const { hypervisor } = world;
      const held = getFrame(hypervisor, guest.slot, 4);
      assert.equal(beginDestroy(hypervisor, guest.slot), 0);
      for (let slice = 0; slice < slices; slice += 1) continueDestroy(hypervisor, guest.slot, 30);
      setMemoryMap(world, guest.domid);
      setVirqHandler(world, guest.domid);
      permitIrq(hypervisor, guest.slot, 3, true);
      setHvmParam(world, guest.domid);
      putFrame(hypervisor, held);
      while (!continueDestroy(hypervisor, guest.slot));
      assert.equal(reapDomains(hypervisor), 0);
      assert.deepEqual(audit(hypervisor), [], `after ${slices} slices`);
      const heir = kit.addGuest(world, 10);
      assert.equal(heir.slot, guest.slot);
      assert.equal(kit.memoryOp(heir, abi.XENMEM_memory_map), -abi.ENOSYS, "a memory map of its predecessor");
      assert.equal(isIrqPermitted(hypervisor, heir.slot, 3), false);
      assert.equal(hypervisor.events.virqOwner[abi.VIRQ_CON_RING], 0);
      assert.ok(bindVirq(hypervisor, heir.slot, abi.VIRQ_CON_RING, 0) < 0);
      const row = hypervisor.hvmParams.row(heir.slot, abi.HVM_PARAM_STORE_EVTCHN);
      assert.equal(hypervisor.hvmParams.low[row], 0);
    }
  });

  it("M24: refused requests for resources keep no hold on the domain (XSA-334)", () => {
    const { world, guest } = setUp();
    const rival = kit.addGuest(world, 4);
    const ask = (caller: Guest, type: number): number => {
      kit.writeArgument(caller, abi.xen_mem_acquire_resource.sizeBytes, (view) => {
        abi.xen_mem_acquire_resource.domid.set(view, 0, guest.domid);
        abi.xen_mem_acquire_resource.type.set(view, 0, type);
        abi.xen_mem_acquire_resource.nr_frames.set(view, 0, 1);
      });
      return kit.memoryOp(caller, abi.XENMEM_acquire_resource);
    };
    for (let round = 0; round < 10_000; round += 1) {
      const type = round % 5;
      const errno = type === abi.XENMEM_resource_grant_table ? abi.EINVAL : abi.EOPNOTSUPP;
      assert.equal(ask(world.dom0, type), -errno);
      assert.equal(ask(rival, round % 5), -abi.EPERM);
    }
    kit.settle(world);
    assert.equal(beginDestroy(world.hypervisor, guest.slot), 0);
    assert.equal(continueDestroy(world.hypervisor, guest.slot), true);
    assert.equal(reapDomains(world.hypervisor), 0);
    assert.equal(world.hypervisor.domains.slotOf(guest.domid), -1);
  });
});
