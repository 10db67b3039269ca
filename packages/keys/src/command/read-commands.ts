import { expect } from "./add-commands.ts";
import { type Context, mustRead, print, type Run, serialsIn } from "./context.ts";
import { asValue, describeText, fullMask, inaccessible, nameOf, ownMask, parseDescription } from "./description.ts";
import { keyOf } from "./operands.ts";
import { refusedBy, UsageError } from "./refusal.ts";

const GROUP_BYTES = 4;
const LINE_BYTES = 32;

/** Bytes in hexadecimal, eight groups of four in a line. */
export const hexDump = (bytes: Uint8Array): string => {
  let text = "";
  for (let line = 0; line < bytes.length; line += LINE_BYTES) {
    const groups: string[] = [];
    const end = Math.min(line + LINE_BYTES, bytes.length);
    for (let at = line; at < end; at += GROUP_BYTES) {
      groups.push(Buffer.from(bytes.subarray(at, Math.min(at + GROUP_BYTES, end))).toString("hex"));
    }
    text += `${groups.join(" ")}\n`;
  }
  return text;
};

const payloadOf = async (context: Context, words: readonly string[]): Promise<Uint8Array> => {
  const [key = ""] = expect(words, 1);
  return await mustRead(context, await keyOf(context, key));
};

/** With --json the payload is base64 in all three commands that print it. */
const printPayload = (context: Context, bytes: Uint8Array, text: string | Uint8Array): number => {
  if (context.json) print(context, "", { bytes: bytes.length, base64: Buffer.from(bytes).toString("base64") });
  else context.terminal.out(text);
  bytes.fill(0);
  return 0;
};

/** `read key` */
export const read: Run = async (context, words) => {
  const bytes = await payloadOf(context, words);
  const text = bytes.length === 0 ? "No data in key\n" : `${bytes.length} bytes of data in key:\n${hexDump(bytes)}`;
  return printPayload(context, bytes, text);
};

/** `pipe key` */
export const pipe: Run = async (context, words) => {
  const bytes = await payloadOf(context, words);
  return printPayload(context, bytes, bytes);
};

const isPrintable = (byte: number): boolean => byte >= 0x20 && byte < 0x7f;

/** `print key` */
export const printKey: Run = async (context, words) => {
  const bytes = await payloadOf(context, words);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (!bytes.every(isPrintable)) return printPayload(context, bytes, `:hex:${buffer.toString("hex")}\n`);
  const line = Buffer.concat([buffer, Buffer.from("\n")]);
  printPayload(context, bytes, line);
  line.fill(0);
  return 0;
};

/** One line of `list` for a serial, and the same for programs. */
const listed = async (context: Context, id: number): Promise<{ readonly line: string; readonly value: object }> => {
  const text = await describeText(context, id);
  const start = `${String(id).padStart(9)}: `;
  if (typeof text === "number") {
    return { line: `${start}${inaccessible(text)}\n`, value: { serial: id, errno: -text } };
  }
  const description = parseDescription(text);
  const ids = `${String(description.uid).padStart(5)} ${String(description.gid).padStart(5)}`;
  return { line: `${start}${ownMask(description)} ${ids} ${nameOf(description)}\n`, value: asValue(id, description) };
};

/** `list keyring` */
export const list: Run = async (context, words) => {
  const serials = serialsIn(await payloadOf(context, words));
  if (serials.length === 0) {
    print(context, "keyring is empty\n", { keys: [] });
    return 0;
  }
  if (!context.json)
    context.terminal.out(serials.length === 1 ? "1 key in keyring:\n" : `${serials.length} keys in keyring:\n`);
  const keys: object[] = [];
  for (const id of serials) {
    const { line, value } = await listed(context, id);
    if (context.json) keys.push(value);
    else context.terminal.out(line);
  }
  if (context.json) print(context, "", { keys });
  return 0;
};

/** `rlist keyring` */
export const rlist: Run = async (context, words) => {
  const serials = serialsIn(await payloadOf(context, words));
  print(context, `${serials.join(" ")}\n`, { serials });
  return 0;
};

/** `describe key` */
export const describe: Run = async (context, words) => {
  const [key = ""] = expect(words, 1);
  const id = await keyOf(context, key);
  const text = await describeText(context, id);
  if (typeof text === "number") throw refusedBy("keyctl_describe_alloc", text);
  const description = parseDescription(text);
  const ids = `${String(description.uid).padStart(5)} ${String(description.gid).padStart(5)}`;
  const line = `${String(id).padStart(9)}: ${fullMask(description.permissions)} ${ids} ${nameOf(description)}\n`;
  print(context, line, asValue(id, description));
  return 0;
};

/** `rdescribe key [separator]`: the separator takes the place of every semicolon, those of the description too. */
export const rdescribe: Run = async (context, words) => {
  const [key = "", separator] = expect(words, 1, 2);
  if (separator === "") throw new UsageError("empty separator");
  const id = await keyOf(context, key);
  const text = await describeText(context, id);
  if (typeof text === "number") throw refusedBy("keyctl_describe", text);
  const shown = separator === undefined ? text : text.replaceAll(";", () => separator[0]!);
  print(context, `${shown}\n`, asValue(id, parseDescription(text)));
  return 0;
};
