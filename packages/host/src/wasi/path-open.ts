/**
 * path_open: the one way to a new descriptor. The kernel resolves the path and refuses to leave the directory; the
 * rights asked for decide how the file is opened, and nothing gets more than its directory can pass on.
 */
import { constants } from "node:fs";
import { closeDescriptor, openBeneath, OpenFlag, statusOf } from "@xenolith/sys";
import type { Session } from "./context.ts";
import { DescriptorKind } from "./descriptor-table.ts";
import { useDirectory } from "./descriptor-use.ts";
import { ENOTCAPABLE, refuse } from "./errno.ts";
import { filetypeOf } from "./file-attributes.ts";
import { beneath, fetchPath } from "./guest-path.ts";
import { Fdflag, Filetype, LOOKUP_SYMLINK_FOLLOW, Oflag } from "./layouts.ts";
import { READING_RIGHTS, Right, rightsFor, rightsOf, WRITING_RIGHTS } from "./rights.ts";
import type { WasiArguments } from "./signatures.ts";

const ALL_OFLAGS = Oflag.CREAT | Oflag.DIRECTORY | Oflag.EXCL | Oflag.TRUNC;
const ALL_FDFLAGS = Fdflag.APPEND | Fdflag.DSYNC | Fdflag.NONBLOCK | Fdflag.RSYNC | Fdflag.SYNC;

/** Mode of a created file, before the umask of the process. */
const CREATED_MODE = 0o666;

/** What the guest asks for, checked as far as it can be without looking at any file. */
interface Request {
  readonly follow: boolean;
  readonly oflags: number;
  readonly base: number;
  readonly inheriting: number;
  readonly fdflags: number;
}

export const pathOpen = (session: Session, ...values: WasiArguments<"path_open">): number => {
  const [fd, lookup, pathAddress, pathLength, oflags, base, inheriting, fdflags, result] = values;
  const isKnown = lookup <= LOOKUP_SYMLINK_FOLLOW && oflags <= ALL_OFLAGS && fdflags <= ALL_FDFLAGS;
  if (!isKnown) return refuse("INVAL");
  const row = useDirectory(session, fd, neededRights(oflags));
  if (row < 0) return row;
  const follow = lookup === LOOKUP_SYMLINK_FOLLOW;
  const request = { follow, oflags, base: rightsOf(base), inheriting: rightsOf(inheriting), fdflags };
  const opened = openFrom(session, row, request, pathAddress, pathLength);
  session.descriptors.release(row);
  if (opened < 0 || session.memory.writeU32(result, opened)) return Math.min(opened, 0);
  session.descriptors.close(opened);
  return refuse("FAULT");
};

const neededRights = (oflags: number): number => {
  const create = (oflags & Oflag.CREAT) === 0 ? 0 : Right.PATH_CREATE_FILE;
  const truncate = (oflags & Oflag.TRUNC) === 0 ? 0 : Right.PATH_FILESTAT_SET_SIZE;
  return Right.PATH_OPEN | create | truncate;
};

/** Whether opening or using the file could change it. */
const isChanging = ({ oflags, base }: Request): boolean =>
  (base & WRITING_RIGHTS) !== 0 || (oflags & (Oflag.CREAT | Oflag.TRUNC)) !== 0;

/** The number of the new descriptor, or a negative errno. */
const openFrom = (session: Session, row: number, request: Request, address: number, length: number): number => {
  const { descriptors } = session;
  const passable = descriptors.inheriting[row]!;
  if (((request.base | request.inheriting) & ~passable) !== 0) return -ENOTCAPABLE;
  const path = fetchPath(session, 0, address, length);
  if (typeof path === "number") return path;
  if (descriptors.readOnly[row] === 1 && isChanging(request)) return refuse("ROFS");
  const fd = descriptors.reserve();
  if (fd < 0) return fd;
  const options = { flags: openFlags(request), mode: CREATED_MODE };
  const hostFd = beneath(openBeneath(descriptors.hostFd[row]!, path, options));
  const refused = hostFd < 0 ? hostFd : publish(session, fd, hostFd, request, descriptors.readOnly[row] === 1);
  if (refused === 0) return fd;
  descriptors.cancel(fd);
  return refused;
};

const openFlags = ({ follow, oflags, base, fdflags }: Request): number => {
  // Truncating is writing, whatever the descriptor may be used for afterwards.
  const writes = (base & WRITING_RIGHTS) !== 0 || (oflags & Oflag.TRUNC) !== 0;
  const reads = (base & READING_RIGHTS) !== 0 || !writes;
  // Never block here, and never make a terminal the one that controls this process.
  let flags = OpenFlag.NON_BLOCKING | constants.O_NOCTTY;
  if (writes) flags |= reads ? OpenFlag.READ_WRITE : OpenFlag.WRITE_ONLY;
  if (!follow) flags |= OpenFlag.NO_FOLLOW;
  if ((oflags & Oflag.CREAT) !== 0) flags |= OpenFlag.CREATE | ((oflags & Oflag.EXCL) === 0 ? 0 : OpenFlag.EXCLUSIVE);
  if ((oflags & Oflag.TRUNC) !== 0) flags |= OpenFlag.TRUNCATE;
  if ((oflags & Oflag.DIRECTORY) !== 0) flags |= OpenFlag.DIRECTORY;
  if ((fdflags & Fdflag.APPEND) !== 0) flags |= OpenFlag.APPEND;
  if ((fdflags & (Fdflag.SYNC | Fdflag.RSYNC)) !== 0) flags |= OpenFlag.SYNC;
  else if ((fdflags & Fdflag.DSYNC) !== 0) flags |= OpenFlag.DATA_SYNC;
  return flags;
};

/** Enters an open file under the reserved number, or closes it again. */
const publish = (session: Session, fd: number, hostFd: number, request: Request, readOnly: boolean): number => {
  const status = statusOf(hostFd);
  const filetype = typeof status === "number" ? Filetype.UNKNOWN : filetypeOf(status.mode);
  const kind = kindOf(filetype);
  const refused = typeof status === "number" ? status : kind;
  const { descriptors } = session;
  const published =
    refused < 0
      ? refused
      : descriptors.publish(fd, {
          kind,
          hostFd,
          filetype,
          base: request.base & rightsFor(filetype),
          inheriting: filetype === Filetype.DIRECTORY ? request.inheriting : 0,
          fdflags: request.fdflags,
          origin: 0,
          readOnly,
        });
  if (published < 0) closeDescriptor(hostFd);
  return published;
};

/** How a file is used. `EACCES` for a whole disk: whoever gives a directory away does not mean that. */
const kindOf = (filetype: number): number => {
  if (filetype === Filetype.REGULAR_FILE) return DescriptorKind.FILE;
  if (filetype === Filetype.DIRECTORY) return DescriptorKind.DIRECTORY;
  return filetype === Filetype.BLOCK_DEVICE ? refuse("ACCES") : DescriptorKind.STREAM;
};
