import { expect } from "./add-commands.ts";
import { bytesOf, type Context, done, fetch, mustCall, print, printSerial, type Run } from "./context.ts";
import { gidOf, keyOf, maskOf, timeoutOf, uidOf } from "./operands.ts";
import { refusedBy } from "./refusal.ts";

const KEEP = -1;
const MOVE_EXCLUSIVE = 1;

/** Commands that take a key and say nothing. */
const onKey =
  (label: string, name: "revoke" | "clear" | "invalidate"): Run =>
  async (context, words) => {
    const [key = ""] = expect(words, 1);
    await mustCall(context, label, name, [await keyOf(context, key)]);
    return done(context);
  };

/** `revoke key` */
export const revoke = onKey("keyctl_revoke", "revoke");
/** `clear keyring` */
export const clear = onKey("keyctl_clear", "clear");
/** `invalidate key` */
export const invalidate = onKey("keyctl_invalidate", "invalidate");

/** `link key keyring` */
export const link: Run = async (context, words) => {
  const [key = "", ring = ""] = expect(words, 2);
  const id = await keyOf(context, key);
  await mustCall(context, "keyctl_link", "link", [id, await keyOf(context, ring)]);
  return done(context);
};

/** `move [-f] key from to`: with -f it replaces a key of the same name there. */
export const move: Run = async (context, words) => {
  const isForced = words[0] === "-f";
  const [key = "", from = "", to = ""] = expect(isForced ? words.slice(1) : words, 3);
  const id = await keyOf(context, key);
  const source = await keyOf(context, from);
  const target = await keyOf(context, to);
  await mustCall(context, "keyctl_move", "move", [id, source, target, isForced ? 0 : MOVE_EXCLUSIVE]);
  return done(context);
};

/** `chown key uid` */
export const chown: Run = async (context, words) => {
  const [key = "", uid = ""] = expect(words, 2);
  const id = await keyOf(context, key);
  await mustCall(context, "keyctl_chown", "chown", [id, uidOf(uid), KEEP]);
  return done(context);
};

/** `chgrp key gid` */
export const chgrp: Run = async (context, words) => {
  const [key = "", gid = ""] = expect(words, 2);
  const id = await keyOf(context, key);
  await mustCall(context, "keyctl_chown", "chown", [id, KEEP, gidOf(gid)]);
  return done(context);
};

/** `setperm key mask` */
export const setperm: Run = async (context, words) => {
  const [key = "", mask = ""] = expect(words, 2);
  const id = await keyOf(context, key);
  await mustCall(context, "keyctl_setperm", "setPermissions", [id, maskOf(mask)]);
  return done(context);
};

/** `timeout key seconds` */
export const timeout: Run = async (context, words) => {
  const [key = "", seconds = ""] = expect(words, 2);
  const id = await keyOf(context, key);
  await mustCall(context, "keyctl_set_timeout", "setTimeout", [id, timeoutOf(seconds)]);
  return done(context);
};

/** `id key` */
export const id: Run = async (context, words) => {
  const [key = ""] = expect(words, 1);
  const found = await keyOf(context, key);
  printSerial(context, await mustCall(context, "keyctl_get_keyring_ID", "getKeyringId", [found, 0]));
  return 0;
};

/** `search keyring type description [keyring]` */
export const search: Run = async (context, words) => {
  const [ring = "", type = "", description = "", destination] = expect(words, 3, 4);
  const from = await keyOf(context, ring);
  const to = destination === undefined ? 0 : await keyOf(context, destination);
  const given = [from, bytesOf(type), bytesOf(description), to] as const;
  printSerial(context, await mustCall(context, "keyctl_search", "search", [...given]));
  return 0;
};

/** `security key` */
export const security: Run = async (context, words) => {
  const [key = ""] = expect(words, 1);
  const label = await fetch(context, "getSecurity", await keyOf(context, key));
  if (typeof label === "number") throw refusedBy("keyctl_getsecurity", label);
  const text = Buffer.from(label).toString("latin1", 0, Math.max(0, label.length - 1));
  print(context, `${text}\n`, { label: text });
  return 0;
};

/** `get_persistent keyring [uid]` */
export const getPersistent: Run = async (context, words) => {
  const [ring = "", uid] = expect(words, 1, 2);
  const destination = await keyOf(context, ring);
  const user = uid === undefined ? KEEP : uidOf(uid);
  printSerial(context, await mustCall(context, "keyctl_get_persistent", "getPersistent", [user, destination]));
  return 0;
};

const optional = (text: string | undefined): Buffer | null => (text === undefined ? null : bytesOf(text));

/** `restrict_keyring keyring [type [restriction]]` */
export const restrictKeyring: Run = async (context, words) => {
  const [ring = "", type, restriction] = expect(words, 1, 3);
  const keyring = await keyOf(context, ring);
  const given = [keyring, optional(type), optional(restriction)] as const;
  await mustCall(context, "keyctl_restrict_keyring", "restrict", [...given]);
  return done(context);
};

/** Gives a session keyring to the calling shell: `new_session [name]` */
export const newSession: Run = async (context: Context, words) => {
  const [name] = expect(words, 0, 1);
  await mustCall(context, "keyctl_join_session_keyring", "joinSession", [optional(name)]);
  await mustCall(context, "keyctl_session_to_parent", "sessionToParent", []);
  printSerial(context, await mustCall(context, "keyctl_get_keyring_ID", "getKeyringId", [-3, 0]));
  return 0;
};
