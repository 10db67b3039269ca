import { fstatSync, readFileSync } from "node:fs";
import { expect } from "./add-commands.ts";
import { bytesOf, call, type Context, mustCall, print, type Run, tryCall } from "./context.ts";
import { errorText } from "../error-text.ts";
import { keyOf, listedKeys, parseNumber } from "./operands.ts";
import { EXIT_REFUSED, mistake, Refusal, refusedBy } from "./refusal.ts";

/** Bytes and bits of the capabilities by the names that `supports` has for them. */
const capabilities: readonly (readonly [name: string, byte: number, bit: number])[] = [
  ["capabilities", 0, 0x01],
  ["persistent_keyrings", 0, 0x02],
  ["dh_compute", 0, 0x04],
  ["public_key", 0, 0x08],
  ["big_key_type", 0, 0x10],
  ["key_invalidate", 0, 0x20],
  ["restrict_keyring", 0, 0x40],
  ["move_key", 0, 0x80],
  ["ns_keyring_name", 1, 0x01],
  ["ns_key_tag", 1, 0x02],
  ["notify", 1, 0x04],
];
const CAPABILITY_BYTES = 32;
const EXIT_NO = 1;
/** Also the exit code of `supports --raw`. */
const EXIT_UNKNOWN = 3;

/** `supports [capability | --raw]` */
export const supports: Run = async (context, words) => {
  const [wanted] = expect(words, 0, 1);
  const { result, bytes } = await call(context, "capabilities", [CAPABILITY_BYTES]);
  if (result < 0) throw refusedBy("keyctl_capabilities", result);
  const has = (byte: number, bit: number): boolean => ((bytes[byte] ?? 0) & bit) !== 0;
  if (wanted === "--raw") {
    const hex = Buffer.from(bytes).toString("hex");
    print(context, `${hex}\n`, { capabilities: hex });
    return EXIT_UNKNOWN;
  }
  if (wanted !== undefined) {
    const [, byte, bit] = capabilities.find(([name]) => name === wanted) ?? [];
    if (byte === undefined || bit === undefined) return EXIT_UNKNOWN;
    return has(byte, bit) ? 0 : EXIT_NO;
  }
  const lines = capabilities.map(([name, byte, bit]) => `have_${name}=${has(byte, bit) ? 1 : 0}\n`);
  print(context, lines.join(""), Object.fromEntries(capabilities.map(([name, byte, bit]) => [name, has(byte, bit)])));
  return 0;
};

/** Numbers of operations in the sense of keyctl(2) that the daemon knows only to refuse. */
const DH_COMPUTE = 23;
const PKEY_QUERY = 24;
const PKEY_VERIFY = 28;
const WATCH_KEY = 32;

/** An operation that is not offered; should a daemon ever offer it, this program does not know how to go on. */
const refuse = async (context: Context, label: string, operation: number): Promise<never> => {
  throw refusedBy(label, await tryCall(context, "notSupported", [operation]));
};

/** `dh_compute private prime base` */
export const dhCompute: Run = async (context, words) => {
  for (const word of expect(words, 3)) await keyOf(context, word);
  return await refuse(context, "keyctl_dh_compute_alloc", DH_COMPUTE);
};

/** `dh_compute_kdf private prime base length hash` */
export const dhComputeKdf: Run = async (context, words) => {
  for (const word of expect(words, 5).slice(0, 3)) await keyOf(context, word);
  return await refuse(context, "keyctl_dh_compute_kdf", DH_COMPUTE);
};

/** `dh_compute_kdf_oi [-x] private prime base length hash`, other information from standard input. */
export const dhComputeKdfOi: Run = async (context, words) =>
  await dhComputeKdf(context, words[0] === "-x" ? words.slice(1) : words);

const optionsOf = (words: readonly string[]): void => {
  for (const word of words) if (!word.includes("=")) throw mistake("Option not in key=val form");
};

const mustReadFile = (path: string): void => {
  try {
    readFileSync(bytesOf(path));
  } catch (cause) {
    const errno = cause instanceof Error && "errno" in cause && typeof cause.errno === "number" ? cause.errno : 0;
    throw new Refusal(EXIT_REFUSED, `${path}: ${errorText(errno)}`);
  }
};

/** Commands on public keys: how many files they name, what they are labelled with when refused. */
const publicKey =
  (files: number, label: string, operation: number): Run =>
  async (context, words) => {
    const [key = "", password = "", ...rest] = expect(words, 2 + files, Infinity);
    const id = await keyOf(context, key);
    if (password !== "0") throw mistake("Password passing is not yet supported");
    optionsOf(rest.slice(files));
    for (const file of rest.slice(0, files)) mustReadFile(file);
    await mustCall(context, label, "getKeyringId", [id, 0]);
    return await refuse(context, label, operation);
  };

/** `pkey_query key password [name=value]…` */
export const pkeyQuery = publicKey(0, "keyctl_pkey_query", PKEY_QUERY);
/** `pkey_encrypt`, `pkey_decrypt`, `pkey_sign key password file [name=value]…`: they begin with a query. */
export const pkeyOperation = publicKey(1, "keyctl_pkey_query", PKEY_QUERY);
/** `pkey_verify key password file signature [name=value]…` */
export const pkeyVerify = publicKey(2, "keyctl_pkey_verify", PKEY_VERIFY);

const FILTERS = "iplncrvs";

const checkFilters = (letters: string): void => {
  for (const letter of letters) if (!FILTERS.includes(letter)) throw mistake(`Unknown filter character '${letter}'`);
};

/** Takes -f and its letters, joined or apart, off the front. */
const takeFilters = (words: readonly string[]): readonly string[] => {
  const [first = "", second = ""] = words;
  if (!first.startsWith("-f")) return words;
  checkFilters(first === "-f" ? second : first.slice(2));
  return words.slice(first === "-f" ? 2 : 1);
};

/** Watches need a pipe of a kind that is not offered. */
const noPipe = (): Refusal => new Refusal(EXIT_REFUSED, "pipe2: Package not installed");

/** `watch [-f<filters>] key` */
export const watch: Run = async (context, words) => {
  const [key = ""] = expect(takeFilters(words), 1);
  await keyOf(context, key);
  throw noPipe();
};

/** `watch_session [-f<filters>] [-n name] notifylog gclog fd program …` */
export const watchSession: Run = (_context, words) => {
  const filtered = takeFilters(words);
  expect(filtered[0] === "-n" ? filtered.slice(2) : filtered, 4, Infinity);
  return Promise.reject(noPipe());
};

/** `watch_add fd key`, `watch_rm fd key` */
export const watchChange: Run = async (context, words) => {
  const [, key = ""] = expect(words, 2);
  await keyOf(context, key);
  return await refuse(context, "keyctl_watch_key", WATCH_KEY);
};

/** `watch_sync fd`: nothing is ever on its way in a pipe. */
export const watchSync: Run = (_context, words) => {
  const [descriptor = ""] = expect(words, 1);
  let status;
  try {
    status = fstatSync((parseNumber(descriptor, 0) ?? 0) | 0);
  } catch {
    return Promise.reject(new Refusal(EXIT_REFUSED, "ioctl(FIONREAD): Bad file descriptor"));
  }
  return status.isCharacterDevice() || status.isDirectory()
    ? Promise.reject(new Refusal(EXIT_REFUSED, "ioctl(FIONREAD): Inappropriate ioctl for device"))
    : Promise.resolve(0);
};

/** `--keys`, which keyctl does not have: the keys that the caller may view, as /proc/keys shows them. */
export const listKeys: Run = async (context, words) => {
  expect(words, 0);
  for await (const line of listedKeys(context)) print(context, `${line}\n`, { line });
  return 0;
};

/** `--key-users`, which keyctl does not have: what every user has, as /proc/key-users shows it. */
export const listUsers: Run = async (context, words) => {
  expect(words, 0);
  const { result, bytes } = await call(context, "procKeyUsers", []);
  if (result < 0) throw refusedBy("key-users", result);
  const text = Buffer.from(bytes).toString("latin1");
  print(context, text, { lines: text.split("\n").slice(0, -1) });
  return 0;
};
