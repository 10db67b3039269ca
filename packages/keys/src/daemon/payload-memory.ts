import { XenolithError } from "@xenolith/abi/error";
// Types only: the package is optional.
// oxlint-disable-next-line eslint/no-restricted-imports
import type { OwnerOptions, SecretOwner, SecretPool } from "@xenolith/secrets";
import { MemoryPayloadStore, type PayloadStore } from "../payload-store.ts";
import { SecretPayloadStore } from "../secret-payload-store.ts";
import type { Log } from "./log.ts";

/** Where the daemon keeps payloads. */
export interface PayloadOptions {
  /** `strict`: secret memory or no daemon. `degraded`: locked memory where the kernel has no other. `off`: the heap. */
  readonly policy: PayloadPolicy;
  /** All payloads at most, in bytes. */
  readonly bytesMax: number;
  /**
   * Those of each user but root. By default a quarter of what there is, and for the user whose daemon it is no less than all.
   */
  readonly userBytesMax: number | undefined;
}

const POLICIES = ["strict", "degraded", "off"] as const;

/** See `PayloadOptions`. */
export type PayloadPolicy = (typeof POLICIES)[number];

/** Whether a word is the name of a policy. */
export const isPayloadPolicy = (word: string): word is PayloadPolicy => POLICIES.some((policy) => policy === word);

/** Payloads of the daemon. */
export interface PayloadMemory {
  readonly store: PayloadStore;
  /** What is told of it, in the text format of Prometheus. */
  metrics(): string;
  /** Wipes everything; after the service. */
  close(): Promise<void>;
}

/** Part of the pool that one user may have. */
const USER_PART = 4;

/**
 * Opens the memory for payloads. Whatever is less than secret memory is an event of the log, and a metric.
 *
 * @throws XenolithError `CAPABILITY_MISSING` where @xenolith/secrets is not installed; as `SecretPool.open`.
 */
export const openPayloadMemory = async (options: PayloadOptions, log: Log): Promise<PayloadMemory> => {
  const { policy, bytesMax, userBytesMax } = options;
  if (policy === "off") {
    log.event("warning", "payloads are in ordinary memory: in core files, in swap, and for debuggers to read");
    return { store: new MemoryPayloadStore(), metrics: () => kindMetric("heap"), close: () => Promise.resolve() };
  }
  const { formatSecretMetrics, SecretPool: Pool } = await loadSecrets();
  const pool = opened(() => Pool.open({ policy, bytesMax }));
  const { hidden, ceilingBytes } = pool.statistics();
  if (!hidden) {
    const remedy = "needs memfd_secret: Linux 5.14, CONFIG_SECRETMEM, and secretmem.enable=1 before 6.5";
    log.event("error", "payloads are in locked memory only: the kernel, and who may debug it, can read them", {
      remedy,
    });
  }
  const ownBytes = userBytesMax ?? ceilingBytes;
  const othersBytes = userBytesMax ?? Math.ceil(ceilingBytes / USER_PART);
  log.event("debug", "memory for payloads", { hidden, bytes: ceilingBytes, bytesOfUser: othersBytes });
  const ownUid = process.getuid?.();
  const quotaOf = (uid: number): OwnerOptions =>
    uid === 0 ? { privileged: true } : { bytes: uid === ownUid ? ownBytes : othersBytes };
  const ownerOf = (uid: number): SecretOwner => pool.owner(`uid:${uid}`, quotaOf(uid));
  const store = new SecretPayloadStore(pool.table(), ownerOf);
  return {
    store,
    metrics: () => kindMetric(hidden ? "secret" : "locked") + formatSecretMetrics(pool.statistics()),
    close: () => {
      store.close();
      return pool[Symbol.asyncDispose]();
    },
  };
};

/** Says what the operator can do where nothing may be locked. */
const opened = (open: () => SecretPool): SecretPool => {
  try {
    return open();
  } catch (cause) {
    if (!(cause instanceof XenolithError) || cause.code !== "SECRET_MEMLOCK") throw cause;
    const remedy = "raise it (ulimit -l, LimitMEMLOCK=), or let payloads be in ordinary memory with --payloads off";
    throw new XenolithError("SECRET_MEMLOCK", `${cause.message}: ${remedy}`, { cause });
  }
};

const loadSecrets = async () => {
  try {
    // Optional: the library is usable alone; the daemon is, too, when it is told to use ordinary memory.
    // oxlint-disable-next-line eslint/no-restricted-imports
    return await import("@xenolith/secrets");
  } catch (cause) {
    throw new XenolithError("CAPABILITY_MISSING", "xkeyd needs @xenolith/secrets, or --payloads off", { cause });
  }
};

const KINDS = ["secret", "locked", "heap"] as const;

const kindMetric = (kind: (typeof KINDS)[number]): string => {
  const name = "xkeyd_payload_memory";
  const samples = KINDS.map((each) => `${name}{kind="${each}"} ${each === kind ? 1 : 0}\n`).join("");
  return `# HELP ${name} What payloads are in: memory that the kernel cannot read, locked memory, or the heap.\n# TYPE ${name} gauge\n${samples}`;
};
