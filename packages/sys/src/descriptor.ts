/**
 * Calls on open descriptors. Results: a number from 0, or a negative errno; nothing throws.
 *
 * Reads and writes take addresses, so that a file's bytes can go straight to machine frames in the direct map. The
 * kernel checks addresses itself (`EFAULT`), but cannot tell our memory from a stranger's: the caller owes a range that
 * it owns. EINTR is retried where nothing has been transferred.
 *
 * Source: read(2), pread(2), fcntl(2), lseek(2), fallocate(2), posix_fadvise(3), pipe(2), close(2).
 */
import assert from "node:assert/strict";
import { lazily } from "./lazily.ts";
import { bind, NativeBuffer, resultOf, retried } from "./libc.ts";

const F_GETFL = 3;
const F_SETFL = 4;
const F_DUPFD_CLOEXEC = 1030;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;

const read_ = bind("intptr_t read(int, uintptr_t, size_t)");
const write_ = bind("intptr_t write(int, uintptr_t, size_t)");
const pread_ = bind("intptr_t pread(int, uintptr_t, size_t, int64_t)");
const pwrite_ = bind("intptr_t pwrite(int, uintptr_t, size_t, int64_t)");
const lseek_ = bind("int64_t lseek(int, int64_t, int)");
const fcntl = bind("int fcntl(int, int, int)");
const ftruncate = bind("int ftruncate(int, int64_t)");
const fallocate = bind("int fallocate(int, int, int64_t, int64_t)");
const posix_fadvise = bind("int posix_fadvise(int, int64_t, int64_t, int)");
const fsync = bind("int fsync(int)");
const fdatasync = bind("int fdatasync(int)");
const pipe2 = bind("int pipe2(uintptr_t, int)");
const close = bind("int close(int)");

/** Where a read or write happens: a range of this process's memory that the caller owns. */
export interface MemoryRange {
  readonly address: number;
  readonly lengthBytes: number;
}

/** Reads at the descriptor's offset. 0 at the end; `EAGAIN` when it is non-blocking and empty. */
export const read = (fd: number, { address, lengthBytes }: MemoryRange): number =>
  // SAFETY: the caller owns the range; the kernel writes at most lengthBytes there.
  retried(() => read_()(fd, address, lengthBytes));

/** Writes at the descriptor's offset, or appends. May write less; `EPIPE` when nobody reads (no signal: Node ignores SIGPIPE). */
export const write = (fd: number, { address, lengthBytes }: MemoryRange): number =>
  // SAFETY: the caller owns the range; the kernel only reads it.
  retried(() => write_()(fd, address, lengthBytes));

/** Reads at a given offset, which does not move. `ESPIPE` for pipes and sockets. */
export const readAt = (fd: number, { address, lengthBytes }: MemoryRange, offsetBytes: number | bigint): number =>
  // SAFETY: as for read.
  retried(() => pread_()(fd, address, lengthBytes, offsetBytes));

/** Writes at a given offset, which does not move (but a descriptor with O_APPEND appends). */
export const writeAt = (fd: number, { address, lengthBytes }: MemoryRange, offsetBytes: number | bigint): number =>
  // SAFETY: as for write.
  retried(() => pwrite_()(fd, address, lengthBytes, offsetBytes));

/** Where a seek counts from: Linux's `SEEK_*`. */
export const Whence = { SET: 0, CUR: 1, END: 2, DATA: 3, HOLE: 4 } as const;
/** One of {@link Whence}. */
export type Whence = (typeof Whence)[keyof typeof Whence];

/** Moves the descriptor's offset and gives the new one; rounded above 2^53. */
export const seek = (fd: number, offsetBytes: number | bigint, whence: Whence): number =>
  // SAFETY: lseek touches no memory.
  resultOf(lseek_()(fd, offsetBytes, whence));

/** The status flags (`O_APPEND`, `O_NONBLOCK`, access mode). */
export const descriptorFlags = (fd: number): number =>
  // SAFETY: F_GETFL takes no further argument.
  resultOf(fcntl()(fd, F_GETFL, 0));

/** Sets the status flags that can change after opening: `O_APPEND`, `O_NONBLOCK`, `O_NOATIME`. */
export const setDescriptorFlags = (fd: number, flags: number): number =>
  // SAFETY: F_SETFL takes one integer.
  resultOf(fcntl()(fd, F_SETFL, flags));

/** A new descriptor for the same open file, closed on exec. `EMFILE` at RLIMIT_NOFILE. */
export const duplicate = (fd: number): number =>
  // SAFETY: F_DUPFD_CLOEXEC takes one integer.
  resultOf(fcntl()(fd, F_DUPFD_CLOEXEC, 0));

/** Sets a file's size. `EPERM` when a seal forbids it, `EINVAL` for a negative size or a file not open for writing. */
export const truncate = (fd: number, sizeBytes: number | bigint): number =>
  // SAFETY: ftruncate touches no memory of ours, unless the file is mapped: ours are sealed against it.
  retried(() => ftruncate()(fd, sizeBytes));

/** A run of bytes of a file. */
export interface ByteRange {
  readonly offsetBytes: number | bigint;
  readonly lengthBytes: number | bigint;
}

/** Makes sure that a run of a file has storage, growing the file if needed. `ENOSPC`, `EOPNOTSUPP`, `EFBIG`. */
export const allocate = (fd: number, { offsetBytes, lengthBytes }: ByteRange): number =>
  // SAFETY: mode 0 changes no contents.
  retried(() => fallocate()(fd, 0, offsetBytes, lengthBytes));

/**
 * Gives the storage of a run of a file back: it reads as zeros from now on, in every mapping, and the size stays.
 * Hot: allocates nothing.
 */
export const punchHole = (fd: number, offsetBytes: number, lengthBytes: number): number =>
  // SAFETY: contents of the run are lost, which is what the caller asks for; mappings of it stay valid.
  resultOf(fallocate()(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offsetBytes, lengthBytes));

/** What is announced about a run of a file: Linux's `POSIX_FADV_*`. */
export const FileAdvice = { NORMAL: 0, RANDOM: 1, SEQUENTIAL: 2, WILLNEED: 3, DONTNEED: 4, NOREUSE: 5 } as const;
/** One of {@link FileAdvice}. */
export type FileAdvice = (typeof FileAdvice)[keyof typeof FileAdvice];

/** Announces how a run of a file will be used. Length 0 means to the end. */
export const adviseFile = (fd: number, { offsetBytes, lengthBytes }: ByteRange, advice: FileAdvice): number =>
  // SAFETY: advice only. Unlike the others this function returns a positive errno itself; 0 - 0 is no -0.
  0 - Number(posix_fadvise()(fd, offsetBytes, lengthBytes, advice));

/** Writes a file's contents, and unless `contentsOnly` its other attributes, to its device. */
export const synchronize = (fd: number, contentsOnly: boolean): number =>
  // SAFETY: no memory is touched.
  retried(() => (contentsOnly ? fdatasync()(fd) : fsync()(fd)));

/** The two ends of a pipe. */
export interface Pipe {
  readonly readFd: number;
  readonly writeFd: number;
}

/** A pipe whose ends close on exec, or a negative errno. */
export const createPipe = ({ nonBlocking }: { readonly nonBlocking: boolean }): Pipe | number => {
  const flags = O_CLOEXEC | (nonBlocking ? O_NONBLOCK : 0);
  // SAFETY: the kernel writes two ints to a buffer that holds two.
  const result = resultOf(pipe2()(pipeEnds().address, flags));
  if (result < 0) return result;
  const { view } = pipeEnds();
  return { readFd: view.getInt32(0, true), writeFd: view.getInt32(4, true) };
};

/**
 * Closes a descriptor that this package opened. It is gone whatever the result; closing a number twice may hit somebody
 * else's file. A Worker closes by itself what it opened through `node:fs`, so such a descriptor must be closed there.
 */
export const closeDescriptor = (fd: number): number => {
  assert(Number.isSafeInteger(fd) && fd >= 0);
  // SAFETY: the caller owns the descriptor and forgets it now.
  return resultOf(close()(fd));
};

const pipeEnds = lazily(() => new NativeBuffer(8));
