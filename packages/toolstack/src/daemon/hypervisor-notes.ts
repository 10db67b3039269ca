/**
 * What the hypervisor notes about guests (refusals, calls that do not exist, crashes), as lines of the service's log. The
 * hypervisor keeps few of each domain and counts the rest, so a guest that misbehaves without end fills no log.
 */
import { hypercalls } from "@xenolith/abi";
import { domainInfo, listDomains, operationIndex, operationNames, type TraceRecord } from "@xenolith/core";
import type { Host } from "@xenolith/host";
import type { ServiceLog } from "./service-log.ts";

/** How often notes are taken when nobody asks. */
const INTERVAL_MS = 1000;

/** Takes the hypervisor's notes to the log, until it is closed. */
export class HypervisorNotes implements Disposable {
  readonly #host: Host;
  readonly #log: ServiceLog;
  readonly #timer: NodeJS.Timeout;
  /** Notes that were not recorded, by run of a domain, as far as they were told. */
  #suppressed = new Map<string, number>();

  constructor(host: Host, log: ServiceLog) {
    this.#host = host;
    this.#log = log;
    this.#timer = setInterval(() => this.take(), INTERVAL_MS);
    this.#timer.unref();
  }

  /** Logs what was noted since the last time. */
  take(): void {
    const { hypervisor } = this.#host;
    const { trace } = hypervisor.domains;
    const told = new Map<string, number>();
    for (const slot of listDomains(hypervisor)) {
      const { domid, generation, crashReason } = domainInfo(hypervisor, slot);
      const write = (text: string): void => this.#log.write("warn", `hypervisor: domain ${domid} ${text}`, { domid });
      for (const record of trace.take(slot)) write(sentenceOf(record, crashReason));
      const run = `${domid}.${generation}`;
      const suppressed = trace.suppressed[slot]!;
      const more = suppressed - (this.#suppressed.get(run) ?? 0);
      if (more > 0) write(`caused ${more} more notes, which were not kept`);
      if (suppressed > 0) told.set(run, suppressed);
    }
    this.#suppressed = told;
  }

  /** Takes what is left, and nothing more. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.take();
  }
}

const sentenceOf = ({ event, first, second }: TraceRecord, crashReason: string | undefined): string => {
  if (event === "denied") return `was denied ${operationName(first, second)}`;
  if (event === "unknown-hypercall") return `called hypercall ${first}, command ${second}, which does not exist`;
  return event === "crashed" ? `was crashed: ${crashReason ?? "no reason is known"}` : event;
};

/** Name of an operation as policies and the public interface have it. */
const operationName = (number: number, command: number): string => {
  const index = operationIndex(number, command);
  if (index >= 0) return operationNames()[index]!;
  const hypercall = Object.entries(hypercalls).find(([, each]) => each.number === number)?.[0];
  return `command ${command} of ${hypercall ?? `hypercall ${number}`}`;
};
