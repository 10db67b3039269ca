import * as abi from "@xenolith/abi";
import type { HypercallName } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { beginDestroy } from "../src/domain-reap.ts";
import { setTarget } from "../src/domain-ops.ts";
import { domctlOperations } from "../src/domctl.ts";
import { hypercall } from "../src/hypercall.ts";
import { policy } from "../src/policy-table.ts";
import type { Access } from "../src/policy-table.ts";
import { resolveDomain } from "../src/policy.ts";
import { sysctlOperations } from "../src/sysctl.ts";
import { Machine, poke, pokeWords } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { EACCES, EPERM, ENOSYS, ESRCH } = abi;
/** Where the argument structures stand. */
const ARG = 0x1000;

/** Constants of the interface that name a command of each hypercall. */
const commandNames: Readonly<Partial<Record<HypercallName, RegExp>>> = {
  memory_op: /^XENMEM_(?!resource_)[a-z]/,
  xen_version: /^XENVER_/,
  console_io: /^CONSOLEIO_/,
  vcpu_op: /^VCPUOP_/,
  sched_op: /^SCHEDOP_/,
  event_channel_op: /^EVTCHNOP_/,
  physdev_op: /^PHYSDEVOP_/,
  hvm_op: /^HVMOP_/,
};

/** Where the domid that an operation acts on stands in its structure. */
const domidAt: Readonly<Record<string, number>> = {
  XENMEM_increase_reservation: 16,
  XENMEM_decrease_reservation: 16,
  XENMEM_populate_physmap: 16,
  XENMEM_exchange: 16,
};
/** Operations whose every failure is a count of 0. */
const countsOnly = new Set(["XENMEM_increase_reservation", "XENMEM_decrease_reservation", "XENMEM_populate_physmap"]);

interface Row {
  readonly hypercall: HypercallName;
  readonly number: number;
  readonly command: number;
  readonly name: string;
  readonly access: Access;
}

const constants: readonly (readonly [string, number])[] = Object.entries(abi).filter(
  (entry): entry is [string, number] => typeof entry[1] === "number",
);

const nameOf = (name: HypercallName, command: number): string => {
  const pattern = commandNames[name];
  const found =
    pattern === undefined ? undefined : constants.find(([key, value]) => pattern.test(key) && value === command);
  return found === undefined ? `${name}(${command})` : found[0];
};

const rows: readonly Row[] = Object.entries(abi.hypercalls).flatMap(([key, { number }]) => {
  const name = Object.keys(policy).find((candidate): candidate is HypercallName => candidate === key)!;
  const { whole = policy[name].isOpen === true ? "HOOK" : undefined, commands } = policy[name];
  if (whole !== undefined) return [{ hypercall: name, number, command: 0, name: key, access: whole }];
  return Object.entries(commands ?? {}).map(([command, access]) => ({
    hypercall: name,
    number,
    command: Number(command),
    name: nameOf(name, Number(command)),
    access,
  }));
});

/** A machine with a third party, a device model and its target. */
const cast = (): { machine: Machine; stranger: Guest; model: Guest; target: Guest } => {
  const machine = new Machine();
  const stranger = machine.guest();
  const model = machine.guest();
  const target = machine.guest();
  assert.equal(setTarget(machine.hypervisor, model.slot, target.slot), 0);
  machine.keepAwake();
  // Everybody may map every interrupt: what remains is who may do it for whom.
  machine.hypervisor.pirqs.permitted.fill(1);
  return { machine, stranger, model, target };
};

/** Makes the call with `domid` in its structure. */
const attempt = (machine: Machine, caller: Guest, row: Row, domid: number): number => {
  poke(caller, ARG, new Uint8Array(256));
  const at = domidAt[row.name] ?? 0;
  poke(caller, ARG + at, Uint8Array.of(domid & 0xff, domid >> 8));
  if (row.name === "XENMEM_exchange") poke(caller, ARG + at + 20, Uint8Array.of(domid & 0xff, domid >> 8));
  return machine.call(caller, row.number, row.command, ARG);
};

const refusal = (row: Row, errno: number): number => (countsOnly.has(row.name) ? 0 : -errno);

describe("policy", () => {
  it("H01: every command that the interface names has a row, and no row is without a command", () => {
    for (const [key, pattern] of Object.entries(commandNames)) {
      const expected = new Set(constants.filter(([name]) => pattern.test(name)).map(([, value]) => value));
      const found = rows.filter((row) => row.hypercall === key).map((row) => row.command);
      assert.deepEqual(
        found,
        [...expected].toSorted((a, b) => a - b),
        key,
      );
    }
    const inTable = (pattern: RegExp): number[] =>
      [...new Set(constants.filter(([name]) => pattern.test(name)).map(([, value]) => value))].toSorted(
        (a, b) => a - b,
      );
    const listed = (name: "domctl" | "sysctl" | "grant_table_op"): number[] =>
      Object.keys(policy[name].commands ?? {}).map(Number);
    for (const found of [Object.keys(domctlOperations).map(Number), listed("domctl")]) {
      assert.deepEqual(found, inTable(/^XEN_DOMCTL_[a-z]/));
    }
    for (const found of [Object.keys(sysctlOperations).map(Number), listed("sysctl")]) {
      assert.deepEqual(found, inTable(/^XEN_SYSCTL_[a-z]/));
    }
    assert.deepEqual(listed("grant_table_op"), inTable(/^GNTTABOP_/));
  });

  for (const row of rows.filter(({ access }) => access === "PRIV")) {
    it(`H01: ${row.name} is for privileged domains only`, () => {
      const { machine, stranger, model } = cast();
      for (const caller of [stranger, model]) {
        assert.equal(attempt(machine, caller, row, caller.domid), -EPERM);
        assert.equal(machine.hypervisor.domains.denied[caller.slot], 1);
      }
      assert.notEqual(attempt(machine, machine.dom0, row, stranger.domid), -EPERM);
    });
  }

  for (const row of rows.filter(({ access }) => access === "ABSENT")) {
    it(`${row.name} does not exist, for nobody`, () => {
      const { machine, stranger, model } = cast();
      for (const caller of [stranger, model, machine.dom0]) {
        assert.equal(attempt(machine, caller, row, caller.domid), -ENOSYS);
      }
    });
  }

  for (const row of rows.filter(({ access }) => access === "TARGET" || access === "DM_PRIV")) {
    it(`H01: ${row.name} on another domain is for its device model and privileged domains`, () => {
      const { machine, stranger, model, target } = cast();
      assert.equal(attempt(machine, stranger, row, target.domid), refusal(row, EPERM));
      assert.equal(attempt(machine, target, row, model.domid), refusal(row, EPERM));
      assert.equal(attempt(machine, model, row, stranger.domid), refusal(row, EPERM));
      assert.equal(attempt(machine, machine.dom0, row, 77), refusal(row, ESRCH));
      if (row.access === "DM_PRIV") assert.equal(attempt(machine, target, row, target.domid), -EPERM);
      else assert.notEqual(attempt(machine, target, row, abi.DOMID_SELF), -EPERM);
      assert.notEqual(attempt(machine, model, row, target.domid), -EPERM);
      assert.notEqual(attempt(machine, machine.dom0, row, target.domid), -EPERM);
    });
  }

  for (const row of rows.filter(({ access }) => access === "TARGET" || access === "DM_PRIV")) {
    it(`${row.name} on dom0 is for dom0 alone, however privileged the caller`, () => {
      const { machine, stranger } = cast();
      const stack = machine.guest({ privileged: true });
      const before = machine.hypervisor.domains.totPages[0];
      assert.equal(attempt(machine, stack, row, 0), refusal(row, EPERM));
      assert.equal(machine.hypervisor.domains.totPages[0], before);
      if (row.access === "TARGET") assert.notEqual(attempt(machine, machine.dom0, row, 0), -EPERM);
      assert.notEqual(attempt(machine, stack, row, stranger.domid), -EPERM);
    });
  }

  it("a delegated toolstack claims memory for a domain, not for dom0", () => {
    const { machine, stranger } = cast();
    const stack = machine.guest({ privileged: true });
    const claim = (domid: number): number => {
      pokeWords(stack, ARG, 0, 1, 0, 0, domid);
      return machine.call(stack, abi.__HYPERVISOR_memory_op, abi.XENMEM_claim_pages, ARG);
    };
    machine.hypervisor.domains.maxPages[stranger.slot] = machine.hypervisor.domains.totPages[stranger.slot]! + 1;
    assert.equal(claim(0), -EPERM);
    assert.notEqual(claim(stranger.domid), -EPERM);
  });

  for (const row of rows.filter(({ access }) => access === "HOOK" || access === "TEXT")) {
    it(`${row.name} is open to everyone`, () => {
      const { machine, stranger } = cast();
      const result = attempt(machine, stranger, row, stranger.domid);
      assert.notEqual(result, row.name === "domctl" || row.name === "sysctl" ? -ENOSYS : -EPERM);
      assert.equal(machine.hypervisor.domains.denied[stranger.slot], 0);
    });
  }

  it("H01: every domctl and sysctl is refused to a guest and a device model, after the version and before the domain", () => {
    const { machine, stranger, model, target } = cast();
    const call = (caller: Guest, number: number, command: number, version: number, domid: number): number => {
      poke(caller, ARG, new Uint8Array(256));
      pokeWords(caller, ARG, command, version, domid);
      return machine.call(caller, number, ARG);
    };
    for (const command of Object.keys(domctlOperations).map(Number)) {
      const version = domctlOperations[command]!.version ?? abi.XEN_DOMCTL_INTERFACE_VERSION;
      for (const caller of [stranger, model]) {
        assert.equal(call(caller, 36, command, version + 1, target.domid), -EACCES);
        // Of its target a device model may know the limits. It may raise one too, but not as this call wants it.
        const mayKnow = caller === model && command === abi.XEN_DOMCTL_get_memory_limits;
        assert.equal(call(caller, 36, command, version, target.domid), mayKnow ? 0 : -EPERM, `domctl ${command}`);
        assert.equal(call(caller, 36, command, version, 77), -EPERM);
      }
      assert.equal(call(machine.dom0, 36, command, version + 1, target.domid), -EACCES);
      if (command !== abi.XEN_DOMCTL_createdomain) assert.equal(call(machine.dom0, 36, command, version, 77), -ESRCH);
    }
    for (const command of Object.keys(sysctlOperations).map(Number)) {
      assert.equal(call(stranger, 35, command, abi.XEN_SYSCTL_INTERFACE_VERSION + 1, 0), -EACCES);
      assert.equal(call(stranger, 35, command, abi.XEN_SYSCTL_INTERFACE_VERSION, 0), -EPERM);
      assert.equal(call(machine.dom0, 35, command, abi.XEN_SYSCTL_INTERFACE_VERSION, 0), 0);
    }
    assert.equal(call(machine.dom0, 36, 0x7777, abi.XEN_DOMCTL_INTERFACE_VERSION, 1), -ENOSYS);
    assert.equal(call(stranger, 36, 0x7777, abi.XEN_DOMCTL_INTERFACE_VERSION, 1), -EPERM);
    assert.equal(call(machine.dom0, 35, 0x7777, abi.XEN_SYSCTL_INTERFACE_VERSION, 1), -ENOSYS);
  });

  it("the xenstore domain may list domains and nothing else that is privileged", () => {
    const machine = new Machine();
    const store = machine.guest({ xenstore: true });
    const list = abi.XEN_SYSCTL_getdomaininfolist;
    pokeWords(store, ARG, list, abi.XEN_SYSCTL_INTERFACE_VERSION, 0, 2, 0x2000, 0);
    assert.equal(machine.call(store, 35, ARG), 0);
    pokeWords(store, ARG, abi.XEN_SYSCTL_physinfo, abi.XEN_SYSCTL_INTERFACE_VERSION);
    assert.equal(machine.call(store, 35, ARG), -EPERM);
    pokeWords(store, ARG, abi.XEN_DOMCTL_pausedomain, abi.XEN_DOMCTL_INTERFACE_VERSION, 1);
    assert.equal(machine.call(store, 36, ARG), -EPERM);
  });

  it("a device model has no rights over a target that is gone, nor over itself as a target", () => {
    const { machine, model, target } = cast();
    assert.equal(resolveDomain(model.cpu, target.domid, "DM_PRIV"), target.slot);
    assert.equal(resolveDomain(model.cpu, model.domid, "DM_PRIV"), -EPERM);
    beginDestroy(machine.hypervisor, target.slot);
    assert.equal(resolveDomain(model.cpu, 99, "DM_PRIV"), -ESRCH);
  });

  it("H07: a refused call takes no lock", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const taken: number[] = [];
    const { locks } = machine.hypervisor;
    const acquire = locks.acquire.bind(locks);
    locks.acquire = (lock: number): void => {
      taken.push(lock);
      acquire(lock);
    };
    for (const row of rows.filter(({ access }) => access === "PRIV" || access === "ABSENT")) {
      assert(hypercall(guest.cpu, row.number, row.command, ARG, 0, 0, 0) < 0);
    }
    assert.deepEqual(taken, []);
    // A domctl is read first; that takes the caller's own p2m lock and nobody else's.
    pokeWords(guest, ARG, abi.XEN_DOMCTL_pausedomain, abi.XEN_DOMCTL_INTERFACE_VERSION, 0);
    taken.length = 0;
    assert.equal(hypercall(guest.cpu, 36, ARG, 0, 0, 0, 0), -EPERM);
    assert.deepEqual([...new Set(taken)], [locks.id("p2m", guest.slot)]);
  });
});
