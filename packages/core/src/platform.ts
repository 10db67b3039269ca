/**
 * What the hypervisor asks of the thread that executes it. `core` itself knows no clock, no I/O, no
 * randomness and no FFI: the same code runs over real mappings in `host` and over a fake in a seeded
 * simulation.
 */

/** Page tables of the guests, seen from one thread. Every method returns 0 or a negative errno and never throws. */
export interface Mmu {
  /**
   * Makes frames `mfn` ... `mfn + count - 1` (all in one bank) visible at `gfn` ... of the address space
   * whose first byte is at `base`, replacing what was there. One system call.
   */
  map(base: number, gfn: number, mfn: number, count: number, writable: boolean): number;
  /**
   * Makes pages `page` ... `page + count - 1` of the secret memory that the control domain calls `handle` visible at
   * `gfn` ..., replacing what was there. Asked of the control domain's thread only.
   */
  mapSecret(base: number, gfn: number, handle: number, page: number, count: number, writable: boolean): number;
  /** Changes whether the guest may write `count` guest frames from `gfn`, which show secret memory. One system call. */
  protect(base: number, gfn: number, count: number, writable: boolean): number;
  /** Makes `count` guest frames from `gfn` read as zeros, without frames of the machine. One system call. */
  zero(base: number, gfn: number, count: number): number;
  /** Makes `count` guest frames from `gfn` inaccessible (PROT_NONE). One system call. */
  unmap(base: number, gfn: number, count: number): number;
  /** Gives frames `mfn` ... (all in one bank) back to the host; they read as zeros afterwards. One system call. */
  discard(mfn: number, count: number): number;
}

/** Services of the calling thread. */
export interface Platform {
  readonly mmu: Mmu;
  /** Host time in nanoseconds since the hypervisor started: monotonic, the same in every thread. */
  now(): number;
  /** Wall clock in nanoseconds since 1970. */
  wallClock(): bigint;
  /**
   * Sleeps while `words[index]` equals `expected`, at most `timeoutNs` nanoseconds (Infinity: no limit).
   * Spurious returns are allowed.
   */
  wait(words: Int32Array, index: number, expected: number, timeoutNs: number): void;
  /** Wakes every sleeper on `words[index]`; returns how many there were. */
  wake(words: Int32Array, index: number): number;
  /** Tells the control domain's thread that its attention word is no longer zero. Called at most once per change from 0. */
  ringDoorbell(): void;
  /**
   * Gives memory of a table back to the host, as far as it is whole pages, which read as zeros afterwards. `buffer` is
   * that of the p2m or of the grants in `HypervisorStorage`; nobody uses the bytes meanwhile. Asked of the control
   * domain's thread only; one that cannot leaves it out.
   */
  readonly discardTable?: (buffer: ArrayBufferLike, byteOffset: number, byteLength: number) => void;
  /**
   * Called by a vCPU that must never run guest code again. On a vCPU thread it does not return (the thread is
   * terminated by its owner); in a simulation it throws.
   */
  parkForever(): never;
}
