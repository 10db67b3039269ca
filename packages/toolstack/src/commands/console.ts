/**
 * `xl console`: what a guest says, and what is typed to it. Most guests have no terminal driver that would echo and edit
 * lines, so the user's terminal goes on doing that, and Ctrl-C leaves. With --raw every key goes to the guest as it is,
 * and Ctrl-] leaves, as in Xen's xl.
 */
import { StringDecoder } from "node:string_decoder";
import { XenolithError } from "@xenolith/abi/error";
import type { ClientFlags } from "../client/choose-place.ts";
import { connect, type Connection } from "../client/connection.ts";
import { complain, describeFailure } from "../terminal.ts";
import { asking } from "./report.ts";

/** Options of `xl console`. */
export interface ConsoleFlags extends ClientFlags {
  readonly raw?: boolean;
}

const ESCAPE = 0x1d;

/** `xl console`. */
export const consoleCommand = (word: string, flags: ConsoleFlags): Promise<number> =>
  asking(() => attach({ connection: connect(flags), word, isRaw: flags.raw === true }));

/** A console to follow. */
export interface Attachment {
  readonly connection: Connection;
  readonly word: string;
  readonly isRaw?: boolean;
  /** Called once somebody listens. */
  readonly begin?: () => Promise<unknown>;
}

/** Follows a console until the domain is gone or the user leaves. */
export const attach = async ({ connection, word, begin, isRaw = false }: Attachment): Promise<number> => {
  const end = new AbortController();
  const { body } = await connection.console(word, end.signal);
  using _keyboard = readKeyboard({ connection, word, end, isRaw });
  try {
    await begin?.();
    for await (const piece of body) process.stdout.write(shown(piece, isRaw));
    return 0;
  } catch (error) {
    if (end.signal.aborted) return 0;
    end.abort();
    throw error;
  }
};

const decoder = new StringDecoder("utf8");
const UNSAFE = /[\u0000-\u0007\u000b\u000c\u000e-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** On a terminal, what would move its cursor or change its title is made visible: guests are hostile. */
const shown = (piece: Buffer, isRaw: boolean): Buffer | string => {
  if (isRaw || !process.stdout.isTTY) return piece;
  return decoder.write(piece).replace(UNSAFE, (byte) => `\\u{${byte.codePointAt(0)!.toString(16)}}`);
};

/** What the keyboard is connected to. */
interface Keyboard {
  readonly connection: Connection;
  readonly word: string;
  /** Fired when the user leaves. */
  readonly end: AbortController;
  readonly isRaw: boolean;
}

/** Sends what is typed, one piece after the other, until it is disposed of. */
const readKeyboard = ({ connection, word, end, isRaw }: Keyboard): Disposable => {
  const { stdin } = process;
  const isTerminal = stdin.isTTY;
  const leave = (): void => end.abort();
  let sent = Promise.resolve();
  const send = async (bytes: Buffer): Promise<void> => {
    try {
      await connection.type(word, bytes);
      if (!end.signal.aborted) stdin.resume();
    } catch (error) {
      if (!isGone(error)) complain(describeFailure(error));
    }
  };
  const listener = (bytes: Buffer): void => {
    const at = isTerminal ? bytes.indexOf(ESCAPE) : -1;
    const typed = at < 0 ? bytes : bytes.subarray(0, at);
    if (typed.length > 0) {
      stdin.pause();
      sent = sent.then(() => send(typed));
    }
    if (at >= 0) leave();
  };
  if (isTerminal) process.stderr.write(`(${isRaw ? "Ctrl-]" : "Ctrl-C"} leaves, the guest goes on)\n`);
  if (isTerminal) process.once("SIGINT", leave);
  if (isTerminal && isRaw) stdin.setRawMode(true);
  stdin.on("data", listener);
  return {
    [Symbol.dispose]: () => {
      stdin.off("data", listener);
      process.off("SIGINT", leave);
      if (isTerminal && isRaw) stdin.setRawMode(false);
      stdin.destroy();
    },
  };
};

const isGone = (error: unknown): boolean => error instanceof XenolithError && error.code === "DOMAIN_NOT_FOUND";
