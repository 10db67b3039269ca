import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { crashDomain, shutdownDomain } from "../src/domain-ops.ts";
import { beginDestroy, reapDomains } from "../src/domain-reap.ts";
import { pauseDomain } from "../src/domain-run.ts";
import { enterHypercall, hypercall, HYPERCALL_COUNT, hypercallTable, leaveHypercall } from "../src/hypercall.ts";
import { policy } from "../src/policy-table.ts";
import { Machine, PARKED, poke, RAM_BYTES } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { ENOSYS } = abi;

/** Addresses at every kind of edge: of memory, of a page, of 2^31 and of 2^32. */
const edges = [
  0,
  1,
  3,
  0xffc,
  0xfff,
  0x1000,
  RAM_BYTES - 64,
  RAM_BYTES - 8,
  RAM_BYTES - 4,
  RAM_BYTES - 1,
  RAM_BYTES,
  RAM_BYTES + 1,
  0x7fff_fffc,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_f000,
  0xffff_fff8,
  0xffff_fffc,
  0xffff_ffff,
];
/** Numbers that limits are off by one at, as unsigned and as the signed i32 that arrives from WebAssembly. */
const numbers = [
  0,
  1,
  2,
  31,
  32,
  63,
  64,
  127,
  128,
  1023,
  1024,
  1025,
  0x7fef,
  0x7ff0,
  0xffff,
  0x1_0000,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 2,
  2 ** 32 - 1,
  -1,
  -2,
  -(2 ** 31),
];
/** What the structures of all pages are made of. */
const fills: Readonly<Record<string, (at: number) => number>> = {
  zeros: () => 0,
  ones: () => 0xff,
  "small numbers": (at) => (at % 4 === 0 ? (at >> 2) % 5 : 0),
  "the own memory's addresses": (at) => (at % 4 === 1 ? 0x10 : 0),
  "domain numbers": (at) => [0xf0, 0x7f, 0, 0][at % 4]!,
};

const commandsOf = (number: number): readonly number[] => {
  const found = Object.entries(abi.hypercalls).find(([, row]) => row.number === number);
  const name = Object.keys(policy).find((candidate): candidate is keyof typeof policy => candidate === found?.[0]);
  const commands = name === undefined || policy[name].isOpen === true ? undefined : policy[name].commands;
  return commands === undefined ? [] : Object.keys(commands).map(Number);
};

/** Fills every page that the guest still has. */
const fill = (guest: Guest, byteAt: (at: number) => number): void => {
  const page = Uint8Array.from({ length: 4096 }, (_, at) => byteAt(at));
  for (let address = 0; address < RAM_BYTES; address += 4096) guest.cpu.memory.copyToGuest(address, page);
};

/** Makes the call; what comes back is a result that a guest may see. Replaces a guest that stopped itself. */
const attempt = (machine: Machine, guest: Guest, number: number, args: readonly number[]): Guest => {
  const result = machine.call(guest, number, ...args);
  assert(Number.isInteger(result) && result >= -4095 && result < 2 ** 31, `${number}(${args.join(", ")}) = ${result}`);
  assert.notEqual(result, -abi.ERESTART);
  if (result !== PARKED && machine.hypervisor.domains.stateOf(guest.slot) === "running") return guest;
  beginDestroy(machine.hypervisor, guest.slot);
  reapDomains(machine.hypervisor);
  return machine.guest();
};

describe("dispatch", () => {
  it("every number that has no handler, and every number at all outside the table, is -ENOSYS", () => {
    const machine = new Machine();
    const guest = machine.guest();
    for (let number = 0; number < HYPERCALL_COUNT; number += 1) {
      if (hypercallTable[number] === undefined && number !== abi.__HYPERVISOR_kexec_op) {
        assert.equal(machine.call(guest, number), -ENOSYS, String(number));
      }
    }
    for (const number of [64, 65, 255, 2 ** 16, 2 ** 31, 2 ** 32 - 1, -1]) {
      assert.equal(machine.call(guest, number), -ENOSYS);
    }
    assert.equal(machine.call(machine.dom0, abi.__HYPERVISOR_kexec_op), -ENOSYS);
  });

  it("a command outside the table is -ENOSYS, for every hypercall that has commands", () => {
    const machine = new Machine();
    for (const guest of [machine.guest(), machine.dom0]) {
      for (const { number } of Object.values(abi.hypercalls)) {
        const known = commandsOf(number);
        if (known.length === 0 || number === abi.__HYPERVISOR_memory_op) continue;
        for (const command of [Math.max(...known) + 1, 100, 255, 256, 2 ** 31, -1]) {
          assert.equal(machine.call(guest, number, command, 0x1000), -ENOSYS);
        }
      }
    }
  });

  it("counts hypercalls of the domain that makes them", () => {
    const machine = new Machine();
    const guest = machine.guest();
    for (let count = 0; count < 10; count += 1) machine.call(guest, abi.__HYPERVISOR_xen_version, count % 8, 0);
    assert.equal(machine.hypervisor.domains.hypercallCount(guest.slot), 10);
  });

  it("a vCPU is inside the hypervisor exactly during its call", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const { gate } = machine.hypervisor.vcpus;
    enterHypercall(guest.cpu);
    assert.equal(gate[guest.cpu.index], 1);
    leaveHypercall(guest.cpu);
    assert.equal(gate[guest.cpu.index], 0);
  });

  it("a vCPU that is asked to stop during its call does not come back from it", () => {
    for (const ask of [pauseDomain, shutdownDomain, crashDomain] as const) {
      const machine = new Machine();
      machine.keepAwake();
      const guest = machine.guest();
      machine.parts.platform.ringDoorbell = () => {
        if (ask === pauseDomain) pauseDomain(machine.hypervisor, guest.slot);
        else if (ask === shutdownDomain) shutdownDomain(machine.hypervisor, guest.slot, 0);
        else crashDomain(machine.hypervisor, guest.slot, "test");
      };
      machine.hypervisor.attention.take();
      poke(guest, 0, Uint8Array.of(0x41, 0x0a));
      assert.equal(machine.call(guest, abi.__HYPERVISOR_console_io, 0, 2, 0), PARKED);
    }
  });
});

describe("bad arguments", () => {
  for (const { number, name } of Object.entries(abi.hypercalls).map(([name, row]) => ({ name, number: row.number }))) {
    it(`${name}: pointers at the ends of memory, of pages and of the address space never do harm`, () => {
      const machine = new Machine({ machineFrames: 400 });
      machine.keepAwake();
      let guest = machine.guest();
      const commands = commandsOf(number).length === 0 ? [0, 1] : commandsOf(number);
      for (const byteAt of Object.values(fills)) {
        for (const command of commands) {
          fill(guest, byteAt);
          for (const address of edges)
            guest = attempt(machine, guest, number, [command, address, address, address, address]);
        }
        for (const address of edges) guest = attempt(machine, guest, number, [address, address, 1, 0, 0]);
      }
    });

    it(`${name}: numbers at the ends of every range never do harm`, () => {
      const machine = new Machine({ machineFrames: 400 });
      machine.keepAwake();
      let guest = machine.guest();
      const commands = commandsOf(number).length === 0 ? numbers : commandsOf(number);
      fill(guest, fills["small numbers"]!);
      for (const command of commands) {
        for (const value of numbers) {
          guest = attempt(machine, guest, number, [command, value, 0x1000, value, value]);
          guest = attempt(machine, guest, number, [command, 0x1000, value, 0x2000, 0]);
        }
      }
    });
  }

  it("H01: a domain number that is no domain's is -ESRCH, whatever its sign", () => {
    const machine = new Machine();
    for (const domid of [0x7fee, 0x7ff1, 0x7ff4, 0x7fff, 0x8000, 0xffff]) {
      poke(machine.dom0, 0x1000, Uint8Array.of(domid & 0xff, domid >> 8, 0, 0));
      const result = hypercall(
        machine.dom0.cpu,
        abi.__HYPERVISOR_memory_op,
        abi.XENMEM_current_reservation,
        0x1000,
        0,
        0,
        0,
      );
      assert.equal(result, -abi.ESRCH);
    }
  });
});
