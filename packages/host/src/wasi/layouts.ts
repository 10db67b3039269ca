/**
 * What WASI's structures look like in a guest's memory. Unlike Xen's 32-bit ABI, WASI aligns 64-bit numbers to 8.
 * `wasi_unstable` differs in three of them, which come after those of preview1.
 *
 * Source: WebAssembly/WASI, phases/snapshot/witx/typenames.witx and phases/old/snapshot_0/witx/typenames.witx.
 */
import { pad, struct, u8, u16, u32, u64 as u64_4, u64_aligned } from "@xenolith/abi";

const u64 = { ...u64_4, alignBytes: 8 };

/** What a descriptor or a name refers to: `$filetype`. */
export const Filetype = {
  UNKNOWN: 0,
  BLOCK_DEVICE: 1,
  CHARACTER_DEVICE: 2,
  DIRECTORY: 3,
  REGULAR_FILE: 4,
  SOCKET_DGRAM: 5,
  SOCKET_STREAM: 6,
  SYMBOLIC_LINK: 7,
} as const;

/** `$fdflags`. */
export const Fdflag = { APPEND: 1, DSYNC: 2, NONBLOCK: 4, RSYNC: 8, SYNC: 16 } as const;
/** `$oflags`. */
export const Oflag = { CREAT: 1, DIRECTORY: 2, EXCL: 4, TRUNC: 8 } as const;
/** `$fstflags`. */
export const Fstflag = { ATIM: 1, ATIM_NOW: 2, MTIM: 4, MTIM_NOW: 8 } as const;
/** `$lookupflags`. */
export const LOOKUP_SYMLINK_FOLLOW = 1;
/** `$eventtype`. */
export const EventType = { CLOCK: 0, FD_READ: 1, FD_WRITE: 2 } as const;
/** `$clockid`. */
export const ClockId = { REALTIME: 0, MONOTONIC: 1, PROCESS_CPUTIME: 2, THREAD_CPUTIME: 3 } as const;
/** `$subclockflags`. */
export const SUBSCRIPTION_CLOCK_ABSTIME = 1;
/** `$eventrwflags`. */
export const EVENT_FD_READWRITE_HANGUP = 1;
/** `$preopentype`. */
export const PREOPENTYPE_DIR = 0;

/** A piece of the guest's memory for scattered input and output: `$iovec`, `$ciovec`. */
export const Iovec = struct("iovec", 8, { buf: u32, buf_len: u32 });

/** State of a descriptor: `$fdstat`. */
export const Fdstat = struct("fdstat", 24, {
  fs_filetype: u8,
  pad0: pad(1),
  fs_flags: u16,
  pad1: pad(4),
  fs_rights_base: u64_aligned,
  fs_rights_inheriting: u64_aligned,
});

/** Attributes of a file: `$filestat`. Times are nanoseconds since 1970. */
export const Filestat = struct("filestat", 64, {
  dev: u64,
  ino: u64,
  filetype: u8,
  pad0: pad(7),
  nlink: u64,
  size: u64,
  atim: u64,
  mtim: u64,
  ctim: u64,
});

/** A directory entry, followed by its name: `$dirent`. */
export const Dirent = struct("dirent", 24, { d_next: u64, d_ino: u64, d_namlen: u32, d_type: u8, pad0: pad(3) });

/** A directory that the guest was started with: `$prestat`. */
export const Prestat = struct("prestat", 8, { tag: u8, pad0: pad(3), pr_name_len: u32 });

/** What happened: `$event`. */
export const Event = struct("event", 32, {
  userdata: u64,
  error: u16,
  type: u8,
  pad0: pad(5),
  nbytes: u64,
  flags: u16,
  pad1: pad(6),
});

/** What to wait for, when it is a time: `$subscription`. */
export const ClockSubscription = struct("subscription_clock", 48, {
  userdata: u64,
  tag: u8,
  pad0: pad(7),
  id: u32,
  pad1: pad(4),
  timeout: u64,
  precision: u64,
  flags: u16,
  pad2: pad(6),
});

/** What to wait for, when it is a descriptor: `$subscription`. */
export const DescriptorSubscription = struct("subscription_fd_readwrite", 48, {
  userdata: u64,
  tag: u8,
  pad0: pad(7),
  file_descriptor: u32,
  pad1: pad(28),
});

/** `$filestat` of wasi_unstable: the link count has 32 bits. */
export const UnstableFilestat = struct("unstable_filestat", 56, {
  dev: u64,
  ino: u64,
  filetype: u8,
  pad0: pad(3),
  nlink: u32,
  size: u64,
  atim: u64,
  mtim: u64,
  ctim: u64,
});

/** `$subscription` of wasi_unstable, for a time: an identifier comes before the clock. */
export const UnstableClockSubscription = struct("unstable_subscription_clock", 56, {
  userdata: u64,
  tag: u8,
  pad0: pad(7),
  identifier: u64,
  id: u32,
  pad1: pad(4),
  timeout: u64,
  precision: u64,
  flags: u16,
  pad2: pad(6),
});
