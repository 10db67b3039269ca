/**
 * The descriptors of one domain, in shared memory: all its vCPUs use them and the control domain closes them.
 *
 *     column      type  holds                                                     written by
 *     slot        i32   per descriptor: file row + 1; 0 = closed, -1 = reserved   reserve, publish, close, renumber
 *     uses        i32   per file row: 0 = free, -1 = being filled or closed,
 *                       else 1 + calls in progress                                publish, acquire, release
 *     hostFd      i32   the host's descriptor, or -1                              publish
 *     kind        u32   DescriptorKind, or 0 while hostFd means nothing           publish, release
 *     filetype    u32   Filetype                                                  publish
 *     base        u32   rights of the descriptor itself                           publish; restrict takes away
 *     inheriting  u32   rights of what is opened through it                       publish; restrict takes away
 *     fdflags     u32   Fdflag set                                                publish, fd_fdstat_set_flags
 *     origin      u32   preopen index + 1, for fd_prestat_get, or 0               publish
 *     readOnly    u32   1 = nothing beneath may be changed                        publish
 *
 * `slot` publishes a descriptor and `uses` a file row. A call counts itself in `uses` for as long as it works on the
 * file, and the host's descriptor is closed by whoever counts down to nothing: closing on one vCPU while another reads
 * must not close the number under the reader, for the process may have given it to another domain's file by then.
 * There is no lock: a vCPU that dies in here leaves nothing that another one waits for.
 */
import assert from "node:assert/strict";
import { refuse } from "./errno.ts";

/** What stands behind a descriptor. */
export const DescriptorKind = {
  /** One of the domain's three streams; `hostFd` is the stream's number. */
  STDIO: 1,
  /** A regular file. */
  FILE: 2,
  DIRECTORY: 3,
  /** A pipe or character device found beneath a preopened directory; never blocks in the kernel. */
  STREAM: 4,
} as const;

/** What a new descriptor is. */
export interface DescriptorSpec {
  readonly kind: number;
  readonly hostFd: number;
  readonly filetype: number;
  readonly base: number;
  readonly inheriting: number;
  readonly fdflags: number;
  readonly origin: number;
  readonly readOnly: boolean;
}

/** Descriptors of a domain unless its configuration says otherwise. */
export const DESCRIPTOR_COUNT_DEFAULT = 256;
/** Most descriptors that a domain can be given. */
export const DESCRIPTOR_COUNT_MAX = 4096;

const COLUMN_COUNT = 10;
const RESERVED = -1;
const CLOSED = 0;
const FREE = 0;
const IN_TRANSIT = -1;
/** How often an operation starts again after another vCPU changed the descriptor under it. */
const ATTEMPT_COUNT_MAX = 8;

/** Bytes that a table of `capacity` descriptors takes. */
export const descriptorTableBytes = (capacity: number): number => {
  assert(Number.isInteger(capacity) && capacity > 0 && capacity <= DESCRIPTOR_COUNT_MAX);
  return capacity * COLUMN_COUNT * 4;
};

/** Descriptors of one domain as one thread sees them. */
export class DescriptorTable {
  readonly capacity: number;
  readonly hostFd: Int32Array;
  readonly kind: Uint32Array;
  readonly filetype: Uint32Array;
  readonly base: Uint32Array;
  readonly inheriting: Uint32Array;
  readonly fdflags: Uint32Array;
  readonly origin: Uint32Array;
  readonly readOnly: Uint32Array;
  readonly #slot: Int32Array;
  readonly #uses: Int32Array;
  readonly #closeHost: (hostFd: number) => void;

  /** Attaches to `buffer`, all zeros when new. `closeHost` closes a descriptor of the host. */
  constructor(buffer: SharedArrayBuffer, closeHost: (hostFd: number) => void) {
    const capacity = buffer.byteLength / (COLUMN_COUNT * 4);
    assert(Number.isInteger(capacity) && capacity > 0 && capacity <= DESCRIPTOR_COUNT_MAX);
    const signed = (column: number): Int32Array => new Int32Array(buffer, column * capacity * 4, capacity);
    const unsigned = (column: number): Uint32Array => new Uint32Array(buffer, column * capacity * 4, capacity);
    this.capacity = capacity;
    this.#slot = signed(0);
    this.#uses = signed(1);
    this.hostFd = signed(2);
    this.kind = unsigned(3);
    this.filetype = unsigned(4);
    this.base = unsigned(5);
    this.inheriting = unsigned(6);
    this.fdflags = unsigned(7);
    this.origin = unsigned(8);
    this.readOnly = unsigned(9);
    this.#closeHost = closeHost;
  }

  /** Descriptors that are open now. */
  get openCount(): number {
    let count = 0;
    for (let fd = 0; fd < this.capacity; fd += 1) if (Atomics.load(this.#slot, fd) > 0) count += 1;
    return count;
  }

  /** Takes the lowest closed number for a file that is about to be opened. `EMFILE` when all are taken. */
  reserve(): number {
    for (let fd = 0; fd < this.capacity; fd += 1) {
      if (Atomics.compareExchange(this.#slot, fd, CLOSED, RESERVED) === CLOSED) return fd;
    }
    return refuse("MFILE");
  }

  /** Gives a reserved number back. */
  cancel(fd: number): void {
    assert(Atomics.compareExchange(this.#slot, fd, RESERVED, CLOSED) === RESERVED);
  }

  /** Makes a reserved number name an open file, which the table owns from now on. `EMFILE` when too many are closing. */
  publish(fd: number, spec: DescriptorSpec): number {
    const row = this.#takeRow();
    if (row < 0) return row;
    this.hostFd[row] = spec.hostFd;
    this.filetype[row] = spec.filetype;
    this.base[row] = spec.base;
    this.inheriting[row] = spec.inheriting;
    this.fdflags[row] = spec.fdflags;
    this.origin[row] = spec.origin;
    this.readOnly[row] = spec.readOnly ? 1 : 0;
    this.kind[row] = spec.kind;
    Atomics.store(this.#uses, row, 1);
    const before = Atomics.exchange(this.#slot, fd, row + 1);
    assert(before === RESERVED);
    return 0;
  }

  /** The row of the file that `fd` names, counted as in use until `release`. `EBADF` when it names none. */
  acquire(fd: number): number {
    if (fd >= this.capacity) return refuse("BADF");
    for (let attempt = 0; attempt < ATTEMPT_COUNT_MAX; attempt += 1) {
      const slot = Atomics.load(this.#slot, fd);
      if (slot <= 0) return refuse("BADF");
      const row = slot - 1;
      const uses = Atomics.load(this.#uses, row);
      if (uses <= 0 || Atomics.compareExchange(this.#uses, row, uses, uses + 1) !== uses) continue;
      if (Atomics.load(this.#slot, fd) === slot) return row;
      this.release(row);
    }
    return refuse("BADF");
  }

  /** Ends a use of `row`. The last one closes the file. */
  release(row: number): void {
    for (;;) {
      const uses = Atomics.load(this.#uses, row);
      assert(uses > 0);
      const rest = uses === 1 ? IN_TRANSIT : uses - 1;
      if (Atomics.compareExchange(this.#uses, row, uses, rest) !== uses) continue;
      if (rest === IN_TRANSIT) this.#dispose(row);
      return;
    }
  }

  /** Closes `fd`. The file itself is closed when the last call that uses it ends. */
  close(fd: number): number {
    const row = this.#take(fd);
    if (row < 0) return row;
    Atomics.store(this.#slot, fd, CLOSED);
    this.release(row);
    return 0;
  }

  /** Makes `to` name what `from` names, and closes `from`. Both must be open; the same number twice changes nothing. */
  renumber(from: number, to: number): number {
    if (from >= this.capacity || to >= this.capacity) return refuse("BADF");
    if (from === to) return Atomics.load(this.#slot, from) > 0 ? 0 : refuse("BADF");
    const row = this.#take(from);
    if (row < 0) return row;
    const replaced = this.#exchange(to, row + 1);
    Atomics.store(this.#slot, from, replaced < 0 ? row + 1 : CLOSED);
    if (replaced < 0) return replaced;
    this.release(replaced);
    return 0;
  }

  /** Takes rights away from `row`: what is left is the part of `base` and `inheriting` that it had. */
  restrict(row: number, base: number, inheriting: number): void {
    Atomics.and(this.base, row, base);
    Atomics.and(this.inheriting, row, inheriting);
  }

  /**
   * Closes everything, also files that a call which will never end had in use; returns how many of the host's
   * descriptors that were. Only once every vCPU of the domain has stopped.
   */
  closeAll(): number {
    let count = 0;
    for (let row = 0; row < this.capacity; row += 1) {
      if (Atomics.exchange(this.#uses, row, IN_TRANSIT) !== FREE && this.#dispose(row)) count += 1;
      Atomics.store(this.#uses, row, FREE);
    }
    this.#slot.fill(CLOSED);
    return count;
  }

  /** Reserves an open `fd` and gives the row it named. */
  #take(fd: number): number {
    return this.#exchange(fd, RESERVED);
  }

  /** Puts `next` into the slot of an open `fd` and gives the row that it named before. */
  #exchange(fd: number, next: number): number {
    if (fd >= this.capacity) return refuse("BADF");
    for (let attempt = 0; attempt < ATTEMPT_COUNT_MAX; attempt += 1) {
      const slot = Atomics.load(this.#slot, fd);
      if (slot <= 0) return refuse("BADF");
      if (Atomics.compareExchange(this.#slot, fd, slot, next) === slot) return slot - 1;
    }
    return refuse("BADF");
  }

  #takeRow(): number {
    for (let row = 0; row < this.capacity; row += 1) {
      if (Atomics.compareExchange(this.#uses, row, FREE, IN_TRANSIT) === FREE) return row;
    }
    return refuse("MFILE");
  }

  #dispose(row: number): boolean {
    const hostFd = this.hostFd[row]!;
    const kind = this.kind[row]!;
    const ours = kind !== 0 && kind !== DescriptorKind.STDIO;
    this.kind[row] = 0;
    if (ours) this.#closeHost(hostFd);
    Atomics.store(this.#uses, row, FREE);
    return ours;
  }
}
