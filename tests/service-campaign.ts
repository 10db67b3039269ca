/**
 * The campaign against the service: two administrators act at random on the domains of a daemon that is killed at random
 * instants and started again over the same state. It passes when no acknowledged definition is lost, what starts by
 * itself is back, the auditor finds nothing, all memory is accounted for, and the daemon ends only when it is told to.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { AuditView, DmesgView, DomainView } from "@xenolith/toolstack";
import { compileTest } from "./c-domains.ts";
import { compileCampaignGuest } from "./campaign.ts";
import { type AdminReport, definitionsOf, ServiceAdmin } from "./service-campaign-admin.ts";
import { type CampaignImages, Draw } from "./service-campaign-random.ts";
import { ServiceDaemon, Unanswered } from "./service-daemon.ts";

const MACHINE_BYTES = 128 * 2 ** 20;
/** Started last of all that starts by itself, by its name: when it was tried, all others were. */
const LAST = "zz";
const AUDIT_EVERY_MS = 500;
const LIFE_MS_MAX = 6000;
const END_MS_MAX = 30_000;

/** What a campaign is like. */
export interface ServiceCampaignOptions {
  readonly seed: number;
  readonly seconds: number;
  /** Called after each life of the daemon. */
  readonly onProgress?: (report: ServiceCampaignReport) => void;
}

/** What a campaign did. */
export interface ServiceCampaignReport extends AdminReport {
  readonly seed: number;
  /** Times that the daemon was started, killed, and killed before it answered. */
  lives: number;
  kills: number;
  earlyKills: number;
  audits: number;
  /** Domains that came back with the daemon. */
  back: number;
}

/** One campaign in progress. */
class ServiceCampaign {
  readonly report: ServiceCampaignReport;
  readonly #draw: Draw;
  readonly #admins: readonly ServiceAdmin[];
  readonly #directory: string;
  readonly #images: CampaignImages;
  readonly #endMs: number;

  constructor(directory: string, images: CampaignImages, { seed, seconds }: ServiceCampaignOptions) {
    this.report = { seed, lives: 0, kills: 0, earlyKills: 0, audits: 0, back: 0, counts: {}, findings: [] };
    this.#directory = directory;
    this.#images = images;
    this.#draw = new Draw(seed, images);
    this.#admins = ["a", "b"].map(
      (letter, index) => new ServiceAdmin(letter, new Draw(seed ^ ((index + 1) * 0x5bd1_e995), images), this.report),
    );
    this.#endMs = performance.now() + seconds * 1000;
  }

  get isOver(): boolean {
    return performance.now() >= this.#endMs || this.report.findings.length > 0;
  }

  /** One life of the daemon, to its violent end; the last one ends in peace. */
  async live(): Promise<void> {
    this.report.lives += 1;
    const daemon = new ServiceDaemon({ directory: this.#directory, memoryBytes: MACHINE_BYTES });
    try {
      if (this.report.lives > 1 && !this.isOver && this.#draw.chance(0.2)) return await this.#killEarly(daemon);
      if (await daemon.ready) await this.#liveWith(daemon);
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error;
      await Promise.race([daemon.ended, delay(1000, undefined, { ref: false })]);
      if (daemon.end === undefined) this.report.findings.push(`${error.message}, and the daemon lives`);
    } finally {
      if (daemon.end === undefined) await daemon.kill("SIGKILL");
      if (daemon.surprise !== undefined) this.report.findings.push(daemon.surprise);
    }
  }

  async #killEarly(daemon: ServiceDaemon): Promise<void> {
    await delay(this.#draw.below(800));
    this.report.earlyKills += 1;
    await daemon.kill("SIGKILL");
  }

  async #liveWith(daemon: ServiceDaemon): Promise<void> {
    await this.#checkStart(daemon);
    const lifeEndMs = performance.now() + 200 + this.#draw.below(LIFE_MS_MAX);
    const isOver = (): boolean => this.isOver || performance.now() >= lifeEndMs;
    const playing = Promise.all(this.#admins.map((admin) => admin.play(daemon, isOver)));
    while (!isOver() && daemon.end === undefined) {
      await delay(Math.max(0, Math.min(AUDIT_EVERY_MS, lifeEndMs - performance.now())));
      if (!isOver()) await this.#audit(daemon);
    }
    // What one administrator asks for comes one after the other, or nobody could say what was acknowledged last.
    await playing;
    if (daemon.end !== undefined) return;
    if (this.isOver || !this.#draw.chance(0.8)) return await this.#endInPeace(daemon);
    const busy = this.#admins.map((admin) => admin.play(daemon, () => false));
    await Promise.all([this.#killDuring(daemon), ...busy]);
  }

  async #killDuring(daemon: ServiceDaemon): Promise<void> {
    await delay(this.#draw.below(200));
    if (daemon.end !== undefined) return;
    this.report.kills += 1;
    await daemon.kill("SIGKILL");
  }

  /** What was acknowledged is there, and what starts by itself was started or told why not. */
  async #checkStart(daemon: ServiceDaemon): Promise<void> {
    const found = await definitionsOf(daemon);
    for (const { definitions } of this.#admins) this.report.findings.push(...definitions.settle(found));
    if (!found.some(({ name }) => name === LAST)) {
      const config = { name: LAST, kernel: this.#images.balloon, memory: 1, autostart: true };
      await daemon.ask("POST", "/v1/domains", { config });
    }
    const tried = await this.#startedOnce(daemon);
    for (const name of this.#admins.flatMap(({ definitions }) => definitions.autostarting())) {
      const lines = tried.filter(
        (line) => line.includes(`(${name}) created`) || line.includes(`domain ${name} cannot`),
      );
      if (lines.length === 0) this.report.findings.push(`${name} did not come back: ${tried.join("\n")}`);
      else if (lines[0]!.includes("created")) this.report.back += 1;
      else this.#countFailed(lines[0]!);
    }
  }

  /** The daemon's messages, once it has tried to start all that starts by itself. */
  async #startedOnce(daemon: ServiceDaemon): Promise<readonly string[]> {
    for (;;) {
      const { body } = await daemon.ask("GET", "/v1/dmesg");
      const lines = (body as DmesgView).lines.map(({ text }) => text);
      if (lines.some((line) => line.includes(`(${LAST}) created`) || line.includes(`domain ${LAST} cannot`)))
        return lines;
      await delay(20);
    }
  }

  /** A domain may lack room at first; nothing else may keep it from coming back. */
  #countFailed(line: string): void {
    this.report.counts["came back late"] = (this.report.counts["came back late"] ?? 0) + 1;
    if (!/memory|mappings/i.test(line)) this.report.findings.push(line);
  }

  async #audit(daemon: ServiceDaemon): Promise<void> {
    const { status, body } = await daemon.ask("POST", "/v1/audit", {});
    if (status !== 200) {
      this.report.findings.push(`the audit answers ${status} ${JSON.stringify(body)}`);
      return;
    }
    const { findings, memory } = body as AuditView;
    this.report.audits += 1;
    this.report.findings.push(...findings);
    if (memory.domainBytes + memory.freeBytes + memory.hypervisorBytes !== memory.machineBytes)
      this.report.findings.push(`memory does not add up: ${JSON.stringify(memory)}`);
  }

  /** Nobody acts: the books of the list, of the host and of the audit agree; then all domains go, and the daemon. */
  async #endInPeace(daemon: ServiceDaemon): Promise<void> {
    await this.#audit(daemon);
    for (const { domid } of (await domainsOf(daemon)).slice(1)) await daemon.ask("DELETE", `/v1/domains/${domid}`);
    await this.#audit(daemon);
    // A service that never ends would stop the campaign instead of being found.
    const late = setTimeout(() => {
      this.report.findings.push(`the daemon was told to end, and did not in ${END_MS_MAX} ms: ${daemon.printed}`);
      void daemon.kill("SIGKILL");
    }, END_MS_MAX);
    const end = await daemon.kill("SIGTERM");
    clearTimeout(late);
    if (end !== "0") this.report.findings.push(`the daemon was told to end, and ended with ${end}`);
  }
}

const domainsOf = async (daemon: ServiceDaemon): Promise<readonly DomainView[]> => {
  const { body } = await daemon.ask("GET", "/v1/domains");
  return (body as { domains: readonly DomainView[] }).domains;
};

const writeImages = async (directory: string): Promise<CampaignImages> => {
  const images = { balloon: path.join(directory, "balloon.wasm"), hostile: path.join(directory, "hostile.wasm") };
  writeFileSync(images.balloon, await compileTest("c-balloon.c"));
  writeFileSync(images.hostile, await compileCampaignGuest());
  mkdirSync(path.join(directory, "cache"));
  return images;
};

/** Runs a campaign in a directory of its own. */
export const runServiceCampaign = async (options: ServiceCampaignOptions): Promise<ServiceCampaignReport> => {
  const directory = mkdtempSync(path.join(tmpdir(), "xenolith-service-campaign-"));
  try {
    const campaign = new ServiceCampaign(directory, await writeImages(directory), options);
    while (!campaign.isOver) {
      await campaign.live();
      options.onProgress?.(campaign.report);
    }
    return campaign.report;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
};
