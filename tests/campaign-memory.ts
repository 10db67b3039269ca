/**
 * Memory in the random campaign: the memory manager with random bounds and targets, device models in the control domain and
 * in domains, limits that are frozen in the middle of it, claims, zero pages dropped. The guests are hostile: they move their
 * memory by hypercalls as they like, and privileged ones change each other's limits.
 */
import { setTimeout as delay } from "node:timers/promises";
import { XenolithError } from "@xenolith/abi";
import type { Domain, DomainOptions, Host, MemoryFreeze } from "@xenolith/host";
import { type Admitted, MemoryManager } from "@xenolith/toolstack";
import { CampaignActions } from "./campaign-actions.ts";
import { Dice } from "./campaign-random.ts";

const PAGE = 4096;
const MIB = 2 ** 20;
/** Where device models put their pages; campaign-guest.c has its own elsewhere. */
const MODEL_AT = 0x7000_0000;
const MODEL_PAGES = 64;
const OPEN_MAX = 4;

/** What may be refused, and why: too much was asked for, the domain is going, its limits are frozen. */
const REFUSALS: ReadonlySet<string> = new Set([
  "DOMAIN_NOT_FOUND",
  "DOMAIN_STATE",
  "GUEST_ADDRESS",
  "INVALID_SIZE",
  "MEMORY_EXHAUSTED",
  "MEMORY_FROZEN",
  "MEMORY_LIMIT",
  "VMA_EXHAUSTED",
]);

const codeOfRefusal = (error: unknown): string | undefined =>
  error instanceof XenolithError && REFUSALS.has(error.code) ? error.code : undefined;

/** The memory's part of one campaign. */
export class CampaignMemory {
  readonly #host: Host;
  readonly #dice: Dice;
  readonly #findings: string[];
  readonly #actions: CampaignActions;
  readonly #manager: MemoryManager;
  readonly #freezes: MemoryFreeze[] = [];
  readonly #admitted: Admitted[] = [];

  constructor(host: Host, random: () => number, findings: string[], counts: Record<string, number>) {
    this.#host = host;
    this.#dice = new Dice(random);
    this.#findings = findings;
    this.#actions = new CampaignActions({ findings, counts, refusal: codeOfRefusal });
    const onFault = (fault: unknown): void => this.#actions.find("memory manager", fault);
    this.#manager = new MemoryManager(host, { intervalMs: 10, patienceMs: 50, onFault });
    this.#manager.start();
  }

  /** Creates a guest, now and then with claims and device models, or as one. */
  async create(options: DomainOptions): Promise<Domain> {
    const target = this.#dice.pick(this.#host.domains);
    const more: Partial<DomainOptions> = {
      ...(this.#dice.below(2) === 0 ? { deviceModelMemoryBytes: this.#dice.below(MODEL_PAGES) * PAGE } : {}),
      ...(this.#dice.below(4) === 0 ? { memoryClaimBytes: options.memoryBytesMax ?? 0 } : {}),
      ...(this.#dice.below(4) === 0 && target !== undefined ? { deviceModelFor: target } : {}),
    };
    try {
      return await this.#host.createDomain({ ...options, ...more });
    } catch (error) {
      if (codeOfRefusal(error) === undefined) throw error;
      this.#actions.count("create refused");
      return this.#host.createDomain(options);
    }
  }

  /** Acts until `isOver`. */
  async play(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      for (let left = this.#dice.below(4); left > 0; left -= 1) this.#act();
      await delay(this.#dice.below(4));
    }
  }

  /** Waits for what is pending and gives everything back. The guests are gone. */
  async close(): Promise<void> {
    await this.#actions.settled();
    for (const freeze of this.#freezes) freeze.thaw();
    for (const place of this.#admitted) place.release();
    await this.#manager.close();
    const { memoryClaimedBytes } = this.#host.info();
    if (memoryClaimedBytes !== 0) this.#findings.push(`${memoryClaimedBytes} bytes are claimed for nobody`);
  }

  #act(): void {
    const actions: readonly (readonly [string, (domain: Domain) => unknown])[] = [
      ["manage", (domain) => this.#manage(domain)],
      ["manage", (domain) => this.#manage(domain)],
      ["manage", (domain) => this.#manage(domain)],
      ["manage", (domain) => this.#manage(domain)],
      ["setTarget", (domain) => this.#manager.setTarget(domain, this.#dice.below(4) === 0 ? undefined : this.#size())],
      ["setTarget", (domain) => this.#manager.setTarget(domain, this.#size())],
      ["setMax", (domain) => this.#manager.setMax(domain, this.#size())],
      ["unmanage", (domain) => this.#manager.unmanage(domain)],
      ["admit", () => this.#admit()],
      ["release", () => this.#dice.take(this.#admitted)?.release()],
      ["freeze", (domain) => this.#freeze(domain)],
      ["thaw", () => this.#dice.take(this.#freezes)?.thaw()],
      ["claim", (domain) => domain.memory.setClaim(this.#dice.below(3) === 0 ? 0 : this.#size())],
      ["setMemoryMax", (domain) => domain.setMemoryMax(this.#size())],
      ["setDeviceModelMax", (domain) => domain.memory.setDeviceModelMax(this.#dice.below(MODEL_PAGES) * PAGE)],
      ["deviceModel", (domain) => this.#model(domain)],
      ["deviceModel", (domain) => this.#model(domain)],
      ["dropZeroPages", (domain) => domain.dropZeroPages()],
      ["figures", () => this.#manager.figures()],
    ];
    // Often one that the manager has.
    const managed = this.#dice.below(2) === 0 ? this.#dice.pick(this.#manager.figures().guests) : undefined;
    const domain = managed === undefined ? this.#dice.pick(this.#host.domains) : this.#host.domain(managed.domid);
    if (domain === undefined) return;
    const [name, action] = this.#dice.pick(actions)!;
    this.#actions.do(name, () => action(domain));
  }

  async #manage(domain: Domain): Promise<void> {
    const [least, most] = [this.#size(), this.#size()].toSorted((a, b) => a - b);
    const squeeze = this.#dice.below(2) === 0 ? "zero-pages" : "off";
    const config = { memoryBytes: most!, memoryBytesMin: least!, weight: 1 + this.#dice.below(1000), squeeze } as const;
    await this.#manager.manage(domain, config);
  }

  async #admit(): Promise<void> {
    if (this.#admitted.length >= OPEN_MAX) this.#dice.take(this.#admitted)?.release();
    this.#admitted.push(await this.#manager.admit({ name: "campaign", memoryBytes: this.#size() }));
  }

  #freeze(domain: Domain): void {
    if (this.#freezes.length >= OPEN_MAX) this.#dice.take(this.#freezes)?.thaw();
    this.#freezes.push(domain.memory.freeze());
  }

  /** Does one of the things that a device model does. It never gets beyond the bound. */
  #model(domain: Domain): void {
    const model = domain.memory.deviceModel();
    const address = MODEL_AT + this.#dice.below(MODEL_PAGES) * PAGE;
    const bytes = (1 + this.#dice.below(8)) * PAGE;
    switch (this.#dice.below(4)) {
      case 0:
        return model.raiseMax(this.#dice.below(3) === 0 ? -bytes : bytes);
      case 1:
        return model.populate(address, bytes);
      case 2:
        return model.release(address, bytes);
      default:
        return model.write(address, new Uint8Array(16));
    }
  }

  #size(): number {
    return (1 + this.#dice.below(8 * (MIB / PAGE))) * PAGE;
  }
}
