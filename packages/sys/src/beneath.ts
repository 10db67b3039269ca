/**
 * Changes to the names beneath a directory. No path leaves it, and none follows a symbolic link in its last component.
 * Every function returns a number from 0 or a negative errno, as the system call of the same name, plus the refusals
 * of `withParent`: `EXDEV` when a path is absolute or leads out, `EINVAL` when it ends in `..`.
 *
 * Linux follows a link whose name is followed by a slash. Slashes at the end are therefore cut off here, and
 * what they ask for (a directory) is checked apart.
 *
 * Source: unlinkat(2), mkdirat(2), renameat(2), linkat(2), symlinkat(2), readlinkat(2), path_resolution(7).
 */
import { constants } from "node:os";
import { closeDescriptor, type MemoryRange } from "./descriptor.ts";
import { modeAt } from "./file-status.ts";
import { lazily } from "./lazily.ts";
import { bind, NativeBuffer, resultOf } from "./libc.ts";
import { NativePath, type PathText } from "./native-path.ts";
import { openBeneath, OpenFlag, withParent } from "./open-beneath.ts";

const { EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR } = constants.errno;

const AT_REMOVEDIR = 0x200;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;

const mkdirat = bind("int mkdirat(int, uintptr_t, unsigned int)");
const unlinkat = bind("int unlinkat(int, uintptr_t, int)");
const renameat = bind("int renameat(int, uintptr_t, int, uintptr_t)");
const linkat = bind("int linkat(int, uintptr_t, int, uintptr_t, int)");
const symlinkat = bind("int symlinkat(uintptr_t, int, uintptr_t)");
const readlinkat = bind("intptr_t readlinkat(int, uintptr_t, uintptr_t, size_t)");

/** Makes a directory. `mode` is reduced by the umask. */
export const makeDirectoryBeneath = (directoryFd: number, path: PathText, mode = 0o777): number =>
  // SAFETY: nameAddress is a NUL-terminated string in a native buffer, valid during the call; so in all that follow.
  onPath(directoryFd, path, (parentFd, name) => resultOf(mkdirat()(parentFd, name, mode)));

/** Removes an empty directory. */
export const removeDirectoryBeneath = (directoryFd: number, path: PathText): number =>
  // SAFETY: as above.
  onPath(directoryFd, path, (parentFd, name) => resultOf(unlinkat()(parentFd, name, AT_REMOVEDIR)));

/** Removes a name that is not a directory's; a symbolic link itself. */
export const unlinkBeneath = (directoryFd: number, path: PathText): number =>
  onPath(directoryFd, path, (parentFd, name, trailingSlash) => {
    if (trailingSlash) return directoryAt(parentFd, name) || -EISDIR;
    // SAFETY: as above.
    return resultOf(unlinkat()(parentFd, name, 0));
  });

/** A name: a path and the directory beneath which it lies. */
export interface Place {
  readonly directoryFd: number;
  readonly path: PathText;
}

/** Gives a file another name, replacing what had it. */
export const renameBeneath = (from: Place, to: Place): number =>
  onPaths(from, to, (source, target) => {
    if (source.trailingSlash || target.trailingSlash) {
      const refused = directoryAt(source.parentFd, source.name);
      if (refused < 0) return refused;
    }
    // SAFETY: as above, for both names, which lie in two buffers.
    return resultOf(renameat()(source.parentFd, source.name, target.parentFd, target.name));
  });

/** Gives a file a second name. A symbolic link gets the second name itself. */
export const linkBeneath = (existing: Place, added: Place): number =>
  onPaths(existing, added, (source, target) => {
    const refused = source.trailingSlash ? directoryAt(source.parentFd, source.name) : 0;
    if (refused < 0) return refused;
    if (target.trailingSlash) return absentAt(target.parentFd, target.name);
    // SAFETY: as above; flags 0 follow no link.
    return resultOf(linkat()(source.parentFd, source.name, target.parentFd, target.name, 0));
  });

/**
 * Makes a symbolic link with any text as target. The text is not checked: it can lead programs that do not resolve
 * beneath a directory anywhere, so a caller with hostile guests refuses absolute targets first.
 */
export const symlinkBeneath = (target: PathText, directoryFd: number, path: PathText): number => {
  const { second } = scratch();
  const refused = second.assign(target);
  if (refused < 0) return refused;
  return onPath(directoryFd, path, (parentFd, name, trailingSlash) => {
    if (trailingSlash) return absentAt(parentFd, name);
    // SAFETY: as above; second holds the target's text.
    return resultOf(symlinkat()(second.address, parentFd, name));
  });
};

/** Reads a symbolic link's text, cut off at the range's length, and gives its length. `EINVAL`: it is not a link. */
export const readLinkBeneath = (directoryFd: number, path: PathText, into: MemoryRange): number => {
  const fd = openBeneath(directoryFd, path, { flags: OpenFlag.PATH | OpenFlag.NO_FOLLOW });
  if (fd < 0) return fd;
  // SAFETY: the empty path means the link that fd names; the caller owns the range.
  const result = resultOf(readlinkat()(fd, scratch().empty.address, into.address, into.lengthBytes));
  closeDescriptor(fd);
  return result === -ENOENT ? -EINVAL : result;
};

const scratch = lazily(() => ({ first: new NativePath(), second: new NativePath(), empty: new NativeBuffer(1) }));

const onPath = (
  directoryFd: number,
  path: PathText,
  operate: (parentFd: number, name: number, trailingSlash: boolean) => number,
): number => {
  const { first } = scratch();
  const refused = first.assign(path);
  if (refused < 0) return refused;
  return withParent(directoryFd, first, (parentFd, name) => operate(parentFd, name, first.trailingSlash));
};

interface Entry {
  readonly parentFd: number;
  /** Address of the last component's text. */
  readonly name: number;
  readonly trailingSlash: boolean;
}

const onPaths = (from: Place, to: Place, operate: (source: Entry, target: Entry) => number): number => {
  const { second } = scratch();
  return onPath(from.directoryFd, from.path, (parentFd, name, trailingSlash) => {
    const refused = second.assign(to.path);
    if (refused < 0) return refused;
    return withParent(to.directoryFd, second, (targetFd, targetName) =>
      operate(
        { parentFd, name, trailingSlash },
        { parentFd: targetFd, name: targetName, trailingSlash: second.trailingSlash },
      ),
    );
  });
};

/** 0 when the name is a directory's own, else why it is not. */
const directoryAt = (parentFd: number, name: number): number => {
  const mode = modeAt(parentFd, name);
  if (mode < 0) return mode;
  return (mode & S_IFMT) === S_IFDIR ? 0 : -ENOTDIR;
};

/** What Linux answers when a name that is to be made, but not as a directory, ends in a slash. */
const absentAt = (parentFd: number, name: number): number => (modeAt(parentFd, name) < 0 ? -ENOENT : -EEXIST);
