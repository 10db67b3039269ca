/**
 * Scattered input and output: the guest's list of memory pieces, and the copies between them and the bounce buffer.
 * The list is read once; everything is checked before the kernel is asked for anything, so that a bad address loses
 * no byte of a pipe and writes no half of a record.
 */
import { BOUNCE_BYTES, IOVEC_COUNT_MAX, type Session } from "./context.ts";
import { refuse } from "./errno.ts";
import { Iovec } from "./layouts.ts";

/** Entries that fit the fetch buffer. */
const FETCH_COUNT = 512;

/**
 * Reads a list of `count` pieces, cut off where they hold more than the bounce buffer does. Returns the number of bytes
 * to transfer. `EINVAL` when there are more than `IOVEC_COUNT_MAX` pieces, `EFAULT` when the list cannot be read.
 */
export const fetchIovecs = (session: Session, address: number, count: number): number => {
  if (count > IOVEC_COUNT_MAX) return refuse("INVAL");
  const { memory, iovecs } = session;
  let total = 0;
  for (let first = 0; first < count; first += FETCH_COUNT) {
    const fetched = Math.min(FETCH_COUNT, count - first);
    if (!memory.fetch(address + first * Iovec.sizeBytes, fetched * Iovec.sizeBytes)) return refuse("FAULT");
    for (let piece = 0; piece < fetched; piece += 1) {
      const length = Math.min(Iovec.buf_len.get(memory.scratch, piece * Iovec.sizeBytes), BOUNCE_BYTES - total);
      iovecs[(first + piece) * 2] = Iovec.buf.get(memory.scratch, piece * Iovec.sizeBytes);
      iovecs[(first + piece) * 2 + 1] = length;
      total += length;
    }
  }
  return total;
};

/** Whether every piece of the fetched list of `count` can be written to. */
export const canScatter = ({ memory, iovecs }: Session, count: number): boolean => {
  for (let piece = 0; piece < count; piece += 1) {
    const length = iovecs[piece * 2 + 1]!;
    if (length > 0 && !memory.accessible(iovecs[piece * 2]!, length, true)) return false;
  }
  return true;
};

/** Copies the first `sizeBytes` bytes of the bounce buffer to the pieces in order. `EFAULT` when one cannot be written. */
export const scatter = ({ memory, iovecs, bounce }: Session, sizeBytes: number): number => {
  for (let piece = 0, done = 0; done < sizeBytes; piece += 1) {
    const length = Math.min(iovecs[piece * 2 + 1]!, sizeBytes - done);
    if (length === 0) continue;
    const refused = memory.copyToGuest(iovecs[piece * 2]!, bounce.bytes.subarray(done, done + length));
    if (refused < 0) return refused;
    done += length;
  }
  return 0;
};

/** Copies `sizeBytes` bytes of the pieces in order to the bounce buffer. `EFAULT` when one cannot be read. */
export const gather = ({ memory, iovecs, bounce }: Session, sizeBytes: number): number => {
  for (let piece = 0, done = 0; done < sizeBytes; piece += 1) {
    const length = iovecs[piece * 2 + 1]!;
    if (length === 0) continue;
    const refused = memory.copyFromGuest(iovecs[piece * 2]!, bounce.bytes.subarray(done, done + length));
    if (refused < 0) return refused;
    done += length;
  }
  return 0;
};
