/**
 * What the functions of WASI need from the vCPU thread that executes them, and what they make of it for themselves.
 */
import { NativeBuffer, PollSet } from "@xenolith/sys";
import type { DescriptorTable } from "./descriptor-table.ts";
import type { WasiModule } from "./signatures.ts";

/** The parts of core's `GuestMemory` that WASI uses. Addresses and sizes are unsigned 32-bit. */
export interface WasiMemory {
  /** The view that `fetch` fills and `store` takes from: at least 4 KiB. */
  readonly scratch: DataView;
  fetch(address: number, sizeBytes: number): boolean;
  store(address: number, sizeBytes: number): boolean;
  writeU32(address: number, value: number): boolean;
  copyFromGuest(address: number, target: Uint8Array): number;
  copyToGuest(address: number, source: Uint8Array): number;
  accessible(address: number, lengthBytes: number, write: boolean): boolean;
}

/** A stream can be read without waiting. */
export const STREAM_READABLE = 1;
/** A stream can be written without waiting. */
export const STREAM_WRITABLE = 2;
/** The other side of a stream is gone. */
export const STREAM_HANGUP = 4;

/** The domain's standard streams: 0 stdin, 1 stdout, 2 stderr. */
export interface WasiStdio {
  /** Reads what is there, waiting until there is something unless `wait` is false. 0 at the end, else bytes or a negative errno. */
  read(stream: number, target: Uint8Array, wait: boolean): number;
  /** Writes at least one byte, waiting for room unless `wait` is false. Bytes written or a negative errno. */
  write(stream: number, source: Uint8Array, wait: boolean): number;
  /** `STREAM_*` bits that hold now. */
  ready(stream: number): number;
  /** What the stream is, as a WASI `Filetype`: a character device for a terminal. */
  filetype(stream: number): number;
}

/** Clocks, in nanoseconds. */
export interface WasiClock {
  /** Since 1970. */
  realtime(): bigint;
  /** Since some moment; never goes back, the same in every vCPU. */
  monotonic(): bigint;
  /** Processor time that the domain used. */
  processCpu(): bigint;
  /** Processor time that the calling vCPU used. */
  threadCpu(): bigint;
}

/** A directory that the guest was started with. */
export interface WasiPreopen {
  /** Its name to the guest, UTF-8. */
  readonly guestPath: Uint8Array;
  /** The host's descriptor of it; the descriptor table owns it. */
  readonly hostFd: number;
  readonly readOnly: boolean;
}

/** Everything WASI gets from its host, for one vCPU. */
export interface WasiContext {
  readonly cpu: { readonly memory: WasiMemory };
  readonly descriptors: DescriptorTable;
  /** argv, without terminating zeros. */
  readonly arguments: readonly Uint8Array[];
  /** `NAME=value`, without terminating zeros. */
  readonly environment: readonly Uint8Array[];
  readonly preopens: readonly WasiPreopen[];
  readonly stdio: WasiStdio;
  readonly clock: WasiClock;
  /** Fills with bytes that nobody can predict. */
  random(target: Uint8Array): void;
  /**
   * Sleeps until the monotonic clock reaches `deadlineNs` (Infinity: no limit), outside the gate. May return earlier,
   * in particular when a standard stream has become ready.
   */
  sleepUntil(deadlineNs: number): void;
  /** Ends the domain. */
  exit(code: number): never;
}

/** Bytes that one call moves at most; a longer transfer is partial, which WASI allows. */
export const BOUNCE_BYTES = 1 << 20;
/** Bytes of the longest path, as on Linux, where a terminating zero is counted too. */
export const PATH_BYTES_MAX = 4095;
/** Entries of the longest scatter list, as on Linux. */
export const IOVEC_COUNT_MAX = 1024;
/** Subscriptions of one `poll_oneoff`. */
export const SUBSCRIPTION_COUNT_MAX = 1024;

/**
 * One vCPU's WASI: its context, and buffers that are made once. The large ones are made when they are first used: a
 * guest that is started usually imports WASI by one of its two names only, if at all.
 */
export class Session {
  readonly context: WasiContext;
  /** The name by which the guest imports WASI. */
  readonly module: WasiModule;
  readonly memory: WasiMemory;
  readonly descriptors: DescriptorTable;
  /** The scatter list of the call: address, length, address, length ... */
  readonly iovecs = new Uint32Array(IOVEC_COUNT_MAX * 2);
  /** Two paths, for the calls that take two. */
  readonly paths: readonly [Uint8Array, Uint8Array] = [new Uint8Array(PATH_BYTES_MAX), new Uint8Array(PATH_BYTES_MAX)];
  /** When each subscription of the call is due, by the monotonic clock. */
  readonly deadlines = new Float64Array(SUBSCRIPTION_COUNT_MAX);
  #bounce: NativeBuffer | undefined;
  #pollSet: PollSet | undefined;

  constructor(context: WasiContext, module: WasiModule) {
    this.context = context;
    this.module = module;
    this.memory = context.cpu.memory;
    this.descriptors = context.descriptors;
  }

  /** Holds the bytes of a transfer between guest and kernel. */
  get bounce(): NativeBuffer {
    return (this.#bounce ??= new NativeBuffer(BOUNCE_BYTES));
  }

  /** Looks at one of the host's descriptors. */
  get pollSet(): PollSet {
    return (this.#pollSet ??= new PollSet(1));
  }
}
