/**
 * The random campaign: guests that make hypercalls with random arguments, domains created and destroyed at random
 * points. It passes when the host lives, the auditor finds nothing, and mappings and descriptors are as at the start.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type BootImage, type Domain, Host } from "@xenolith/host";
import { DOM0_SLOT, freeFrameCount, GATE_IN, HYPERVISOR_OWNER, P2M_SPECIAL, p2mType } from "@xenolith/core";
import { mappingsIn, openDescriptorCount } from "@xenolith/sys";
import { CampaignDom0 } from "./campaign-dom0.ts";
import { CampaignMemory } from "./campaign-memory.ts";
import { createRandom } from "./campaign-random.ts";

const root = path.join(import.meta.dirname, "../..");
const MIB = 2 ** 20;

/** What a campaign is like. */
export interface CampaignOptions {
  readonly seed: number;
  readonly seconds: number;
  /** Guests that run at once. */
  readonly guestCount: number;
  /** Called about once a second. */
  readonly onProgress?: (progress: CampaignReport) => void;
}

/** What a campaign did. */
export interface CampaignReport {
  readonly seed: number;
  readonly hypercalls: number;
  readonly domainsCreated: number;
  readonly domainsCrashed: number;
  readonly domainsShutDown: number;
  readonly domainsDestroyed: number;
  readonly audits: number;
  /** What the control domain did with the guests' grants, shares and channels, and how often it was refused. */
  readonly dom0: Readonly<Record<string, number>>;
  /** What happened to the guests' memory limits, targets and claims. */
  readonly memory: Readonly<Record<string, number>>;
  /** Everything that the auditor found, and what was not given back. */
  readonly findings: readonly string[];
}

/** Compiles the hostile guest. Before the host opens: with atomics about, V8 compiles slowly. */
export const compileCampaignGuest = async (): Promise<Uint8Array> => {
  const { compileGuest } = (await import(path.join(root, "guest/xencc.mjs"))) as typeof import("../guest/xencc.mjs");
  return compileGuest(
    { "campaign-guest.c": readFileSync(path.join(root, "tests/campaign-guest.c")) },
    { flags: ["-Wno-unused-parameter", "-Wl,--export=__stack_pointer"] },
  );
};

/** One campaign in progress. */
class Campaign {
  readonly report = {
    seed: 0,
    hypercalls: 0,
    domainsCreated: 0,
    domainsCrashed: 0,
    domainsShutDown: 0,
    domainsDestroyed: 0,
    audits: 0,
    dom0: {} as Record<string, number>,
    memory: {} as Record<string, number>,
    findings: [] as string[],
  };
  readonly #dom0: CampaignDom0;
  readonly #memory: CampaignMemory;
  readonly #host: Host;
  readonly #image: BootImage;
  readonly #random: () => number;
  readonly #endMs: number;

  constructor(host: Host, image: BootImage, options: CampaignOptions) {
    this.#host = host;
    this.#image = image;
    this.#random = createRandom(options.seed);
    this.#endMs = performance.now() + options.seconds * 1000;
    this.report.seed = options.seed;
    this.#dom0 = new CampaignDom0(host, createRandom(options.seed ^ 0x5bd1_e995), this.report.findings);
    this.report.dom0 = this.#dom0.counts;
    const { findings, memory } = this.report;
    this.#memory = new CampaignMemory(host, createRandom(options.seed ^ 0x2f6e_2b1), findings, memory);
  }

  /** The control domain's part, until the end. */
  async playDom0(): Promise<void> {
    await Promise.all([this.#dom0.play(() => this.isOver), this.#memory.play(() => this.isOver)]);
  }

  /** Gives back what the control domain has open. */
  async closeDom0(): Promise<void> {
    await this.#dom0.close();
    await this.#memory.close();
  }

  get isOver(): boolean {
    return performance.now() >= this.#endMs || this.report.findings.length > 0;
  }

  /** One place for a guest: as soon as one is gone the next one comes. */
  async keepGuest(): Promise<void> {
    while (!this.isOver) {
      const domain = await this.#memory.create({
        image: this.#image,
        memoryBytesMax: (1 + Math.floor(this.#random() * 8)) * MIB,
        vcpus: 1 + Math.floor(this.#random() * 3),
        privileged: this.#random() < 0.1,
        commandLine: `${this.report.seed} ${this.report.domainsCreated}`,
      });
      this.report.domainsCreated += 1;
      await this.#liveWith(domain);
    }
  }

  /** Stops all guests where they are, also those that start meanwhile, and compares. */
  async audit(): Promise<void> {
    const paused: Domain[] = [];
    for (let running = this.#running(); running.length > 0 || !this.#isQuiet(); running = this.#running()) {
      paused.push(...running);
      await Promise.all(running.map((domain) => domain.pause({ timeoutMs: 30_000 }).catch(() => {})));
      // Those that ended or are being destroyed have been told to stop; they may still be inside.
      await delay(1);
    }
    this.report.audits += 1;
    this.report.findings.push(...this.#host.audit());
    for (const domain of paused) if (domain.state === "paused") domain.unpause();
  }

  /** Whether no vCPU executes the hypervisor. */
  #isQuiet(): boolean {
    return this.#host.hypervisor.vcpus.gate.every((word) => (word & GATE_IN) === 0);
  }

  #running(): Domain[] {
    return this.#host.domains.filter(({ state }) => state === "running");
  }

  async #liveWith(domain: Domain): Promise<void> {
    void domain.console.text();
    const lifeMs = this.#random() < 0.2 ? this.#random() * 5 : this.#random() * 3000;
    try {
      await domain.start();
      const late = delay(lifeMs, undefined, { ref: false });
      const exit = await Promise.race([domain.exited, late]);
      if (exit === undefined) this.report.domainsDestroyed += 1;
      else if (exit.crashed) this.report.domainsCrashed += 1;
      else this.report.domainsShutDown += 1;
    } finally {
      this.report.hypercalls += domain.stats().hypercalls;
      await domain.destroy();
    }
  }
}

/** Builds a key, or does not: as its number has it. */
const requested = async (key: number): Promise<Uint8Array | undefined> => {
  if (key % 64 === 0) await new Promise(() => {});
  if (key % 8 === 1) throw new Error("no");
  if (key % 8 === 2) await delay(key % 16);
  return key % 8 === 4 ? undefined : Buffer.from(`key ${key}`);
};

/** Runs a campaign. */
export const runCampaign = async (guest: Uint8Array, options: CampaignOptions): Promise<CampaignReport> => {
  const host = await Host.open({
    // Guests ask for keys; who builds them takes his time, refuses and fails.
    keys: { requestKey: ({ key }) => requested(key), upcallTimeoutMs: 1000 },
    secrets: { policy: "degraded" },
  });
  await host.warm();
  const image = await host.loadImage(guest);
  // Begins with the first use; its client and its nodes stay.
  await host.xenstore();
  const before = resources(host);
  const campaign = new Campaign(host, image, options);
  const guests = Array.from({ length: options.guestCount }, () => campaign.keepGuest());
  const settled = Promise.all([...guests, campaign.playDom0()]);
  while (!campaign.isOver) {
    await Promise.race([settled, delay(1000)]);
    await campaign.audit();
    options.onProgress?.(campaign.report);
  }
  await settled;
  await campaign.closeDom0();
  campaign.report.findings.push(...host.audit(), ...differences(before, resources(host)));
  await host.close();
  return campaign.report;
};

interface Resources {
  readonly mappings: readonly string[];
  readonly descriptors: number;
  /** Frames of the machine that are free, or in the control domain's grant table, which never shrinks. */
  readonly frames: number;
  /** Frames by owner: domids, "hypervisor". */
  readonly owners: Readonly<Record<string, number>>;
}

/** How many frames of the machine belong to whom. */
const frameOwners = ({ hypervisor }: Host): Record<string, number> => {
  const { domains, frames } = hypervisor;
  const owners: Record<string, number> = {};
  for (const owner of frames.owner) {
    if (owner === 0) continue;
    const name = owner === HYPERVISOR_OWNER ? "hypervisor" : `domain ${domains.domid[owner - 1]}`;
    owners[name] = (owners[name] ?? 0) + 1;
  }
  return owners;
};

/** Whether a page of the hypervisor's own stands there in the control domain's space: privileged guests may put it there. */
const isSpecialOfDom0 = ({ hypervisor }: Host, address: number): boolean => {
  const { domains, p2m } = hypervisor;
  const gfn = Math.floor((address - domains.spaceBase[DOM0_SLOT]!) / 4096);
  return gfn >= 0 && p2m.contains(gfn) && p2mType(p2m.get(DOM0_SLOT, gfn)) === P2M_SPECIAL;
};

/** Mappings of guest memory (files) and descriptors; V8's own mappings come and go. */
const resources = (host: Host): Resources => ({
  mappings: mappingsIn(0, 2 ** 47)
    .filter(({ path: file, startAddress }) => file.includes("memfd:") && !isSpecialOfDom0(host, startAddress))
    .map(
      ({ startAddress, endAddress, offsetBytes, protection, path: file }) =>
        `${startAddress.toString(16)}-${endAddress.toString(16)} ${protection} ${file} ${offsetBytes.toString(16)}`,
    ),
  descriptors: openDescriptorCount(),
  owners: frameOwners(host),
  frames: freeFrameCount(host.hypervisor) + host.hypervisor.grants.frameCount[DOM0_SLOT]!,
});

/** Warm threads differ by a few descriptors; a leak grows with the number of domains. */
const differences = (before: Resources, now: Resources): readonly string[] => {
  const slack = 16;
  const found: string[] = [];
  const left = now.mappings.filter((mapping) => !before.mappings.includes(mapping));
  if (left.length > 0) found.push(`mappings of machine memory that were not there at the start: ${left.join(", ")}`);
  if (now.frames !== before.frames) {
    found.push(
      `free frames: ${before.frames} at the start, ${now.frames} at the end, owned now by ${JSON.stringify(now.owners)}`,
    );
  }
  if (now.descriptors > before.descriptors + slack)
    found.push(`descriptors: ${before.descriptors} at the start, ${now.descriptors} at the end`);
  return found;
};
