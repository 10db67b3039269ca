/**
 * How the service has memory managed. It keeps no figure: what it is asked is answered by the manager, which asks the
 * hypervisor.
 */
import type { Domain, Host } from "@xenolith/host";
import type { DomainConfig } from "../config/index.ts";
import type { GuestFigures } from "../memory-manager/figures.ts";
import { MemoryManager } from "../memory-manager/service.ts";
import type { BalloonView } from "./api-types.ts";

/** Room that is kept for a domain until it is built. */
export interface Place extends Disposable {
  /** For `DomainOptions.memoryClaimBytes`. */
  readonly claimBytes: number;
}

/** What the service asks of whoever manages memory. */
export interface MemoryPort extends AsyncDisposable {
  /** Finds room for a domain. Throws XenolithError `MEMORY_EXHAUSTED`, `INVALID_SIZE`, `ABORTED`. */
  admit(config: DomainConfig): Promise<Place>;
  /** Looks after a domain's memory from now on. Throws XenolithError `INVALID_SIZE`, `MEMORY_EXHAUSTED`. */
  manage(domain: Domain, config: DomainConfig): Promise<void>;
  /** Sets a target by hand; undefined: automatic again. Throws XenolithError `INVALID_SIZE`, `DOMAIN_STATE`, `MEMORY_FROZEN`. */
  setTarget(domain: Domain, bytes: number | undefined): Promise<void>;
  /** Sets up to where a target may be set. Throws XenolithError `INVALID_SIZE`, `DOMAIN_STATE`, `MEMORY_FROZEN`. */
  setMax(domain: Domain, bytes: number): Promise<void>;
  /** What is known of a domain; undefined when it is not managed. */
  balloon(domain: Domain): BalloonView | undefined;
  /** How short of memory the machine is. */
  pressure(): string;
}

/** A manager of the memory of `host`'s domains, at work until it is disposed of. `onFault` hears of looks that failed. */
export const managedMemory = (host: Host, onFault: (error: unknown) => void): MemoryPort => {
  const manager = new MemoryManager(host, { onFault });
  manager.start();
  return {
    admit: (config) => manager.admit(config),
    manage: (domain, config) => manager.manage(domain, config),
    setTarget: (domain, bytes) => manager.setTarget(domain, bytes),
    setMax: async (domain, bytes) => {
      // A domain of the embedding program is not managed: its own limit is all there is.
      if (manager.figuresOf(domain) === undefined) domain.setMemoryMax(bytes);
      else await manager.setMax(domain, bytes);
    },
    balloon: (domain) => balloonView(manager.figuresOf(domain)),
    pressure: () => manager.level,
    [Symbol.asyncDispose]: () => manager.close(),
  };
};

const balloonView = (figures: GuestFigures | undefined): BalloonView | undefined => {
  if (figures === undefined) return undefined;
  const { targetBytes, minBytes, maxBytes, weight, squeeze, balloon: driver, isPinned, state } = figures;
  return { targetBytes, minBytes, maxBytes, weight, squeeze, driver, isPinned, state };
};
