import { spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { constants as system } from "node:os";
import path from "node:path";
import { bytesOf, type Context, mustCall, type Run } from "./context.ts";
import { errorText } from "../error-text.ts";
import { EXIT_REFUSED, Refusal } from "./refusal.ts";

const DEFAULT_SHELL = "/bin/sh";
const DEFAULT_PATH = "/bin:/usr/bin";
/** What a terminal sends to every process in front; the program decides for itself. */
const TERMINAL_SIGNALS = ["SIGINT", "SIGQUIT", "SIGTSTP"] as const;
const PASSED_SIGNALS = ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;
const EXIT_SIGNALLED = 128;

const { errno: numbers } = system;

/** Where execvp(3) would find a program; otherwise the error number with which it fails. */
export const findProgram = (name: string, searchPath: string | undefined): string | number => {
  const names = name.includes("/")
    ? [name]
    : (searchPath ?? DEFAULT_PATH).split(":").map((directory) => path.join(directory === "" ? "." : directory, name));
  let failure: number = numbers.ENOENT;
  for (const each of names) {
    try {
      accessSync(each, constants.X_OK);
      if (statSync(each).isFile()) return each;
      failure = numbers.EACCES;
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "EACCES") failure = numbers.EACCES;
      else if (code === "ENOTDIR" && name.includes("/")) failure = numbers.ENOTDIR;
    }
  }
  return failure;
};

/** process.execve of newer Nodes. */
type Execve = (file: string, args: readonly string[], environment: NodeJS.ProcessEnv) => never;

const execve = (): Execve | undefined => {
  if (!("execve" in process) || typeof process.execve !== "function") return undefined;
  // It tells, through an event that nobody will be there to get, that it may still change.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return process.execve as Execve;
};

/**
 * Becomes another program. Where Node cannot, the program is a child, which has the session keyring from its parent; this
 * process then stands in for it: signals go there, and its exit code comes from there.
 */
const become = async ({ environment }: Context, words: readonly string[]): Promise<number> => {
  const [program = ""] = words;
  const file = findProgram(program, environment["PATH"]);
  if (typeof file === "number") throw new Refusal(EXIT_REFUSED, `${program}: ${errorText(file)}`);
  const args = words.map((word) => Buffer.from(word, "latin1").toString("utf8"));
  execve()?.(file, args, environment);
  const child = spawn(file, args.slice(1), { argv0: args[0], stdio: "inherit", env: environment });
  for (const signal of TERMINAL_SIGNALS) process.on(signal, () => {});
  for (const signal of PASSED_SIGNALS) process.on(signal, () => child.kill(signal));
  return await new Promise((resolve, reject) => {
    child.on("error", (cause) => reject(new Refusal(EXIT_REFUSED, `${program}: ${cause.message}`)));
    child.on("exit", (code, signal) =>
      resolve(code ?? EXIT_SIGNALLED + (signal === null ? 0 : system.signals[signal])),
    );
  });
};

/** `session`, `session - [program …]`, `session name [program …]` */
export const session: Run = async (context, words) => {
  const [name, ...program] = words;
  const joined = name === undefined || name === "-" ? null : bytesOf(name);
  const serial = await mustCall(context, "keyctl_join_session_keyring", "joinSession", [joined]);
  context.terminal.error(`Joined session keyring: ${serial}\n`);
  await (await context.connect()).close();
  return await become(context, program.length > 0 ? program : [context.environment["SHELL"] ?? DEFAULT_SHELL]);
};
