/**
 * Opening files beneath a directory: the kernel itself refuses a path that would leave it, whatever symbolic links,
 * `..`, mounts of /proc or concurrent renames are in the way.
 *
 * Source: openat2(2), open(2).
 */
import { constants as fileConstants } from "node:fs";
import { constants } from "node:os";
import { closeDescriptor } from "./descriptor.ts";
import { lazily } from "./lazily.ts";
import { NativeBuffer, rawSystemCall } from "./libc.ts";
import { NativePath, type PathText } from "./native-path.ts";
import { systemCallNumbers } from "./platform.ts";

/** Flags for opening. Several differ between x86-64 and arm64, so nobody else writes them as numbers. */
export const OpenFlag = {
  READ_ONLY: fileConstants.O_RDONLY,
  WRITE_ONLY: fileConstants.O_WRONLY,
  READ_WRITE: fileConstants.O_RDWR,
  CREATE: fileConstants.O_CREAT,
  EXCLUSIVE: fileConstants.O_EXCL,
  TRUNCATE: fileConstants.O_TRUNC,
  APPEND: fileConstants.O_APPEND,
  /** Also keeps the opening of a FIFO from blocking this thread. */
  NON_BLOCKING: fileConstants.O_NONBLOCK,
  DATA_SYNC: fileConstants.O_DSYNC,
  SYNC: fileConstants.O_SYNC,
  DIRECTORY: fileConstants.O_DIRECTORY,
  /** A symbolic link as last component is refused with ELOOP; with PATH it is opened itself. */
  NO_FOLLOW: fileConstants.O_NOFOLLOW,
  /** Names the file without opening it: good for status, times and as a directory to start from. */
  PATH: 0o10000000,
} as const;

const O_CLOEXEC = 0o2000000;
const RESOLVE_NO_XDEV = 0x01;
const RESOLVE_NO_MAGICLINKS = 0x02;
const RESOLVE_NO_SYMLINKS = 0x04;
const RESOLVE_BENEATH = 0x08;

/** struct open_how: flags, mode and resolve, 8 bytes each. */
const OPEN_HOW_BYTES = 24;

/** How often the kernel may answer that a concurrent rename kept it from deciding whether `..` escapes. */
const RACES_MAX = 32;

/** How to open a file. */
export interface OpenOptions {
  /** A sum of {@link OpenFlag} values. The descriptor is always closed on exec. */
  readonly flags: number;
  /** Permission bits of a created file, before the umask; 0o666 unless said otherwise. */
  readonly mode?: number;
  /** Refuse (`EXDEV`) to enter another mounted file system. */
  readonly sameDevice?: boolean;
  /** Refuse (`ELOOP`) every symbolic link on the way. */
  readonly noLinks?: boolean;
}

/**
 * Opens a file beneath a directory. Opening a FIFO without NON_BLOCKING blocks the thread until it has a peer.
 *
 * @returns the descriptor, or a negative errno: `EXDEV` when the path is absolute or leads out of the directory,
 * `ELOOP` for a magic link (/proc/PID/fd/N), `EAGAIN` when it kept being renamed, `ENOSYS` before Linux 5.6.
 */
export const openBeneath = (directoryFd: number, path: PathText, options: OpenOptions): number => {
  const { whole } = scratch();
  const refused = whole.assign(path);
  return refused < 0 ? refused : openNative(directoryFd, whole.address, options);
};

/**
 * Runs an operation on a path's last component in the directory that holds it. The parent is resolved beneath
 * `directoryFd`; the operation must not follow links at `nameAddress`, and must not keep `parentFd`.
 *
 * @returns what the operation returned, or a negative errno: `ENOENT` for an empty path, `EXDEV` for an absolute one or
 * one that leads out, `EINVAL` for one that ends in `..`, and whatever opening the parent gives.
 */
export const withParent = (
  directoryFd: number,
  path: NativePath,
  operate: (parentFd: number, nameAddress: number) => number,
): number => {
  const refused = path.split();
  if (refused < 0) return refused;
  if (!path.hasParent) return operate(directoryFd, path.nameAddress);
  const parentFd = openNative(directoryFd, path.address, { flags: OpenFlag.PATH | OpenFlag.DIRECTORY });
  if (parentFd < 0) return parentFd;
  try {
    return operate(parentFd, path.nameAddress);
  } finally {
    closeDescriptor(parentFd);
  }
};

const scratch = lazily(() => ({ how: new NativeBuffer(OPEN_HOW_BYTES), whole: new NativePath() }));

const openNative = (directoryFd: number, pathAddress: number, options: OpenOptions): number => {
  const { how } = scratch();
  const { flags, mode = 0o666, sameDevice = false, noLinks = false } = options;
  const resolve =
    RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (sameDevice ? RESOLVE_NO_XDEV : 0) | (noLinks ? RESOLVE_NO_SYMLINKS : 0);
  how.view.setBigUint64(0, BigInt(flags | O_CLOEXEC), true);
  how.view.setBigUint64(8, BigInt((flags & OpenFlag.CREATE) === 0 ? 0 : mode), true);
  how.view.setBigUint64(16, BigInt(resolve), true);
  for (let attempt = 1; ; attempt++) {
    // SAFETY: both addresses are in native buffers of this thread; the path ends in NUL within its buffer.
    const fd = rawSystemCall(systemCallNumbers().openat2, directoryFd, pathAddress, how.address, OPEN_HOW_BYTES);
    const again = fd === -constants.errno.EAGAIN || fd === -constants.errno.EINTR;
    if (!again || attempt === RACES_MAX) return fd;
  }
};
