import { bytesOf, type Context, done, mustCall, printSerial, type Run } from "./context.ts";
import { dataOf, errorOf, inputOf, keyOf, takeHex, timeoutOf } from "./operands.ts";
import { UsageError } from "./refusal.ts";

/** The arguments, if there are as many as there should be. */
export const expect = (words: readonly string[], least: number, most = least): readonly string[] => {
  if (words.length < least || words.length > most) throw new UsageError("wrong number of arguments");
  return words;
};

interface Addition {
  readonly type: string;
  readonly description: string;
  readonly data: Buffer | null;
  readonly ring: string;
}

const addTo = async (context: Context, { type, description, data, ring }: Addition): Promise<number> => {
  const keyring = await keyOf(context, ring);
  const given = [bytesOf(type), bytesOf(description), data, keyring] as const;
  printSerial(context, await mustCall(context, "add_key", "addKey", [...given]));
  data?.fill(0);
  return 0;
};

/** `add [-x] type description data keyring` */
export const add: Run = async (context, words) => {
  const { isHex, rest } = takeHex(words);
  const [type = "", description = "", data = "", ring = ""] = expect(rest, 4);
  return await addTo(context, { type, description, data: dataOf(data, isHex), ring });
};

/** `padd [-x] type description keyring`, the data from standard input. */
export const padd: Run = async (context, words) => {
  const { isHex, rest } = takeHex(words);
  const [type = "", description = "", ring = ""] = expect(rest, 3);
  return await addTo(context, { type, description, data: inputOf(context, isHex), ring });
};

/** `newring name keyring` */
export const newring: Run = async (context, words) => {
  const [description = "", ring = ""] = expect(words, 2);
  return await addTo(context, { type: "keyring", description, data: null, ring });
};

interface Wanted {
  readonly type: string;
  readonly description: string;
  readonly callout: Buffer | null;
  readonly ring: string | undefined;
}

const requestFor = async (context: Context, { type, description, callout, ring }: Wanted): Promise<number> => {
  const destination = ring === undefined ? 0 : await keyOf(context, ring);
  const given = [bytesOf(type), bytesOf(description), callout, destination] as const;
  printSerial(context, await mustCall(context, "request_key", "requestKey", [...given]));
  return 0;
};

/** `request type description [keyring]`: only finds. */
export const request: Run = async (context, words) => {
  const [type = "", description = "", ring] = expect(words, 2, 3);
  return await requestFor(context, { type, description, callout: null, ring });
};

/** `request2 type description callout [keyring]` */
export const request2: Run = async (context, words) => {
  const [type = "", description = "", callout = "", ring] = expect(words, 3, 4);
  return await requestFor(context, { type, description, callout: bytesOf(callout), ring });
};

/** `prequest2 type description [keyring]`, the callout from standard input. */
export const prequest2: Run = async (context, words) => {
  const [type = "", description = "", ring] = expect(words, 2, 3);
  return await requestFor(context, { type, description, callout: inputOf(context, false), ring });
};

/** `update [-x] key data` */
export const update: Run = async (context, words) => {
  const { isHex, rest } = takeHex(words);
  const [key = "", data = ""] = expect(rest, 2);
  const id = await keyOf(context, key);
  await mustCall(context, "keyctl_update", "update", [id, dataOf(data, isHex)]);
  return done(context);
};

/** `pupdate [-x] key`, the data from standard input. */
export const pupdate: Run = async (context, words) => {
  const { isHex, rest } = takeHex(words);
  const [key = ""] = expect(rest, 1);
  const id = await keyOf(context, key);
  await mustCall(context, "keyctl_update", "update", [id, inputOf(context, isHex)]);
  return done(context);
};

/** `instantiate [-x] key data keyring` */
export const instantiate: Run = async (context, words) => {
  const { isHex, rest } = takeHex(words);
  const [key = "", data = "", ring = ""] = expect(rest, 3);
  const id = await keyOf(context, key);
  const destination = await keyOf(context, ring);
  await mustCall(context, "keyctl_instantiate", "instantiate", [id, dataOf(data, isHex), destination]);
  return done(context);
};

/** `pinstantiate [-x] key keyring`, the data from standard input. */
export const pinstantiate: Run = async (context, words) => {
  const { isHex, rest } = takeHex(words);
  const [key = "", ring = ""] = expect(rest, 2);
  const id = await keyOf(context, key);
  const destination = await keyOf(context, ring);
  await mustCall(context, "keyctl_instantiate", "instantiate", [id, inputOf(context, isHex), destination]);
  return done(context);
};

/** `negate key timeout keyring` */
export const negate: Run = async (context, words) => {
  const [key = "", timeout = "", ring = ""] = expect(words, 3);
  const id = await keyOf(context, key);
  const seconds = timeoutOf(timeout);
  await mustCall(context, "keyctl_negate", "negate", [id, seconds, await keyOf(context, ring)]);
  return done(context);
};

/** `reject key timeout error keyring`. Its refusals have always been labelled as those of `negate`. */
export const reject: Run = async (context, words) => {
  const [key = "", timeout = "", error = "", ring = ""] = expect(words, 4);
  const id = await keyOf(context, key);
  const seconds = timeoutOf(timeout);
  const errno = errorOf(error);
  await mustCall(context, "keyctl_negate", "reject", [id, seconds, errno, await keyOf(context, ring)]);
  return done(context);
};
