import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import { type Built, failed, missing, PAYLOAD_BYTES_MAX, rejected, type Work } from "./helper.ts";

/** A value that an option gives, or a key of the requester's that the option with -key behind its name names. */
const given = async ({ options, requesterKey }: Work, name: string): Promise<string> => {
  const spec = options[`${name}-key`];
  const value = spec === undefined ? options[name] : (await requesterKey(spec)).toString("utf8").trim();
  if (value === undefined || value === "") throw failed(`--${name} or --${name}-key is needed`);
  return value;
};

const readWhole = async (file: string): Promise<Buffer> => {
  let handle;
  try {
    handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT") throw missing("no such file");
    throw rejected(`the file cannot be opened: ${String(code)}`);
  }
  try {
    if (!(await handle.stat()).isFile()) throw rejected("not a regular file");
    const buffer = Buffer.alloc(PAYLOAD_BYTES_MAX + 1);
    let length = 0;
    for (;;) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length);
      if (bytesRead === 0) return buffer.subarray(0, length);
      length += bytesRead;
    }
  } finally {
    await handle.close();
  }
};

/**
 * Reads a secret from a directory, a file for each: `--directory DIR`, or `--directory-key TYPE:DESCRIPTION` for the
 * requester's key that names it, so that every tenant has a directory of its own. A name is one file's, never a path.
 */
export const readSecretFile = async (work: Work): Promise<Built> => {
  const { name } = work;
  if (name === "" || name.startsWith(".") || /[/\0]/.test(name)) throw rejected("not the name of a file");
  return { payload: await readWhole(path.join(await given(work, "directory"), name)) };
};

/**
 * Reads a secret from a file of NAME=VALUE lines, as systemd's EnvironmentFile: `--file FILE`, or `--file-key` for the
 * requester's key that names it. Quotes around a value are taken off.
 */
export const readVariable = async (work: Work): Promise<Built> => {
  const { name } = work;
  if (!/^[A-Za-z_]\w*$/.test(name)) throw rejected("not the name of a variable");
  const text = (await readWhole(await given(work, "file"))).toString("utf8");
  for (const line of text.split("\n")) {
    if (!line.startsWith(`${name}=`)) continue;
    const value = line.slice(name.length + 1).trim();
    const [, quoted] = /^"([^]*)"$|^'[^]*'$/.exec(value) ?? [];
    return { payload: Buffer.from(quoted ?? (value.startsWith("'") ? value.slice(1, -1) : value)) };
  }
  throw missing("no such variable");
};

/**
 * Runs a program, `-- PROGRAM ARGUMENT…`; what it prints is the secret. `{name}` in an argument stands for the name, and
 * `--input-key TYPE:DESCRIPTION` for the requester's key that it gets on its standard input: a passphrase, say.
 */
export const runForSecret = async ({ name, options, rest, requesterKey }: Work): Promise<Built> => {
  const [program, ...words] = rest;
  if (program === undefined) throw failed("-- PROGRAM is needed");
  const inputKey = options["input-key"];
  const input = inputKey === undefined ? Buffer.alloc(0) : await requesterKey(inputKey);
  const child = spawn(
    program,
    words.map((word) => word.replaceAll("{name}", name)),
    { stdio: ["pipe", "pipe", "ignore"] },
  );
  const pieces: Buffer[] = [];
  let length = 0;
  child.stdin.on("error", () => {}); // It need not read what it is told.
  child.stdin.end(input);
  child.stdout.on("data", (piece: Buffer) => {
    length += piece.length;
    if (length <= PAYLOAD_BYTES_MAX) pieces.push(piece);
    else child.stdout.destroy();
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", (cause) => reject(failed("the program cannot be started", cause)));
    child.once("close", resolve);
  });
  if (length > PAYLOAD_BYTES_MAX) throw failed(`the program printed more than ${PAYLOAD_BYTES_MAX} bytes`);
  if (code !== 0) throw rejected(`the program ended with ${code ?? "a signal"}`);
  return { payload: Buffer.concat(pieces) };
};
