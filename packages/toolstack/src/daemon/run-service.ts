/**
 * The service as a process: until a signal ends it.
 */
import { prepareRuntimeDirectory } from "../runtime-directory.ts";
import { openService, type ServiceOptions } from "./service.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Runs a service until SIGINT, SIGTERM or SIGHUP. `onReady` hears where it is reached; what starts by itself starts
 * after that.
 *
 * @throws XenolithError as `openService`.
 */
export const runService = async (
  options: ServiceOptions = {},
  onReady: (places: readonly string[]) => void = () => {},
): Promise<void> => {
  if (options.socketPath === undefined) prepareRuntimeDirectory();
  const service = await openService({ ...options, ownsProcess: true });
  const ended = signalled();
  onReady(service.places);
  await Promise.race([service.autostart(), ended]);
  await ended;
  await service.close();
};

const signalled = (): Promise<void> =>
  new Promise((resolve) => {
    for (const signal of SIGNALS) process.once(signal, () => resolve());
  });
