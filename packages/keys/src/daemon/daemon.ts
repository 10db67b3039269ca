import path from "node:path";
import { XenolithError } from "@xenolith/abi/error";
import { prepareDirectory } from "../client/socket-path.ts";
import { loadConfig, problemsOf } from "../request-key/config.ts";
import type { Launch } from "../request-key/launch.ts";
import { KeyService } from "../service.ts";
import type { PeerIdentity } from "./caller.ts";
import { HelperActor } from "./helper-actor.ts";
import { Log } from "./log.ts";
import { DaemonMetrics } from "./metrics.ts";
import type { DaemonOptions } from "./options.ts";
import { openPayloadMemory, type PayloadMemory } from "./payload-memory.ts";
import type { PersistentStore } from "./persistent-store.ts";
import { procTable } from "./proc-files.ts";
import { ProcessRegistry } from "./process-registry.ts";
import { KeyServer } from "./server.ts";
import { inheritedListener } from "./socket-place.ts";

/** What a daemon needs of the machine it runs on. */
export interface Machine {
  readonly environment: NodeJS.ProcessEnv;
  readonly peerCredentials: (descriptor: number) => PeerIdentity | number;
  /** How helpers are started; Node's way by default. */
  readonly launch?: Launch | undefined;
  /** Lines of the log. */
  readonly write: (line: string) => void;
}

/** A daemon that serves. */
export interface RunningDaemon extends AsyncDisposable {
  readonly service: KeyService;
  readonly registry: ProcessRegistry;
  readonly metrics: DaemonMetrics;
  /** Saves what lasts, hangs up on everybody, and lets go of all keys. May be called again. */
  close(): Promise<void>;
}

/** Helpers find a keyctl that speaks to this daemon there. */
const HELPER_COMMANDS = path.join(import.meta.dirname, "../../../bin/for-helpers");

/** Starts serving. `SYSTEM_CALL` where it cannot listen. */
export const startDaemon = async (options: DaemonOptions, machine: Machine): Promise<RunningDaemon> => {
  const log = new Log({ level: options.logLevel, descriptions: options.logDescriptions, write: machine.write });
  const metrics = new DaemonMetrics();
  const { socket } = options;
  const actor = new HelperActor({
    config: options.config,
    program: options.requestKey,
    socket: path.resolve(socket),
    launch: machine.launch,
    path: [...options.helperPath, HELPER_COMMANDS],
    pathAfter: [path.dirname(process.execPath)],
    log,
    metrics,
    adopt: (pid, helper) => registry.adopt(pid, helper),
    release: (pid) => registry.release(pid),
  });
  const { errorPriority, upcallTimeoutMs, limits } = options;
  const payloads = await openPayloadMemory(options.payloads, log);
  const service = new KeyService({ upcall: actor, errorPriority, upcallTimeoutMs, limits, payloads: payloads.store });
  actor.serve(service);
  const registry = new ProcessRegistry(service, procTable);
  const server = new KeyServer({ service, registry, metrics, log, peerCredentials: machine.peerCredentials });
  const store = await openStore(options, service, log);
  for (const problem of problemsOf(loadConfig(options.config))) log.event("error", "malformed rule", { problem });
  const inherited = inheritedListener(machine.environment);
  if (inherited === undefined) {
    prepareDirectory(socket);
    await server.listen(socket, options.socketMode);
  } else await server.listenOn(inherited);
  const endMetrics = await startMetrics(options, { service, registry, metrics, payloads });
  log.event("info", "serving", { socket: inherited === undefined ? socket : `descriptor ${inherited}` });

  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await endMetrics();
    await server.close();
    await store?.close();
    registry.close();
    service.close();
    await payloads.close();
    log.event("info", "ended");
  };
  const closeOnce = (): Promise<void> => (closing ??= close());
  return { service, registry, metrics, close: closeOnce, [Symbol.asyncDispose]: closeOnce };
};

/** What lasts is there before anybody can ask for it. `CONFIG_INVALID`, `SYSTEM_CALL`. */
const openStore = async (
  { persistent, persistentKey }: DaemonOptions,
  service: KeyService,
  log: Log,
): Promise<PersistentStore | undefined> => {
  if (persistent === undefined) return undefined;
  if (persistentKey === undefined) {
    throw new XenolithError("CONFIG_INVALID", "--persistent needs --persistent-key, or a credential xkeyd.persistent");
  }
  const { PersistentStore } = await import("./persistent-store.ts");
  const { readSealingKey } = await import("./sealed-file.ts");
  const store = new PersistentStore(service, { path: persistent, key: await readSealingKey(persistentKey), log });
  await store.start();
  return store;
};

const startMetrics = async (
  { metrics: place }: DaemonOptions,
  parts: Pick<RunningDaemon, "service" | "registry" | "metrics"> & { readonly payloads: PayloadMemory },
): Promise<() => Promise<void>> => {
  if (place === undefined) return () => Promise.resolve();
  const { serveMetrics } = await import("./metrics-server.ts");
  return await serveMetrics(place, () => {
    const { keys, users, payloads } = parts.service.statistics();
    const numbers = parts.metrics.render({ keys, users, payloads, processes: parts.registry.size });
    return numbers + parts.payloads.metrics();
  });
};
