/** `xrequest-key`: request-key(8) for the key daemon. */
import { KeyConnection } from "../client/connection.ts";
import { defaultKeySocket } from "../client/socket-path.ts";
import { byteArguments, ownTerminal, type Terminal } from "../command/terminal.ts";
import { actOn, ruleFor, valuesOf } from "./act.ts";
import { loadConfig, problemsOf } from "./config.ts";
import type { Rule } from "./config-line.ts";
import { parseRequestKeyOptions, requestKeyHelp, type RequestKeyOptions } from "./options.ts";
import { ChildPrograms } from "./programs.ts";
import { remoteKeys } from "./remote-keys.ts";

const VERSION = "request-key from keyutils-1.6.3 (Built 2022-12-18)\n";
const EXIT_FAILED = 1;

/** Where it says what: to standard error, which the daemon can be told to log. */
interface Voice {
  readonly terminal: Terminal;
  readonly environment: NodeJS.ProcessEnv;
  readonly trace: (text: string) => void;
}

/** Shows what would be run, and runs nothing. */
const tryOut = (options: RequestKeyOptions, rules: readonly Rule[], { terminal, trace }: Voice): number => {
  const request = options.request!;
  const values = valuesOf(request, options.sample!, request.callout ?? "");
  const { file, line, command } = ruleFor(values, { rules, wildcards: options.wildcards, trace });
  terminal.out(`${file}:${line}: ${command!.isPipe ? "|" : ""}${command!.program}\n-- exec disabled --\n`);
  return 0;
};

const build = async (options: RequestKeyOptions, rules: readonly Rule[], voice: Voice): Promise<number> => {
  await using connection = await KeyConnection.connect(defaultKeySocket(voice.environment));
  const onError = (line: string): void => {
    if (!options.isSilent) voice.terminal.error(`Child: ${line}\n`);
  };
  const programs = new ChildPrograms({ environment: voice.environment, onError });
  const { wildcards } = options;
  return await actOn(options.request!, {
    rules,
    wildcards,
    keys: remoteKeys(connection),
    programs,
    trace: voice.trace,
  });
};

const act = async (options: RequestKeyOptions, voice: Voice): Promise<number> => {
  const { terminal } = voice;
  if (options.action === "help" || options.action === "version") {
    terminal.out(options.action === "help" ? requestKeyHelp : VERSION);
    return 0;
  }
  const rules = loadConfig(options.config);
  if (options.action === "check") {
    const problems = problemsOf(rules);
    for (const problem of problems) terminal.error(`${problem}\n`);
    return problems.length === 0 ? 0 : EXIT_FAILED;
  }
  if (options.verbosity > 1)
    for (const { file, line, patterns } of rules) voice.trace(`${file}:${line}: ${patterns.join(" ")}`);
  return options.sample === undefined ? await build(options, rules, voice) : tryOut(options, rules, voice);
};

/** Runs a command line of byte strings; returns the exit code. Never throws. */
export const main = async (
  words: readonly string[],
  terminal: Terminal = ownTerminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<number> => {
  let options: RequestKeyOptions | undefined;
  try {
    options = parseRequestKeyOptions(words);
    const { verbosity } = options;
    const trace = (text: string): void => {
      if (verbosity > 0) terminal.error(`${text}\n`);
    };
    return await act(options, { terminal, environment, trace });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    if (options?.isSilent !== true) terminal.error(`xrequest-key: ${text}\n`);
    return EXIT_FAILED;
  }
};

/** Runs this process's own command line. */
export const runProgram = async (): Promise<void> => {
  process.exitCode = await main(byteArguments(process.argv.slice(2)));
};
