/**
 * Reading directories in pieces that can be continued anywhere, which `node:fs` cannot.
 *
 * Source: getdents(2), struct linux_dirent64.
 */
import { seek, Whence } from "./descriptor.ts";
import { lazily } from "./lazily.ts";
import { NativeBuffer, rawSystemCall } from "./libc.ts";
import { systemCallNumbers } from "./platform.ts";

/** What a directory entry is: Linux's `DT_*`. Some file systems say UNKNOWN: ask for the status then. */
export const EntryType = {
  UNKNOWN: 0,
  FIFO: 1,
  CHARACTER_DEVICE: 2,
  DIRECTORY: 4,
  BLOCK_DEVICE: 6,
  FILE: 8,
  LINK: 10,
  SOCKET: 12,
} as const;
/** One of {@link EntryType}. */
export type EntryType = (typeof EntryType)[keyof typeof EntryType];

/** One entry of a directory. */
export interface DirectoryEntry {
  /** Where to continue after this entry: opaque, and good for as long as the directory is open. */
  readonly nextCookie: bigint;
  readonly inode: bigint;
  /** One of {@link EntryType}. */
  readonly type: number;
  /** The name's bytes, which need not be UTF-8. */
  readonly name: Uint8Array<ArrayBuffer>;
}

/** One read fits at least 116 entries with names of 255 bytes. */
const READ_BYTES = 32 * 1024;

/** Offsets in struct linux_dirent64. */
const at = { inode: 0, next: 8, entryBytes: 16, type: 18, name: 19 };

/**
 * The entries that follow a cookie, as many as fit one read; an empty list is the end. `.` and `..` are among them.
 *
 * @param fd a directory that was opened for reading. Its offset moves.
 * @param cookie 0n for the beginning, or the `nextCookie` of an entry of the same directory.
 * @returns the entries, or a negative errno: `ENOTDIR`, `EBADF`, `EINVAL` for an impossible cookie, `ENOENT` when the
 * directory itself was removed.
 */
export const readDirectory = (fd: number, cookie: bigint): readonly DirectoryEntry[] | number => {
  const sought = seek(fd, BigInt.asIntN(64, cookie), Whence.SET);
  if (sought < 0) return sought;
  const { address, bytes, view } = buffer();
  // SAFETY: the kernel writes at most READ_BYTES to a native buffer of that size.
  const end = rawSystemCall(systemCallNumbers().getdents64, fd, address, READ_BYTES);
  if (end < 0) return end;

  const entries: DirectoryEntry[] = [];
  for (let entry = 0; entry < end; entry += view.getUint16(entry + at.entryBytes, true)) {
    const name = entry + at.name;
    entries.push({
      nextCookie: view.getBigUint64(entry + at.next, true),
      inode: view.getBigUint64(entry + at.inode, true),
      type: view.getUint8(entry + at.type),
      name: bytes.slice(name, bytes.indexOf(0, name)),
    });
  }
  return entries;
};

const buffer = lazily(() => new NativeBuffer(READ_BYTES));
