import * as abi from "@xenolith/abi";
import { EBUSY, EEXIST, EFAULT, EINVAL, ENODEV, ENOSPC, ENOSYS, EPERM, ESRCH } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTarget } from "../src/domain-ops.ts";
import { GSI_COUNT, IRQ_MSI_BASE, PIRQ_COUNT } from "../src/pirq-table.ts";
import { isPirqPending, lowerPirq, permitIrq, raisePirq } from "../src/pirq.ts";
import {
  ARG,
  bindPirq,
  clearPort,
  close,
  NOWHERE,
  pending,
  physdev,
  reset,
  runningGuest,
  setMask,
  SPARE,
  status,
} from "./events-kit.ts";
import type { Guest } from "./machine.ts";
import { Machine, peek, peekWord } from "./machine.ts";

const { DOMID_SELF, MAP_PIRQ_TYPE_GSI, MAP_PIRQ_TYPE_MSI } = abi;
const PHYSDEV = abi.__HYPERVISOR_physdev_op;
const GSI = 20;
const MSI = 3;

/** map_pirq; the pirq, or a negative errno. */
const map = (guest: Guest, type: number, index: number, wanted = -1, domid: number = DOMID_SELF): number => {
  const result = physdev(guest, abi.PHYSDEVOP_map_pirq, domid, type, index, wanted);
  return result < 0 ? result : peekWord(guest, ARG + 12);
};
const unmap = (guest: Guest, pirq: number, domid: number = DOMID_SELF): number =>
  physdev(guest, abi.PHYSDEVOP_unmap_pirq, domid, pirq);
const eoi = (guest: Guest, pirq: number): number => physdev(guest, abi.PHYSDEVOP_eoi, pirq);

/** A guest that may use line GSI and message MSI. */
const world = () => {
  const machine = new Machine();
  const guest = runningGuest(machine);
  permitIrq(machine.hypervisor, guest.slot, GSI, true);
  permitIrq(machine.hypervisor, guest.slot, IRQ_MSI_BASE + MSI, true);
  return { machine, guest, hypervisor: machine.hypervisor };
};

describe("map_pirq and unmap_pirq", () => {
  it("a line gets the pirq of its own number, a message the highest one", () => {
    const { machine, guest } = world();
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, GSI), GSI);
    assert.equal(map(guest, MAP_PIRQ_TYPE_MSI, MSI), PIRQ_COUNT - 1);
    machine.check();
  });

  it("a source that the domain has no right to is refused with -EPERM", () => {
    const { machine, guest, hypervisor } = world();
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, GSI + 1), -EPERM);
    permitIrq(hypervisor, guest.slot, GSI + 1, true);
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, GSI + 1), GSI + 1);
    machine.check();
  });

  it("numbers out of range and types that do not exist are refused with -EINVAL, devices with -ENODEV", () => {
    const { guest } = world();
    for (const index of [-1, GSI_COUNT, 0x7fff_ffff]) assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, index), -EINVAL);
    for (const index of [-1, 192, 0x7fff_ffff]) assert.equal(map(guest, MAP_PIRQ_TYPE_MSI, index), -EINVAL);
    for (const type of [-1, 5, 0x7fff_ffff]) assert.equal(map(guest, type, 0), -EINVAL);
    for (const type of [2, 3, 4]) assert.equal(map(guest, type, 0), -ENODEV);
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, GSI, PIRQ_COUNT), -EINVAL);
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, GSI, PIRQ_COUNT - 1), PIRQ_COUNT - 1);
  });

  it("a pirq that stands for another source is refused with -EEXIST; the same mapping again is not", () => {
    const { machine, guest } = world();
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, GSI, 30), 30);
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, GSI, 31), -EEXIST);
    assert.equal(map(guest, MAP_PIRQ_TYPE_MSI, MSI, 30), -EEXIST);
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, GSI, 30), 30);
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, GSI), 30);
    machine.check();
  });

  it("for another domain it takes its device model or dom0: -EPERM; missing -ESRCH", () => {
    const { machine, guest, hypervisor } = world();
    const model = runningGuest(machine);
    assert.equal(map(model, MAP_PIRQ_TYPE_GSI, GSI, -1, guest.domid), -EPERM);
    assert.equal(map(model, MAP_PIRQ_TYPE_GSI, GSI, -1, 99), -ESRCH);
    setTarget(hypervisor, model.slot, guest.slot);
    assert.equal(map(model, MAP_PIRQ_TYPE_GSI, GSI, -1, guest.domid), GSI);
    assert.equal(unmap(machine.dom0, GSI, guest.domid), 0);
  });

  it("unmapping closes the event channel; what is not mapped is -EINVAL", () => {
    const { machine, guest } = world();
    for (const pirq of [-1, GSI, PIRQ_COUNT, 0x7fff_ffff]) assert.equal(unmap(guest, pirq), -EINVAL);
    map(guest, MAP_PIRQ_TYPE_GSI, GSI);
    const port = bindPirq(guest, GSI);
    assert.equal(unmap(guest, GSI), 0);
    assert.equal(status(guest, port).status, abi.EVTCHNSTAT_closed);
    machine.check();
  });

  it("when every pirq for messages is taken, -ENOSPC", () => {
    const { machine, guest } = world();
    for (let taken = GSI_COUNT; taken < PIRQ_COUNT; taken += 1)
      assert.ok(physdev(guest, abi.PHYSDEVOP_get_free_pirq, MAP_PIRQ_TYPE_MSI) === 0);
    assert.equal(physdev(guest, abi.PHYSDEVOP_get_free_pirq, MAP_PIRQ_TYPE_MSI), -ENOSPC);
    assert.equal(map(guest, MAP_PIRQ_TYPE_MSI, MSI), -ENOSPC);
    assert.equal(map(guest, MAP_PIRQ_TYPE_MSI, MSI, 200), 200, "a reserved one that the guest names may be used");
    machine.check();
  });

  it("get_free_pirq reserves: lines from 16 upwards, messages from the top", () => {
    const { guest } = world();
    const free = (type: number): number => {
      assert.equal(physdev(guest, abi.PHYSDEVOP_get_free_pirq, type), 0);
      return peekWord(guest, ARG + 4);
    };
    assert.deepEqual([free(MAP_PIRQ_TYPE_GSI), free(MAP_PIRQ_TYPE_GSI)], [16, 17]);
    assert.deepEqual([free(MAP_PIRQ_TYPE_MSI), free(MAP_PIRQ_TYPE_MSI)], [255, 254]);
    for (const type of [-1, 5]) assert.equal(physdev(guest, abi.PHYSDEVOP_get_free_pirq, type), -EINVAL);
  });
});

describe("bind_pirq", () => {
  it("refuses a pirq out of range or not mapped with -EINVAL, one that is bound with -EEXIST", () => {
    const { machine, guest } = world();
    for (const pirq of [PIRQ_COUNT, 0xffff_ffff, GSI]) assert.equal(bindPirq(guest, pirq), -EINVAL);
    map(guest, MAP_PIRQ_TYPE_GSI, GSI);
    assert.equal(bindPirq(guest, GSI, 2), -EINVAL, "an unknown flag");
    const port = bindPirq(guest, GSI);
    assert.equal(bindPirq(guest, GSI), -EEXIST);
    assert.deepEqual([status(guest, port).status, status(guest, port).number], [abi.EVTCHNSTAT_pirq, GSI]);
    assert.equal(close(guest, port), 0);
    assert.equal(bindPirq(guest, GSI), port);
    machine.check();
  });

  it("pirq 0 is a pirq like any other", () => {
    const { machine, guest, hypervisor } = world();
    permitIrq(hypervisor, guest.slot, 0, true);
    assert.equal(map(guest, MAP_PIRQ_TYPE_GSI, 0), 0);
    const port = bindPirq(guest, 0);
    assert.equal(raisePirq(hypervisor, guest.slot, 0), true);
    assert.equal(pending(guest, port), true);
    machine.check();
  });
});

describe("raising", () => {
  it("a line is delivered once, and not again before its eoi, however often it is raised", () => {
    const { guest, hypervisor } = world();
    map(guest, MAP_PIRQ_TYPE_GSI, GSI);
    const port = bindPirq(guest, GSI);
    assert.equal(raisePirq(hypervisor, guest.slot, GSI), true);
    clearPort(guest, port);
    assert.equal(raisePirq(hypervisor, guest.slot, GSI), false);
    assert.equal(pending(guest, port), false);
    lowerPirq(hypervisor, guest.slot, GSI);
    assert.equal(eoi(guest, GSI), 0);
    assert.equal(pending(guest, port), false);
    assert.equal(raisePirq(hypervisor, guest.slot, GSI), true);
    assert.equal(pending(guest, port), true);
  });

  it("a line that is still asserted at its eoi is delivered again", () => {
    const { guest, hypervisor } = world();
    map(guest, MAP_PIRQ_TYPE_GSI, GSI);
    const port = bindPirq(guest, GSI);
    raisePirq(hypervisor, guest.slot, GSI);
    clearPort(guest, port);
    assert.equal(eoi(guest, GSI), 0);
    assert.equal(pending(guest, port), true);
  });

  it("messages merge while one is pending, and need no eoi", () => {
    const { guest, hypervisor } = world();
    const pirq = map(guest, MAP_PIRQ_TYPE_MSI, MSI);
    const port = bindPirq(guest, pirq);
    assert.equal(raisePirq(hypervisor, guest.slot, pirq), true);
    assert.equal(raisePirq(hypervisor, guest.slot, pirq), true);
    assert.equal(hypervisor.domains.eventCount(guest.slot), 1);
    assert.equal(isPirqPending(hypervisor, guest.slot, pirq), true);
    clearPort(guest, port);
    raisePirq(hypervisor, guest.slot, pirq);
    assert.equal(pending(guest, port), true);
    assert.equal(eoi(guest, pirq), 0);
  });

  it("a line that is asserted before anybody is bound to it is delivered when somebody is", () => {
    const { guest, hypervisor } = world();
    map(guest, MAP_PIRQ_TYPE_GSI, GSI);
    assert.equal(raisePirq(hypervisor, guest.slot, GSI), false);
    const port = bindPirq(guest, GSI);
    assert.equal(pending(guest, port), true);
  });

  it("a line whose channel was closed while in service works again when bound anew", () => {
    const { machine, guest, hypervisor } = world();
    map(guest, MAP_PIRQ_TYPE_GSI, GSI);
    bindPirq(guest, GSI);
    raisePirq(hypervisor, guest.slot, GSI);
    lowerPirq(hypervisor, guest.slot, GSI);
    assert.equal(reset(guest), 0);
    const port = bindPirq(guest, GSI);
    assert.equal(pending(guest, port), false);
    assert.equal(raisePirq(hypervisor, guest.slot, GSI), true);
    machine.check();
  });
});

describe("eoi and its page", () => {
  it("eoi of a pirq out of range or not mapped is -EINVAL", () => {
    const { guest } = world();
    for (const pirq of [GSI, PIRQ_COUNT, 0xffff_ffff]) assert.equal(eoi(guest, pirq), -EINVAL);
    map(guest, MAP_PIRQ_TYPE_GSI, GSI);
    assert.equal(eoi(guest, GSI), 0);
  });

  it("irq_status_query says needs_eoi for what is mapped and shared for what was bound so; out of range -EINVAL", () => {
    const { guest } = world();
    const query = (pirq: number): number => {
      const result = physdev(guest, abi.PHYSDEVOP_irq_status_query, pirq);
      return result < 0 ? result : peekWord(guest, ARG + 4);
    };
    assert.deepEqual([query(PIRQ_COUNT), query(GSI)], [-EINVAL, 0]);
    map(guest, MAP_PIRQ_TYPE_GSI, GSI);
    assert.equal(query(GSI), abi.XENIRQSTAT_needs_eoi);
    bindPirq(guest, GSI, abi.BIND_PIRQ__WILL_SHARE);
    assert.equal(query(GSI), abi.XENIRQSTAT_needs_eoi | abi.XENIRQSTAT_shared);
  });

  it("a registered page has the bit of each pirq that waits for its eoi; a second page is -EBUSY, none there -EINVAL", () => {
    const { machine, guest, hypervisor } = world();
    map(guest, MAP_PIRQ_TYPE_GSI, GSI);
    bindPirq(guest, GSI);
    raisePirq(hypervisor, guest.slot, GSI);
    lowerPirq(hypervisor, guest.slot, GSI);
    assert.equal(physdev(guest, abi.PHYSDEVOP_pirq_eoi_gmfn_v2, NOWHERE >>> 12), -EINVAL);
    assert.equal(physdev(guest, abi.PHYSDEVOP_pirq_eoi_gmfn_v2, SPARE >>> 12), 0);
    assert.equal(physdev(guest, abi.PHYSDEVOP_pirq_eoi_gmfn_v2, 4), -EBUSY);
    const bit = (): number => (peek(guest, SPARE + (GSI >>> 3), 1)[0]! >>> (GSI & 7)) & 1;
    assert.equal(bit(), 1);
    eoi(guest, GSI);
    assert.equal(bit(), 0);
    raisePirq(hypervisor, guest.slot, GSI);
    assert.equal(bit(), 1);
    machine.check();
  });

  it("with the first kind of page an eoi unmasks the event channel too", () => {
    for (const [command, isMasked] of [
      [abi.PHYSDEVOP_pirq_eoi_gmfn_v1, false],
      [abi.PHYSDEVOP_pirq_eoi_gmfn_v2, true],
    ] as const) {
      const { guest, hypervisor } = world();
      map(guest, MAP_PIRQ_TYPE_GSI, GSI);
      const port = bindPirq(guest, GSI);
      physdev(guest, command, SPARE >>> 12);
      setMask(guest, port, true);
      eoi(guest, GSI);
      raisePirq(hypervisor, guest.slot, GSI);
      const frame = hypervisor.domains.sharedInfo[guest.slot]! - 1;
      const mask = hypervisor.directMap.loadU32(frame * 4096 + abi.shared_info.evtchn_mask.offset);
      assert.equal((mask & (1 << port)) !== 0, isMasked);
    }
  });
});

describe("physdev_op in general", () => {
  it("operations on hardware are -EPERM for a guest and -ENODEV for dom0; unknown ones -ENOSYS", () => {
    const { machine, guest } = world();
    for (const command of [15, 16, 19, 20, 24, 25, 26, 27, 30, 31, 32]) {
      assert.equal(physdev(guest, command), -EPERM, `command ${command}`);
      assert.equal(physdev(machine.dom0, command), -ENODEV, `command ${command}`);
    }
    for (const command of [0, 3, 18, 22, 33, 0xffff_ffff]) assert.equal(physdev(machine.dom0, command), -ENOSYS);
    assert.equal(physdev(guest, abi.PHYSDEVOP_free_irq_vector), 0);
  });

  it("arguments that are not readable are -EFAULT, and reserve nothing", () => {
    const { machine, guest } = world();
    for (const command of [5, 12, 13, 14, 17, 23, 28])
      assert.equal(machine.call(guest, PHYSDEV, command, NOWHERE), -EFAULT);
    assert.equal(map(guest, MAP_PIRQ_TYPE_MSI, MSI), PIRQ_COUNT - 1);
  });
});
