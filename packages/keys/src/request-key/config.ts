import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseLine, type Rule } from "./config-line.ts";

/** Where the rules are. */
export interface ConfigPlaces {
  readonly file: string;
  readonly directory: string;
}

/** Where the rules of a machine are. */
export const systemConfig: ConfigPlaces = {
  file: "/etc/xenolith/request-key.conf",
  directory: "/etc/xenolith/request-key.d",
};

/** A configuration file other than a missing one could not be read. */
export class ConfigUnreadable extends Error {
  override readonly name = "ConfigUnreadable";
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR");

const attempt = <Result>(action: () => Result, missing: Result): Result => {
  try {
    return action();
  } catch (cause) {
    if (isMissing(cause)) return missing;
    throw new ConfigUnreadable(cause instanceof Error ? cause.message : String(cause), { cause });
  }
};

/** The files of a configuration: those of the directory in the order of their names, then the one beside it. */
export const configFiles = ({ file, directory }: ConfigPlaces): string[] => {
  const names = attempt(() => readdirSync(directory, { withFileTypes: true }), [])
    .filter((entry) => !entry.isDirectory() && entry.name.endsWith(".conf") && !entry.name.startsWith("."))
    .map((entry) => path.join(directory, entry.name));
  // By bytes, so that the order is the same in every locale.
  return [...names.toSorted((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other))), file];
};

/** The rules in the text of a file; the last line counts with a newline behind it or without. */
export const parseConfig = (text: string, file: string): Rule[] =>
  text
    .split("\n")
    .map((line, at) => parseLine(line, { file, line: at + 1 }))
    .filter((rule) => rule !== undefined);

/** All rules, in the order in which they are read. Throws `ConfigUnreadable`; what is missing has no rules. */
export const loadConfig = (places: ConfigPlaces): Rule[] =>
  configFiles(places).flatMap((file) =>
    parseConfig(
      attempt(() => readFileSync(file, "latin1"), ""),
      file,
    ),
  );

/** Every malformed line: file, line and reason. */
export const problemsOf = (rules: readonly Rule[]): string[] =>
  rules.filter(({ problem }) => problem !== undefined).map(problemOf);

/** Why a rule is malformed, with its place. */
export const problemOf = ({ file, line, problem }: Rule): string => `${file}:${line}: ${problem ?? "no problem"}`;
