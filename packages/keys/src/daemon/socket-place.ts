import { XenolithError } from "@xenolith/abi/error";
import { once } from "node:events";
import { chmod, lstat, mkdir, mkdtemp, rename, rm, unlink } from "node:fs/promises";
import { createConnection, type Server } from "node:net";
import { dirname, join } from "node:path";

/** systemd hands descriptors over from this one on. Source: sd_listen_fds(3). */
const LISTEN_FDS_START = 3;

/** The descriptor that systemd listens on for us, if it does. */
export const inheritedListener = (environment: NodeJS.ProcessEnv): number | undefined =>
  environment["LISTEN_PID"] === String(process.pid) && Number(environment["LISTEN_FDS"]) >= 1
    ? LISTEN_FDS_START
    : undefined;

const failure = (path: string, cause: unknown): XenolithError => {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new XenolithError("SYSTEM_CALL", `listen at ${path}: ${text}`, { cause });
};

/** Listens on a descriptor that is a listening socket already. */
export const listenInherited = async (server: Server, descriptor: number): Promise<void> => {
  try {
    server.listen({ fd: descriptor });
    await once(server, "listening");
  } catch (cause) {
    throw failure(`descriptor ${descriptor}`, cause);
  }
};

/**
 * Listens at a path that everybody the mode allows may connect to; what a daemon that is gone left there is replaced.
 * `SYSTEM_CALL` if another daemon listens there, something else is in the way, or the directory cannot be written. The
 * result removes the socket again.
 */
export const listenAt = async (server: Server, path: string, mode: number): Promise<() => Promise<void>> => {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o755 });
    await checkFree(path);
    const directory = await mkdtemp(join(dirname(path), ".keys"));
    try {
      // In a directory of its own until the mode is set.
      const hidden = join(directory, "s");
      server.listen(hidden);
      await once(server, "listening");
      await chmod(hidden, mode);
      await rename(hidden, path);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
    const { ino } = await lstat(path);
    return async () => {
      const left = await lstat(path).catch(() => undefined);
      if (left?.ino === ino) await unlink(path).catch(() => {});
    };
  } catch (cause) {
    server.close();
    throw cause instanceof XenolithError ? cause : failure(path, cause);
  }
};

const checkFree = async (path: string): Promise<void> => {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!found.isSocket()) throw new XenolithError("SYSTEM_CALL", `listen at ${path}: something else is there`);
  const probe = createConnection(path);
  try {
    await once(probe, "connect");
  } catch {
    return; // Nobody listens: a daemon that is gone left it.
  } finally {
    probe.destroy();
  }
  throw new XenolithError("SYSTEM_CALL", `listen at ${path}: another daemon listens there`);
};
