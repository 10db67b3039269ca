/**
 * The control domain's timer: fires watchdogs and the timers of vCPUs that run guest code. It does not keep the process
 * alive: who waits for a timer is a vCPU, whose thread does.
 */
import { type Hypervisor, serviceTimers } from "@xenolith/core";

/** Longest delay that a timer of Node keeps. */
const DELAY_MS_MAX = 2 ** 31 - 1;

/** Calls the hypervisor when its timers are due. */
export class TimerService {
  readonly #hypervisor: Hypervisor;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(hypervisor: Hypervisor) {
    this.#hypervisor = hypervisor;
  }

  /** Serves what is due now and sleeps until the next deadline. Called again when an earlier one was set. */
  service = (): void => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#closed) return;
    const nextNs = serviceTimers(this.#hypervisor);
    if (nextNs === Infinity) return;
    const delayMs = Math.ceil((nextNs - this.#hypervisor.platform.now()) / 1e6);
    this.#timer = setTimeout(this.service, Math.min(Math.max(1, delayMs), DELAY_MS_MAX)).unref();
  };

  /** Serves no more. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}
