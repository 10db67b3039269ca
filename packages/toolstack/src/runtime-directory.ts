/**
 * Where `xl` and what it talks to meet: sockets in a directory of the user's own.
 */
import { existsSync, lstatSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { XenolithError } from "@xenolith/abi/error";

/** `$XDG_RUNTIME_DIR/xenolith`, or a directory named after the user where there is none. */
export const runtimeDirectory = (): string => {
  const base = process.env["XDG_RUNTIME_DIR"];
  return base === undefined || base === ""
    ? path.join(tmpdir(), `xenolith-${process.getuid!()}`)
    : path.join(base, "xenolith");
};

/** Where xenstore is served unless another path is given. */
export const defaultXenstoreSocket = (): string => path.join(runtimeDirectory(), "xenstore.sock");

/** Where the daemon serves its API unless another path is given. */
export const defaultDaemonSocket = (): string => path.join(runtimeDirectory(), "xl.sock");

/** Where a daemon that the system started serves, see `systemd/xenolith.service`. */
const SYSTEM_DAEMON_SOCKET = "/run/xenolith/xl.sock";

/** Where a client looks for a daemon: for root, at the one that the system started when it has none of its own. */
export const daemonSocketToAsk = (): string => {
  const own = defaultDaemonSocket();
  const isSystem = process.getuid!() === 0 && !existsSync(own) && existsSync(SYSTEM_DAEMON_SOCKET);
  return isSystem ? SYSTEM_DAEMON_SOCKET : own;
};

/**
 * Makes the runtime directory, or checks the one that is there: in a directory where everybody may write, somebody else
 * could have made it first. Fails with CONFIG_INVALID.
 */
export const prepareRuntimeDirectory = (): string => {
  const directory = runtimeDirectory();
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const status = lstatSync(directory);
  if (!status.isDirectory() || status.uid !== process.getuid!() || (status.mode & 0o022) !== 0) {
    throw new XenolithError("CONFIG_INVALID", `${directory} is not a directory that this user alone may write to`);
  }
  return directory;
};
