/**
 * The control domain's service: what the hypervisor's attention word asks for, done in turns of the event loop. Rung by
 * vCPU threads through a message and by this thread through a scheduled turn; a flood costs one turn.
 */
import {
  ATTENTION_CONSOLE,
  ATTENTION_DOMAIN,
  ATTENTION_EVENT,
  ATTENTION_REQUEST,
  ATTENTION_REVOKED,
  ATTENTION_SERVICE,
  ATTENTION_TIMER,
  type Hypervisor,
  reapDomains,
  vcpuStartRequests,
} from "@xenolith/core";
import type { Dom0Events } from "./dom0-events.ts";
import type { Domain } from "./domain.ts";
import type { ServiceCalls } from "./service-calls.ts";
import type { TimerService } from "./timer-service.ts";

/** Who is served. */
export interface AttentionParts {
  readonly hypervisor: Hypervisor;
  readonly events: Dom0Events;
  readonly timers: TimerService;
  readonly services: ServiceCalls;
  /** Domains by slot. */
  readonly domains: ReadonlyMap<number, Domain>;
  /** A grant that the control domain has mapped was taken back. */
  readonly onRevoked: () => void;
}

const EVERYBODY = ATTENTION_DOMAIN | ATTENTION_CONSOLE;

/** Serves the attention word. */
export class AttentionLoop {
  readonly #parts: AttentionParts;
  #scheduled = false;
  #closed = false;

  constructor(parts: AttentionParts) {
    this.#parts = parts;
  }

  /** This thread raised something itself: it is served in a turn of its own, not in the middle of what raised it. */
  schedule = (): void => {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.serve();
    });
  };

  /** Serves what has been raised. */
  serve = (): void => {
    if (this.#closed) return;
    const { hypervisor, events, timers, services, domains, onRevoked } = this.#parts;
    const bits = hypervisor.attention.take();
    if ((bits & ATTENTION_TIMER) !== 0) timers.service();
    if ((bits & ATTENTION_REQUEST) !== 0) this.#serveRequests();
    if ((bits & EVERYBODY) !== 0) for (const domain of domains.values()) domain.attend();
    if ((bits & ATTENTION_SERVICE) !== 0) services.serve();
    if ((bits & ATTENTION_REVOKED) !== 0) onRevoked();
    if ((bits & ATTENTION_EVENT) !== 0) events.dispatch();
  };

  /** Serves nothing any more. */
  close(): void {
    this.#closed = true;
  }

  /** vCPUs that need a thread; domains that a guest destroyed. */
  #serveRequests(): void {
    const { hypervisor, domains } = this.#parts;
    for (const { slot, vcpu } of vcpuStartRequests(hypervisor)) domains.get(slot)?.startVcpu(vcpu);
    for (const domain of domains.values()) domain.attend();
    reapDomains(hypervisor);
  }
}
