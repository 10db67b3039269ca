/**
 * Which daemon is meant: by the options of the command, by the environment, or the one of this user.
 */
import { readFileSync } from "node:fs";
import { XenolithError } from "@xenolith/abi/error";
import { daemonSocketToAsk } from "../runtime-directory.ts";
import { atSocket, atUrl, type DaemonPlace } from "./place.ts";

/** Options that every command has which asks the daemon. */
export interface ClientFlags {
  readonly socket?: string;
  readonly connect?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
  readonly json?: boolean;
}

/** Variables that stand for `--connect`, `--token-file` and `--ca-file`. */
export const CONNECT_VARIABLE = "XENOLITH_CONNECT";
export const TOKEN_FILE_VARIABLE = "XENOLITH_TOKEN_FILE";
export const CA_FILE_VARIABLE = "XENOLITH_CA_FILE";

/** Whether the words or the environment name a daemon: then it matters whether there is one. */
export const isDaemonNamed = ({ socket, connect }: ClientFlags): boolean =>
  socket !== undefined || (connect ?? variable(CONNECT_VARIABLE)) !== undefined;

/**
 * The daemon that is meant. An option counts more than the environment, and `--socket` more than XENOLITH_CONNECT.
 *
 * @throws XenolithError `CONFIG_INVALID`, `FILE_NOT_FOUND`.
 */
export const choosePlace = (flags: ClientFlags): DaemonPlace => {
  const { socket, connect } = flags;
  if (socket !== undefined && connect !== undefined)
    throw new XenolithError("CONFIG_INVALID", "--socket and --connect are two daemons: name one");
  if (socket !== undefined) return atSocket(socket);
  const url = connect ?? variable(CONNECT_VARIABLE);
  if (url !== undefined) return securePlace(url, flags);
  if (flags.tokenFile !== undefined || flags.caFile !== undefined)
    throw new XenolithError(
      "CONFIG_INVALID",
      "--token-file and --ca-file are for --connect https://HOST:PORT, which is missing",
    );
  return atSocket(daemonSocketToAsk());
};

const securePlace = (text: string, { tokenFile, caFile }: ClientFlags): DaemonPlace => {
  const url = parseUrl(text);
  const tokenPath = tokenFile ?? variable(TOKEN_FILE_VARIABLE);
  if (tokenPath === undefined)
    throw new XenolithError("CONFIG_INVALID", `${url.origin} wants a token: name its file with --token-file FILE`);
  const caPath = caFile ?? variable(CA_FILE_VARIABLE);
  const authorities = caPath === undefined ? undefined : readText(caPath, "certificate of the authority");
  if (authorities !== undefined && !authorities.includes("-----BEGIN CERTIFICATE-----"))
    throw new XenolithError("CONFIG_INVALID", `"${caPath}" has no certificate in PEM`);
  return atUrl({ url, token: readToken(tokenPath), authorities });
};

const parseUrl = (text: string): URL => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain = url !== undefined && url.protocol === "https:" && url.href === `${url.origin}/`;
  if (isPlain) return url;
  throw new XenolithError(
    "CONFIG_INVALID",
    `"${text}" is not https://HOST:PORT; there is no TCP without TLS and a token`,
  );
};

/** One line that a header can carry. */
const readToken = (file: string): string => {
  const token = readText(file, "token").trim();
  if (/^[\x20-\x7e]+$/.test(token)) return token;
  throw new XenolithError(
    "CONFIG_INVALID",
    `the token file "${file}" must have one line of printable ASCII characters`,
  );
};

const readText = (file: string, what: string): string => {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("FILE_NOT_FOUND", `cannot read the ${what} "${file}": ${reason}`, { cause });
  }
};

/** What is empty counts as not set, as with other programs. */
const variable = (name: string): string | undefined => {
  const value = process.env[name];
  return value === "" ? undefined : value;
};
