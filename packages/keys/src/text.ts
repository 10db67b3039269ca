import { EINVAL, EPERM } from "./errno.ts";

/** A text of a caller: a string, taken as UTF-8, or its bytes. */
export type KeyText = string | Uint8Array;

/** Longest description, name, callout or restriction, in bytes. */
export const TEXT_BYTES_MAX = 4095;
/** Longest name of a type, in bytes. */
const TYPE_BYTES_MAX = 31;
/** Largest payload that can be added, in bytes. */
export const PAYLOAD_BYTES_MAX = 2 ** 20 - 1;

/** Without a NUL, and nothing that UTF-8 changes. */
const PLAIN = /^[\u0001-\u007f]*$/;

/** The bytes of a text as a string with one character for each; -EINVAL for one with a NUL or over the limit. */
export const byteString = (text: KeyText, bytesMax = TEXT_BYTES_MAX): string | number => {
  if (text.length > bytesMax) return -EINVAL;
  if (typeof text === "string") {
    if (PLAIN.test(text)) return text;
    return byteString(Buffer.from(text, "utf8"), bytesMax);
  }
  return text.includes(0) ? -EINVAL : Buffer.from(text.buffer, text.byteOffset, text.length).toString("latin1");
};

/** The bytes of a text that may be a secret: a copy that can be wiped. -EINVAL as above. */
export const bytesOf = (text: KeyText): Uint8Array | number => {
  if (text.length > TEXT_BYTES_MAX) return -EINVAL;
  const bytes = typeof text === "string" ? Buffer.from(text, "utf8") : Uint8Array.from(text);
  return bytes.length > TEXT_BYTES_MAX || bytes.includes(0) ? -EINVAL : bytes;
};

/** A copy of a text that keeps nothing else alive: what a caller gave may be a part of something larger, or secret. */
export const ownText = (text: string): string => Buffer.from(text, "latin1").toString("latin1");

/** The name of a type as a caller gave it: -EINVAL if it is empty or too long, -EPERM if it begins with a dot. */
export const typeName = (text: KeyText): string | number => {
  const name = byteString(text, TYPE_BYTES_MAX);
  if (typeof name === "number" || name === "") return -EINVAL;
  return name.startsWith(".") ? -EPERM : name;
};
