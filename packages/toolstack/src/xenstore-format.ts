/**
 * How values and trees of xenstore are printed: as the tools of Xen do, so that scripts that read those read these.
 */
import type { NodePermission } from "@xenolith/xenstore";

/** One node of a listing. */
export interface ListedNode {
  readonly path: string;
  /** Levels below the listed path, 0 for its children. */
  readonly depth: number;
  readonly value: Uint8Array;
  readonly permissions: readonly NodePermission[] | undefined;
}

const shortEscapes: ReadonlyMap<number, string> = new Map([
  [0x09, "\\t"],
  [0x0a, "\\n"],
  [0x0d, "\\r"],
  [0x5c, "\\\\"],
]);

/** A value on one line: what does not print is `\t`, `\n`, `\r`, `\\` or three octal digits. */
export const formatValue = (value: Uint8Array): string => {
  let text = "";
  for (const byte of value) {
    const escape = shortEscapes.get(byte);
    if (escape !== undefined) text += escape;
    else if (byte >= 0x20 && byte < 0x7f) text += String.fromCodePoint(byte);
    else text += `\\${byte.toString(8).padStart(3, "0")}`;
  }
  return text;
};

/** `n0,r5`: the owner with what all others may do, then who may do otherwise. */
export const formatPermissions = (entries: readonly NodePermission[]): string =>
  entries.map(({ access, domid }) => `${access}${domid}`).join(",");

/** One line of `ls`: indented by level, or with the whole path. */
export const formatNode = ({ path, depth, value, permissions }: ListedNode, isFull: boolean): string => {
  const name = isFull ? path : " ".repeat(depth) + path.slice(path.lastIndexOf("/") + 1);
  const rights = permissions === undefined ? "" : `   (${formatPermissions(permissions)})`;
  return `${name} = "${formatValue(value)}"${rights}`;
};
