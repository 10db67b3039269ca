/**
 * One administrator of the service campaign: acts at random on all domains, and alone on the definitions whose names
 * begin with its own, so that what was acknowledged to it is what must be there.
 */
import type { ApiFailure, DefinitionView, DomainView } from "@xenolith/toolstack";
import { type Config, ExpectedDefinitions } from "./service-campaign-definitions.ts";
import type { Draw } from "./service-campaign-random.ts";
import { type Answer, type ServiceDaemon, Unanswered } from "./service-daemon.ts";

const NAME_COUNT = 6;
/** Refusals that say that the service is at fault. */
const FAULTS: ReadonlySet<string> = new Set([
  "HYPERCALL_FAILED",
  "INTERNAL",
  "SYSTEM_CALL",
  "STORE_FAILED",
  "VCPU_FAILED",
]);

/** What an administrator tells of what it sees. */
export interface AdminReport {
  /** Answers by what was asked and how it went. */
  readonly counts: Record<string, number>;
  readonly findings: string[];
}

/** One administrator. */
export class ServiceAdmin {
  readonly definitions = new ExpectedDefinitions();
  readonly #letter: string;
  readonly #draw: Draw;
  readonly #report: AdminReport;
  /** Domains as they were listed last. */
  #domains: readonly DomainView[] = [];

  constructor(letter: string, draw: Draw, report: AdminReport) {
    this.#letter = letter;
    this.#draw = draw;
    this.#report = report;
  }

  /** Acts until `isOver`, or until the daemon is gone. */
  async play(daemon: ServiceDaemon, isOver: () => boolean): Promise<void> {
    while (!isOver() && daemon.end === undefined) {
      try {
        await this.#act(daemon);
      } catch (error) {
        if (!(error instanceof Unanswered)) throw error;
        this.#count("unanswered");
      }
    }
  }

  async #act(daemon: ServiceDaemon): Promise<void> {
    const draw = this.#draw;
    const what = draw.below(20);
    if (what === 0 || this.#domains.length === 0) return this.#list(daemon);
    if (what < 4) return this.#define(daemon);
    if (what < 8) return this.#create(daemon);
    const domain = draw.pick(this.#domains);
    if (domain !== undefined) await this.#change(daemon, domain);
  }

  async #list(daemon: ServiceDaemon): Promise<void> {
    const { status, body } = await this.#ask(daemon, "list", "GET", "/v1/domains");
    if (status !== 200) return;
    this.#domains = (body as { domains: readonly DomainView[] }).domains;
    if (this.#domains.length <= 1) await this.#create(daemon);
  }

  /** Keeps, changes or forgets one of its own definitions. */
  async #define(daemon: ServiceDaemon): Promise<void> {
    const draw = this.#draw;
    const name = this.#ownName();
    const target = `/v1/definitions/${name}`;
    const now = this.definitions.get(name);
    const choice = draw.below(4);
    if (now !== undefined && choice === 0) return this.#keep(new Map([[name, undefined]]), daemon, "DELETE", target);
    if (now !== undefined && choice === 1) {
      const keys = { autostart: draw.chance(0.5), weight: 1 + draw.below(1000) };
      return this.#keep(new Map([[name, { ...now, ...keys }]]), daemon, "PATCH", target, { config: keys });
    }
    const config = { ...draw.steady(name), autostart: draw.chance(0.4) };
    return this.#keep(new Map([[name, config]]), daemon, "PUT", target, { config });
  }

  /** Makes a domain: of a definition, of an own name that is to last, or one that comes and goes. */
  async #create(daemon: ServiceDaemon): Promise<void> {
    const draw = this.#draw;
    const name = this.#ownName();
    const paused = draw.chance(0.15);
    const choice = draw.below(4);
    if (choice === 0) {
      await this.#ask(daemon, "create saved", "POST", "/v1/domains", { definition: name, paused });
    } else if (choice === 1) {
      const config = { ...draw.steady(name), autostart: true };
      await this.#keep(new Map([[name, config]]), daemon, "POST", "/v1/domains", { config, paused });
    } else {
      const others = this.#domains.map((domain) => domain.name);
      const config = draw.any(`t${draw.below(NAME_COUNT * 2)}`, others);
      await this.#ask(daemon, "create", "POST", "/v1/domains", { config, paused });
    }
  }

  async #change(daemon: ServiceDaemon, { name, domid }: DomainView): Promise<void> {
    const draw = this.#draw;
    const at = `/v1/domains/${draw.chance(0.2) ? domid : encodeURIComponent(name)}`;
    const choice = draw.below(16);
    if (choice < 5) await this.#ask(daemon, "target", "PUT", `${at}/memory/target`, { bytes: draw.bytes() });
    else if (choice < 7) await this.#ask(daemon, "max", "PUT", `${at}/memory/max`, { bytes: draw.bytes() });
    else if (choice < 9) await this.#ask(daemon, "destroy", "DELETE", at);
    else if (choice === 9) await this.#ask(daemon, "pause", "POST", `${at}/pause`, {});
    else if (choice < 12) await this.#ask(daemon, "unpause", "POST", `${at}/unpause`, {});
    else if (choice === 12) await this.#ask(daemon, "reboot", "POST", `${at}/reboot`, { force: draw.chance(0.5) });
    else if (choice === 13) await this.#ask(daemon, "shutdown", "POST", `${at}/shutdown`, { force: draw.chance(0.5) });
    else if (choice === 14) await this.#rename(daemon, name);
    else
      await this.#ask(daemon, "look", "GET", draw.pick([at, `${at}/vcpus`, "/metrics-not", "/v1/claims", "/v1/host"])!);
  }

  /** Renames what comes and goes as it likes, and what lasts when it is its own. */
  async #rename(daemon: ServiceDaemon, name: string): Promise<void> {
    const draw = this.#draw;
    const target = `/v1/domains/${encodeURIComponent(name)}/rename`;
    if (/^t\d+$/.test(name)) {
      await this.#ask(daemon, "rename", "POST", target, { name: `t${draw.below(NAME_COUNT * 2)}` });
      return;
    }
    const config = this.definitions.get(name);
    const to = this.#ownName();
    if (config === undefined || to === name || this.definitions.get(to) !== undefined) return;
    const changes = new Map<string, Config>([
      [name, undefined],
      [to, { ...config, name: to }],
    ]);
    await this.#keep(changes, daemon, "POST", target, { name: to });
  }

  /** Asks for a change that must not be lost once it is acknowledged. */
  async #keep(
    changes: ReadonlyMap<string, Config>,
    daemon: ServiceDaemon,
    method: string,
    target: string,
    body?: unknown,
  ): Promise<void> {
    await this.definitions.change(changes, async () => {
      const { status } = await this.#ask(daemon, `keep ${method}`, method, target, body);
      return status < 300;
    });
  }

  async #ask(daemon: ServiceDaemon, what: string, method: string, target: string, body?: unknown): Promise<Answer> {
    const answer = await daemon.ask(method, target, body);
    const { code, message } = (answer.body ?? {}) as Partial<ApiFailure>;
    this.#count(answer.status < 300 ? what : `${what}: ${code}`);
    if (answer.status >= 400 && (code === undefined || FAULTS.has(code)))
      this.#report.findings.push(
        `${method} ${target} ${JSON.stringify(body)}: ${answer.status} ${code} ${message}; ${daemon.errors}`,
      );
    return answer;
  }

  #ownName(): string {
    return `${this.#letter}${this.#draw.below(NAME_COUNT)}`;
  }

  #count(what: string): void {
    this.#report.counts[what] = (this.#report.counts[what] ?? 0) + 1;
  }
}

/** All definitions that a daemon has. */
export const definitionsOf = async (daemon: ServiceDaemon): Promise<readonly DefinitionView[]> => {
  const { body } = await daemon.ask("GET", "/v1/definitions");
  return (body as { definitions: readonly DefinitionView[] }).definitions;
};
