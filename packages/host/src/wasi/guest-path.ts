/**
 * Paths as a guest gives them: bytes in its memory, read once, that must be UTF-8 without zeros. They are never decoded:
 * names are compared and passed on as bytes, so that two names cannot become one.
 */
import { isUtf8 } from "node:buffer";
import { PATH_BYTES_MAX, type Session } from "./context.ts";
import { ENOTCAPABLE, refuse } from "./errno.ts";

/** A path's bytes, good until the next call with the same `which`, or a negative errno. */
export type GuestPath = Uint8Array | number;

/**
 * Fetches a path into the session's first or second buffer. `ENOENT` when it is empty, `ENAMETOOLONG` over
 * `PATH_BYTES_MAX` bytes, `EFAULT`, `EILSEQ` when it is not UTF-8, `EINVAL` when it holds a zero.
 */
export const fetchPath = (session: Session, which: 0 | 1, address: number, lengthBytes: number): GuestPath => {
  if (lengthBytes === 0) return refuse("NOENT");
  if (lengthBytes > PATH_BYTES_MAX) return refuse("NAMETOOLONG");
  const path = session.paths[which].subarray(0, lengthBytes);
  const refused = session.memory.copyFromGuest(address, path);
  if (refused < 0) return refused;
  if (path.includes(0)) return refuse("INVAL");
  return isUtf8(path) ? path : refuse("ILSEQ");
};

/** Whether a path would start at the root, which no guest path may. */
export const isAbsolute = (path: Uint8Array): boolean => path[0] === 0x2f;

/**
 * The result of an operation beneath a directory. The kernel says `EXDEV` when a path would leave it: the guest has no
 * capability for what lies outside.
 */
export const beneath = (result: number): number => (result === refuse("XDEV") ? -ENOTCAPABLE : result);
