/**
 * How much memory a domain may own. The hypervisor keeps every figure; nothing is remembered here but which domain, so
 * that what is read is what holds.
 */
import {
  DOM0_SLOT,
  findDomain,
  freezeMemory,
  type Hypervisor,
  memoryLimits,
  setExtraPages,
  setOwnPages,
  thawMemory,
} from "@xenolith/core";
import { DeviceModel } from "./device-model.ts";
import { check, slotOf } from "./domain-facts.ts";
import { type DomainName, extraFramesOf, framesOf } from "./domain-options.ts";
import { claimFrames } from "./memory-claim.ts";
import { FRAME_BYTES } from "./mmu.ts";

/** What a domain has and may have at one moment, in bytes. */
export interface MemoryFigures {
  /** What it owns. */
  readonly memoryBytes: number;
  /** What it may own in all: its own part, and what device models added. */
  readonly memoryBytesMax: number;
  /** What is set aside for it beside what it owns. */
  readonly claimedBytes: number;
  /** What device models have added, and may add together. */
  readonly deviceModelBytes: number;
  readonly deviceModelBytesMax: number;
  /** A save has frozen the limits. */
  readonly isFrozen: boolean;
}

/** The memory limits of one domain. */
export class DomainMemory {
  readonly #hypervisor: Hypervisor;
  readonly #domain: DomainName;

  /** Only `Domain` makes these. */
  constructor(hypervisor: Hypervisor, domain: DomainName) {
    this.#hypervisor = hypervisor;
    this.#domain = domain;
  }

  /**
   * Reads the figures now.
   *
   * @throws XenolithError `DOMAIN_STATE`: it is gone.
   */
  figures(): MemoryFigures {
    return figuresOf(this.#hypervisor, slotOf(this.#hypervisor, this.#domain));
  }

  /**
   * Changes how much it may own, beside what its device models added. What it owns already stays.
   *
   * @throws XenolithError `INVALID_SIZE`, `DOMAIN_STATE`, `MEMORY_FROZEN`.
   */
  setMax(memoryBytes: number): void {
    setMax(this.#hypervisor, this.#domain, memoryBytes, 0);
  }

  /**
   * Changes by how much its device models may raise its limit, together. What they have added stays.
   *
   * @throws XenolithError as `setMax`.
   */
  setDeviceModelMax(memoryBytes: number): void {
    const pages = extraFramesOf(memoryBytes, this.#hypervisor.geometry.machineFrames);
    check(this.#domain, setExtraPages(this.#hypervisor, slotOf(this.#hypervisor, this.#domain), pages));
  }

  /**
   * Sets memory aside so that it can come to own `memoryBytes` in all, in place of what was set aside for it before; 0:
   * nothing. What it allocates uses that up, and what it gives back does not restore it.
   *
   * @throws XenolithError `INVALID_SIZE`: more than it may own, `MEMORY_EXHAUSTED`: too little is free, `DOMAIN_STATE`.
   */
  setClaim(memoryBytes: number): void {
    const pages = extraFramesOf(memoryBytes, this.#hypervisor.geometry.machineFrames);
    claimFrames(this.#hypervisor, slotOf(this.#hypervisor, this.#domain), pages);
  }

  /**
   * Freezes the limits, for a save: nobody changes them but through what this returns.
   *
   * @throws XenolithError `DOMAIN_STATE`, `MEMORY_FROZEN`: they are frozen already.
   */
  freeze(): MemoryFreeze {
    const slot = slotOf(this.#hypervisor, this.#domain);
    const token = check(this.#domain, freezeMemory(this.#hypervisor, slot, DOM0_SLOT));
    return new MemoryFreeze(this.#hypervisor, this.#domain, token);
  }

  /**
   * A device model of this domain in the calling program, with a device model's rights: for this domain only, and within
   * its bound.
   *
   * @throws XenolithError `DOMAIN_STATE`: it is gone.
   */
  deviceModel(): DeviceModel {
    slotOf(this.#hypervisor, this.#domain);
    return new DeviceModel(this.#hypervisor, this.#domain);
  }
}

/** Limits that are frozen until this is thawed. */
export class MemoryFreeze implements Disposable {
  readonly #hypervisor: Hypervisor;
  readonly #domain: DomainName;
  readonly #token: number;
  #isThawed = false;

  /** Only `DomainMemory` makes these. */
  constructor(hypervisor: Hypervisor, domain: DomainName, token: number) {
    this.#hypervisor = hypervisor;
    this.#domain = domain;
    this.#token = token;
  }

  /** As `DomainMemory.figures`. */
  figures(): MemoryFigures {
    return figuresOf(this.#hypervisor, slotOf(this.#hypervisor, this.#domain));
  }

  /**
   * As `DomainMemory.setMax`, although the limits are frozen.
   *
   * @throws XenolithError `INVALID_SIZE`, `DOMAIN_STATE`, `MEMORY_FROZEN`: it was thawed, and somebody else froze them.
   */
  setMax(memoryBytes: number): void {
    setMax(this.#hypervisor, this.#domain, memoryBytes, this.#token);
  }

  /** Lets everybody change the limits again. Harmless when repeated, and when the domain is gone. */
  thaw(): void {
    if (this.#isThawed) return;
    this.#isThawed = true;
    const slot = findDomain(this.#hypervisor, this.#domain.domid, this.#domain.generation);
    if (slot >= 0) thawMemory(this.#hypervisor, slot, this.#token);
  }

  [Symbol.dispose](): void {
    this.thaw();
  }
}

const setMax = (hypervisor: Hypervisor, domain: DomainName, memoryBytes: number, token: number): void => {
  const slot = slotOf(hypervisor, domain);
  const pages = framesOf(memoryBytes, hypervisor.geometry.machineFrames);
  check(domain, setOwnPages(hypervisor, slot, pages, token));
};

const figuresOf = (hypervisor: Hypervisor, slot: number): MemoryFigures => {
  const { totPages, maxPages, extraPages, extraPagesMax, isFrozen } = memoryLimits(hypervisor, slot);
  return {
    memoryBytes: totPages * FRAME_BYTES,
    memoryBytesMax: maxPages * FRAME_BYTES,
    claimedBytes: hypervisor.domains.claim[slot]! * FRAME_BYTES,
    deviceModelBytes: extraPages * FRAME_BYTES,
    deviceModelBytesMax: extraPagesMax * FRAME_BYTES,
    isFrozen,
  };
};
