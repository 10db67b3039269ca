/**
 * The service's HTTP API: what goes in and what comes out of each route. Types only, so that a client loads nothing.
 *
 *     GET    /v1/host                            HostView
 *     GET    /v1/dmesg                           DmesgView
 *     GET    /v1/claims                          ClaimsView
 *     GET    /v1/secrets                         SecretsView
 *     POST   /v1/audit                           AuditView
 *     GET    /v1/events                          text/event-stream of ServiceEvent
 *     GET    /v1/domains                         DomainsView, oldest first, dom0 first of all
 *     POST   /v1/domains              CreateRequest   201 DomainView
 *     GET    /v1/domains/:domain                 DomainView
 *     DELETE /v1/domains/:domain                 204: destroyed, and its definition with it unless it autostarts
 *     POST   /v1/domains/:domain/shutdown        ShutdownRequest -> DomainView, at once; the guest may take its time
 *     POST   /v1/domains/:domain/reboot          the same
 *     POST   /v1/domains/:domain/pause           DomainView
 *     POST   /v1/domains/:domain/unpause         DomainView
 *     POST   /v1/domains/:domain/rename          RenameRequest -> DomainView
 *     PUT    /v1/domains/:domain/memory/target   MemoryRequest -> DomainView
 *     PUT    /v1/domains/:domain/memory/max      MemoryRequest -> DomainView
 *     GET    /v1/domains/:domain/vcpus           VcpusView
 *     GET    /v1/domains/:domain/console         application/octet-stream; ?follow=1 goes on until the domain is gone
 *     POST   /v1/domains/:domain/console         the body is typed to the guest; 204
 *     GET    /v1/definitions                     DefinitionsView
 *     GET    /v1/definitions/:name               DefinitionView
 *     PUT    /v1/definitions/:name    DefineRequest   DefinitionView; makes or replaces it, starts nothing
 *     PATCH  /v1/definitions/:name    UpdateRequest   DefinitionView; holds from the next start on
 *     DELETE /v1/definitions/:name               204; a domain that runs goes on
 *     GET    /v1/xenstore                        NodesView
 *     PUT    /v1/xenstore/tool/...               204: the body is the value of a node that outlives the service
 *     DELETE /v1/xenstore/tool/...               204
 *     GET    /healthz   HealthView      GET /metrics   text of Prometheus      GET /openapi.json
 *
 * `:domain` is a domid or a name. Everything that changes a domain or a definition takes `If-Match: "<revision>"`: when
 * somebody else changed it meanwhile, the answer is 412 `CONFLICT`. Every failure has an {@link ApiFailure} as its body.
 * Sizes are bytes, times are milliseconds since 1970, durations say their unit.
 */
import type { ErrorCode } from "@xenolith/abi";
import type { HostInfo } from "@xenolith/host";
import type { ConfigDocument } from "../config/index.ts";

/** The body of every answer that is not a success. */
export interface ApiFailure {
  readonly code: ErrorCode;
  readonly message: string;
  /** What would mend it; empty when there is nothing to say. */
  readonly remedy: string;
}

/** What a domain is doing, as the letters of `xl list`'s column State: several can hold at once. */
export interface DomainFlags {
  readonly running: boolean;
  readonly blocked: boolean;
  readonly paused: boolean;
  readonly shutdown: boolean;
  readonly crashed: boolean;
  readonly dying: boolean;
}

/** How a domain ended that is kept to be looked at. */
export interface ExitView {
  readonly code: number;
  readonly reason: string;
  readonly crashed: boolean;
  /** Guest function and address of a trap. */
  readonly where?: string;
}

/** Memory of a domain, read from the hypervisor when it was asked. */
export interface MemoryView {
  /** What it owns: tot_pages. */
  readonly currentBytes: number;
  /** What it may own in all: max_pages. */
  readonly maxBytes: number;
  /** Most that it ever owned. */
  readonly peakBytes: number;
  /** Set aside for it while it is built. */
  readonly claimedBytes: number;
  /** What device models added, and may add. */
  readonly deviceModelBytes: number;
  readonly deviceModelBytesMax: number;
  /** A save has frozen the limit. */
  readonly isFrozen: boolean;
  /** What the memory manager does with it; absent for a domain that it does not manage. */
  readonly balloon?: BalloonView;
}

/** What the memory manager knows of a domain. */
export interface BalloonView {
  readonly targetBytes: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly weight: number;
  readonly squeeze: string;
  /** Who moves its memory: `none`, `guest` or `reactor`. */
  readonly driver: string;
  /** `mem-set` fixed the target by hand. */
  readonly isPinned: boolean;
  /** `done`, `again`, `canceled` or `unknown`. */
  readonly state: string;
}

/** One domain. */
export interface DomainView {
  readonly domid: number;
  readonly name: string;
  /** Identity of this run of the domain, never used again. */
  readonly generation: number;
  /** For `If-Match`. */
  readonly revision: string;
  readonly state: DomainFlags;
  readonly exit?: ExitView;
  readonly vcpus: number;
  readonly cpuSeconds: number;
  readonly memory: MemoryView;
  /** Name of the definition that it was made from; absent for dom0. */
  readonly definition?: string;
  readonly autostart: boolean;
  /** When it was created, and how long ago. */
  readonly createdMs: number;
  readonly uptimeSeconds: number;
  /** How often the service has restarted it. */
  readonly restarts: number;
  readonly label?: string;
  /** domid of the domain whose device model it is. */
  readonly deviceModelFor?: number;
  readonly hypercalls: number;
  readonly hypercallsDenied: number;
  readonly events: number;
  readonly vmas: number;
  readonly vmaBudget: number;
}

/** All domains. */
export interface DomainsView {
  readonly domains: readonly DomainView[];
}

/** What a domain is made from: a configuration, or the name of a definition. */
export interface CreateRequest {
  /** As in a configuration file; paths are absolute. */
  readonly config?: ConfigDocument;
  readonly definition?: string;
  /** Do not let it run yet; `unpause` does. */
  readonly paused?: boolean;
}

/** How a shutdown or a reboot is to be done. */
export interface ShutdownRequest {
  /**
   * Without it the guest is asked through xenstore's `control/shutdown`; with it, it is stopped. A guest that has no
   * xenstore (a WASI command) cannot be asked, and is stopped either way.
   */
  readonly force?: boolean;
}

/** A new name. */
export interface RenameRequest {
  readonly name: string;
}

/** A new target or limit; `null` as a target lets the memory manager decide again. */
export interface MemoryRequest {
  readonly bytes: number | null;
}

/** One virtual CPU. */
export interface VcpuView {
  readonly vcpu: number;
  readonly online: boolean;
  readonly running: boolean;
  readonly blocked: boolean;
  readonly cpuSeconds: number;
}

/** The virtual CPUs of one domain. */
export interface VcpusView {
  readonly domid: number;
  readonly name: string;
  readonly vcpus: readonly VcpuView[];
}

/** What a domain is made from, kept by the service. */
export interface DefinitionView {
  readonly name: string;
  readonly autostart: boolean;
  readonly revision: string;
  readonly config: ConfigDocument;
  /** domid of the domain that was made from it, while there is one. */
  readonly domid?: number;
  /** When its domain will be started again, while that waits. */
  readonly restartAtMs?: number;
}

/** All definitions, by name. */
export interface DefinitionsView {
  readonly definitions: readonly DefinitionView[];
}

/** A definition to keep. */
export interface DefineRequest {
  readonly config: ConfigDocument;
}

/** Keys of the configuration to replace; `null` takes a key away. */
export interface UpdateRequest {
  readonly config: Readonly<Record<string, unknown>>;
}

/** Nodes of xenstore that outlive the service, by path. */
export interface NodesView {
  readonly nodes: readonly { readonly path: string; readonly base64: string }[];
}

/** Figures of the host, read when they were asked. */
export interface HostView extends HostInfo {
  readonly hostname: string;
  readonly version: string;
  readonly node: string;
  readonly machine: string;
  readonly processors: number;
  readonly pid: number;
  readonly startedMs: number;
  readonly uptimeSeconds: number;
  /** How short of memory the machine is: `calm`, `pressed` or `critical`; absent without a memory manager. */
  readonly pressure?: string;
}

/** Memory set aside for domains that are being built. */
export interface ClaimsView {
  readonly totalBytes: number;
  readonly claims: readonly { readonly domid: number; readonly name: string; readonly bytes: number }[];
}

/** One owner of secret memory: a domain, the keys of a user, a part of the program. */
export interface SecretOwnerView {
  /** Its name, behind those of the owners above it. */
  readonly path: string;
  readonly bytes: number;
  /** What its regions are mapped at beside their own places: it counts against RLIMIT_MEMLOCK too. */
  readonly mappedBytes: number;
  /** Secrets and regions. */
  readonly slots: number;
  /** Chunks of 2 MiB in which it has something. */
  readonly chunks: number;
  readonly bytesHigh: number;
  readonly refusals: number;
}

/** The pool of secret memory. */
export interface SecretPoolView {
  /** Whether the kernel itself cannot read it; false: it is locked in RAM and no more. */
  readonly hidden: boolean;
  readonly ceilingBytes: number;
  /** Chunks and regions. */
  readonly lockedBytes: number;
  readonly lockedBytesHigh: number;
  readonly chunkBytes: number;
  readonly chunks: number;
  readonly freeBytes: number;
  readonly regionBytes: number;
  readonly mappedBytes: number;
  readonly usedBytes: number;
  readonly slots: number;
  /** Those that the kernel can read. */
  readonly degradedSlots: number;
  readonly growths: number;
  readonly shrinks: number;
  readonly overruns: number;
  readonly refusals: readonly { readonly code: string; readonly count: number }[];
  /** Those above first. */
  readonly owners: readonly SecretOwnerView[];
}

/** Memory in the kernel's own map, by the size of its pages, and how many were split since the machine started. */
export interface DirectMapView {
  readonly smallBytes: number;
  readonly largeBytes: number;
  readonly hugeBytes: number;
  readonly largeSplits?: number;
  readonly hugeSplits?: number;
}

/** Secret memory: absent as long as nobody wanted any. */
export interface SecretsView {
  readonly pool?: SecretPoolView;
  /** Absent where the kernel does not tell. */
  readonly directMap?: DirectMapView;
}

/** What the auditor found; nothing when all is well. */
export interface AuditView {
  readonly findings: readonly string[];
  readonly memory: MemoryAccountView;
}

/** Where the machine's memory is: what is free, the hypervisor's own and the domains' make up all of it. */
export interface MemoryAccountView {
  readonly machineBytes: number;
  readonly freeBytes: number;
  /** Counted frame by frame. */
  readonly hypervisorBytes: number;
  /** tot_pages of all domains together. */
  readonly domainBytes: number;
}

/** The latest messages of the hypervisor and the service, oldest first. */
export interface DmesgView {
  readonly lines: readonly DmesgLine[];
}

/** One message. */
export interface DmesgLine {
  readonly timeMs: number;
  readonly level: "info" | "warn" | "error";
  readonly text: string;
}

/** Whether the service works. */
export interface HealthView {
  readonly status: "ok" | "degraded";
  /** What is wrong, one sentence each. */
  readonly problems: readonly string[];
}

/** What happened, as the event stream tells it. */
export type ServiceEventType =
  | "domain-created"
  | "domain-unpaused"
  | "domain-paused"
  | "domain-ended"
  | "domain-suspended"
  | "domain-restarted"
  | "domain-destroyed"
  | "domain-renamed"
  | "domain-failed"
  | "memory-target"
  | "memory-max"
  | "definition-changed"
  | "definition-removed"
  /** This reader was too slow, or came back too late: `count` events are missing here. */
  | "lost";

/** One event. Its number is the SSE `id`: `Last-Event-ID` goes on behind it, as far back as the service remembers. */
export interface ServiceEvent {
  readonly id: number;
  readonly timeMs: number;
  readonly type: ServiceEventType;
  readonly domid?: number;
  readonly name?: string;
  /** Reason of an end or a failure. */
  readonly reason?: string;
  readonly bytes?: number;
  readonly count?: number;
}
