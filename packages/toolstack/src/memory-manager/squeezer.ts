/**
 * Squeezes guests that have no balloon, while the host is pressed: what holds nothing but zeros goes back
 * (docs/decisions/0008-squeezing-by-zero-pages.md). One that gave little is left alone for longer and longer.
 */
import type { Domain } from "@xenolith/host";
import type { ManagedDomain } from "./managed-domain.ts";
import type { PressureLevel } from "./pressure.ts";

/** Looks that a guest is left alone for, at most. */
const REST_LOOKS_MAX = 64;
/** A guest gave little when it was less than this part of what it owns. */
const LITTLE_SHARE = 1 / 64;

interface Rest {
  /** Looks until the next squeeze, and after how many the one behind it comes. */
  looks: number;
  next: number;
}

/** Who is being squeezed, and who rests. */
export class Squeezer {
  readonly #rests = new WeakMap<Domain, Rest>();
  readonly #running = new Map<Domain, Promise<void>>();

  /** Begins to squeeze those that it is time for. Returns at once. */
  look(domains: readonly ManagedDomain[], level: PressureLevel, onFault: (error: unknown) => void): void {
    for (const { domain, balloon, config } of domains) {
      if (config.squeeze === "off" || balloon !== "none" || domain.state !== "running") continue;
      const rest = this.#rests.get(domain) ?? { looks: 0, next: 1 };
      this.#rests.set(domain, rest);
      rest.looks = Math.max(0, rest.looks - 1);
      if (level === "calm" || rest.looks > 0 || this.#running.has(domain)) continue;
      const running = this.#squeeze(domain, rest)
        .catch(onFault)
        .finally(() => this.#running.delete(domain));
      this.#running.set(domain, running);
    }
  }

  /** Settles when nobody is being squeezed. */
  async idle(): Promise<void> {
    await Promise.all(this.#running.values());
  }

  async #squeeze(domain: Domain, rest: Rest): Promise<void> {
    const dropped = (await domain.dropZeroPages()) ?? 0;
    const isLittle = dropped < domain.memory.figures().memoryBytes * LITTLE_SHARE;
    rest.next = isLittle ? Math.min(rest.next * 2, REST_LOOKS_MAX) : 1;
    rest.looks = rest.next;
  }
}
