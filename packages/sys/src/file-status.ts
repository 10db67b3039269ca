/**
 * What a file is: type, size, times. `statx` has one layout on every machine, unlike `stat`, and does not throw.
 *
 * Source: statx(2), utimensat(2).
 */
import { closeDescriptor } from "./descriptor.ts";
import { lazily } from "./lazily.ts";
import { bind, NativeBuffer, rawSystemCall, resultOf } from "./libc.ts";
import type { PathText } from "./native-path.ts";
import { openBeneath, OpenFlag } from "./open-beneath.ts";
import { systemCallNumbers } from "./platform.ts";

/** A file's status. Times are nanoseconds since 1970. */
export interface FileStatus {
  /** Names the file system; only good for comparing. */
  readonly device: bigint;
  readonly inode: bigint;
  /** Type and permission bits (`S_IFMT` and below). */
  readonly mode: number;
  readonly linkCount: number;
  readonly sizeBytes: bigint;
  /** Memory or disk that the contents take now; for a memfd the pages that exist. */
  readonly storageBytes: bigint;
  readonly accessedNs: bigint;
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
}

/** What to do with one time of a file: set it to nanoseconds since 1970, or to the present, or keep it. */
export type TimeChange = bigint | "now" | "keep";

/** What to do with the times of a file. */
export interface TimeChanges {
  readonly accessed: TimeChange;
  readonly modified: TimeChange;
}

const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_NO_AUTOMOUNT = 0x800;
const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_STATS = 0x7ff;
const STATX_BYTES = 256;
const BLOCK_BYTES = 512n;
const NS_PER_SECOND = 1_000_000_000n;
const UTIME_NOW = 2n ** 30n - 1n;
const UTIME_OMIT = 2n ** 30n - 2n;

/** Offsets in struct statx. */
const at = { links: 16, mode: 28, inode: 32, size: 40, blocks: 48, atime: 64, ctime: 96, mtime: 112, device: 136 };

const utimensat = bind("int utimensat(int, uintptr_t, uintptr_t, int)");

/** The status of an open file, of any kind (also one opened with `OpenFlag.PATH`), or a negative errno. */
export const statusOf = (fd: number): FileStatus | number => {
  const result = statInto(fd, scratch().empty.address, AT_EMPTY_PATH);
  return result < 0 ? result : decode(scratch().status.view);
};

/** The status of a file beneath a directory, or a negative errno. Follows links beneath it only if asked to. */
export const statusBeneath = (directoryFd: number, path: PathText, followLink: boolean): FileStatus | number => {
  const fd = openBeneath(directoryFd, path, { flags: namingFlags(followLink) });
  if (fd < 0) return fd;
  const status = statusOf(fd);
  closeDescriptor(fd);
  return status;
};

/** The mode of a name's own file (no link is followed), or a negative errno. For this package. */
export const modeAt = (parentFd: number, nameAddress: number): number => {
  const result = statInto(parentFd, nameAddress, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
  return result < 0 ? result : scratch().status.view.getUint16(at.mode, true);
};

/** Sets the times of an open file (not one opened with `OpenFlag.PATH`). */
export const setTimes = (fd: number, changes: TimeChanges): number => {
  encodeTimes(changes);
  // SAFETY: a null path means fd itself; the times lie in a native buffer of two timespecs.
  return resultOf(futimens()(fd, scratch().times.address));
};

/** Sets the times of a file beneath a directory. `EINVAL` before Linux 5.8. */
export const setTimesBeneath = (
  directoryFd: number,
  path: PathText,
  followLink: boolean,
  changes: TimeChanges,
): number => {
  const fd = openBeneath(directoryFd, path, { flags: namingFlags(followLink) });
  if (fd < 0) return fd;
  encodeTimes(changes);
  const { empty, times } = scratch();
  // SAFETY: the empty path means the file that fd names; both addresses are in native buffers of this thread.
  const result = resultOf(utimensat()(fd, empty.address, times.address, AT_EMPTY_PATH));
  closeDescriptor(fd);
  return result;
};

const futimens = bind("int futimens(int, uintptr_t)");

const scratch = lazily(() => ({
  status: new NativeBuffer(STATX_BYTES),
  times: new NativeBuffer(32),
  empty: new NativeBuffer(1),
}));

const namingFlags = (followLink: boolean): number => (followLink ? OpenFlag.PATH : OpenFlag.PATH | OpenFlag.NO_FOLLOW);

const statInto = (fd: number, pathAddress: number, flags: number): number =>
  // SAFETY: the path is a NUL-terminated string in a native buffer; the kernel writes 256 bytes to one of that size.
  rawSystemCall(systemCallNumbers().statx, fd, pathAddress, flags, STATX_BASIC_STATS, scratch().status.address);

const decode = (view: DataView): FileStatus => ({
  device: (BigInt(view.getUint32(at.device, true)) << 32n) | BigInt(view.getUint32(at.device + 4, true)),
  inode: view.getBigUint64(at.inode, true),
  mode: view.getUint16(at.mode, true),
  linkCount: view.getUint32(at.links, true),
  sizeBytes: view.getBigUint64(at.size, true),
  storageBytes: view.getBigUint64(at.blocks, true) * BLOCK_BYTES,
  accessedNs: timeAt(view, at.atime),
  modifiedNs: timeAt(view, at.mtime),
  changedNs: timeAt(view, at.ctime),
});

const timeAt = (view: DataView, offset: number): bigint =>
  view.getBigInt64(offset, true) * NS_PER_SECOND + BigInt(view.getUint32(offset + 8, true));

const encodeTimes = ({ accessed, modified }: TimeChanges): void => {
  const { view } = scratch().times;
  encodeTime(view, 0, accessed);
  encodeTime(view, 16, modified);
};

/** One struct timespec: seconds, which may be negative, and nanoseconds from 0 to 999,999,999 or a special value. */
const encodeTime = (view: DataView, offset: number, change: TimeChange): void => {
  const special = change === "now" ? UTIME_NOW : UTIME_OMIT;
  const nanoseconds = typeof change === "bigint" ? ((change % NS_PER_SECOND) + NS_PER_SECOND) % NS_PER_SECOND : special;
  const seconds = typeof change === "bigint" ? (change - nanoseconds) / NS_PER_SECOND : 0n;
  view.setBigInt64(offset, seconds, true);
  view.setBigInt64(offset + 8, nanoseconds, true);
};
