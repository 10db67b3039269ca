import { XenolithError } from "@xenolith/abi/error";
import { existsSync, lstatSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

/** The variable that names the daemon's socket. */
export const SOCKET_VARIABLE = "XKEYD_SOCKET";
/** Where a daemon that serves the whole machine listens. */
export const SYSTEM_SOCKET = "/run/xenolith-keys/keys.sock";

/** The directory of a user who has no runtime directory: anybody could have made it first. */
const temporaryDirectory = (uid: number): string => path.join(tmpdir(), `xenolith-${uid}`);

/**
 * Where a daemon listens that this user starts: for user 0 where it serves the whole machine, otherwise in the user's runtime
 * directory or, where there is none, in one of the user's own among the temporary files.
 */
export const socketOf = (uid: number, environment: NodeJS.ProcessEnv): string => {
  if (uid === 0) return SYSTEM_SOCKET;
  const base = environment["XDG_RUNTIME_DIR"];
  const directory = base === undefined || base === "" ? temporaryDirectory(uid) : path.join(base, "xenolith");
  return path.join(directory, "keys.sock");
};

/** Throws `CONFIG_INVALID` unless only this user can put something into a directory that anybody could have made. */
const checkOwner = (directory: string, uid: number): void => {
  const status = lstatSync(directory);
  if (status.isDirectory() && status.uid === uid && (status.mode & 0o022) === 0) return;
  throw new XenolithError("CONFIG_INVALID", `${directory} is not a directory that this user alone may write to`);
};

/** Makes the directory of a socket if it is the one that stands in for a runtime directory. `CONFIG_INVALID`. */
export const prepareDirectory = (socket: string, uid: number = process.getuid!()): void => {
  const directory = temporaryDirectory(uid);
  if (path.dirname(socket) !== directory) return;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  checkOwner(directory, uid);
};

/**
 * Where the daemon is looked for unless a path is given: `$XKEYD_SOCKET`, then the machine's, then the user's own.
 * `CONFIG_INVALID` where somebody else could have put that.
 */
export const defaultKeySocket = (
  environment: NodeJS.ProcessEnv = process.env,
  uid: number = process.getuid!(),
): string => {
  const named = environment[SOCKET_VARIABLE];
  if (named !== undefined && named !== "") return named;
  if (existsSync(SYSTEM_SOCKET)) return SYSTEM_SOCKET;
  const own = socketOf(uid, environment);
  const directory = path.dirname(own);
  if (directory !== temporaryDirectory(uid)) return own;
  // A directory that is not there yet could be anybody's by the time of the connection.
  if (!existsSync(directory)) return SYSTEM_SOCKET;
  checkOwner(directory, uid);
  return own;
};
