/**
 * Metrics in the text format of Prometheus: Node's own (`process_...`, `nodejs_...`), requests, and figures of the host
 * and its domains, which are read from the hypervisor when they are scraped.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { DomainView } from "./api-types.ts";
import type { OnAnswer } from "./router.ts";
import { domainViews, hostView, VERSION, type ViewSource } from "./views.ts";

const DOMAIN_LABELS = ["domid", "name"] as const;
const STATES = ["running", "blocked", "paused", "shutdown", "crashed", "dying"] as const;

/** One figure of each domain: its name without prefix, what it is, how it is read. */
type DomainFigure = readonly [name: string, help: string, read: (view: DomainView) => number | undefined];

/** Figures that only grow. */
const COUNTERS: readonly DomainFigure[] = [
  ["cpu_seconds_total", "Processor time that the domain used", (view) => view.cpuSeconds],
  ["hypercalls_total", "Hypercalls that the domain made", (view) => view.hypercalls],
  ["hypercalls_denied_total", "Hypercalls that the policy refused the domain", (view) => view.hypercallsDenied],
  ["events_total", "Events that the domain received", (view) => view.events],
  ["restarts_total", "Restarts of the domain by the service", (view) => view.restarts],
];

const GAUGES: readonly DomainFigure[] = [
  ["memory_bytes", "Memory that the domain owns (tot_pages)", ({ memory }) => memory.currentBytes],
  ["memory_max_bytes", "Memory that the domain may own (max_pages)", ({ memory }) => memory.maxBytes],
  ["memory_peak_bytes", "Most memory that the domain ever owned", ({ memory }) => memory.peakBytes],
  ["memory_claimed_bytes", "Memory that is set aside for the domain", ({ memory }) => memory.claimedBytes],
  ["memory_target_bytes", "Memory that the domain is to have", ({ memory }) => memory.balloon?.targetBytes],
  ["vcpus", "Virtual CPUs of the domain", (view) => view.vcpus],
  ["vmas", "Mappings of the process that the domain uses", (view) => view.vmas],
  ["start_time_seconds", "When the domain was created", (view) => view.createdMs / 1000],
];

/** The metrics of one service. */
export class ServiceMetrics {
  readonly #registry = new Registry();
  readonly #source: ViewSource;
  /** As the scrape that goes on found them. */
  #views: readonly DomainView[] = [];
  readonly #requests: Counter<"code" | "method" | "route">;
  readonly #durations: Histogram<"method" | "route">;

  constructor(source: ViewSource, readerCount: () => number) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    this.#requests = new Counter({
      name: "http_requests_total",
      help: "Requests that were answered",
      labelNames: ["code", "method", "route"],
      registers,
    });
    this.#durations = new Histogram({
      name: "http_request_duration_seconds",
      help: "Time from a request's head to the beginning of its answer",
      labelNames: ["method", "route"],
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5],
      registers,
    });
    addHostMetrics(registers, source, readerCount);
    addDomainMetrics(registers, () => this.#views);
    this.#source = source;
  }

  /** Media type of `text`. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Counts an answer. */
  readonly count: OnAnswer = ({ method, route, status, durationMs }) => {
    this.#requests.inc({ code: status, method, route });
    this.#durations.observe({ method, route }, durationMs / 1000);
  };

  /** All metrics now. */
  async text(): Promise<string> {
    this.#views = domainViews(this.#source);
    const own = await this.#registry.metrics();
    const pool = this.#source.host.openedSecrets;
    if (pool === undefined) return own;
    // It is loaded already: somebody opened the pool.
    const { formatSecretMetrics } = await import("@xenolith/secrets");
    return own + formatSecretMetrics(pool.statistics());
  }

  /** Ends what watches the process. */
  close(): void {
    this.#registry.clear();
  }
}

const addHostMetrics = (registers: Registry[], source: ViewSource, readerCount: () => number): void => {
  const add = (name: string, help: string, read: () => number): void => {
    const collect = function collect(this: Gauge): void {
      this.set(read());
    };
    new Gauge({ name: `xenolith_${name}`, help, registers, collect });
  };
  const host = (): ReturnType<typeof hostView> => hostView(source);
  add("host_memory_bytes", "Machine memory", () => host().memoryBytes);
  add("host_memory_free_bytes", "Machine memory that no domain owns", () => host().memoryFreeBytes);
  add("host_memory_claimed_bytes", "Machine memory that is set aside", () => host().memoryClaimedBytes);
  add("host_vmas", "Mappings of the process that guests use", () => host().vmas);
  add("host_vmas_max", "Mappings of the process that guests may use", () => host().vmaLimit);
  add("host_domains", "Domains, dom0 excluded", () => host().domainCount);
  add("host_domains_max", "Domains that the host can have", () => host().domainCountMax);
  add("host_threads", "Threads of virtual CPUs", () => host().threadCount);
  add("event_readers", "Clients that follow the event stream", readerCount);
  const labels = ["node", "version"] as const;
  const build = new Gauge({ name: "xenolith_build_info", help: "Always 1", labelNames: labels, registers });
  build.set({ node: process.version, version: VERSION }, 1);
};

/** `views`: all domains, read once for one scrape. */
const addDomainMetrics = (registers: Registry[], views: () => readonly DomainView[]): void => {
  const options = ([name, help]: DomainFigure): { name: string; help: string; labelNames: typeof DOMAIN_LABELS } => ({
    name: `xenolith_domain_${name}`,
    help,
    labelNames: DOMAIN_LABELS,
  });
  const fill = (
    metric: { reset(): void },
    [, , read]: DomainFigure,
    set: (view: DomainView, value: number) => void,
  ) => {
    metric.reset();
    for (const view of views()) {
      const value = read(view);
      if (value !== undefined) set(view, value);
    }
  };
  for (const figure of GAUGES) {
    const collect = function collect(this: Gauge<"domid" | "name">): void {
      fill(this, figure, ({ domid, name }, value) => this.set({ domid, name }, value));
    };
    new Gauge({ ...options(figure), registers, collect });
  }
  for (const figure of COUNTERS) {
    const collect = function collect(this: Counter<"domid" | "name">): void {
      fill(this, figure, ({ domid, name }, value) => this.inc({ domid, name }, value));
    };
    new Counter({ ...options(figure), registers, collect });
  }
  addDomainState(registers, views);
};

const addDomainState = (registers: Registry[], views: () => readonly DomainView[]): void => {
  const collect = function collect(this: Gauge<"domid" | "name" | "state">): void {
    this.reset();
    for (const { domid, name, state } of views()) {
      for (const each of STATES) this.set({ domid, name, state: each }, state[each] ? 1 : 0);
    }
  };
  const labelNames = ["domid", "name", "state"] as const;
  new Gauge({ name: "xenolith_domain_state", help: "1 for what the domain is doing", labelNames, registers, collect });
};
