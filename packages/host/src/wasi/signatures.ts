/**
 * The functions of WASI preview1 and what they take: the one table that the imports, the loader's check of a module's
 * imports and `xl image inspect` are made from.
 *
 * Source: WebAssembly/WASI, phases/snapshot/witx/wasi_snapshot_preview1.witx and phases/old/snapshot_0.
 */

/** Parameters of each function, one letter each: `i` is an i32, `I` an i64. */
export const wasiParameters = {
  args_get: "ii",
  args_sizes_get: "ii",
  environ_get: "ii",
  environ_sizes_get: "ii",
  clock_res_get: "ii",
  clock_time_get: "iIi",
  fd_advise: "iIIi",
  fd_allocate: "iII",
  fd_close: "i",
  fd_datasync: "i",
  fd_fdstat_get: "ii",
  fd_fdstat_set_flags: "ii",
  fd_fdstat_set_rights: "iII",
  fd_filestat_get: "ii",
  fd_filestat_set_size: "iI",
  fd_filestat_set_times: "iIIi",
  fd_pread: "iiiIi",
  fd_prestat_get: "ii",
  fd_prestat_dir_name: "iii",
  fd_pwrite: "iiiIi",
  fd_read: "iiii",
  fd_readdir: "iiiIi",
  fd_renumber: "ii",
  fd_seek: "iIii",
  fd_sync: "i",
  fd_tell: "ii",
  fd_write: "iiii",
  path_create_directory: "iii",
  path_filestat_get: "iiiii",
  path_filestat_set_times: "iiiiIIi",
  path_link: "iiiiiii",
  path_open: "iiiiiIIii",
  path_readlink: "iiiiii",
  path_remove_directory: "iii",
  path_rename: "iiiiii",
  path_symlink: "iiiii",
  path_unlink_file: "iii",
  poll_oneoff: "iiii",
  proc_exit: "i",
  proc_raise: "i",
  sched_yield: "",
  random_get: "ii",
  sock_accept: "iii",
  sock_recv: "iiiiii",
  sock_send: "iiiii",
  sock_shutdown: "ii",
} as const;

/** The name of a preview1 function. */
export type WasiFunctionName = keyof typeof wasiParameters;

/** The import modules that mean WASI: preview1 and its predecessor, which some published programs still use. */
export const WASI_MODULES = ["wasi_snapshot_preview1", "wasi_unstable"] as const;
/** One of the import modules that mean WASI. */
export type WasiModule = (typeof WASI_MODULES)[number];

/** A function that a guest may import. */
export interface WasiSignature {
  readonly name: string;
  readonly params: readonly ("i32" | "i64")[];
  readonly results: readonly "i32"[];
}

/** Functions that `wasi_unstable` does not have. */
const newerThanUnstable: ReadonlySet<string> = new Set(["sock_accept"]);

const signature = ([name, letters]: [string, string]): WasiSignature => ({
  name,
  params: Array.from(letters, (letter) => (letter === "I" ? "i64" : "i32")),
  results: name === "proc_exit" ? [] : ["i32"],
});

const preview1: readonly WasiSignature[] = Object.entries(wasiParameters).map(signature);
const unstable = preview1.filter(({ name }) => !newerThanUnstable.has(name));

/** What `module` offers, in the order of the specification. */
export const wasiSignatures = (module: WasiModule): readonly WasiSignature[] =>
  module === "wasi_unstable" ? unstable : preview1;

/** What the handler of a function gets after its session: i32s unsigned, i64s signed. */
export type WasiArguments<Name extends WasiFunctionName> = ValuesOf<(typeof wasiParameters)[Name]>;

type ValuesOf<Letters extends string> = Letters extends `${infer First}${infer Rest}`
  ? [First extends "I" ? bigint : number, ...ValuesOf<Rest>]
  : [];
