/**
 * How commands that ask the daemon end: an exit code and a line for whatever went wrong.
 */
import { XenolithError } from "@xenolith/abi/error";
import type { DomainView } from "../daemon/api-types.ts";
import { complain, describeFailure, EXIT_ABSENT, EXIT_FAILED, EXIT_NO_DOMAIN, EXIT_REFUSED } from "../terminal.ts";

/** Prints a line. */
export const print = (text: string): void => void process.stdout.write(`${text}\n`);
/** Prints something as JSON. */
export const printJson = (value: unknown): void => print(JSON.stringify(value, null, 2));

/** The exit code for a failure of the daemon's: it is not there, there is no such domain, or it refused. */
export const exitCodeOf = (error: unknown): number => {
  if (!(error instanceof XenolithError)) return EXIT_FAILED;
  if (error.code === "DAEMON_UNREACHABLE") return EXIT_ABSENT;
  if (error.code === "DOMAIN_NOT_FOUND" || error.code === "DEFINITION_NOT_FOUND") return EXIT_NO_DOMAIN;
  return error.code === "DAEMON_ANSWER" ? EXIT_FAILED : EXIT_REFUSED;
};

/** Runs `action`, which asks the daemon; a failure of it is said and becomes the exit code. */
export const asking = async (action: () => Promise<number | void>): Promise<number> => {
  try {
    return (await action()) ?? 0;
  } catch (error) {
    complain(describeFailure(error));
    return exitCodeOf(error);
  }
};

/** Does something to each domain in turn; what fails is said, the others are done. The code is that of the first failure. */
export const toEach = async (
  words: readonly string[],
  action: (word: string) => Promise<DomainView | void>,
  json: boolean | undefined,
): Promise<number> => {
  const done: DomainView[] = [];
  let code = 0;
  for (const word of words) {
    const failed = await asking(async () => {
      const view = await action(word);
      if (view !== undefined) done.push(view);
    });
    if (code === 0) code = failed;
  }
  if (json === true) printJson(done);
  return code;
};
