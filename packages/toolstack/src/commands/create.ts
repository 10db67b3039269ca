/**
 * `xl create` and `xl config-update`: what a domain is made from.
 */
import { readFileSync } from "node:fs";
import { XenolithError } from "@xenolith/abi/error";
import type { ClientFlags } from "../client/choose-place.ts";
import { connect } from "../client/connection.ts";
import type { ReadConfig } from "../config/index.ts";
import { formatDefinitions } from "../client/format.ts";
import type { CreateRequest } from "../daemon/api-types.ts";
import { printable } from "../terminal.ts";
import { attach } from "./console.ts";
import { asking, print, printJson, toEach } from "./report.ts";

/** Options of `xl create`. */
export interface CreateFlags extends ClientFlags {
  readonly console?: boolean;
  readonly dryrun?: boolean;
  readonly paused?: boolean;
  readonly quiet?: boolean;
  readonly saved?: string;
}

/** What stands before the words `key=value`: a file, or nothing. */
const COMMAND_LINE = "command line";

/** Reads the configuration that the words of a command name: a file, then `key=value`; or `key=value` alone. */
const readWords = async (words: readonly string[]): Promise<ReadConfig> => {
  const [first, ...rest] = words;
  const { readConfig } = await import("../config/index.ts");
  if (first === undefined || isAssignment(first)) return readConfig("", COMMAND_LINE, words);
  return readConfig(readText(first), first, rest);
};

const isAssignment = (word: string): boolean => /^[\w.-]+\s*=/.test(word);

const readText = (file: string): string => {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("FILE_NOT_FOUND", `cannot read the configuration "${file}": ${reason}`, { cause });
  }
};

/** `xl create`. Fails by itself with CONFIG_INVALID or FILE_NOT_FOUND before the daemon is asked. */
export const createCommand = async (words: readonly string[], flags: CreateFlags): Promise<number> => {
  if (flags.saved !== undefined) return create({ definition: flags.saved }, words, flags);
  const { document, config } = await readWords(words);
  if (flags.dryrun !== true) return create({ config: document }, [], flags);
  printJson(config);
  return 0;
};

const create = (what: CreateRequest, words: readonly string[], flags: CreateFlags): Promise<number> => {
  if (words.length > 0 || (flags.saved !== undefined && flags.dryrun === true)) {
    throw new XenolithError(
      "INVALID_ARGUMENT",
      "--saved takes a name, and neither files, words nor --dryrun beside it",
    );
  }
  return asking(async () => {
    const connection = connect(flags);
    const isFollowed = flags.console === true;
    const domain = await connection.create({ ...what, paused: flags.paused === true || isFollowed });
    if (flags.json === true) printJson(domain);
    else if (flags.quiet !== true) print(printable(`created domain ${domain.domid}, ${domain.name}`));
    if (!isFollowed) return 0;
    const word = String(domain.domid);
    // It runs when somebody listens: one that ends at once would be gone with what it said.
    const begin = async (): Promise<unknown> => (flags.paused === true ? undefined : connection.act(word, "unpause"));
    return attach({ connection, word, begin });
  });
};

/** `xl config-update`: a file replaces all, words alone replace their keys. */
export const configUpdateCommand = async (
  word: string,
  words: readonly string[],
  flags: ClientFlags,
): Promise<number> => {
  const [first] = words;
  if (first === undefined) {
    throw new XenolithError("CONFIG_INVALID", "nothing to change: give a file, key=value, or both");
  }
  const { CONFIG_KEYS, readAssignments } = await import("../config/index.ts");
  const nothing = Object.fromEntries(Object.keys(CONFIG_KEYS).map((key) => [key, null]));
  const keys = isAssignment(first) ? readAssignments(words) : { ...nothing, ...(await readWords(words)).document };
  return asking(async () => {
    const connection = connect(flags);
    const saved = await connection.update((await definitionName(connection, word)) ?? word, { config: keys });
    if (flags.json === true) printJson(saved);
    else print(printable(`${saved.name}: from its next start on`));
  });
};

/** `xl config-list`. */
export const configListCommand = (flags: ClientFlags): Promise<number> =>
  asking(async () => {
    const definitions = await connect(flags).definitions();
    if (flags.json === true) printJson(definitions);
    else print(printable(formatDefinitions(definitions)));
  });

/** `xl config-remove`. */
export const configRemoveCommand = (names: readonly string[], flags: ClientFlags): Promise<number> => {
  const connection = connect(flags);
  return toEach(names, (name) => connection.forget(name), undefined);
};

/** Name of the definition of a domain that runs; undefined when none of this name or domid does. */
const definitionName = async (connection: ReturnType<typeof connect>, word: string): Promise<string | undefined> => {
  try {
    return (await connection.domain(word)).definition;
  } catch (error) {
    if (error instanceof XenolithError && error.code === "DOMAIN_NOT_FOUND") return undefined;
    throw error;
  }
};
