/**
 * `xl daemon`: the service, in the foreground, until a signal ends it.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { XenolithError } from "@xenolith/abi/error";
import type { HostOptions } from "@xenolith/host";
import type { TcpOptions } from "./daemon/http-server.ts";
import { runService } from "./daemon/run-service.ts";
import type { LogLevel } from "./daemon/service-log.ts";
import { type KeyFlags, keyPlan } from "./key-options.ts";
import { parseSize } from "./quantity.ts";
import { defaultDaemonSocket } from "./runtime-directory.ts";
import { type SecretFlags, secretPlan } from "./secret-options.ts";
import { complain } from "./terminal.ts";

/** Options of `xl daemon`. */
export interface DaemonFlags extends KeyFlags, SecretFlags {
  readonly socket?: string;
  readonly state?: string;
  readonly memory?: string;
  readonly policy?: string;
  readonly xenstoreSocket?: string;
  readonly listen?: string;
  readonly tlsCertificate?: string;
  readonly tlsKey?: string;
  readonly tokenFile?: string;
  readonly logLevel?: string;
}

const LOG_LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error", "silent"];
const MACHINE_BYTES_MAX = 2 ** 40;
const NO_XENSTORE = "none";

/** Runs `xl daemon`. */
export const daemonCommand = async (flags: DaemonFlags): Promise<number> => {
  const tcp = tcpOf(flags);
  const options = {
    ...(flags.socket === undefined ? {} : { socketPath: flags.socket }),
    ...(flags.state === undefined ? {} : { stateDirectory: flags.state }),
    ...(tcp === undefined ? {} : { tcp }),
    ...(flags.logLevel === undefined ? {} : { logLevel: logLevelOf(flags.logLevel) }),
    host: hostOptionsOf(flags),
  };
  await runService(options, (places) => complain(`the daemon answers at ${places.join(", ")}`));
  return 0;
};

const hostOptionsOf = ({ memory, policy, socket, xenstoreSocket, ...flags }: DaemonFlags): HostOptions => {
  const beside = path.join(path.dirname(socket ?? defaultDaemonSocket()), "xenstore.sock");
  return {
    ...(memory === undefined ? {} : { memoryBytes: parseSize(memory, MACHINE_BYTES_MAX) }),
    ...(policy === undefined ? {} : { policy: parsePolicy(policy) }),
    ...keyPlan(flags),
    ...secretPlan(flags),
    ...(xenstoreSocket === NO_XENSTORE ? {} : { xenstoreSocket: xenstoreSocket ?? beside }),
  };
};

const parsePolicy = (file: string): NonNullable<HostOptions["policy"]> => {
  try {
    return JSON.parse(readText(file, "policy"));
  } catch (cause) {
    if (cause instanceof XenolithError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("CONFIG_INVALID", `the policy "${file}" is not JSON: ${reason}`, { cause });
  }
};

const readText = (file: string, what: string): string => {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("FILE_NOT_FOUND", `cannot read the ${what} "${file}": ${reason}`, { cause });
  }
};

const tcpOf = ({ listen, tlsCertificate, tlsKey, tokenFile }: DaemonFlags): TcpOptions | undefined => {
  const others = { "--tls-certificate": tlsCertificate, "--tls-key": tlsKey, "--token-file": tokenFile };
  const given = Object.values(others).filter((each) => each !== undefined);
  if (listen === undefined && given.length === 0) return undefined;
  const missing = Object.entries({ "--listen": listen, ...others }).filter(([, each]) => each === undefined);
  if (listen === undefined || tlsCertificate === undefined || tlsKey === undefined || tokenFile === undefined) {
    const names = missing.map(([name]) => name).join(", ");
    throw new XenolithError("CONFIG_INVALID", `there is no TCP without TLS and a token: ${names} is missing`);
  }
  return {
    ...placeOf(listen),
    certificate: readText(tlsCertificate, "certificate"),
    privateKey: readText(tlsKey, "private key"),
    token: readText(tokenFile, "token").trim(),
  };
};

const PORT_MAX = 65_535;

/** `ADDRESS:PORT`, an IPv6 address in brackets. */
const placeOf = (text: string): { readonly address: string; readonly port: number } => {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > PORT_MAX) {
    throw new XenolithError("CONFIG_INVALID", `"${text}" is not ADDRESS:PORT with a port of at most ${PORT_MAX}`);
  }
  return { address: match[1] ?? match[2]!, port };
};

const logLevelOf = (text: string): LogLevel => {
  const level = LOG_LEVELS.find((each) => each === text);
  if (level !== undefined) return level;
  throw new XenolithError("CONFIG_INVALID", `log level is "${text}", it must be one of ${LOG_LEVELS.join(", ")}`);
};
