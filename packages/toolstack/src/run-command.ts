/**
 * `xl run`: one module as one domain, in the foreground. The standard streams are the guest's.
 */
import { constants } from "node:os";
import { XenolithError } from "@xenolith/abi/error";
import {
  Host,
  type CallResult,
  type Domain,
  type DomainExit,
  type DomainStats,
  type GuestValue,
  type HostOptions,
} from "@xenolith/host";
import { keyPlan } from "./key-options.ts";
import { formatSize } from "./quantity.ts";
import { planRun, type RunFlags, type RunPlan } from "./run-options.ts";
import { DEGRADED_TEXT, secretPlan } from "./secret-options.ts";
import { defaultDaemonSocket, defaultXenstoreSocket, prepareRuntimeDirectory } from "./runtime-directory.ts";
import { complain, EXIT_SIGNAL_BASE, EXIT_TIMEOUT, printable, table } from "./terminal.ts";

const FRAME_BYTES = 4096;
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** How a run ended. */
interface Outcome {
  readonly code: number;
  readonly exit: DomainExit | undefined;
  readonly values: CallResult | undefined;
}

/** Runs `xl run`; returns the exit code. */
export const runCommand = async (image: string, values: readonly string[], flags: RunFlags): Promise<number> => {
  const plan = planRun(image, values, flags);
  const secrets = secretPlan(flags, () => complain(DEGRADED_TEXT));
  await using host = await Host.open({ warmVcpuCount: 1, ...servePlan(flags), ...keysOf(flags), ...secrets });
  await using domain = await host.createDomain(plan.domain);
  if (plan.memoryBytesMax !== undefined) domain.setMemoryMax(plan.memoryBytesMax);
  await using _service = await serve(host, domain, flags);
  const consoleDone = copyConsole(domain);
  const outcome = await runToEnd(domain, plan);
  const stats = domain.stats();
  await domain.destroy();
  await consoleDone;
  report(domain, { outcome, stats, flags });
  return outcome.code;
};

/** Who builds keys, and that its failures are told. */
const keysOf = (flags: RunFlags): Pick<HostOptions, "keys"> => {
  const { keys } = keyPlan(flags);
  if (keys === undefined) return {};
  const onRequestFailed = (error: unknown): void =>
    complain(`a key was not built: ${error instanceof Error ? error.message : String(error)}`);
  return { keys: { ...keys, onRequestFailed } };
};

/** Where xenstore is to be served. */
const servePlan = ({ xenstoreSocket }: RunFlags): Pick<HostOptions, "xenstoreSocket"> =>
  xenstoreSocket === undefined ? {} : { xenstoreSocket: socketAt(xenstoreSocket, defaultXenstoreSocket) };

const AUTOMATIC = "auto";

/** The path that was given; for `auto` the one where others look, in a directory of the user's own. */
const socketAt = (given: string, usual: () => string): string => {
  if (given !== AUTOMATIC) return given;
  prepareRuntimeDirectory();
  return usual();
};

/** The service's API over this domain, where it was asked for. It is loaded only then. */
const serve = async (host: Host, domain: Domain, { socket }: RunFlags): Promise<AsyncDisposable | undefined> => {
  if (socket === undefined) return undefined;
  const { embedService } = await import("./daemon/service.ts");
  const service = embedService(host);
  try {
    service.adopt(domain);
    await service.listen(socketAt(socket, defaultDaemonSocket));
    return service;
  } catch (error) {
    await service.close();
    throw error;
  }
};

/** The domain's console goes to standard output. */
const copyConsole = async (domain: Domain): Promise<void> => {
  for await (const text of domain.console) process.stdout.write(text);
};

/** Runs the program, or one function of it, until it ends, the time is over or a signal comes. */
const runToEnd = async (domain: Domain, plan: RunPlan): Promise<Outcome> => {
  using interruption = listenForSignals();
  const end = plan.timeoutMs === undefined ? undefined : AbortSignal.timeout(plan.timeoutMs);
  const bounds = end === undefined ? {} : { signal: end };
  const work = plan.invoke === undefined ? runProgram(domain, bounds) : callExport(domain, plan, bounds);
  try {
    return await Promise.race([work, interruption.outcome, timeUp(end)]);
  } catch (error) {
    if (end?.aborted === true) return { code: EXIT_TIMEOUT, exit: undefined, values: undefined };
    if (error instanceof XenolithError && error.code === "DOMAIN_CRASHED") return ofExit(await domain.exited);
    throw error;
  } finally {
    work.catch(() => {});
  }
};

const ofExit = (exit: DomainExit, values?: CallResult): Outcome => ({ code: exit.code, exit, values });

const runProgram = async (domain: Domain, bounds: { signal?: AbortSignal }): Promise<Outcome> => {
  await domain.start(bounds);
  if (domain.kind === "reactor") {
    throw new XenolithError(
      "INVALID_ARGUMENT",
      "the image is a reactor: name a function with --invoke EXPORT (xl image inspect lists them)",
    );
  }
  return ofExit(await domain.exited);
};

const callExport = async (domain: Domain, plan: RunPlan, bounds: { signal?: AbortSignal }): Promise<Outcome> => {
  await domain.start(bounds);
  const values = await domain.callWith(bounds, plan.invoke!, ...plan.values.map(parseValue));
  const list = Array.isArray(values) ? values : [values];
  for (const value of list) if (value !== undefined) process.stdout.write(`${value}\n`);
  return { code: 0, exit: undefined, values };
};

/** A number as people write it: whole ones in full range, others as floats. */
const parseValue = (text: string): GuestValue => {
  if (/^[+-]?(?:\d+|0x[0-9a-f]+)$/i.test(text)) {
    const magnitude = BigInt(text.replace(/^[+-]/, ""));
    return text.startsWith("-") ? -magnitude : magnitude;
  }
  const value = Number(text);
  if (text.trim() === "" || Number.isNaN(value)) {
    throw new XenolithError("INVALID_ARGUMENT", `argument "${text}" is not a number: exports take numbers only`);
  }
  return value;
};

/** Never settles but when `end` fires. */
const timeUp = (end: AbortSignal | undefined): Promise<Outcome> =>
  new Promise((resolve) => {
    end?.addEventListener("abort", () => resolve({ code: EXIT_TIMEOUT, exit: undefined, values: undefined }));
  });

/** Ends the run when the user or the system asks for it. */
const listenForSignals = (): Disposable & { readonly outcome: Promise<Outcome> } => {
  const { promise, resolve } = withResolvers<Outcome>();
  const listener = (signal: NodeJS.Signals): void => {
    resolve({ code: EXIT_SIGNAL_BASE + constants.signals[signal], exit: undefined, values: undefined });
  };
  for (const signal of SIGNALS) process.on(signal, listener);
  return {
    outcome: promise,
    [Symbol.dispose]: () => {
      for (const signal of SIGNALS) process.off(signal, listener);
    },
  };
};

const withResolvers = <T>(): { promise: Promise<T>; resolve: (value: T) => void } => {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
};

/** Says how it ended, on stderr: nothing when a program ended by itself and no figures were asked for. */
const report = (domain: Domain, run: { outcome: Outcome; stats: DomainStats; flags: RunFlags }): void => {
  const { exit, code } = run.outcome;
  if (exit?.crashed === true) {
    const where = exit.where === undefined ? "" : `: ${exit.where}`;
    complain(`domain ${domain.domid} crashed: ${exit.reason}${where}`);
  } else if (code === EXIT_TIMEOUT && exit === undefined) {
    complain(`domain ${domain.domid} was stopped after ${run.flags.timeout}`);
  }
  if (run.flags.json === true) process.stderr.write(`${JSON.stringify(describe(domain, run))}\n`);
  else if (run.flags.stats === true) process.stderr.write(`${formatStats(run.stats)}\n`);
};

const describe = (domain: Domain, { outcome, stats }: { outcome: Outcome; stats: DomainStats }): object => ({
  domid: domain.domid,
  name: printable(domain.name),
  code: outcome.code,
  reason: outcome.exit?.reason ?? (outcome.code === EXIT_TIMEOUT ? "timeout" : "stopped"),
  crashed: outcome.exit?.crashed ?? false,
  where: outcome.exit?.where,
  values: jsonValues(outcome.values),
  stats,
});

const jsonValues = (values: CallResult | undefined): readonly (number | string)[] => {
  const list = values === undefined ? [] : Array.isArray(values) ? values : [values];
  return (list as readonly GuestValue[]).map((value) => (typeof value === "bigint" ? value.toString() : value));
};

const formatStats = (stats: DomainStats): string =>
  table([
    ["memory now", `${formatSize(stats.pages * FRAME_BYTES)} (${stats.pages} pages)`],
    ["memory peak", `${formatSize(stats.pagesPeak * FRAME_BYTES)} (${stats.pagesPeak} pages)`],
    ["memory limit", `${formatSize(stats.pagesMax * FRAME_BYTES)} (${stats.pagesMax} pages)`],
    ["mappings", `${stats.vmas} of ${stats.vmaBudget}`],
    ["hypercalls", String(stats.hypercalls)],
    ["events", String(stats.events)],
    ["CPU seconds", stats.cpuSeconds.toFixed(3)],
  ]);
