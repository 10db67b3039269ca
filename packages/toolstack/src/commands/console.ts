/**
 * `xl console`: what a guest says, and what is typed to it. Ctrl-] leaves, as in xl.
 */
import { StringDecoder } from "node:string_decoder";
import { XenolithError } from "@xenolith/abi/error";
import { type ClientFlags, connect, type Connection } from "../client/connection.ts";
import { complain, describeFailure } from "../terminal.ts";
import { asking } from "./report.ts";

/** Options of `xl console`. */
export interface ConsoleFlags extends ClientFlags {
  readonly raw?: boolean;
}

const ESCAPE = 0x1d;

/** `xl console`. */
export const consoleCommand = (word: string, flags: ConsoleFlags): Promise<number> =>
  asking(() => attach(connect(flags), word, flags.raw === true));

/** Follows a console until the domain is gone or the user leaves. */
export const attach = async (connection: Connection, word: string, isRaw = false): Promise<number> => {
  const end = new AbortController();
  const { body } = await connection.console(word, end.signal);
  using keyboard = readKeyboard(connection, word, end);
  if (keyboard.isTerminal) process.stderr.write("(Ctrl-] leaves)\r\n");
  try {
    for await (const piece of body) process.stdout.write(shown(piece, isRaw));
  } catch (error) {
    if (!end.signal.aborted) throw error;
  }
  return 0;
};

const decoder = new StringDecoder("utf8");
const UNSAFE = /[\u0000-\u0007\u000b\u000c\u000e-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** On a terminal, what would move its cursor or change its title is made visible: guests are hostile. */
const shown = (piece: Buffer, isRaw: boolean): Buffer | string => {
  if (isRaw || !process.stdout.isTTY) return piece;
  return decoder.write(piece).replace(UNSAFE, (byte) => `\\u{${byte.codePointAt(0)!.toString(16)}}`);
};

/** Sends what is typed until it is disposed of, one piece after the other. */
const readKeyboard = (
  connection: Connection,
  word: string,
  end: AbortController,
): Disposable & { readonly isTerminal: boolean } => {
  const { stdin } = process;
  const isTerminal = stdin.isTTY;
  let sent = Promise.resolve();
  const send = (bytes: Buffer): void => {
    stdin.pause();
    sent = sent.then(async () => {
      try {
        await connection.type(word, bytes);
        if (!end.signal.aborted) stdin.resume();
      } catch (error) {
        if (!isGone(error)) complain(describeFailure(error));
      }
    });
  };
  const listener = (bytes: Buffer): void => {
    const at = isTerminal ? bytes.indexOf(ESCAPE) : -1;
    const typed = at < 0 ? bytes : bytes.subarray(0, at);
    if (typed.length > 0) send(typed);
    if (at >= 0) end.abort();
  };
  if (isTerminal) stdin.setRawMode(true);
  stdin.on("data", listener);
  return {
    isTerminal,
    [Symbol.dispose]: () => {
      stdin.off("data", listener);
      if (isTerminal) stdin.setRawMode(false);
      stdin.destroy();
    },
  };
};

const isGone = (error: unknown): boolean => error instanceof XenolithError && error.code === "DOMAIN_NOT_FOUND";
