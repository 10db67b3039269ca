/**
 * Reading and writing open files: fd_read, fd_write, fd_pread, fd_pwrite.
 *
 * One call moves at most `BOUNCE_BYTES`. Everything that can be refused is refused before the kernel is asked.
 */
import { read, readAt, seek, Whence, write, writeAt } from "@xenolith/sys";
import type { Session } from "./context.ts";
import { DescriptorKind } from "./descriptor-table.ts";
import { useDescriptor, useSeekable } from "./descriptor-use.ts";
import { refuse } from "./errno.ts";
import { sizeOf } from "./guest-numbers.ts";
import { Fdflag } from "./layouts.ts";
import { Right } from "./rights.ts";
import { canScatter, fetchIovecs, gather, scatter } from "./scatter.ts";

/** A scatter list in guest memory. */
interface Pieces {
  readonly address: number;
  readonly count: number;
}

/** The offset of a transfer that happens where the descriptor stands. */
const AT_DESCRIPTOR = -1;
const SLICE_NS_MIN = 1e6;
const SLICE_NS_MAX = 16e6;

export const fdRead = (session: Session, fd: number, address: number, count: number, result: number): number => {
  const row = useDescriptor(session, fd, Right.FD_READ);
  if (row < 0) return row;
  const done = readPieces(session, row, { address, count }, AT_DESCRIPTOR, result);
  session.descriptors.release(row);
  return done;
};

export const fdPread = (
  session: Session,
  fd: number,
  address: number,
  count: number,
  wideOffset: bigint,
  result: number,
): number => {
  const row = useSeekable(session, fd, Right.FD_READ | Right.FD_SEEK);
  if (row < 0) return row;
  const offset = sizeOf(wideOffset);
  const done = offset < 0 ? refuse("INVAL") : readPieces(session, row, { address, count }, offset, result);
  session.descriptors.release(row);
  return done;
};

export const fdWrite = (session: Session, fd: number, address: number, count: number, result: number): number => {
  const row = useDescriptor(session, fd, Right.FD_WRITE);
  if (row < 0) return row;
  const done = writePieces(session, row, { address, count }, AT_DESCRIPTOR, result);
  session.descriptors.release(row);
  return done;
};

export const fdPwrite = (
  session: Session,
  fd: number,
  address: number,
  count: number,
  wideOffset: bigint,
  result: number,
): number => {
  const row = useSeekable(session, fd, Right.FD_WRITE | Right.FD_SEEK);
  if (row < 0) return row;
  const offset = sizeOf(wideOffset);
  const done = offset < 0 ? refuse("INVAL") : writePieces(session, row, { address, count }, offset, result);
  session.descriptors.release(row);
  return done;
};

const readPieces = (session: Session, row: number, pieces: Pieces, offset: number, result: number): number => {
  const { memory } = session;
  const total = fetchIovecs(session, pieces.address, pieces.count);
  if (total < 0) return total;
  if (!memory.accessible(result, 4, true) || !canScatter(session, pieces.count)) return refuse("FAULT");
  const bytes = total === 0 ? 0 : readBytes(session, row, total, offset);
  if (bytes < 0) return bytes;
  const scattered = scatter(session, bytes);
  // Only another vCPU of the same domain can have taken a page away since the check.
  if (scattered < 0) return undoRead(session, row, offset === AT_DESCRIPTOR ? bytes : 0, scattered);
  return memory.writeU32(result, bytes) ? 0 : refuse("FAULT");
};

/** Moves a file's offset back over bytes that nobody got. A stream cannot give them back. */
const undoRead = (session: Session, row: number, bytes: number, refused: number): number => {
  const isFile = session.descriptors.kind[row] === DescriptorKind.FILE;
  if (isFile && bytes > 0) seek(session.descriptors.hostFd[row]!, -bytes, Whence.CUR);
  return refused;
};

const readBytes = (session: Session, row: number, lengthBytes: number, offset: number): number => {
  const { bounce, descriptors, context } = session;
  const hostFd = descriptors.hostFd[row]!;
  const range = { address: bounce.address, lengthBytes };
  if (offset !== AT_DESCRIPTOR) return readAt(hostFd, range, offset);
  const wait = (descriptors.fdflags[row]! & Fdflag.NONBLOCK) === 0;
  switch (descriptors.kind[row]!) {
    case DescriptorKind.STDIO:
      return context.stdio.read(hostFd, bounce.bytes.subarray(0, lengthBytes), wait);
    case DescriptorKind.STREAM:
      return patiently(session, wait, () => read(hostFd, range));
    default:
      return read(hostFd, range);
  }
};

const writePieces = (session: Session, row: number, pieces: Pieces, offset: number, result: number): number => {
  const { memory } = session;
  const total = fetchIovecs(session, pieces.address, pieces.count);
  if (total < 0) return total;
  if (!memory.accessible(result, 4, true)) return refuse("FAULT");
  const gathered = gather(session, total);
  if (gathered < 0) return gathered;
  const bytes = total === 0 ? 0 : writeBytes(session, row, total, offset);
  if (bytes < 0) return bytes;
  return memory.writeU32(result, bytes) ? 0 : refuse("FAULT");
};

const writeBytes = (session: Session, row: number, lengthBytes: number, offset: number): number => {
  const { bounce, descriptors, context } = session;
  const hostFd = descriptors.hostFd[row]!;
  const range = { address: bounce.address, lengthBytes };
  if (offset !== AT_DESCRIPTOR) return writeAt(hostFd, range, offset);
  const wait = (descriptors.fdflags[row]! & Fdflag.NONBLOCK) === 0;
  switch (descriptors.kind[row]!) {
    case DescriptorKind.STDIO:
      return context.stdio.write(hostFd, bounce.bytes.subarray(0, lengthBytes), wait);
    case DescriptorKind.STREAM:
      return patiently(session, wait, () => write(hostFd, range));
    default:
      return write(hostFd, range);
  }
};

/**
 * Tries a transfer on a stream until it succeeds. Our descriptors of streams never block in the kernel, where the vCPU
 * could not be stopped: it sleeps outside the gate in between.
 */
const patiently = (session: Session, wait: boolean, transfer: () => number): number => {
  for (let sliceNs = SLICE_NS_MIN; ; sliceNs = Math.min(sliceNs * 2, SLICE_NS_MAX)) {
    const bytes = transfer();
    if (!wait || bytes !== refuse("AGAIN")) return bytes;
    session.context.sleepUntil(Number(session.context.clock.monotonic()) + sliceNs);
  }
};
