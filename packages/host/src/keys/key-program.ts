/**
 * A program that builds keys. It is called as the kernel calls /sbin/request-key, with the description and whose request it
 * is in its environment, reads the callout on standard input and prints the payload on standard output.
 *
 * What it prints goes into a file in memory, and from there straight into secret memory: through no buffer of this process.
 */
import { readSync } from "node:fs";
import { closeDescriptor, createMemfd, punchHole, seek, Whence } from "@xenolith/sys";
import type { Secret, SecretOwner } from "@xenolith/secrets";
import { launch } from "./child-program.ts";
import type { KeyBuilder, KeyRequest } from "./key-builder.ts";

/** How a program is called. */
export interface KeyProgram {
  /** The program, an absolute path, and the arguments that come before the usual ones. */
  readonly program: readonly string[];
}

/** Most that a program may print; writing more fails for it. */
const OUTPUT_BYTES_MAX = 1 << 20;

/** The environment of a program: what the kernel gives helpers, and the facts of the request. */
const environmentOf = ({ env, type, description, domain, uid }: KeyRequest): Record<string, string> => ({
  ...env,
  XENOLITH_KEY_TYPE: type,
  XENOLITH_KEY_DESCRIPTION: description,
  XENOLITH_KEY_UID: String(uid),
  ...(domain === undefined ? {} : { XENOLITH_DOMAIN_ID: String(domain.domid), XENOLITH_DOMAIN_NAME: domain.name }),
});

/** A builder that calls a program. `owner`: who bears what the program prints until the key has it. */
export const programBuilder =
  ({ program }: KeyProgram, owner: SecretOwner): KeyBuilder =>
  async (request) => {
    const output = createMemfd({ name: "xenolith-key", sizeBytes: OUTPUT_BYTES_MAX });
    try {
      const isBuilt = await runProgram(program, request, output);
      return isBuilt && !request.signal.aborted ? readOutput(output, owner) : undefined;
    } finally {
      // The pages go, whoever still has the file open.
      punchHole(output, 0, OUTPUT_BYTES_MAX);
      closeDescriptor(output);
    }
  };

/** Runs it to its end: whether it ended by itself, with exit code 0. */
const runProgram = async (program: readonly string[], request: KeyRequest, output: number): Promise<boolean> => {
  const [file = "", ...words] = program;
  const { pid, ended } = launch({
    file,
    words: [...words, ...request.argv],
    environment: environmentOf(request),
    input: request.callout,
    output,
  });
  const kill = (): void => killGroup(pid);
  request.signal.addEventListener("abort", kill, { once: true });
  try {
    return (await ended) === 0;
  } finally {
    request.signal.removeEventListener("abort", kill);
  }
};

const killGroup = (pid: number | undefined): void => {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
};

/** What was printed; undefined for nothing. */
const readOutput = (output: number, owner: SecretOwner): Secret | undefined => {
  const size = seek(output, 0, Whence.CUR);
  if (size <= 0) return undefined;
  const secret = owner.allocate(size);
  const read = secret.withBytes((bytes) => readSync(output, bytes, 0, size, 0));
  if (read === size) return secret;
  secret.release();
  return undefined;
};
