/** Who builds the keys that guests ask for and do not have, as the command line names it. */
import path from "node:path";
import type { HostOptions } from "@xenolith/host";
import { parseDuration } from "./quantity.ts";

/** Options of `xl daemon` and `xl run`. */
export interface KeyFlags {
  readonly requestKey?: string;
  readonly requestKeyTimeout?: string;
}

/** How long a program may take that builds a key. */
const TIMEOUT_MS_DEFAULT = 60_000;

/** The keys of a host. Fails with INVALID_ARGUMENT; whether the program is there is seen when it is called. */
export const keyPlan = ({ requestKey, requestKeyTimeout }: KeyFlags): Pick<HostOptions, "keys"> => {
  const upcallTimeoutMs = requestKeyTimeout === undefined ? TIMEOUT_MS_DEFAULT : parseDuration(requestKeyTimeout);
  if (requestKey === undefined) return {};
  return { keys: { requestKey: { program: [path.resolve(requestKey)] }, upcallTimeoutMs } };
};
