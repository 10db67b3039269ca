/**
 * Reads and writes of several pieces of memory in one call, so that a guest's scattered frames are one write.
 *
 * Source: readv(2).
 */
import assert from "node:assert/strict";
import { bind, NativeBuffer, retried } from "./libc.ts";

/** Linux's IOV_MAX. */
const PIECES_MAX = 1024;
/** struct iovec: address and length, 8 bytes each. */
const IOVEC_BYTES = 16;

const readv = bind("intptr_t readv(int, uintptr_t, int)");
const writev = bind("intptr_t writev(int, uintptr_t, int)");
const preadv = bind("intptr_t preadv(int, uintptr_t, int, int64_t)");
const pwritev = bind("intptr_t pwritev(int, uintptr_t, int, int64_t)");

/** A list of pieces of memory, used again and again. Pieces that touch become one. */
export class IoVector {
  readonly #pieces: NativeBuffer;
  readonly #capacity: number;
  #count = 0;
  #endAddress = 0;
  #totalBytes = 0;

  /** @param capacity how many pieces fit, up to 1024. */
  constructor(capacity: number) {
    assert(Number.isSafeInteger(capacity) && capacity > 0 && capacity <= PIECES_MAX);
    this.#capacity = capacity;
    this.#pieces = new NativeBuffer(capacity * IOVEC_BYTES);
  }

  /** The bytes in all pieces. */
  get totalBytes(): number {
    return this.#totalBytes;
  }

  /** Forgets all pieces. */
  clear(): void {
    this.#count = 0;
    this.#endAddress = 0;
    this.#totalBytes = 0;
  }

  /** Adds a piece; false when the list is full. A piece of length 0 adds nothing. */
  add(address: number, lengthBytes: number): boolean {
    assert(address > 0 && lengthBytes >= 0);
    if (lengthBytes === 0) return true;
    const touches = address === this.#endAddress;
    if (!touches && this.#count === this.#capacity) return false;
    if (!touches) this.#write(this.#count++, address, lengthBytes);
    else this.#extend(this.#count - 1, lengthBytes);
    this.#endAddress = address + lengthBytes;
    this.#totalBytes += lengthBytes;
    return true;
  }

  /** As `read`, into the pieces in order. */
  read(fd: number): number {
    // SAFETY: the caller owns every piece that it added; so in the three that follow.
    return retried(() => readv()(fd, this.#pieces.address, this.#count));
  }

  /** As `write`, from the pieces in order. */
  write(fd: number): number {
    // SAFETY: as above.
    return retried(() => writev()(fd, this.#pieces.address, this.#count));
  }

  /** As `readAt`. */
  readAt(fd: number, offsetBytes: number | bigint): number {
    // SAFETY: as above.
    return retried(() => preadv()(fd, this.#pieces.address, this.#count, offsetBytes));
  }

  /** As `writeAt`. */
  writeAt(fd: number, offsetBytes: number | bigint): number {
    // SAFETY: as above.
    return retried(() => pwritev()(fd, this.#pieces.address, this.#count, offsetBytes));
  }

  #write(index: number, address: number, lengthBytes: number): void {
    this.#pieces.view.setBigUint64(index * IOVEC_BYTES, BigInt(address), true);
    this.#pieces.view.setBigUint64(index * IOVEC_BYTES + 8, BigInt(lengthBytes), true);
  }

  #extend(index: number, addedBytes: number): void {
    const at = index * IOVEC_BYTES + 8;
    this.#pieces.view.setBigUint64(at, this.#pieces.view.getBigUint64(at, true) + BigInt(addedBytes), true);
  }
}
