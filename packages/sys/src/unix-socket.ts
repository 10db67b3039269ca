/**
 * Listening at a path for those alone who may connect. An entry of its own (`@xenolith/sys/unix-socket`): it needs no
 * FFI, so that a daemon which starts for a moment does not load one.
 */
import { XenolithError } from "@xenolith/abi/error";
import { once } from "node:events";
import { chmod, lstat, mkdtemp, rename, rm, unlink } from "node:fs/promises";
import { createConnection, type Server } from "node:net";
import { dirname, join } from "node:path";

/** Longest path of a socket. Source: unix(7), sun_path without its NUL. */
const PATH_BYTES_MAX = 107;

/**
 * Listens at a path that everybody may connect to whom `mode` (of the file, as chmod(2) takes it) allows, and nobody else
 * at any moment. What a daemon that is gone left at the path is replaced. The
 * result removes the socket again, unless another one stands there by then; it does not close the server.
 *
 * @throws XenolithError `SERVICE_RUNNING`: another daemon listens there; `SYSTEM_CALL`: something else is in the way, or
 * the path is too long, the directory is not there or cannot be written. The server is closed then.
 */
export const listenAtPath = async (server: Server, path: string, mode: number): Promise<() => Promise<void>> => {
  try {
    checkLength(path);
    await checkFree(path);
    await bindHidden(server, path, mode);
    const { ino } = await lstat(path);
    return async () => {
      const left = await lstat(path).catch(() => undefined);
      if (left?.ino === ino) await unlink(path).catch(() => {});
    };
  } catch (cause) {
    server.close();
    if (cause instanceof XenolithError) throw cause;
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("SYSTEM_CALL", `listen at ${path}: ${text}`, { cause });
  }
};

/** The kernel would take the beginning of a longer one: it is bound by a shorter name, and nobody could connect. */
const checkLength = (path: string): void => {
  const length = Buffer.byteLength(path);
  if (length <= PATH_BYTES_MAX) return;
  throw new Error(`the path has ${length} bytes, that of a socket has at most ${PATH_BYTES_MAX}`);
};

/** In a directory of its own until the mode is set, so that nobody else can connect in between. */
const bindHidden = async (server: Server, path: string, mode: number): Promise<void> => {
  const directory = await mkdtemp(join(dirname(path), ".xl"));
  try {
    const hidden = join(directory, "s");
    server.listen(hidden);
    await once(server, "listening");
    await chmod(hidden, mode);
    await rename(hidden, path);
  } finally {
    await rm(directory, { recursive: true, force: true });
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
  throw new XenolithError("SERVICE_RUNNING", `listen at ${path}: another daemon listens there`);
};
