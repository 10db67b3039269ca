/**
 * What a descriptor may be used for. WASI's rights are 64-bit sets of which 30 bits mean something: numbers here.
 *
 * Source: WebAssembly/WASI, phases/snapshot/witx/typenames.witx ($rights, $filetype).
 */
import { Filetype } from "./layouts.ts";

/** One bit for each operation. */
export const Right = {
  FD_DATASYNC: 1 << 0,
  FD_READ: 1 << 1,
  FD_SEEK: 1 << 2,
  FD_FDSTAT_SET_FLAGS: 1 << 3,
  FD_SYNC: 1 << 4,
  FD_TELL: 1 << 5,
  FD_WRITE: 1 << 6,
  FD_ADVISE: 1 << 7,
  FD_ALLOCATE: 1 << 8,
  PATH_CREATE_DIRECTORY: 1 << 9,
  PATH_CREATE_FILE: 1 << 10,
  PATH_LINK_SOURCE: 1 << 11,
  PATH_LINK_TARGET: 1 << 12,
  PATH_OPEN: 1 << 13,
  FD_READDIR: 1 << 14,
  PATH_READLINK: 1 << 15,
  PATH_RENAME_SOURCE: 1 << 16,
  PATH_RENAME_TARGET: 1 << 17,
  PATH_FILESTAT_GET: 1 << 18,
  PATH_FILESTAT_SET_SIZE: 1 << 19,
  PATH_FILESTAT_SET_TIMES: 1 << 20,
  FD_FILESTAT_GET: 1 << 21,
  FD_FILESTAT_SET_SIZE: 1 << 22,
  FD_FILESTAT_SET_TIMES: 1 << 23,
  PATH_SYMLINK: 1 << 24,
  PATH_REMOVE_DIRECTORY: 1 << 25,
  PATH_UNLINK_FILE: 1 << 26,
  POLL_FD_READWRITE: 1 << 27,
  SOCK_SHUTDOWN: 1 << 28,
  SOCK_ACCEPT: 1 << 29,
} as const;

const set = (...rights: readonly number[]): number => rights.reduce((all, right) => all | right, 0);

/** Every right there is. */
export const ALL_RIGHTS = set(...Object.values(Right));

/** Rights that open a file for writing. */
export const WRITING_RIGHTS = set(Right.FD_WRITE, Right.FD_ALLOCATE, Right.FD_FILESTAT_SET_SIZE);
/** Rights that open a file for reading. */
export const READING_RIGHTS = set(Right.FD_READ, Right.FD_READDIR);

const streamRights = set(
  Right.FD_READ,
  Right.FD_WRITE,
  Right.FD_FDSTAT_SET_FLAGS,
  Right.FD_FILESTAT_GET,
  Right.POLL_FD_READWRITE,
);

const fileRights = set(
  streamRights,
  Right.FD_DATASYNC,
  Right.FD_SEEK,
  Right.FD_SYNC,
  Right.FD_TELL,
  Right.FD_ADVISE,
  Right.FD_ALLOCATE,
  Right.FD_FILESTAT_SET_SIZE,
  Right.FD_FILESTAT_SET_TIMES,
);

const directoryRights = set(
  Right.FD_FDSTAT_SET_FLAGS,
  Right.FD_SYNC,
  Right.FD_DATASYNC,
  Right.FD_ADVISE,
  Right.FD_READDIR,
  Right.FD_FILESTAT_GET,
  Right.FD_FILESTAT_SET_TIMES,
  Right.PATH_CREATE_DIRECTORY,
  Right.PATH_CREATE_FILE,
  Right.PATH_LINK_SOURCE,
  Right.PATH_LINK_TARGET,
  Right.PATH_OPEN,
  Right.PATH_READLINK,
  Right.PATH_RENAME_SOURCE,
  Right.PATH_RENAME_TARGET,
  Right.PATH_FILESTAT_GET,
  Right.PATH_FILESTAT_SET_SIZE,
  Right.PATH_FILESTAT_SET_TIMES,
  Right.PATH_SYMLINK,
  Right.PATH_REMOVE_DIRECTORY,
  Right.PATH_UNLINK_FILE,
);

/** The rights that mean something for a kind of file. A new descriptor never has others. */
export const rightsFor = (filetype: number): number => {
  if (filetype === Filetype.DIRECTORY) return directoryRights;
  return filetype === Filetype.REGULAR_FILE ? fileRights : streamRights;
};

/** The set that a guest's 64-bit argument names, bits without a meaning left out. */
export const rightsOf = (wide: bigint): number => Number(BigInt.asUintN(32, wide)) & ALL_RIGHTS;
