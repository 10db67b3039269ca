import { existsSync } from "node:fs";
import path from "node:path";

/** The variable that names the daemon's socket. */
export const SOCKET_VARIABLE = "XKEYD_SOCKET";
/** Where a daemon that serves the whole machine listens. */
export const SYSTEM_SOCKET = "/run/xenolith-keys/keys.sock";

/** Where a daemon that serves one user listens: in the runtime directory of that user. */
export const userSocket = (environment: NodeJS.ProcessEnv = process.env): string => {
  const base = environment["XDG_RUNTIME_DIR"];
  return base === undefined || base === "" ? SYSTEM_SOCKET : path.join(base, "xenolith", "keys.sock");
};

/**
 * Where the daemon is looked for unless a path is given: `$XKEYD_SOCKET`, then the machine's, then the user's own.
 */
export const defaultKeySocket = (environment: NodeJS.ProcessEnv = process.env): string => {
  const named = environment[SOCKET_VARIABLE];
  if (named !== undefined && named !== "") return named;
  return existsSync(SYSTEM_SOCKET) ? SYSTEM_SOCKET : userSocket(environment);
};
