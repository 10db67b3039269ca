/**
 * Random life of a small machine: guests make hypercalls with hostile arguments, and the control domain creates, pauses,
 * squeezes, crashes and destroys them at random points. Every step is plain data, so that a failing run shrinks.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import fc from "fast-check";
import { crashDomain, setTarget } from "../src/domain-ops.ts";
import { setMaxPages } from "../src/memory-limits.ts";
import { beginDestroy, continueDestroy, reapDomains } from "../src/domain-reap.ts";
import { pauseDomain, resumeDomain, unpauseDomain } from "../src/domain-run.ts";
import { policy } from "../src/policy-table.ts";
import { serviceTimers } from "../src/timer-service.ts";
import { shapes, vcpuShapes } from "./campaign-shapes.ts";
import type { Draw } from "./campaign-shapes.ts";
import { Machine, PARKED, RAM_BYTES } from "./machine.ts";
import type { Guest } from "./machine.ts";

/** Guests alive at a time, besides dom0. */
const GUEST_COUNT = 6;
/** Where each step writes its structure, and the list that the structure may point to. */
const STRUCT = 0x1000;
const LIST = 0x2000;

/** One step. Numbers are taken modulo what there is. */
export interface Step {
  readonly kind: number;
  readonly who: number;
  readonly call: number;
  readonly args: readonly number[];
  readonly struct: readonly number[];
  readonly list: readonly number[];
}

const numberOf = new Map<string, number>(Object.entries(abi.hypercalls).map(([name, row]) => [name, row.number]));
/** Every (hypercall, command) of the policy, so that each is drawn as often as any other. */
const calls: readonly { readonly number: number; readonly command?: number }[] = Object.entries(policy).flatMap(
  ([name, { commands }]) => {
    const number = numberOf.get(name)!;
    return commands === undefined
      ? [{ number }]
      : Object.keys(commands).map((key) => ({ number, command: Number(key) }));
  },
);

const word = fc.oneof(
  { weight: 6, arbitrary: fc.nat(40) },
  { weight: 2, arbitrary: fc.constantFrom(LIST, LIST + 4, STRUCT, 0x3000) },
  { weight: 2, arbitrary: fc.constantFrom(abi.DOMID_SELF, 0, 1, 2, 3, 4, 5) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(abi.XEN_DOMCTL_INTERFACE_VERSION, abi.XEN_SYSCTL_INTERFACE_VERSION, 512, 1023, 1024),
  },
  { weight: 1, arbitrary: fc.constantFrom(-1, -2, 2 ** 31 - 1, -(2 ** 31), RAM_BYTES - 4, RAM_BYTES, 0xfff) },
  { weight: 1, arbitrary: fc.integer() },
);
const pointer = fc.oneof({ weight: 8, arbitrary: fc.constant(STRUCT) }, { weight: 2, arbitrary: word });

/** Any step. */
export const anyStep: fc.Arbitrary<Step> = fc.record({
  kind: fc.nat(99),
  who: fc.nat(255),
  call: fc.nat(9999),
  args: fc.tuple(pointer, word, word, word),
  struct: fc.array(word, { minLength: 4, maxLength: 12 }),
  list: fc.array(word, { minLength: 1, maxLength: 12 }),
});

/** A machine in the middle of such a life. */
export class Campaign {
  readonly #machine = new Machine({ machineFrames: 300, domainCountMax: 10, vmaLimit: 120, vmaReserve: 60 });
  readonly #guests: Guest[] = [];

  constructor() {
    this.#machine.keepAwake();
    while (this.#guests.length < GUEST_COUNT) this.#guests.push(this.#machine.guest({ vcpus: 2 }));
  }

  /** Does one step and audits. */
  step(step: Step): void {
    const guest = step.kind % 10 === 0 ? this.#machine.dom0 : this.#guests[step.who % GUEST_COUNT]!;
    if (step.kind < 45) this.#shaped(guest, step);
    else if (step.kind < 70) this.#hypercall(guest, step);
    else this.#control(step);
    this.#machine.check();
  }

  /** Destroys every guest and asserts that nothing is left of them. */
  finish(): void {
    const { hypervisor, parts } = this.#machine;
    parts.mmu.failAt(0);
    for (const { slot } of this.#guests) beginDestroy(hypervisor, slot);
    for (let slot = 1; slot < hypervisor.domains.slotCount; slot += 1) beginDestroy(hypervisor, slot);
    let rounds = 0;
    while (reapDomains(hypervisor) > 0) {
      rounds += 1;
      assert(rounds < 10, "some domain does not end");
    }
    this.#machine.check();
    assert.deepEqual(
      [...hypervisor.domains.state.subarray(1)].filter((state) => state !== 0),
      [],
    );
  }

  /** Whether the guest's vCPU may make a call: what is left of a dying domain has no threads. */
  #isHere(guest: Guest): boolean {
    const { domains } = this.#machine.hypervisor;
    const state = domains.stateOf(guest.slot);
    return domains.slotOf(guest.domid) === guest.slot && state !== "dying" && state !== "dead";
  }

  /** A call whose structure is well formed; its fields are drawn from the step's numbers. */
  #shaped(guest: Guest, step: Step): void {
    if (!this.#isHere(guest)) return;
    const all = step.call % 5 === 0 ? vcpuShapes : shapes;
    const { number, command, words } = all[(step.call >> 3) % all.length]!;
    writeWords(guest, STRUCT, words(this.#draw(step)));
    writeWords(
      guest,
      LIST,
      step.list.map((value) => Math.abs(value) % 48),
    );
    const args =
      command === undefined ? [STRUCT, 2] : all === vcpuShapes ? [command, step.who % 3, STRUCT] : [command, STRUCT];
    const result = this.#machine.call(guest, number, ...args);
    if (result !== PARKED || guest.slot === 0) return;
    // Let it go on, so that the next steps find somebody alive.
    resumeDomain(this.#machine.hypervisor, guest.slot);
    while (unpauseDomain(this.#machine.hypervisor, guest.slot) === 0);
  }

  #draw(step: Step): Draw {
    let at = 0;
    const pick = (count: number): number => {
      at += 1;
      return Math.abs(step.struct[at % step.struct.length]! + at * step.who) % count;
    };
    const domid = (): number => (pick(3) === 0 ? abi.DOMID_SELF : this.#guests[pick(GUEST_COUNT)]!.domid);
    return { pick, domid, list: LIST };
  }

  #hypercall(guest: Guest, step: Step): void {
    if (!this.#isHere(guest)) return;
    writeWords(guest, STRUCT, step.struct);
    writeWords(guest, LIST, step.list);
    const { number, command } = calls[step.call % calls.length]!;
    const args = command === undefined ? step.args : [command, ...step.args];
    const result = this.#machine.call(guest, number, ...args);
    assert(Number.isInteger(result) && result >= -4095, `result ${result}`);
  }

  #control(step: Step): void {
    const { hypervisor, parts } = this.#machine;
    const at = step.who % GUEST_COUNT;
    const { slot, domid } = this.#guests[at]!;
    const other = this.#guests[step.call % GUEST_COUNT]!;
    const isHere = hypervisor.domains.slotOf(domid) === slot;
    const amount = Math.abs(step.args[1]!);
    if (step.kind < 74) reapDomains(hypervisor, amount + 1);
    else if (step.kind < 77) parts.mmu.failAt((amount % 5) + 1, (step.who % 3) + 1);
    else if (step.kind < 80) parts.platform.nowNs += amount * 1000;
    else if (step.kind < 82) void serviceTimers(hypervisor);
    else if (step.kind < 84) this.#replace(at);
    else if (!isHere) this.#replace(at);
    else if (step.kind < 87) pauseDomain(hypervisor, slot);
    else if (step.kind < 90) unpauseDomain(hypervisor, slot);
    else if (step.kind < 92) resumeDomain(hypervisor, slot);
    else if (step.kind < 94) void setMaxPages(hypervisor, slot, amount);
    else if (step.kind < 95) crashDomain(hypervisor, slot, "the campaign wanted it");
    else if (step.kind < 97) setTarget(hypervisor, slot, other.slot);
    else if (beginDestroy(hypervisor, slot) === 0) continueDestroy(hypervisor, slot, amount + 1);
  }

  /** A new domain in place of one that is gone, if there is room. */
  #replace(at: number): void {
    const { hypervisor, parts } = this.#machine;
    const old = this.#guests[at]!;
    if (hypervisor.domains.slotOf(old.domid) === old.slot) return;
    parts.mmu.failAt(0);
    const next = this.#machine.tryGuest({ vcpus: 2 });
    if (next !== undefined) this.#guests[at] = next;
  }
}

/** Writes as many words as the guest still has memory for. */
const writeWords = (guest: Guest, address: number, words: readonly number[]): void => {
  for (const [index, value] of words.entries()) guest.cpu.memory.writeU32(address + index * 4, value >>> 0);
};
