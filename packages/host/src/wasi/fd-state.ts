/**
 * What a descriptor is and where it stands: flags, rights, offset, number, and whether it is open at all.
 */
import { descriptorFlags, OpenFlag, seek, setDescriptorFlags, Whence } from "@xenolith/sys";
import type { Session } from "./context.ts";
import { DescriptorKind } from "./descriptor-table.ts";
import { useDescriptor, useSeekable } from "./descriptor-use.ts";
import { ENOTCAPABLE, refuse } from "./errno.ts";
import { storeU64 } from "./guest-numbers.ts";
import { Fdflag, Fdstat, PREOPENTYPE_DIR, Prestat } from "./layouts.ts";
import { ALL_RIGHTS, Right } from "./rights.ts";

export const fdClose = (session: Session, fd: number): number => session.descriptors.close(fd);

export const fdRenumber = (session: Session, from: number, to: number): number =>
  session.descriptors.renumber(from, to);

export const fdFdstatGet = (session: Session, fd: number, result: number): number => {
  const { descriptors, memory } = session;
  const row = useDescriptor(session, fd, 0);
  if (row < 0) return row;
  Fdstat.fs_filetype.set(memory.scratch, 0, descriptors.filetype[row]!);
  memory.scratch.setUint8(1, 0);
  Fdstat.fs_flags.set(memory.scratch, 0, descriptors.fdflags[row]!);
  memory.scratch.setUint32(4, 0);
  Fdstat.fs_rights_base.set(memory.scratch, 0, descriptors.base[row]!);
  Fdstat.fs_rights_inheriting.set(memory.scratch, 0, descriptors.inheriting[row]!);
  descriptors.release(row);
  return memory.store(result, Fdstat.sizeBytes) ? 0 : refuse("FAULT");
};

const CHANGEABLE_FLAGS = Fdflag.APPEND | Fdflag.NONBLOCK;

export const fdFdstatSetFlags = (session: Session, fd: number, flags: number): number => {
  const row = useDescriptor(session, fd, Right.FD_FDSTAT_SET_FLAGS);
  if (row < 0) return row;
  const result = setFlags(session, row, flags);
  session.descriptors.release(row);
  return result;
};

/** Linux cannot change how writes are synchronised after opening, so asking for another way is refused. */
const setFlags = ({ descriptors }: Session, row: number, flags: number): number => {
  const changed = flags ^ descriptors.fdflags[row]!;
  if ((changed & ~CHANGEABLE_FLAGS) !== 0) return refuse("INVAL");
  if ((changed & Fdflag.APPEND) !== 0) {
    if (descriptors.kind[row] !== DescriptorKind.FILE) return refuse("INVAL");
    const refused = setAppend(descriptors.hostFd[row]!, (flags & Fdflag.APPEND) !== 0);
    if (refused < 0) return refused;
  }
  descriptors.fdflags[row] = flags;
  return 0;
};

/** Our own descriptors stay non-blocking, whatever the guest wants: waiting is done outside the kernel. */
const setAppend = (hostFd: number, append: boolean): number => {
  const before = descriptorFlags(hostFd);
  if (before < 0) return before;
  return setDescriptorFlags(hostFd, append ? before | OpenFlag.APPEND : before & ~OpenFlag.APPEND);
};

/** Takes rights away. Asking for one that the descriptor does not have is refused and changes nothing. */
export const fdFdstatSetRights = (session: Session, fd: number, wideBase: bigint, wideInheriting: bigint): number => {
  const { descriptors } = session;
  const row = useDescriptor(session, fd, 0);
  if (row < 0) return row;
  const base = narrow(wideBase);
  const inheriting = narrow(wideInheriting);
  const isLess = isSubset(base, descriptors.base[row]!) && isSubset(inheriting, descriptors.inheriting[row]!);
  if (isLess) descriptors.restrict(row, base, inheriting);
  descriptors.release(row);
  return isLess ? 0 : -ENOTCAPABLE;
};

/** A set of rights, or -1 when it holds a bit that means nothing and that nobody therefore has. */
const narrow = (wide: bigint): number => (wide >= 0n && wide <= BigInt(ALL_RIGHTS) ? Number(wide) : -1);

const isSubset = (part: number, whole: number): boolean => part >= 0 && (part & ~whole) === 0;

/** preview1's whence by the number that wasi_unstable gives it. */
const unstableWhence = [Whence.CUR, Whence.END, Whence.SET] as const;
const preview1Whence = [Whence.SET, Whence.CUR, Whence.END] as const;

export const fdSeek = (session: Session, fd: number, delta: bigint, whence: number, result: number): number => {
  const from = (session.module === "wasi_unstable" ? unstableWhence : preview1Whence)[whence];
  const offset = Number(delta);
  if (from === undefined || !Number.isSafeInteger(offset)) return refuse("INVAL");
  const isTell = from === Whence.CUR && offset === 0;
  const row = useSeekable(session, fd, isTell ? Right.FD_TELL : Right.FD_SEEK);
  return row < 0 ? row : seekRow(session, row, offset, from, result);
};

export const fdTell = (session: Session, fd: number, result: number): number => {
  const row = useSeekable(session, fd, Right.FD_TELL);
  return row < 0 ? row : seekRow(session, row, 0, Whence.CUR, result);
};

/** Seeks and releases. The result's address is checked first: an offset that nobody learns must not have moved. */
const seekRow = (session: Session, row: number, offset: number, whence: Whence, result: number): number => {
  const { descriptors, memory } = session;
  const fault = memory.accessible(result, 8, true) ? 0 : refuse("FAULT");
  const position = fault < 0 ? fault : seek(descriptors.hostFd[row]!, offset, whence);
  descriptors.release(row);
  if (position < 0) return position;
  return storeU64(memory, result, position) ? 0 : refuse("FAULT");
};

export const fdPrestatGet = (session: Session, fd: number, result: number): number => {
  const { memory } = session;
  const name = preopenName(session, fd);
  if (typeof name === "number") return name;
  memory.scratch.setUint32(0, 0);
  Prestat.tag.set(memory.scratch, 0, PREOPENTYPE_DIR);
  Prestat.pr_name_len.set(memory.scratch, 0, name.length);
  return memory.store(result, Prestat.sizeBytes) ? 0 : refuse("FAULT");
};

export const fdPrestatDirName = (session: Session, fd: number, address: number, lengthBytes: number): number => {
  const name = preopenName(session, fd);
  if (typeof name === "number") return name;
  if (lengthBytes < name.length) return refuse("NAMETOOLONG");
  return session.memory.copyToGuest(address, name);
};

const preopenName = (session: Session, fd: number): Uint8Array | number => {
  const row = useDescriptor(session, fd, 0);
  if (row < 0) return row;
  const preopen = session.context.preopens[session.descriptors.origin[row]! - 1];
  session.descriptors.release(row);
  return preopen?.guestPath ?? refuse("BADF");
};
