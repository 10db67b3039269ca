/**
 * `xkeyctl`, and `keyctl` where a symbolic link of that name points to it: keyctl(1) 1.6.3 for the key daemon. Its own
 * are the options --json and --socket, before the command, and the commands --keys and --key-users.
 */
import { setTimeout as delay } from "node:timers/promises";
import { KeyConnection } from "../client/connection.ts";
import { defaultKeySocket } from "../client/socket-path.ts";
import { additions, commands, usage } from "./commands.ts";
import type { Context } from "./context.ts";
import { EXIT_REFUSED, EXIT_USAGE, Refusal, UsageError } from "./refusal.ts";
import { byteArguments, ownTerminal, type Terminal } from "./terminal.ts";

interface CommandLine {
  readonly json: boolean;
  readonly socket: string | undefined;
  readonly words: readonly string[];
}

/** Takes the options that keyctl does not have off the front. */
export const parseOptions = (all: readonly string[]): CommandLine => {
  let json = false;
  let socket: string | undefined;
  let at = 0;
  for (; at < all.length; at += 1) {
    const word = all[at]!;
    if (word === "--json") json = true;
    else if (word.startsWith("--socket=")) socket = word.slice("--socket=".length);
    else if (word === "--socket" && at + 1 < all.length) {
      at += 1;
      socket = all[at];
    } else break;
  }
  return { json, socket, words: all.slice(at) };
};

const complain = ({ terminal, json }: Context, error: unknown, command: string | undefined): number => {
  if (error instanceof UsageError) {
    terminal.error(usage(command));
    return EXIT_USAGE;
  }
  const text = error instanceof Error ? error.message : String(error);
  if (!json) terminal.error(`${text}\n`);
  else if (error instanceof Refusal) {
    terminal.error(`${JSON.stringify({ error: text, call: error.call, errno: error.errno })}\n`);
  } else terminal.error(`${JSON.stringify({ error: text })}\n`);
  return error instanceof Refusal ? error.exitCode : EXIT_REFUSED;
};

/** How long a daemon is waited for that is not there: whoever starts one in the background asks it something at once. */
const PATIENCE_MS = 2000;
const AGAIN_MS = 20;
const NOT_YET: readonly unknown[] = ["ENOENT", "ECONNREFUSED"];

const isNotYet = (error: unknown): boolean =>
  error instanceof Error && error.cause instanceof Error && "code" in error.cause && NOT_YET.includes(error.cause.code);

const connectPatiently = async (socket: () => string): Promise<KeyConnection> => {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await KeyConnection.connect(socket());
    } catch (error) {
      if (!isNotYet(error) || performance.now() > end) throw error;
    }
    await delay(AGAIN_MS);
  }
};

/** Runs a command line of byte strings; returns the exit code. Never throws. */
export const main = async (
  all: readonly string[],
  terminal: Terminal = ownTerminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<number> => {
  const { json, socket, words } = parseOptions(all);
  const [name, ...rest] = words;
  let connection: Promise<KeyConnection> | undefined;
  const context: Context = {
    terminal,
    environment,
    json,
    connect: () => (connection ??= connectPatiently(() => socket ?? defaultKeySocket(environment))),
  };
  try {
    if (name === undefined) throw new UsageError("no command");
    const command = [...commands, ...additions].find(([known]) => known === name);
    if (command === undefined) throw new Refusal(EXIT_USAGE, "Unknown command");
    return await command[1](context, rest);
  } catch (error) {
    return complain(context, error, name);
  } finally {
    await connection?.then((open) => open.close()).catch(() => {});
  }
};

/** Runs this process's own command line. */
export const runProgram = async (): Promise<void> => {
  process.exitCode = await main(byteArguments(process.argv.slice(2)));
};
