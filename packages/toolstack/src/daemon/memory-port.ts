/**
 * How the service has memory managed: through the memory manager, or, where there is none, only by each domain's own
 * limit.
 */
import { XenolithError } from "@xenolith/abi";
import type { Domain } from "@xenolith/host";
import type { DomainConfig } from "../config/index.ts";
import type { BalloonView } from "./api-types.ts";

/** Room that is kept for a domain until it is built. */
export interface Place extends Disposable {
  /** For `DomainOptions.memoryClaimBytes`. */
  readonly claimBytes: number | undefined;
}

/** What the service asks of whoever manages memory. */
export interface MemoryPort extends AsyncDisposable {
  /** Finds room for a domain. Throws XenolithError `MEMORY_EXHAUSTED`, `INVALID_SIZE`, `ABORTED`. */
  admit(config: DomainConfig): Promise<Place>;
  /** Looks after a domain's memory from now on. Throws XenolithError `INVALID_SIZE`, `MEMORY_EXHAUSTED`. */
  manage(domain: Domain, config: DomainConfig): Promise<void>;
  /** Sets a target by hand; undefined: automatic again. Throws XenolithError `INVALID_SIZE`, `DOMAIN_STATE`, `NOT_YET`. */
  setTarget(domain: Domain, bytes: number | undefined): Promise<void>;
  /** Sets max_pages. Throws XenolithError `INVALID_SIZE`, `DOMAIN_STATE`, `MEMORY_FROZEN`. */
  setMax(domain: Domain, bytes: number): Promise<void>;
  /** What is known of each domain that is managed, by domid. */
  balloons(): ReadonlyMap<number, BalloonView>;
  /** How short of memory the machine is; undefined when nobody looks. */
  pressure(): string | undefined;
}

/** Nobody manages memory: domains have what they were created with. */
export const unmanagedMemory = (): MemoryPort => ({
  admit: async () => ({ claimBytes: undefined, [Symbol.dispose]: () => {} }),
  manage: async () => {},
  setTarget: async () => {
    throw new XenolithError("NOT_YET", "targets need a memory manager, and this service has none");
  },
  setMax: async (domain, bytes) => domain.setMemoryMax(bytes),
  balloons: () => new Map(),
  pressure: () => undefined,
  [Symbol.asyncDispose]: async () => {},
});
