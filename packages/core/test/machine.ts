/**
 * A booted hypervisor over the fake platform, with guests that have memory and a calling side each. For tests of
 * hypercalls: `call` makes one as a guest does and audits the whole machine afterwards.
 */
import { EIO } from "@xenolith/abi";
import assert from "node:assert/strict";
import { attachSpace } from "../src/address-space.ts";
import { audit } from "../src/auditor.ts";
import { initialise } from "../src/boot.ts";
import type { Cpu } from "../src/cpu.ts";
import { createDomain } from "../src/domain-create.ts";
import type { DomainSpec } from "../src/domain-create.ts";
import { setMaxPages } from "../src/memory-limits.ts";
import { unpauseDomain } from "../src/domain-run.ts";
import { createTestHypervisor, ParkedError } from "../src/fake-platform.ts";
import type { TestHypervisor } from "../src/fake-platform.ts";
import type { Geometry } from "../src/geometry.ts";
import { createCpu, hypercall } from "../src/hypercall.ts";
import type { Hypervisor } from "../src/hypervisor.ts";
import { populateRun } from "../src/memory-populate.ts";
import { answerServiceCall, takeServiceCalls } from "../src/service-call.ts";

/** Guest frames populated from gfn 0 in every domain of the kit. */
export const RAM_FRAMES = 8;
/** End of that memory. */
export const RAM_BYTES = RAM_FRAMES * 4096;

/** A domain, and its calling side. */
export interface Guest {
  readonly domid: number;
  readonly slot: number;
  readonly cpu: Cpu;
}

/** A machine with dom0, which has memory too. */
export class Machine {
  readonly hypervisor: Hypervisor;
  readonly parts: TestHypervisor;
  readonly dom0: Guest;

  constructor(geometry: Partial<Geometry> = {}, isFast = false) {
    this.parts = createTestHypervisor(geometry, isFast);
    this.hypervisor = this.parts.hypervisor;
    this.dom0 = { domid: 0, slot: 0, cpu: initialise(this.hypervisor) };
    this.#populate(0);
    this.check();
  }

  /** A running domain with RAM_FRAMES of memory, or a paused one. */
  guest(spec: Partial<DomainSpec> = {}, options: { readonly paused?: boolean } = {}): Guest {
    const guest = this.tryGuest(spec, options);
    assert(guest !== undefined, "there is room for another domain");
    assert.equal(this.hypervisor.domains.totPages[guest.slot], RAM_FRAMES);
    return guest;
  }

  /** As `guest`, with as much memory as can be had; undefined: there is no room for another domain. */
  tryGuest(spec: Partial<DomainSpec> = {}, options: { readonly paused?: boolean } = {}): Guest | undefined {
    const domid = createDomain(this.hypervisor, { vcpus: 1, ...spec });
    if (domid < 0) return undefined;
    const slot = this.hypervisor.domains.slotOf(domid);
    assert.equal(attachSpace(this.hypervisor, slot, 2 ** 33 * (slot + 1)), 0);
    setMaxPages(this.hypervisor, slot, 4 * RAM_FRAMES);
    this.#populate(slot);
    if (options.paused !== true) assert.equal(unpauseDomain(this.hypervisor, slot), 0);
    return { domid, slot, cpu: createCpu(this.hypervisor, slot, 0) };
  }

  /**
   * Makes a hypercall as `guest` and audits. Missing arguments are 0; negative ones are as i32 arguments arrive. For a
   * vCPU that did not come back (see `keepAwake`) the answer is `PARKED`.
   */
  call(guest: Guest, number: number, ...args: readonly number[]): number {
    const [a = 0, b = 0, c = 0, d = 0, e = 0] = args;
    const result = unlessParked(() => hypercall(guest.cpu, number, a, b, c, d, e));
    this.check();
    return result;
  }

  /**
   * From now on a vCPU that would sleep is woken at once, one that waits for the control domain gets -EIO, and one that
   * would park at its gate throws `ParkedError`.
   */
  keepAwake(): void {
    const { events, vcpus } = this.hypervisor;
    this.parts.platform.onWait = ({ words, index }) => {
      if (words === vcpus.gate) throw new ParkedError("parked until it is let go");
      for (const request of takeServiceCalls(this.hypervisor, 0, Infinity)) {
        answerServiceCall(this.hypervisor, request, -EIO);
      }
      // As whoever wakes a poller does: takes its announcement away first.
      Atomics.and(events.pollMask, Math.floor(index / vcpus.perDomain), ~(1 << (index % vcpus.perDomain)));
      Atomics.add(words, index, 1);
    };
  }

  /** Asserts that the auditor finds nothing and that no lock is held. */
  check(): void {
    assert.deepEqual(audit(this.hypervisor), []);
    assert.equal(this.hypervisor.locks.heldCount, 0);
  }

  #populate(slot: number): void {
    const outcome = { count: 0, blockedGfn: -1, error: 0 };
    populateRun(this.hypervisor, slot, 0, RAM_FRAMES, outcome);
  }
}

/** No result of a hypercall: the vCPU parked. */
export const PARKED = 0x7eed;

const unlessParked = (call: () => number): number => {
  try {
    return call();
  } catch (error) {
    if (error instanceof ParkedError) return PARKED;
    throw error;
  }
};

/** Writes `bytes` into the guest's memory. */
export const poke = (guest: Guest, address: number, bytes: Uint8Array): void => {
  assert.equal(guest.cpu.memory.copyToGuest(address, bytes), 0);
};

/** Reads `length` bytes of the guest's memory. */
export const peek = (guest: Guest, address: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  assert.equal(guest.cpu.memory.copyFromGuest(address, bytes), 0);
  return bytes;
};

/** Writes consecutive 32-bit words. */
export const pokeWords = (guest: Guest, address: number, ...words: readonly number[]): void => {
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [index, word] of words.entries()) view.setUint32(index * 4, word >>> 0, true);
  poke(guest, address, bytes);
};

/** The 32-bit word at `address`, signed. */
export const peekWord = (guest: Guest, address: number): number =>
  new DataView(peek(guest, address, 4).buffer).getInt32(0, true);

/** The text up to the first zero of a field. */
export const text = (bytes: Uint8Array): string => {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
};
