/**
 * Operations on names beneath a directory. None leaves it and none follows a link in its last component unless told to;
 * the kernel decides both, in one step, so nothing can be swapped between a check and its use.
 */
import {
  closeDescriptor,
  linkBeneath,
  makeDirectoryBeneath,
  openBeneath,
  OpenFlag,
  type Place,
  readLinkBeneath,
  removeDirectoryBeneath,
  renameBeneath,
  setTimesBeneath,
  statusBeneath,
  symlinkBeneath,
  unlinkBeneath,
} from "@xenolith/sys";
import type { Session } from "./context.ts";
import { useDirectory, useWritableDirectory } from "./descriptor-use.ts";
import { ENOTCAPABLE, refuse } from "./errno.ts";
import { storeFilestat, timeChanges } from "./file-attributes.ts";
import { beneath, fetchPath, isAbsolute } from "./guest-path.ts";
import { LOOKUP_SYMLINK_FOLLOW } from "./layouts.ts";
import { Right } from "./rights.ts";
import type { WasiArguments } from "./signatures.ts";

/** The longest link text that Linux makes. */
const LINK_BYTES_MAX = 4096;

export const pathCreateDirectory = (session: Session, fd: number, address: number, length: number): number =>
  changeName(session, fd, Right.PATH_CREATE_DIRECTORY, address, length, makeDirectoryBeneath);

export const pathRemoveDirectory = (session: Session, fd: number, address: number, length: number): number =>
  changeName(session, fd, Right.PATH_REMOVE_DIRECTORY, address, length, removeDirectoryBeneath);

export const pathUnlinkFile = (session: Session, fd: number, address: number, length: number): number =>
  changeName(session, fd, Right.PATH_UNLINK_FILE, address, length, unlinkBeneath);

/** A change that one path names. */
const changeName = (
  session: Session,
  fd: number,
  rights: number,
  address: number,
  length: number,
  change: (hostFd: number, path: Uint8Array) => number,
): number => {
  const row = useWritableDirectory(session, fd, rights);
  if (row < 0) return row;
  const path = fetchPath(session, 0, address, length);
  const result = typeof path === "number" ? path : beneath(change(session.descriptors.hostFd[row]!, path));
  session.descriptors.release(row);
  return result;
};

export const pathFilestatGet = (session: Session, ...values: WasiArguments<"path_filestat_get">): number => {
  const [fd, lookup, address, length, result] = values;
  if (lookup > LOOKUP_SYMLINK_FOLLOW) return refuse("INVAL");
  const row = useDirectory(session, fd, Right.PATH_FILESTAT_GET);
  if (row < 0) return row;
  const path = fetchPath(session, 0, address, length);
  const follow = lookup === LOOKUP_SYMLINK_FOLLOW;
  const status = typeof path === "number" ? path : statusBeneath(session.descriptors.hostFd[row]!, path, follow);
  session.descriptors.release(row);
  return typeof status === "number" ? beneath(status) : storeFilestat(session, status, result);
};

export const pathFilestatSetTimes = (session: Session, ...values: WasiArguments<"path_filestat_set_times">): number => {
  const [fd, lookup, address, length, accessed, modified, flags] = values;
  const changes = timeChanges(accessed, modified, flags);
  if (changes === undefined || lookup > LOOKUP_SYMLINK_FOLLOW) return refuse("INVAL");
  const follow = lookup === LOOKUP_SYMLINK_FOLLOW;
  return changeName(session, fd, Right.PATH_FILESTAT_SET_TIMES, address, length, (hostFd, path) =>
    setTimesBeneath(hostFd, path, follow, changes),
  );
};

export const pathReadlink = (session: Session, ...values: WasiArguments<"path_readlink">): number => {
  const [fd, address, length, target, targetLength, result] = values;
  const { descriptors, memory, bounce } = session;
  const row = useDirectory(session, fd, Right.PATH_READLINK);
  if (row < 0) return row;
  const path = fetchPath(session, 0, address, length);
  const into = { address: bounce.address, lengthBytes: LINK_BYTES_MAX };
  const read = typeof path === "number" ? path : beneath(readLinkBeneath(descriptors.hostFd[row]!, path, into));
  descriptors.release(row);
  if (read < 0) return read;
  const used = Math.min(read, targetLength);
  const copied = memory.copyToGuest(target, bounce.bytes.subarray(0, used));
  if (copied < 0) return copied;
  return memory.writeU32(result, used) ? 0 : refuse("FAULT");
};

/** A link's text that starts at the root means the host's root to every other program: refused. */
export const pathSymlink = (session: Session, ...values: WasiArguments<"path_symlink">): number => {
  const [targetAddress, targetLength, fd, address, length] = values;
  const target = fetchPath(session, 1, targetAddress, targetLength);
  if (typeof target === "number") return target;
  if (isAbsolute(target)) return -ENOTCAPABLE;
  return changeName(session, fd, Right.PATH_SYMLINK, address, length, (hostFd, path) =>
    symlinkBeneath(target, hostFd, path),
  );
};

/** Following a link to what gets a second name is not supported, as in other implementations. */
export const pathLink = (session: Session, ...values: WasiArguments<"path_link">): number => {
  const [oldFd, lookup, oldAddress, oldLength, newFd, newAddress, newLength] = values;
  if (lookup !== 0) return refuse("INVAL");
  const rights = { from: Right.PATH_LINK_SOURCE, to: Right.PATH_LINK_TARGET };
  return changeNames(session, { oldFd, oldAddress, oldLength, newFd, newAddress, newLength }, rights, linkBeneath);
};

export const pathRename = (session: Session, ...values: WasiArguments<"path_rename">): number => {
  const [oldFd, oldAddress, oldLength, newFd, newAddress, newLength] = values;
  const rights = { from: Right.PATH_RENAME_SOURCE, to: Right.PATH_RENAME_TARGET };
  return changeNames(session, { oldFd, oldAddress, oldLength, newFd, newAddress, newLength }, rights, renameBeneath);
};

/** Two paths and their directories, as the guest gave them. */
interface TwoNames {
  readonly oldFd: number;
  readonly oldAddress: number;
  readonly oldLength: number;
  readonly newFd: number;
  readonly newAddress: number;
  readonly newLength: number;
}

/**
 * A change that two paths name. A file must not reach a directory through which more may be done to it than through
 * the one it comes from: neither from a read-only one nor from one that passes fewer rights on.
 */
const changeNames = (
  session: Session,
  names: TwoNames,
  rights: { readonly from: number; readonly to: number },
  change: (from: Place, to: Place) => number,
): number => {
  const { descriptors } = session;
  const from = useWritableDirectory(session, names.oldFd, rights.from);
  if (from < 0) return from;
  const to = useWritableDirectory(session, names.newFd, rights.to);
  const result = to < 0 ? to : changeBetween(session, names, { from, to }, change);
  if (to >= 0) descriptors.release(to);
  descriptors.release(from);
  return result;
};

const changeBetween = (
  session: Session,
  names: TwoNames,
  rows: { readonly from: number; readonly to: number },
  change: (from: Place, to: Place) => number,
): number => {
  const { descriptors } = session;
  if ((descriptors.inheriting[rows.to]! & ~descriptors.inheriting[rows.from]!) !== 0) return -ENOTCAPABLE;
  const oldPath = fetchPath(session, 0, names.oldAddress, names.oldLength);
  if (typeof oldPath === "number") return oldPath;
  const newPath = fetchPath(session, 1, names.newAddress, names.newLength);
  if (typeof newPath === "number") return newPath;
  const from = { directoryFd: descriptors.hostFd[rows.from]!, path: oldPath };
  const to = { directoryFd: descriptors.hostFd[rows.to]!, path: newPath };
  const result = change(from, to);
  const escapes = result === refuse("XDEV") && (leadsOut(from) || leadsOut(to));
  return escapes ? -ENOTCAPABLE : result;
};

/** Whether the kernel refuses a path because it leaves its directory, rather than because of two file systems. */
const leadsOut = ({ directoryFd, path }: Place): boolean => {
  const fd = openBeneath(directoryFd, path, { flags: OpenFlag.PATH | OpenFlag.NO_FOLLOW });
  if (fd >= 0) closeDescriptor(fd);
  return fd === refuse("XDEV");
};
