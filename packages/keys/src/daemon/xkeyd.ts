/** `xkeyd`: the key daemon. */
import { writeSync } from "node:fs";
import { startDaemon } from "./daemon.ts";
import { daemonHelp, parseDaemonOptions } from "./options.ts";
import { loadPeerCredentials } from "./peer-credentials.ts";
import { loadQuickLaunch } from "./quick-launch.ts";

const VERSION = "0.1.0";
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const STDOUT = 1;
const STDERR = 2;
const UMASK = 0o022;

const complain = (error: unknown, exitCode: number): number => {
  writeSync(STDERR, `xkeyd: ${error instanceof Error ? error.message : String(error)}\n`);
  return exitCode;
};

const ended = (): Promise<void> =>
  new Promise((resolve) => {
    process.once("SIGTERM", () => resolve());
    process.once("SIGINT", () => resolve());
  });

/** Runs the daemon until it is told to end; returns the exit code. Never throws. */
export const main = async (words: readonly string[]): Promise<number> => {
  let options;
  try {
    options = parseDaemonOptions(words, process.env, process.getuid!());
  } catch (error) {
    return complain(error, EXIT_USAGE);
  }
  if (typeof options === "string") {
    writeSync(STDOUT, options === "help" ? daemonHelp : `xkeyd ${VERSION}\n`);
    return 0;
  }
  process.umask(UMASK);
  const end = ended();
  try {
    const peerCredentials = await loadPeerCredentials();
    const write = (line: string): void => void writeSync(STDERR, line);
    const launch = await loadQuickLaunch();
    const daemon = await startDaemon(options, { environment: process.env, peerCredentials, launch, write });
    await end;
    await daemon.close();
    return 0;
  } catch (error) {
    return complain(error, EXIT_FAILED);
  }
};
