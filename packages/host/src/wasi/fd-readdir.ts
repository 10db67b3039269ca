/**
 * fd_readdir. A cookie is the kernel's own, so that a listing continues at the right place whatever was made or removed
 * meanwhile, and nothing is kept between calls.
 */
import { type DirectoryEntry, readDirectory } from "@xenolith/sys";
import { BOUNCE_BYTES, type Session } from "./context.ts";
import { useDirectory } from "./descriptor-use.ts";
import { refuse } from "./errno.ts";
import { filetypeInDirectory } from "./file-attributes.ts";
import { Dirent } from "./layouts.ts";
import { Right } from "./rights.ts";

/** Room for one whole entry behind the part of the bounce buffer that is handed out. */
const ENTRY_BYTES_MAX = 8192;
const LISTING_BYTES_MAX = BOUNCE_BYTES - ENTRY_BYTES_MAX;

export const fdReaddir = (
  session: Session,
  fd: number,
  target: number,
  targetLength: number,
  cookie: bigint,
  result: number,
): number => {
  const { descriptors, memory, bounce } = session;
  const row = useDirectory(session, fd, Right.FD_READDIR);
  if (row < 0) return row;
  const limit = Math.min(targetLength, LISTING_BYTES_MAX);
  const used = list(session, descriptors.hostFd[row]!, BigInt.asUintN(64, cookie), limit);
  descriptors.release(row);
  if (used < 0) return used;
  const copied = memory.copyToGuest(target, bounce.bytes.subarray(0, used));
  if (copied < 0) return copied;
  return memory.writeU32(result, used) ? 0 : refuse("FAULT");
};

/**
 * Puts entries into the bounce buffer until `limit` bytes are full, the last one cut off, or the directory ends.
 * Returns the bytes used; fewer than `limit` tell the guest that it has seen everything.
 */
const list = (session: Session, hostFd: number, cookie: bigint, limit: number): number => {
  let used = 0;
  for (let next = cookie; used < limit;) {
    const entries = readDirectory(hostFd, next);
    if (typeof entries === "number") return entries;
    if (entries.length === 0) return used;
    for (const entry of entries) {
      used += put(session, used, entry);
      if (used >= limit) return limit;
      next = entry.nextCookie;
    }
  }
  return used;
};

/** Writes one entry at `at` of the bounce buffer; returns its length. */
const put = ({ bounce }: Session, at: number, entry: DirectoryEntry): number => {
  const { bytes, view } = bounce;
  bytes.fill(0, at, at + Dirent.sizeBytes);
  Dirent.d_next.set(view, at, entry.nextCookie);
  // What lies above a directory is none of the guest's business, its inode number neither.
  Dirent.d_ino.set(view, at, isParent(entry.name) ? 0n : entry.inode);
  Dirent.d_namlen.set(view, at, entry.name.length);
  Dirent.d_type.set(view, at, filetypeInDirectory(entry.type));
  bytes.set(entry.name, at + Dirent.sizeBytes);
  return Dirent.sizeBytes + entry.name.length;
};

const DOT = 0x2e;

const isParent = (name: Uint8Array): boolean => name.length === 2 && name[0] === DOT && name[1] === DOT;
