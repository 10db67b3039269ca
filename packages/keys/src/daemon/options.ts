import { XenolithError } from "@xenolith/abi/error";
import { parseArgs } from "node:util";
import { SOCKET_VARIABLE, socketOf, SYSTEM_SOCKET } from "../client/socket-path.ts";
import type { KeyLimits } from "../limits.ts";
import { type ConfigPlaces, systemConfig } from "../request-key/config.ts";
import { limitNames } from "./calls.ts";
import { isLogLevel, type LogLevel } from "./log.ts";
import { isPayloadPolicy, type PayloadOptions } from "./payload-memory.ts";

/** How the daemon is run. */
export interface DaemonOptions {
  readonly socket: string;
  readonly socketMode: number;
  readonly config: ConfigPlaces;
  readonly requestKey: readonly string[] | undefined;
  readonly helperPath: readonly string[];
  readonly upcallTimeoutMs: number;
  readonly errorPriority: "documented" | "linux-6";
  readonly limits: Partial<KeyLimits>;
  readonly payloads: PayloadOptions;
  readonly persistent: string | undefined;
  readonly persistentKey: string | undefined;
  readonly metrics: string | undefined;
  readonly logLevel: LogLevel;
  readonly logDescriptions: boolean;
}

/** Room for a million small keys and more; taken as it is needed. */
const PAYLOAD_MEMORY = "256M";

/** What `xkeyd --help` prints. */
export const daemonHelp = `Usage: xkeyd [options]

Keeps keys for the programs of this machine, or of one user, and has those built that are asked for.

  --socket PATH           where it listens (default: $${SOCKET_VARIABLE}, ${SYSTEM_SOCKET} for root, else
                          $XDG_RUNTIME_DIR/xenolith/keys.sock or /tmp/xenolith-UID/keys.sock);
                          a socket handed over by systemd comes first
  --socket-mode MODE      who may connect, in octal (default: 666 for root, else 600)
  --config FILE           rules for building keys, as request-key.conf(5) (default: ${systemConfig.file})
  --config-dir DIR        more of them, *.conf in the order of their names (default: FILE without .conf, with .d)
  --request-key PROGRAM   call this program for every key, as the kernel does, instead of following the rules itself
  --helper-path DIR       put this directory in front of the PATH of helpers; repeatable
  --upcall-timeout SECS   give up a helper after this time (default: 0, never)
  --error-priority WHICH  documented (default) or linux-6: which of several errors a search answers with
  --limit NAME=VALUE      a limit of /proc/sys/kernel/keys; repeatable
  --payloads HOW          degraded (default): in secret memory (memfd_secret), or where the kernel has none in locked
                          memory, which is said; strict: in secret memory or not at all; off: in ordinary memory
  --payload-memory SIZE   for all payloads, such as 64M (default: 256M, less where RLIMIT_MEMLOCK says so)
  --payload-quota SIZE    for those of each user but root (default: a quarter of that,
                          all of it for the user whose daemon it is)
  --persistent FILE       keep persistent keyrings there, encrypted, across restarts
  --persistent-key FILE   32 bytes, or 64 hexadecimal digits, that encrypt it
                          (default: the systemd credential xkeyd.persistent)
  --metrics PLACE         serve metrics for Prometheus over HTTP at a path, or at ADDRESS:PORT
  --log-level LEVEL       error, warning, info (default) or debug
  --log-descriptions      let descriptions of keys, and what helpers say, into the log
  --help, --version

Exit code: 0 after SIGTERM or SIGINT; 1 it could not start; 2 a wrong option.
`;

const fail = (message: string): never => {
  throw new XenolithError("CONFIG_INVALID", message);
};

const limitFrom = (text: string): readonly [keyof KeyLimits, number] => {
  const [name = "", value = ""] = text.split("=");
  const limit = Object.hasOwn(limitNames, name) ? limitNames[name] : undefined;
  if (limit === undefined || !/^\d+$/.test(value))
    return fail(`--limit ${text}: not one of ${Object.keys(limitNames).join(", ")} and a number`);
  return [limit, Number(value)];
};

const secondsFrom = (text: string): number => {
  const seconds = Number(text);
  return text !== "" && seconds >= 0 && seconds <= 2 ** 31 / 1000
    ? seconds
    : fail(`--upcall-timeout ${text}: not 0 to 2147483 seconds`);
};

const modeFrom = (text: string): number =>
  /^[0-7]{3,4}$/.test(text) ? Number.parseInt(text, 8) : fail(`--socket-mode ${text}: not an octal mode`);

const SIZES: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

const sizeFrom = (option: string, text: string): number => {
  const [, digits = "", unit = ""] = /^(\d{1,12})([KMG]?)$/.exec(text) ?? [];
  return digits === ""
    ? fail(`${option} ${text}: not a size such as 65536, 512K or 64M`)
    : Number(digits) * SIZES[unit]!;
};

const payloadsFrom = (values: {
  readonly payloads?: string;
  readonly "payload-memory"?: string;
  readonly "payload-quota"?: string;
}): PayloadOptions => {
  const { payloads: policy = "degraded", "payload-memory": memory = PAYLOAD_MEMORY, "payload-quota": quota } = values;
  return {
    policy: isPayloadPolicy(policy) ? policy : fail(`--payloads ${policy}: not strict, degraded or off`),
    bytesMax: sizeFrom("--payload-memory", memory),
    userBytesMax: quota === undefined ? undefined : sizeFrom("--payload-quota", quota),
  };
};

const names = {
  socket: { type: "string" },
  "socket-mode": { type: "string" },
  config: { type: "string" },
  "config-dir": { type: "string" },
  "request-key": { type: "string" },
  "helper-path": { type: "string", multiple: true },
  "upcall-timeout": { type: "string" },
  "error-priority": { type: "string" },
  limit: { type: "string", multiple: true },
  payloads: { type: "string" },
  "payload-memory": { type: "string" },
  "payload-quota": { type: "string" },
  persistent: { type: "string" },
  "persistent-key": { type: "string" },
  metrics: { type: "string" },
  "log-level": { type: "string" },
  "log-descriptions": { type: "boolean" },
  help: { type: "boolean" },
  version: { type: "boolean" },
} as const;

const parse = (words: readonly string[]) => {
  try {
    return parseArgs({ args: [...words], options: names, allowPositionals: false }).values;
  } catch (cause) {
    return fail(cause instanceof Error ? cause.message : String(cause));
  }
};

/** Understands the daemon's options; "help" and "version" when those were asked for. Throws `CONFIG_INVALID`. */
export const parseDaemonOptions = (
  words: readonly string[],
  environment: NodeJS.ProcessEnv,
  uid: number,
): DaemonOptions | "help" | "version" => {
  const values = parse(words);
  if (values.help === true) return "help";
  if (values.version === true) return "version";
  const file = values.config ?? systemConfig.file;
  const level = values["log-level"] ?? "info";
  const priority = values["error-priority"] ?? "documented";
  return {
    socket: values.socket ?? environment[SOCKET_VARIABLE] ?? socketOf(uid, environment),
    socketMode: modeFrom(values["socket-mode"] ?? (uid === 0 ? "666" : "600")),
    config: { file, directory: values["config-dir"] ?? `${file.replace(/\.conf$/, "")}.d` },
    requestKey: values["request-key"]?.split(" "),
    helperPath: values["helper-path"] ?? [],
    upcallTimeoutMs: secondsFrom(values["upcall-timeout"] ?? "0") * 1000,
    errorPriority:
      priority === "documented" || priority === "linux-6" ? priority : fail(`--error-priority ${priority}: unknown`),
    limits: Object.fromEntries((values.limit ?? []).map(limitFrom)),
    payloads: payloadsFrom(values),
    persistent: values.persistent,
    persistentKey: values["persistent-key"] ?? credentialFile(environment),
    metrics: values.metrics,
    logLevel: isLogLevel(level) ? level : fail(`--log-level ${level}: not error, warning, info or debug`),
    logDescriptions: values["log-descriptions"] === true,
  };
};

/** Where systemd puts the credential that the unit loads. Source: systemd.exec(5), LoadCredential. */
const credentialFile = (environment: NodeJS.ProcessEnv): string | undefined => {
  const directory = environment["CREDENTIALS_DIRECTORY"];
  return directory === undefined ? undefined : `${directory}/xkeyd.persistent`;
};
