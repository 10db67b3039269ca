import { parseNumber } from "../command/operands.ts";
import type { KeyRequest } from "./act.ts";
import { type ConfigPlaces, systemConfig } from "./config.ts";
import type { WildcardForm } from "./select.ts";

/** What `xrequest-key` was told. Texts are byte strings. */
export interface RequestKeyOptions {
  readonly action: "build" | "check" | "version" | "help";
  readonly config: ConfigPlaces;
  readonly wildcards: WildcardForm;
  /** The description that is tried out instead of a key's; then nothing is run. */
  readonly sample: string | undefined;
  readonly isSilent: boolean;
  /** 1: what was chosen; 2: also every rule that was looked at. */
  readonly verbosity: number;
  readonly request: KeyRequest | undefined;
}

const SAMPLE = "user;0;0;1f0000;debug:1234";
const LOCAL: ConfigPlaces = { file: "./request-key.conf", directory: "./request-key.d" };
const ARGUMENTS_MIN = 7;

/** What `xrequest-key --help` prints. */
export const requestKeyHelp = `Usage: xrequest-key [-d] [-D desc] [-l] [-n] [-v]… op key uid gid tring pring sring [info]

Has a key built as the rules of request-key.conf(5) say. The key daemon does the same by itself; this program is for
daemons that are told to call it (xkeyd --request-key), and for trying out rules.

  -d                    try out: no key is looked at and nothing is run
  -D DESC               the description to try out with (default: ${SAMPLE})
  -l                    rules of the current directory: ./request-key.d/*.conf, ./request-key.conf
  -n                    say nothing about errors
  -v                    say what is chosen; twice: what is compared
  --config FILE         rules (default: ${systemConfig.file}); --config-dir DIR for more of them
  --check               only check the rules: every malformed line is told with file, line and reason
  --keyutils-wildcards  a '*' in the middle of a pattern matches as keyutils 1.6.3 does it: hardly ever

Exit code: that of the program that was run; 1 on an error, or when no rule matches.
`;

/** A command line that cannot be understood. */
export class OptionError extends Error {
  override readonly name = "OptionError";
}

/** Understands the command line. Throws `OptionError`. */
export const parseRequestKeyOptions = (all: readonly string[]): RequestKeyOptions => {
  const words = [...all];
  let action: RequestKeyOptions["action"] = "build";
  let config: Partial<ConfigPlaces> = {};
  let wildcards: WildcardForm = "documented";
  let sample: string | undefined;
  let isSilent = false;
  let verbosity = 0;
  const value = (option: string): string => {
    const next = words.shift();
    if (next === undefined) throw new OptionError(`${option}: its value is missing`);
    return next;
  };
  const handlers: Readonly<Record<string, () => void>> = {
    "--help": () => (action = "help"),
    "--version": () => (action = "version"),
    "--check": () => (action = "check"),
    "--config": () => (config = { ...config, file: value("--config") }),
    "--config-dir": () => (config = { ...config, directory: value("--config-dir") }),
    "--keyutils-wildcards": () => (wildcards = "keyutils-1.6.3"),
    "-d": () => (sample ??= SAMPLE),
    "-D": () => (sample = value("-D")),
    "-l": () => (config = LOCAL),
    "-n": () => (isSilent = true),
    "-v": () => (verbosity += 1),
    "-vv": () => (verbosity += 2),
  };
  while (words[0]?.startsWith("-") === true) {
    const option = words.shift()!;
    if (!Object.hasOwn(handlers, option)) throw new OptionError(`${option}: no such option`);
    handlers[option]!();
  }
  const file = config.file ?? systemConfig.file;
  const directory = config.directory ?? `${file.replace(/\.conf$/, "")}.d`;
  const request = action === "build" ? requestOf(words) : undefined;
  return { action, config: { file, directory }, wildcards, sample, isSilent, verbosity, request };
};

const requestOf = (words: readonly string[]): KeyRequest => {
  if (words.length !== ARGUMENTS_MIN && words.length !== ARGUMENTS_MIN + 1) {
    throw new OptionError(`Unexpected argument count: ${words.length}, not ${ARGUMENTS_MIN} or ${ARGUMENTS_MIN + 1}`);
  }
  const [operation = "", id = "", uid = "", gid = "", threadRing = "", processRing = "", sessionRing = "", callout] =
    words;
  const key = parseNumber(id, 10);
  if (key === undefined) throw new OptionError(`key ${id}: not a number`);
  return { operation, key, uid, gid, threadRing, processRing, sessionRing, callout };
};
