/**
 * Attributes of files between the kernel and a guest: types, times, and the two layouts of `$filestat`.
 */
import { EntryType, type FileStatus, type TimeChange, type TimeChanges } from "@xenolith/sys";
import type { Session } from "./context.ts";
import { refuse } from "./errno.ts";
import { Filestat, Filetype, Fstflag, UnstableFilestat } from "./layouts.ts";

const S_IFMT = 0o170000;
const S_IFIFO = 0o010000;
const S_IFSOCK = 0o140000;

/** WASI's file type by Linux's type bits of a mode. */
const filetypeOfMode: Readonly<Record<number, number>> = {
  0o020000: Filetype.CHARACTER_DEVICE,
  0o040000: Filetype.DIRECTORY,
  0o060000: Filetype.BLOCK_DEVICE,
  0o100000: Filetype.REGULAR_FILE,
  0o120000: Filetype.SYMBOLIC_LINK,
  [S_IFIFO]: Filetype.UNKNOWN,
  [S_IFSOCK]: Filetype.SOCKET_STREAM,
};

/** WASI's file type by the type in a directory entry. */
const filetypeOfEntry: Readonly<Record<number, number>> = {
  [EntryType.CHARACTER_DEVICE]: Filetype.CHARACTER_DEVICE,
  [EntryType.DIRECTORY]: Filetype.DIRECTORY,
  [EntryType.BLOCK_DEVICE]: Filetype.BLOCK_DEVICE,
  [EntryType.FILE]: Filetype.REGULAR_FILE,
  [EntryType.LINK]: Filetype.SYMBOLIC_LINK,
  [EntryType.SOCKET]: Filetype.SOCKET_STREAM,
};

/** What the file with this mode is. */
export const filetypeOf = (mode: number): number => filetypeOfMode[mode & S_IFMT] ?? Filetype.UNKNOWN;

/** What the file of a directory entry is, as far as the directory says. */
export const filetypeInDirectory = (entryType: number): number => filetypeOfEntry[entryType] ?? Filetype.UNKNOWN;

/** Writes a file's attributes in the layout of the guest's WASI. */
export const storeFilestat = ({ memory, module }: Session, status: FileStatus, result: number): number => {
  const { scratch } = memory;
  const isUnstable = module === "wasi_unstable";
  const layout = isUnstable ? UnstableFilestat : Filestat;
  for (let at = 0; at < layout.sizeBytes; at += 4) scratch.setUint32(at, 0);
  layout.dev.set(scratch, 0, status.device);
  layout.ino.set(scratch, 0, status.inode);
  layout.filetype.set(scratch, 0, filetypeOf(status.mode));
  if (isUnstable) UnstableFilestat.nlink.set(scratch, 0, status.linkCount);
  else Filestat.nlink.set(scratch, 0, BigInt(status.linkCount));
  layout.size.set(scratch, 0, status.sizeBytes);
  layout.atim.set(scratch, 0, status.accessedNs);
  layout.mtim.set(scratch, 0, status.modifiedNs);
  layout.ctim.set(scratch, 0, status.changedNs);
  return memory.store(result, layout.sizeBytes) ? 0 : refuse("FAULT");
};

/** Writes what a guest may know of a standard stream: its type. */
export const storeStreamFilestat = (session: Session, filetype: number, result: number): number => {
  const { memory, module } = session;
  const layout = module === "wasi_unstable" ? UnstableFilestat : Filestat;
  for (let at = 0; at < layout.sizeBytes; at += 4) memory.scratch.setUint32(at, 0);
  layout.filetype.set(memory.scratch, 0, filetype);
  return memory.store(result, layout.sizeBytes) ? 0 : refuse("FAULT");
};

const ALL_FSTFLAGS = Fstflag.ATIM | Fstflag.ATIM_NOW | Fstflag.MTIM | Fstflag.MTIM_NOW;

/** What to do with a file's times, or undefined when the flags contradict themselves. */
export const timeChanges = (accessed: bigint, modified: bigint, flags: number): TimeChanges | undefined => {
  if ((flags & ~ALL_FSTFLAGS) !== 0) return undefined;
  const access = timeChange(accessed, (flags & Fstflag.ATIM) !== 0, (flags & Fstflag.ATIM_NOW) !== 0);
  const modification = timeChange(modified, (flags & Fstflag.MTIM) !== 0, (flags & Fstflag.MTIM_NOW) !== 0);
  if (access === undefined || modification === undefined) return undefined;
  return { accessed: access, modified: modification };
};

const timeChange = (wide: bigint, isGiven: boolean, isNow: boolean): TimeChange | undefined => {
  if (isGiven) return isNow ? undefined : BigInt.asUintN(64, wide);
  return isNow ? "now" : "keep";
};
