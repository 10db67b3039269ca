/**
 * The form of what goes in and what comes out, as the OpenAPI document publishes it. What goes in is checked by these;
 * that they agree with `api-types.ts` is checked by the compiler, that answers agree with them by a test.
 */
import * as v from "valibot";
import type * as api from "./api-types.ts";

/** A schema of `T`, and of nothing else. */
type Of<T> = v.GenericSchema<unknown, T>;

/** Longest word of a request. */
const WORD_LENGTH_MAX = 256;
const count = v.pipe(v.number(), v.minValue(0));
const integer = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const word = v.pipe(v.string(), v.minLength(1), v.maxLength(WORD_LENGTH_MAX));
/** A configuration is checked by its own table. */
const config = v.record(v.string(), v.unknown());

export const ApiFailure = v.strictObject({ code: v.string(), message: v.string(), remedy: v.string() });

const flags = v.strictObject({
  running: v.boolean(),
  blocked: v.boolean(),
  paused: v.boolean(),
  shutdown: v.boolean(),
  crashed: v.boolean(),
  dying: v.boolean(),
}) satisfies Of<api.DomainFlags>;

const exit = v.strictObject({
  code: v.number(),
  reason: v.string(),
  crashed: v.boolean(),
  where: v.exactOptional(v.string()),
}) satisfies Of<api.ExitView>;

const balloon = v.strictObject({
  targetBytes: integer,
  minBytes: integer,
  maxBytes: integer,
  weight: integer,
  squeeze: v.string(),
  driver: v.string(),
  isPinned: v.boolean(),
  state: v.string(),
}) satisfies Of<api.BalloonView>;

const memory = v.strictObject({
  currentBytes: integer,
  maxBytes: integer,
  peakBytes: integer,
  claimedBytes: integer,
  deviceModelBytes: integer,
  deviceModelBytesMax: integer,
  isFrozen: v.boolean(),
  balloon: v.exactOptional(balloon),
}) satisfies Of<api.MemoryView>;

export const DomainView = v.strictObject({
  domid: integer,
  name: v.string(),
  generation: integer,
  revision: v.string(),
  state: flags,
  exit: v.exactOptional(exit),
  vcpus: integer,
  cpuSeconds: count,
  memory,
  definition: v.exactOptional(v.string()),
  autostart: v.boolean(),
  createdMs: count,
  uptimeSeconds: count,
  restarts: integer,
  label: v.exactOptional(v.string()),
  deviceModelFor: v.exactOptional(integer),
  hypercalls: integer,
  hypercallsDenied: integer,
  events: integer,
  vmas: integer,
  vmaBudget: integer,
}) satisfies Of<api.DomainView>;

export const DomainsView = v.strictObject({ domains: v.array(DomainView) }) satisfies Of<api.DomainsView>;

export const CreateRequest = v.strictObject({
  config: v.exactOptional(config),
  definition: v.exactOptional(word),
  paused: v.exactOptional(v.boolean()),
});

export const ShutdownRequest = v.strictObject({
  force: v.exactOptional(v.boolean()),
}) satisfies Of<api.ShutdownRequest>;

export const RenameRequest = v.strictObject({ name: word }) satisfies Of<api.RenameRequest>;

/** Any number: which ones are sizes is for the hypervisor to say, with the limit in its message. */
export const MemoryRequest = v.strictObject({ bytes: v.nullable(v.number()) }) satisfies Of<api.MemoryRequest>;

export const VcpusView = v.strictObject({
  domid: integer,
  name: v.string(),
  vcpus: v.array(
    v.strictObject({
      vcpu: integer,
      online: v.boolean(),
      running: v.boolean(),
      blocked: v.boolean(),
      cpuSeconds: count,
    }),
  ),
}) satisfies Of<api.VcpusView>;

export const DefinitionView = v.strictObject({
  name: v.string(),
  autostart: v.boolean(),
  revision: v.string(),
  config,
  domid: v.exactOptional(integer),
  restartAtMs: v.exactOptional(count),
});

export const DefinitionsView = v.strictObject({ definitions: v.array(DefinitionView) });

export const ConfigRequest = v.strictObject({ config });

export const NodesView = v.strictObject({
  nodes: v.array(v.strictObject({ path: v.string(), base64: v.string() })),
}) satisfies Of<api.NodesView>;

export const HostView = v.strictObject({
  hostname: v.string(),
  version: v.string(),
  node: v.string(),
  machine: v.string(),
  processors: integer,
  pid: integer,
  startedMs: count,
  uptimeSeconds: count,
  memoryBytes: integer,
  memoryFreeBytes: integer,
  memoryClaimedBytes: integer,
  vmas: integer,
  vmaLimit: integer,
  domainCount: integer,
  domainCountMax: integer,
  threadCount: integer,
  warmThreadCount: integer,
  pressure: v.exactOptional(v.string()),
}) satisfies Of<api.HostView>;

export const ClaimsView = v.strictObject({
  totalBytes: integer,
  claims: v.array(v.strictObject({ domid: integer, name: v.string(), bytes: integer })),
}) satisfies Of<api.ClaimsView>;

const secretOwner = v.strictObject({
  path: v.string(),
  bytes: integer,
  mappedBytes: integer,
  slots: integer,
  chunks: integer,
  bytesHigh: integer,
  refusals: integer,
}) satisfies Of<api.SecretOwnerView>;

const secretPool = v.strictObject({
  hidden: v.boolean(),
  ceilingBytes: integer,
  lockedBytes: integer,
  lockedBytesHigh: integer,
  chunkBytes: integer,
  chunks: integer,
  freeBytes: integer,
  regionBytes: integer,
  mappedBytes: integer,
  usedBytes: integer,
  slots: integer,
  degradedSlots: integer,
  growths: integer,
  shrinks: integer,
  overruns: integer,
  refusals: v.array(v.strictObject({ code: v.string(), count: integer })),
  owners: v.array(secretOwner),
}) satisfies Of<api.SecretPoolView>;

const kernelMap = v.strictObject({
  smallBytes: integer,
  largeBytes: integer,
  hugeBytes: integer,
  largeSplits: v.exactOptional(integer),
  hugeSplits: v.exactOptional(integer),
}) satisfies Of<api.DirectMapView>;

export const SecretsView = v.strictObject({
  pool: v.exactOptional(secretPool),
  directMap: v.exactOptional(kernelMap),
}) satisfies Of<api.SecretsView>;

const memoryAccount = v.strictObject({
  machineBytes: integer,
  freeBytes: integer,
  hypervisorBytes: integer,
  domainBytes: integer,
}) satisfies Of<api.MemoryAccountView>;

export const AuditView = v.strictObject({
  findings: v.array(v.string()),
  memory: memoryAccount,
}) satisfies Of<api.AuditView>;

export const DmesgView = v.strictObject({
  lines: v.array(v.strictObject({ timeMs: count, level: v.picklist(["info", "warn", "error"]), text: v.string() })),
}) satisfies Of<api.DmesgView>;

export const HealthView = v.strictObject({
  status: v.picklist(["ok", "degraded"]),
  problems: v.array(v.string()),
}) satisfies Of<api.HealthView>;
