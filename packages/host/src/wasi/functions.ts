/**
 * The functions a guest imports, made from the handlers of this folder. A handler gets its vCPU's session and unsigned
 * arguments, and returns a number from 0 or a negative Linux errno; here its arguments come in and its result goes out.
 */
import { Session, type WasiContext } from "./context.ts";
import {
  argsGet,
  argsSizesGet,
  clockResGet,
  clockTimeGet,
  environGet,
  environSizesGet,
  noSockets,
  procExit,
  procRaise,
  randomGet,
  schedYield,
} from "./environment.ts";
import { wasiErrno } from "./errno.ts";
import {
  fdAdvise,
  fdAllocate,
  fdDatasync,
  fdFilestatGet,
  fdFilestatSetSize,
  fdFilestatSetTimes,
  fdSync,
} from "./fd-file.ts";
import { fdReaddir } from "./fd-readdir.ts";
import {
  fdClose,
  fdFdstatGet,
  fdFdstatSetFlags,
  fdFdstatSetRights,
  fdPrestatDirName,
  fdPrestatGet,
  fdRenumber,
  fdSeek,
  fdTell,
} from "./fd-state.ts";
import { fdPread, fdPwrite, fdRead, fdWrite } from "./fd-transfer.ts";
import {
  pathCreateDirectory,
  pathFilestatGet,
  pathFilestatSetTimes,
  pathLink,
  pathReadlink,
  pathRemoveDirectory,
  pathRename,
  pathSymlink,
  pathUnlinkFile,
} from "./path-functions.ts";
import { pathOpen } from "./path-open.ts";
import { pollOneoff } from "./poll.ts";
import { type WasiArguments, type WasiFunctionName, type WasiModule, wasiSignatures } from "./signatures.ts";

type Handlers = {
  readonly [Name in WasiFunctionName]: (session: Session, ...values: WasiArguments<Name>) => number;
};

const handlers: Handlers = {
  args_get: argsGet,
  args_sizes_get: argsSizesGet,
  environ_get: environGet,
  environ_sizes_get: environSizesGet,
  clock_res_get: clockResGet,
  clock_time_get: clockTimeGet,
  fd_advise: fdAdvise,
  fd_allocate: fdAllocate,
  fd_close: fdClose,
  fd_datasync: fdDatasync,
  fd_fdstat_get: fdFdstatGet,
  fd_fdstat_set_flags: fdFdstatSetFlags,
  fd_fdstat_set_rights: fdFdstatSetRights,
  fd_filestat_get: fdFilestatGet,
  fd_filestat_set_size: fdFilestatSetSize,
  fd_filestat_set_times: fdFilestatSetTimes,
  fd_pread: fdPread,
  fd_prestat_get: fdPrestatGet,
  fd_prestat_dir_name: fdPrestatDirName,
  fd_pwrite: fdPwrite,
  fd_read: fdRead,
  fd_readdir: fdReaddir,
  fd_renumber: fdRenumber,
  fd_seek: fdSeek,
  fd_sync: fdSync,
  fd_tell: fdTell,
  fd_write: fdWrite,
  path_create_directory: pathCreateDirectory,
  path_filestat_get: pathFilestatGet,
  path_filestat_set_times: pathFilestatSetTimes,
  path_link: pathLink,
  path_open: pathOpen,
  path_readlink: pathReadlink,
  path_remove_directory: pathRemoveDirectory,
  path_rename: pathRename,
  path_symlink: pathSymlink,
  path_unlink_file: pathUnlinkFile,
  poll_oneoff: pollOneoff,
  proc_exit: procExit,
  proc_raise: procRaise,
  sched_yield: schedYield,
  random_get: randomGet,
  sock_accept: noSockets,
  sock_recv: noSockets,
  sock_send: noSockets,
  sock_shutdown: noSockets,
};

/** What WebAssembly passes for a parameter: an i32 as a signed number, an i64 as a signed BigInt. */
type WasmValue = number | bigint;
/** A function for an import object. */
export type WasiImport = (...values: WasmValue[]) => number;
/** An import object of one module, without a prototype. */
export type WasiImports = Readonly<Record<string, WasiImport>>;

/** A handler whose argument types have been forgotten; `wasiParameters` still tells them. */
type AnyHandler = (session: Session, ...values: readonly WasmValue[]) => number;

/** i32 arguments arrive signed. */
const unsigned = (value: WasmValue): WasmValue => (typeof value === "bigint" ? value : value >>> 0);

/** Parameters up to which a function gets a door without a list of arguments: all that are called often have fewer. */
const FAST_PARAMETER_COUNT = 5;

/** The import for a handler. Arguments beyond its own are 0, and nobody looks at them. */
const doorTo = (session: Session, handler: AnyHandler, parameterCount: number): WasiImport => {
  if (parameterCount > FAST_PARAMETER_COUNT) {
    return (...values) => wasiErrno(handler(session, ...values.map(unsigned)));
  }
  return (a = 0, b = 0, c = 0, d = 0, e = 0) =>
    wasiErrno(handler(session, unsigned(a), unsigned(b), unsigned(c), unsigned(d), unsigned(e)));
};

/**
 * The functions that a guest of one vCPU may import from `module`. They never throw, are called inside the vCPU's gate,
 * and leave it only through `context.sleepUntil`, `context.exit` and waiting standard streams.
 */
export const createWasi = (context: WasiContext, module: WasiModule): WasiImports => {
  const session = new Session(context, module);
  const imports: Record<string, WasiImport> = Object.create(null);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- `Handlers` checked each against its letters.
  const untyped = handlers as unknown as Readonly<Record<string, AnyHandler>>;
  for (const { name, params } of wasiSignatures(module)) {
    imports[name] = doorTo(session, untyped[name]!, params.length);
  }
  return Object.freeze(imports);
};
