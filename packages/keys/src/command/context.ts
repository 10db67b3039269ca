import type { CallOptions, KeyConnection, KeyReply } from "../client/connection.ts";
import type { OperationName, SentArguments } from "../client/protocol.ts";
import { refusedBy } from "./refusal.ts";
import type { Terminal } from "./terminal.ts";

/** What every command is given. */
export interface Context {
  readonly terminal: Terminal;
  readonly environment: NodeJS.ProcessEnv;
  /** Whether results are printed as JSON. */
  readonly json: boolean;
  /** The daemon; connected to when first needed, so that a wrong command line needs none. */
  readonly connect: () => Promise<KeyConnection>;
}

/** A command: it gets its arguments as byte strings and returns the exit code. */
export type Run = (context: Context, words: readonly string[]) => Promise<number>;

/** The bytes of a byte string, for the daemon. */
export const bytesOf = (text: string): Buffer => Buffer.from(text, "latin1");

/** One operation; what the daemon answers, good or bad. */
export const call = async <Name extends OperationName>(
  { connect }: Context,
  name: Name,
  given: SentArguments<Name>,
  options?: CallOptions,
): Promise<KeyReply> => await (await connect()).call(name, given, options);

/** The result of one operation, good or bad. */
export const tryCall = async <Name extends OperationName>(
  context: Context,
  name: Name,
  given: SentArguments<Name>,
): Promise<number> => (await call(context, name, given)).result;

/** The result of one operation. A refusal ends the command with the label that keyctl(1) gives it. */
export const mustCall = async <Name extends OperationName>(
  context: Context,
  label: string,
  name: Name,
  given: SentArguments<Name>,
): Promise<number> => {
  const result = await tryCall(context, name, given);
  if (result < 0) throw refusedBy(label, result);
  return result;
};

const FIRST_BYTES = 4096;

/** Operations that fill a buffer: as much as there is, or the refusal. */
export const fetch = async (
  context: Context,
  name: "read" | "describe" | "getSecurity",
  id: number,
): Promise<Uint8Array | number> => {
  for (let room = FIRST_BYTES; ;) {
    const { result, bytes } = await call(context, name, [id, room]);
    if (result < 0) return result;
    if (result <= room) return bytes;
    room = Math.ceil(result / 4) * 4;
  }
};

/** The payload of a key, or the end of the command. */
export const mustRead = async (context: Context, id: number): Promise<Uint8Array> => {
  const bytes = await fetch(context, "read", id);
  if (typeof bytes === "number") throw refusedBy("keyctl_read_alloc", bytes);
  return bytes;
};

/** Serials in the payload of a keyring. Whatever is left over after the last whole one is not looked at. */
export const serialsIn = (bytes: Uint8Array): number[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: Math.floor(bytes.length / 4) }, (_, at) => view.getInt32(at * 4, true));
};

/** Prints a result: the text, or with --json the value. */
export const print = ({ terminal, json }: Context, text: string, value: unknown): void =>
  terminal.out(json ? `${JSON.stringify(value)}\n` : text);

/** Prints a serial. */
export const printSerial = (context: Context, serial: number): void => print(context, `${serial}\n`, { serial });

/** Ends a command that has nothing to say. */
export const done = (context: Context): number => {
  if (context.json) print(context, "", {});
  return 0;
};
