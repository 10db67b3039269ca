/**
 * A guest for the tests of WASI: a memory with pages that are there, read-only or absent, real files in a temporary
 * directory, streams made of arrays, and a clock that only sleeping moves.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { closeDescriptor } from "@xenolith/sys";
import {
  STREAM_HANGUP,
  STREAM_READABLE,
  STREAM_WRITABLE,
  type WasiContext,
  type WasiMemory,
  type WasiPreopen,
  type WasiStdio,
} from "../src/wasi/context.ts";
import { DescriptorTable, descriptorTableBytes } from "../src/wasi/descriptor-table.ts";
import { errnos, type WasiErrnoName } from "../src/wasi/errno.ts";
import { createWasi, type WasiImports } from "../src/wasi/functions.ts";
import { Filetype } from "../src/wasi/layouts.ts";
import { ALL_RIGHTS } from "../src/wasi/rights.ts";
import type { WasiFunctionName, WasiModule } from "../src/wasi/signatures.ts";
import { openInitialDescriptors } from "../src/wasi/start.ts";

const PAGE_BYTES = 4096;
const EFAULT = 14;

/** Pages of a test guest's memory: 2 MiB. */
export const PAGE_COUNT = 512;

/** Memory whose pages can be taken away. */
export class TestMemory implements WasiMemory {
  readonly scratch = new DataView(new ArrayBuffer(PAGE_BYTES));
  readonly bytes = new Uint8Array(PAGE_COUNT * PAGE_BYTES);
  readonly view = new DataView(this.bytes.buffer);
  readonly #readable = new Uint8Array(PAGE_COUNT).fill(1);
  readonly #writable = new Uint8Array(PAGE_COUNT).fill(1);

  protect(page: number, access: "none" | "read" | "write"): void {
    this.#readable[page] = access === "none" ? 0 : 1;
    this.#writable[page] = access === "write" ? 1 : 0;
  }

  accessible(address: number, lengthBytes: number, write: boolean): boolean {
    assert(address >>> 0 === address && lengthBytes >= 0);
    if (address + lengthBytes > 2 ** 32) return false;
    for (let page = Math.floor(address / PAGE_BYTES); page * PAGE_BYTES < address + lengthBytes; page += 1) {
      if ((write ? this.#writable : this.#readable)[page] !== 1) return false;
    }
    return true;
  }

  fetch(address: number, sizeBytes: number): boolean {
    if (!this.accessible(address, sizeBytes, false)) return false;
    new Uint8Array(this.scratch.buffer).set(this.bytes.subarray(address, address + sizeBytes));
    return true;
  }

  store(address: number, sizeBytes: number): boolean {
    return this.copyToGuest(address, new Uint8Array(this.scratch.buffer, 0, sizeBytes)) === 0;
  }

  writeU32(address: number, value: number): boolean {
    if (!this.accessible(address, 4, true)) return false;
    this.view.setUint32(address, value, true);
    return true;
  }

  copyFromGuest(address: number, target: Uint8Array): number {
    if (!this.accessible(address, target.length, false)) return -EFAULT;
    target.set(this.bytes.subarray(address, address + target.length));
    return 0;
  }

  copyToGuest(address: number, source: Uint8Array): number {
    if (!this.accessible(address, source.length, true)) return -EFAULT;
    this.bytes.set(source, address);
    return 0;
  }
}

/** Streams whose input was given beforehand and whose output is kept. */
export class TestStdio implements WasiStdio {
  input = new Uint8Array(0);
  inputClosed = false;
  readonly output: number[] = [];
  /** What happens while a read waits. */
  onWait: () => void = () => assert.fail("nothing comes");
  type: number = Filetype.UNKNOWN;

  read(_stream: number, target: Uint8Array, wait: boolean): number {
    while (this.input.length === 0 && !this.inputClosed) {
      if (!wait) return -errnos.AGAIN[1];
      this.onWait();
    }
    const count = Math.min(target.length, this.input.length);
    target.set(this.input.subarray(0, count));
    this.input = this.input.slice(count);
    return count;
  }

  write(_stream: number, source: Uint8Array): number {
    this.output.push(...source);
    return source.length;
  }

  ready(stream: number): number {
    if (stream !== 0) return STREAM_WRITABLE;
    const closed = this.inputClosed ? STREAM_READABLE | STREAM_HANGUP : 0;
    return (this.input.length > 0 ? STREAM_READABLE : 0) | closed;
  }

  filetype(): number {
    return this.type;
  }
}

/** What a test guest is made with. */
export interface TestGuestOptions {
  readonly module?: WasiModule;
  /** Directories of the host by the names they get; `:ro` at the end of a name makes it read-only. */
  readonly directories?: Readonly<Record<string, string>>;
  readonly capacity?: number;
  readonly arguments?: readonly string[];
  readonly environment?: readonly string[];
}

/** Where the tests put things in the guest's memory. */
export const at = { path: 0x1000, path2: 0x3000, iovecs: 0x5000, result: 0x8000, buffer: 0x10000 } as const;

const encoder = new TextEncoder();

/** A guest that makes WASI calls one at a time. */
export class TestGuest {
  readonly memory = new TestMemory();
  readonly stdio = new TestStdio();
  readonly descriptors: DescriptorTable;
  readonly closedHostFds: number[] = [];
  readonly imports: WasiImports;
  /** Monotonic time; sleeping moves it. */
  nowNs = 1_000_000_000n;
  /** Called when the guest sleeps. */
  onSleep: (deadlineNs: number) => void = () => undefined;
  exitCode: number | undefined;

  constructor(options: TestGuestOptions = {}) {
    const preopens = Object.entries(options.directories ?? {}).map(preopenOf);
    this.descriptors = new DescriptorTable(
      new SharedArrayBuffer(descriptorTableBytes(options.capacity ?? 64)),
      (hostFd) => {
        this.closedHostFds.push(hostFd);
        closeDescriptor(hostFd);
      },
    );
    openInitialDescriptors(this.descriptors, this.stdio, preopens);
    this.imports = createWasi(this.#context(options, preopens), options.module ?? "wasi_snapshot_preview1");
  }

  /** Calls a function with signed 32-bit arguments, as WebAssembly does; gives the name of its error. */
  call(name: WasiFunctionName, ...values: (number | bigint)[]): WasiErrnoName {
    const signed = values.map((value) => (typeof value === "bigint" ? BigInt.asIntN(64, value) : value | 0));
    const result = this.imports[name]!(...signed);
    const found = Object.entries(errnos).find(([, [wasi]]) => wasi === result);
    assert(found !== undefined, `${name} returned ${result}`);
    return found[0] as WasiErrnoName;
  }

  /** Puts a path into memory and gives its address and length. */
  path(path: string | Uint8Array, address: number = at.path): [number, number] {
    const bytes = typeof path === "string" ? encoder.encode(path) : path;
    this.memory.bytes.set(bytes, address);
    return [address, bytes.length];
  }

  /** Puts a scatter list into memory and gives its address and count. */
  iovecs(...pieces: readonly (readonly [number, number])[]): [number, number] {
    for (const [index, [address, length]] of pieces.entries()) {
      this.memory.view.setUint32(at.iovecs + index * 8, address, true);
      this.memory.view.setUint32(at.iovecs + index * 8 + 4, length, true);
    }
    return [at.iovecs, pieces.length];
  }

  /** path_open; the descriptor, or the error's name. */
  tryOpen(path: string | Uint8Array, options: OpenOptions = {}): number | WasiErrnoName {
    const { directory = 3, lookup = 0, oflags = 0, fdflags = 0 } = options;
    const base = BigInt(options.base ?? ALL_RIGHTS);
    const inheriting = BigInt(options.inheriting ?? ALL_RIGHTS);
    const error = this.call(
      "path_open",
      ...[directory, lookup, ...this.path(path), oflags, base, inheriting, fdflags, at.result],
    );
    return error === "SUCCESS" ? this.result() : error;
  }

  /** path_open that must succeed. */
  open(path: string, options: OpenOptions = {}): number {
    const fd = this.tryOpen(path, options);
    assert(typeof fd === "number", `path_open ${path}: ${fd}`);
    return fd;
  }

  /** The number that the last call left. */
  result(): number {
    return this.memory.view.getUint32(at.result, true);
  }

  /** The 64-bit number that the last call left. */
  wideResult(): bigint {
    return this.memory.view.getBigUint64(at.result, true);
  }

  /** fd_write of a text; the error's name. */
  write(fd: number, text: string): WasiErrnoName {
    const bytes = encoder.encode(text);
    this.memory.bytes.set(bytes, at.buffer);
    return this.call("fd_write", fd, ...this.iovecs([at.buffer, bytes.length]), at.result);
  }

  /** fd_read of up to `length` bytes; the text, or the error's name in brackets. */
  read(fd: number, length = 4096): string {
    const error = this.call("fd_read", fd, ...this.iovecs([at.buffer, length]), at.result);
    return error === "SUCCESS" ? this.text(at.buffer, this.result()) : `[${error}]`;
  }

  /** A text in memory. */
  text(address: number, length: number): string {
    return new TextDecoder("utf-8", { fatal: true }).decode(this.memory.bytes.subarray(address, address + length));
  }

  #context(options: TestGuestOptions, preopens: readonly WasiPreopen[]): WasiContext {
    return {
      cpu: { memory: this.memory },
      descriptors: this.descriptors,
      arguments: (options.arguments ?? []).map((text) => encoder.encode(text)),
      environment: (options.environment ?? []).map((text) => encoder.encode(text)),
      preopens,
      stdio: this.stdio,
      clock: {
        realtime: () => this.nowNs + 1_700_000_000_000_000_000n,
        monotonic: () => this.nowNs,
        processCpu: () => 3_000n,
        threadCpu: () => 2_000n,
      },
      random: (target) => void target.fill(0x5a),
      sleepUntil: (deadlineNs) => {
        this.onSleep(deadlineNs);
        if (deadlineNs > Number(this.nowNs) && deadlineNs < Infinity) this.nowNs = BigInt(Math.ceil(deadlineNs));
      },
      exit: (code) => {
        this.exitCode = code;
        throw new Error("the guest has ended");
      },
    };
  }
}

/** What path_open is asked for; everything has a default. */
export interface OpenOptions {
  readonly directory?: number;
  readonly lookup?: number;
  readonly oflags?: number;
  readonly base?: number;
  readonly inheriting?: number;
  readonly fdflags?: number;
}

const preopenOf = ([name, path]: [string, string]): WasiPreopen => ({
  guestPath: encoder.encode(name.replace(/:ro$/, "")),
  hostFd: openSync(path, "r"),
  readOnly: name.endsWith(":ro"),
});

/** A directory of the host for one test, and its removal. */
export const temporaryDirectory = (): { readonly path: string; [Symbol.dispose](): void } => {
  const path = mkdtempSync(join(tmpdir(), "xenolith-wasi-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
};

/** Makes a FIFO, which Node cannot. */
export const makeFifo = (path: string): void => {
  const program = "mkfifo";
  assert.equal(spawnSync(program, [path]).status, 0);
};

/** Runs `body` with a guest that has one writable directory as descriptor 3. */
export const withGuest = (body: (guest: TestGuest, path: string) => void): void => {
  using directory = temporaryDirectory();
  const guest = new TestGuest({ directories: { "/data": directory.path } });
  try {
    body(guest, directory.path);
  } finally {
    guest.descriptors.closeAll();
  }
};

/** `fd_seek`: where the descriptor stands now, or the error. */
export const seek = (guest: TestGuest, fd: number, delta: bigint, whence: number): bigint | string => {
  const error = guest.call("fd_seek", fd, delta, whence, at.result);
  return error === "SUCCESS" ? guest.wideResult() : error;
};
