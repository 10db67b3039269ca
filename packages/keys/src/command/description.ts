import { type Context, fetch } from "./context.ts";
import { errorText } from "../error-text.ts";
import { Refusal } from "./refusal.ts";

/** What a key says of itself. */
export interface Description {
  readonly type: string;
  readonly uid: number;
  readonly gid: number;
  readonly permissions: number;
  readonly description: string;
}

/** Exit code when the daemon describes a key in a way that cannot be read. */
const EXIT_UNREADABLE = 3;

/** The text of a description, without its NUL, or a negated error number. */
export const describeText = async (context: Context, id: number): Promise<string | number> => {
  const bytes = await fetch(context, "describe", id);
  return typeof bytes === "number" ? bytes : Buffer.from(bytes).toString("latin1", 0, bytes.length - 1);
};

/** Takes "type;uid;gid;permissions;description" apart; the description may hold more semicolons. */
export const parseDescription = (text: string): Description => {
  const [, type = "", uid, gid, permissions = "", description = ""] =
    /^([^;]*);(-?\d+);(-?\d+);([0-9a-f]+);([^]*)$/.exec(text) ?? [];
  if (type === "") throw new Refusal(EXIT_UNREADABLE, "Unparseable description obtained for key");
  return { type, uid: Number(uid), gid: Number(gid), permissions: Number.parseInt(permissions, 16), description };
};

const LETTERS = [
  ["a", 0x20],
  ["l", 0x10],
  ["s", 0x08],
  ["w", 0x04],
  ["r", 0x02],
  ["v", 0x01],
] as const;

const lettersOf = (bits: number): string =>
  LETTERS.map(([letter, bit]) => ((bits & bit) === 0 ? "-" : letter)).join("");

/** Four times six letters: possessor, user, group, other. */
export const fullMask = (permissions: number): string =>
  [24, 16, 8, 0].map((shift) => lettersOf((permissions >>> shift) & 0x3f)).join("");

/** What the caller may do with a key, if it possesses it. */
export const ownMask = ({ uid, gid, permissions }: Description): string => {
  const groups = [process.getegid!(), ...process.getgroups!()];
  const shift = uid === process.geteuid!() ? 16 : groups.includes(gid) ? 8 : 0;
  return `--${lettersOf(((permissions >>> 24) | (permissions >>> shift)) & 0x3f)}`;
};

/** "TYPE: DESCRIPTION", as the lists end. */
export const nameOf = ({ type, description }: Description): string => `${type}: ${description}`;

/** What a list says of a key that cannot be described. */
export const inaccessible = (result: number): string => `key inaccessible (${errorText(result)})`;

/** The same for programs. */
export const asValue = (id: number, { type, uid, gid, permissions, description }: Description): object => ({
  serial: id,
  type,
  uid,
  gid,
  permissions: permissions.toString(16).padStart(8, "0"),
  description: shown(description),
});

/** A byte string for JSON: as UTF-8 where it is. */
export const shown = (bytes: string): string => Buffer.from(bytes, "latin1").toString("utf8");
