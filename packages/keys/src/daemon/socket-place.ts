import { XenolithError } from "@xenolith/abi/error";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import type { Server } from "node:net";
import { dirname } from "node:path";

/** systemd hands descriptors over from this one on. Source: sd_listen_fds(3). */
const LISTEN_FDS_START = 3;

/** The descriptor that systemd listens on for us, if it does. */
export const inheritedListener = (environment: NodeJS.ProcessEnv): number | undefined =>
  environment["LISTEN_PID"] === String(process.pid) && Number(environment["LISTEN_FDS"]) >= 1
    ? LISTEN_FDS_START
    : undefined;

/** Listens on a descriptor that is a listening socket already. */
export const listenInherited = async (server: Server, descriptor: number): Promise<void> => {
  try {
    server.listen({ fd: descriptor });
    await once(server, "listening");
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("SYSTEM_CALL", `listen at descriptor ${descriptor}: ${text}`, { cause });
  }
};

/**
 * Listens at a path with these permissions, in a directory that is made if it is not there. `SERVICE_RUNNING`,
 * `SYSTEM_CALL`. The result removes the socket again.
 */
export const listenAt = async (server: Server, path: string, mode: number): Promise<() => Promise<void>> => {
  const { listenAtPath } = await import("@xenolith/sys/unix-socket");
  // Where it cannot be made, listening says why.
  await mkdir(dirname(path), { recursive: true, mode: 0o755 }).catch(() => {});
  return listenAtPath(server, path, mode);
};
