/**
 * Standard streams of a domain, seen from one of its vCPUs. Called inside the gate; waiting happens outside of it, so
 * that a vCPU that waits for input can be paused and stopped at any time.
 */
import { EAGAIN, EBADF } from "@xenolith/abi";
import { NativeBuffer, PollSet, read, Readiness, write } from "@xenolith/sys";
import type { ByteRing } from "./byte-ring.ts";
import { filetypeOf, ringOf, type StdioConfiguration } from "./stdio.ts";
import type { VcpuSleep } from "./vcpu-sleep.ts";
import { STREAM_HANGUP, STREAM_READABLE, STREAM_WRITABLE, type WasiStdio } from "./wasi/index.ts";

const STDIN = 0;
/** Bytes that one transfer through an inherited descriptor moves at most. */
const BOUNCE_BYTES = 65_536;
/** A thread that waits in the kernel cannot be terminated; it looks for requests this often. */
const POLL_SLICE_MS = 20;

/** What a stream does. */
interface Stream {
  read(target: Uint8Array, wait: boolean): number;
  write(source: Uint8Array, wait: boolean): number;
  ready(): number;
}

/** The streams for one vCPU. `changed` tells the control domain that a ring has bytes or room. */
export const createVcpuStdio = (
  configuration: StdioConfiguration,
  thread: { readonly tag: number; readonly sleep: VcpuSleep; readonly changed: () => void },
): WasiStdio => {
  const streams = configuration.modes.map((mode, fd): Stream => {
    const ring = ringOf(configuration, fd);
    if (mode === "inherit") return new InheritedStream(fd, configuration.inputLock, thread);
    return ring === undefined ? ignoredStream(fd) : new PipedStream(fd, ring, thread);
  });
  return {
    read: (stream, target, wait) => streams[stream]?.read(target, wait) ?? -EBADF,
    write: (stream, source, wait) => streams[stream]?.write(source, wait) ?? -EBADF,
    ready: (stream) => streams[stream]?.ready() ?? STREAM_HANGUP,
    filetype: (stream) => filetypeOf(configuration, stream),
  };
};

const ignoredStream = (fd: number): Stream => ({
  read: () => (fd === STDIN ? 0 : -EBADF),
  write: (source) => (fd === STDIN ? -EBADF : source.length),
  ready: () => (fd === STDIN ? STREAM_READABLE : STREAM_WRITABLE),
});

/** A stream through a ring in shared memory. */
class PipedStream implements Stream {
  readonly #isInput: boolean;
  readonly #ring: ByteRing;
  readonly #thread: { readonly tag: number; readonly sleep: VcpuSleep; readonly changed: () => void };

  constructor(
    fd: number,
    ring: ByteRing,
    thread: { readonly tag: number; readonly sleep: VcpuSleep; readonly changed: () => void },
  ) {
    this.#isInput = fd === STDIN;
    this.#ring = ring;
    this.#thread = thread;
  }

  read(target: Uint8Array, wait: boolean): number {
    if (!this.#isInput) return -EBADF;
    if (target.length === 0) return 0;
    for (;;) {
      const { closed } = this.#ring;
      const count = this.#locked(() => this.#ring.read(target));
      if (count > 0 || closed) return count;
      if (!wait) return -EAGAIN;
      this.#sleepUntil(() => this.#ring.readableBytes > 0 || this.#ring.closed);
    }
  }

  write(source: Uint8Array, wait: boolean): number {
    if (this.#isInput) return -EBADF;
    if (source.length === 0) return 0;
    for (;;) {
      // Whoever read the stream is gone: the bytes go nowhere, and the guest is about to be stopped.
      if (this.#ring.closed) return source.length;
      const count = this.#locked(() => this.#ring.write(source));
      if (count > 0) return count;
      if (!wait) return -EAGAIN;
      this.#sleepUntil(() => this.#ring.writableBytes > 0 || this.#ring.closed);
    }
  }

  ready(): number {
    const open = this.#ring.closed ? STREAM_HANGUP : 0;
    if (this.#isInput) return this.#ring.readableBytes > 0 || open !== 0 ? STREAM_READABLE | open : 0;
    // A poll that finds no room waits: the control domain then has to say when there is some.
    if (this.#ring.writableBytes === 0) this.#ring.announceWait();
    return this.#ring.writableBytes > 0 || open !== 0 ? STREAM_WRITABLE | open : 0;
  }

  #locked(transfer: () => number): number {
    this.#ring.lock(this.#thread.tag);
    const count = transfer();
    this.#ring.unlock();
    if (count > 0) this.#thread.changed();
    return count;
  }

  #sleepUntil(isReady: () => boolean): void {
    this.#ring.announceWait();
    this.#thread.sleep.until(Infinity, isReady);
  }
}

/** A descriptor of the process itself. */
class InheritedStream implements Stream {
  readonly #fd: number;
  readonly #sleep: VcpuSleep;
  readonly #tag: number;
  readonly #inputLock: Int32Array;
  readonly #poll = new PollSet(1);
  readonly #bounce = new NativeBuffer(BOUNCE_BYTES);

  constructor(fd: number, inputLock: SharedArrayBuffer, { tag, sleep }: { tag: number; sleep: VcpuSleep }) {
    this.#fd = fd;
    this.#sleep = sleep;
    this.#tag = tag;
    this.#inputLock = new Int32Array(inputLock);
  }

  read(target: Uint8Array, wait: boolean): number {
    if (this.#fd !== STDIN) return -EBADF;
    const lengthBytes = Math.min(target.length, BOUNCE_BYTES);
    if (lengthBytes === 0) return 0;
    for (;;) {
      const isReady = this.#await(Readiness.READABLE, wait);
      const count = isReady ? this.#take(lengthBytes) : -EAGAIN;
      if (count === -EAGAIN && wait) continue;
      if (count > 0) target.set(this.#bounce.bytes.subarray(0, count));
      return count;
    }
  }

  /**
   * Reads what is there, -EAGAIN when there is nothing. Another vCPU that waits for the same input may take it between
   * looking and reading, and a thread that waits in the kernel cannot be stopped; so one at a time does both.
   */
  #take(lengthBytes: number): number {
    if (Atomics.compareExchange(this.#inputLock, 0, 0, this.#tag) !== 0) return -EAGAIN;
    const isThere = this.#happened(Readiness.READABLE, 0) !== 0;
    const count = isThere ? read(this.#fd, { address: this.#bounce.address, lengthBytes }) : -EAGAIN;
    Atomics.store(this.#inputLock, 0, 0);
    return count;
  }

  write(source: Uint8Array, wait: boolean): number {
    if (this.#fd === STDIN) return -EBADF;
    const lengthBytes = Math.min(source.length, BOUNCE_BYTES);
    if (lengthBytes === 0) return 0;
    this.#bounce.bytes.set(source.subarray(0, lengthBytes));
    for (;;) {
      const isReady = this.#await(Readiness.WRITABLE, wait);
      const count = isReady ? write(this.#fd, { address: this.#bounce.address, lengthBytes }) : -EAGAIN;
      if (count === -EAGAIN && wait) continue;
      return count;
    }
  }

  ready(): number {
    const happened = this.#happened(this.#fd === STDIN ? Readiness.READABLE : Readiness.WRITABLE, 0);
    const able = this.#fd === STDIN ? STREAM_READABLE : STREAM_WRITABLE;
    if ((happened & (Readiness.HANG_UP | Readiness.ERROR | Readiness.INVALID)) !== 0) return able | STREAM_HANGUP;
    return happened === 0 ? 0 : able;
  }

  /** Whether a transfer can be tried; with `wait` it can when this returns. */
  #await(events: number, wait: boolean): boolean {
    if (this.#happened(events, 0) !== 0) return true;
    if (!wait) return false;
    this.#sleep.polling(() => this.#happened(events, POLL_SLICE_MS) !== 0);
    return true;
  }

  #happened(events: number, timeoutMs: number): number {
    this.#poll.clear();
    this.#poll.add(this.#fd, events);
    return this.#poll.wait(timeoutMs) > 0 ? this.#poll.happened(0) : 0;
  }
}
