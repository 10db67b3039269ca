import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hypercall } from "../src/hypercall.ts";
import { probeStack } from "../src/stack-probe.ts";
import { Machine, pokeWords } from "./machine.ts";
import type { Guest } from "./machine.ts";

/** Frames near the end of the stack at which each call is made: from none being left to more than enough. */
const DEPTHS = 2500;
const ARG = 0x1000;
const LIST = 0x2000;

/** Calls that change something, each with its arguments in memory. */
const calls: Readonly<Record<string, (machine: Machine) => { guest: Guest; number: number; args: readonly number[] }>> =
  {
    "populate_physmap of a gfn that holds RAM": (machine) => {
      const guest = machine.guest();
      pokeWords(guest, LIST, 20);
      pokeWords(guest, ARG, LIST, 1, 0, 0, abi.DOMID_SELF);
      return { guest, number: abi.__HYPERVISOR_memory_op, args: [abi.XENMEM_populate_physmap, ARG] };
    },
    "decrease_reservation of a hole": (machine) => {
      const guest = machine.guest();
      pokeWords(guest, LIST, 30);
      pokeWords(guest, ARG, LIST, 1, 0, 0, abi.DOMID_SELF);
      return { guest, number: abi.__HYPERVISOR_memory_op, args: [abi.XENMEM_decrease_reservation, ARG] };
    },
    alloc_unbound: (machine) => {
      const guest = machine.guest();
      pokeWords(guest, ARG, abi.DOMID_SELF);
      return { guest, number: abi.__HYPERVISOR_event_channel_op, args: [abi.EVTCHNOP_alloc_unbound, ARG] };
    },
    console_io: (machine) => {
      const guest = machine.guest();
      return { guest, number: abi.__HYPERVISOR_console_io, args: [abi.CONSOLEIO_write, 300, 0] };
    },
    "a version string": (machine) => {
      const guest = machine.guest();
      return { guest, number: abi.__HYPERVISOR_xen_version, args: [abi.XENVER_capabilities, LIST] };
    },
    "a multicall of populate and reset": (machine) => {
      const guest = machine.guest();
      pokeWords(guest, 0x3000, 20);
      pokeWords(guest, ARG, 0x3000, 1, 0, 0, abi.DOMID_SELF);
      pokeWords(guest, ARG + 64, abi.DOMID_SELF);
      pokeWords(guest, LIST, abi.__HYPERVISOR_memory_op, 0, abi.XENMEM_populate_physmap, ARG, 0, 0, 0, 0);
      pokeWords(guest, LIST + 32, abi.__HYPERVISOR_event_channel_op, 0, abi.EVTCHNOP_reset, ARG + 64, 0, 0, 0, 0);
      return { guest, number: abi.__HYPERVISOR_multicall, args: [LIST, 2] };
    },
    "domctl getdomaininfo and what it formats": (machine) => {
      const guest = machine.dom0;
      pokeWords(guest, ARG, abi.XEN_DOMCTL_getdomaininfo, abi.XEN_DOMCTL_INTERFACE_VERSION, machine.guest().domid);
      return { guest, number: abi.__HYPERVISOR_domctl, args: [ARG] };
    },
    "domctl destroydomain": (machine) => {
      const guest = machine.dom0;
      pokeWords(guest, ARG, abi.XEN_DOMCTL_destroydomain, abi.XEN_DOMCTL_INTERFACE_VERSION, machine.guest().domid);
      return { guest, number: abi.__HYPERVISOR_domctl, args: [ARG] };
    },
  };

/** What happened when a call was made at many depths, the deepest first. */
interface Tally {
  completed: number;
  notStarted: number;
  halfDone: number;
}

/** Recurses until the stack is full and makes the call on the way back, at the `DEPTHS` deepest frames. */
const callNearTheEnd = (guest: Guest, number: number, args: readonly number[]): Tally => {
  const tally: Tally = { completed: 0, notStarted: 0, halfDone: 0 };
  const { domains } = guest.cpu.hypervisor;
  const { gate } = guest.cpu.hypervisor.vcpus;
  const [a = 0, b = 0, c = 0] = args;
  let left = DEPTHS;
  const descend = (): void => {
    try {
      descend();
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
    if (left === 0) return;
    left -= 1;
    // From here on nothing but the hypercall needs stack, so the tally is right at any depth.
    const before = domains.hypercallCount(guest.slot);
    try {
      hypercall(guest.cpu, number, a, b, c, 0, 0);
      tally.completed += 1;
    } catch {
      if (domains.hypercallCount(guest.slot) === before && gate[guest.cpu.index] === 0) tally.notStarted += 1;
      else tally.halfDone += 1;
    }
  };
  descend();
  return tally;
};

describe("stack probe", () => {
  for (const [name, prepare] of Object.entries(calls)) {
    it(`W11: ${name}, made near the end of the stack, completes or has not started`, () => {
      const machine = new Machine();
      const { guest, number, args } = prepare(machine);
      for (let round = 0; round < 3; round += 1) {
        const tally = callNearTheEnd(guest, number, args);
        assert.equal(tally.halfDone, 0, JSON.stringify(tally));
        assert(tally.notStarted > 0, "the deepest call did not overflow");
        assert(tally.completed > 0, "the shallowest call did not complete");
        machine.check();
      }
    });
  }

  it("the probe throws nothing but a RangeError, and nothing where there is room", () => {
    probeStack();
    const overflow = (): number => {
      probeStack();
      return 1 + overflow();
    };
    assert.throws(overflow, RangeError);
    probeStack();
  });
});
