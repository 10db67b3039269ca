/**
 * What a guest's end by misbehaviour is called: the reason, and the guest function in which it happened. V8 takes the
 * function's name from the module's name section; the address is the offset in the rewritten module's bytes.
 */

/** Why and where a vCPU stopped. */
export interface CrashReport {
  /** One line, without the place. */
  readonly reason: string;
  /** `function (wasm-function[index]:0xaddress)` of the innermost guest frame, or "" when there is none. */
  readonly where: string;
  /** Whether our own code failed: the domain is crashed all the same, and the host reports it. */
  readonly internal: boolean;
}

/** Thrown by our code for what the guest did wrong; the message is the reason. */
export class GuestFault extends Error {}

const WASM_FRAME =
  /^\s*at (?:(?<name>.*) \()?wasm:\/\/wasm\/[^\s)]*:wasm-function\[(?<index>\d+)\]:(?<address>0x[0-9a-f]+)\)?$/;
/** Functions that the loader appended have names with this prefix; the frame of their caller says more. */
const APPENDED_PREFIX = "xenolith.";

/** What a terminal would obey instead of show: control characters, and marks that turn the direction of writing. */
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
/** Characters of a guest's own text that a report keeps. */
const TEXT_LENGTH_MAX = 200;

/** Names of functions and messages may be a guest's own: they become one line that can be printed anywhere. */
const printable = (text: string): string => {
  const kept = text.length > TEXT_LENGTH_MAX ? `${text.slice(0, TEXT_LENGTH_MAX)}...` : text;
  return kept.replaceAll(UNPRINTABLE, (letter) => `\\u{${letter.charCodeAt(0).toString(16)}}`);
};

/** Describes what a guest's code threw out of a vCPU. */
export const describeCrash = (thrown: unknown): CrashReport => {
  const { reason, where, internal } = describe(thrown);
  return { reason: printable(reason), where, internal };
};

const describe = (thrown: unknown): CrashReport => {
  const where = thrown instanceof Error ? guestFrame(thrown.stack ?? "") : "";
  if (thrown instanceof WebAssembly.RuntimeError) return { reason: thrown.message, where, internal: false };
  if (thrown instanceof GuestFault) return { reason: thrown.message, where, internal: false };
  // V8's stack limit, in the guest or in a host function that it called with too little stack left.
  if (thrown instanceof RangeError && /call stack/.test(thrown.message)) {
    return { reason: "stack overflow", where, internal: false };
  }
  if (thrown instanceof WebAssembly.Exception) return { reason: "uncaught exception", where, internal: false };
  // A guest that was given a JavaScript exception by `throw_ref` or received one from `catch_all` throws it again.
  const text = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  return { reason: `internal error: ${text}`, where, internal: true };
};

const guestFrame = (stack: string): string => {
  for (const line of stack.split("\n")) {
    const groups = WASM_FRAME.exec(line)?.groups;
    if (groups === undefined) continue;
    const { name, index, address } = groups;
    if (name?.startsWith(APPENDED_PREFIX)) continue;
    const position = `wasm-function[${index}]:${address}`;
    return name === undefined ? position : `${printable(name)} (${position})`;
  }
  return "";
};
