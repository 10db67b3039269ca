/**
 * Machine memory and the hypervisor's tables, as the control domain's thread makes them.
 *
 * A bank is one sealed, sparse memfd of 4 GiB and one direct map: a shared WebAssembly memory over which the file is
 * mapped. The p2m of all domains is another shared WebAssembly memory, which the kernel commits page by page.
 */
import assert from "node:assert/strict";
import { XenolithError } from "@xenolith/abi";
import { controlBytes, type Geometry, grantBytes, type HypervisorStorage } from "@xenolith/core";
import {
  Advice,
  advise,
  baseAddress,
  check,
  closeDescriptor,
  createMemfd,
  mapFrames,
  PROT_READ_WRITE,
  viewMemory,
} from "@xenolith/sys";
import { FRAME_BYTES } from "./mmu.ts";

/** Bytes of a whole WebAssembly memory: 65,536 pages of 64 KiB. */
export const SPACE_BYTES = 2 ** 32;
const SPACE_PAGES = 65_536;
const PAGE_BYTES = SPACE_BYTES / SPACE_PAGES;

/** A 4 GiB shared memory: address space only, until something is written to it. */
export const createSpaceMemory = (): WebAssembly.Memory => {
  try {
    return new WebAssembly.Memory({ initial: SPACE_PAGES, maximum: SPACE_PAGES, shared: true });
  } catch (cause) {
    throw new XenolithError("CAPABILITY_MISSING", "the process has no address space left for another 4 GiB memory", {
      cause,
    });
  }
};

/** A shared memory of at least `sizeBytes`, for tables: WebAssembly's atomics are faster than those of JavaScript. */
const createTableMemory = (sizeBytes: number): WebAssembly.Memory => {
  const pages = Math.ceil(sizeBytes / PAGE_BYTES);
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
};

/** The buffer of a shared memory. */
export const sharedBufferOf = (memory: WebAssembly.Memory): SharedArrayBuffer => {
  const buffer: ArrayBufferLike = memory.buffer;
  assert(buffer instanceof SharedArrayBuffer);
  return buffer;
};

/** Banks, p2m and control tables of one host. */
export class Machine {
  readonly storage: HypervisorStorage;
  readonly bankFds: readonly number[];
  /** Host address of each bank's direct map. */
  readonly bankBases: readonly number[];
  readonly #memories: readonly WebAssembly.Memory[];
  readonly #tableBases: ReadonlyMap<ArrayBufferLike, number>;

  /** Throws `SystemCallError` when the kernel refuses a file or a mapping. */
  constructor(geometry: Geometry) {
    assert(geometry.framesPerBank * FRAME_BYTES === SPACE_BYTES);
    const p2m = createSpaceMemory();
    const bankFds: number[] = [];
    const memories: WebAssembly.Memory[] = [];
    try {
      for (let bank = 0; bank < geometry.bankCount; bank += 1) {
        const fd = createMemfd({ name: `xenolith-bank-${bank}`, sizeBytes: SPACE_BYTES });
        bankFds.push(fd);
        memories.push(mapBank(fd));
      }
    } catch (cause) {
      for (const fd of bankFds) closeDescriptor(fd);
      throw cause;
    }
    this.bankFds = bankFds;
    this.bankBases = memories.map(baseAddress);
    this.#memories = [...memories, p2m];
    const control = createTableMemory(controlBytes(geometry));
    const grants = createTableMemory(grantBytes(geometry));
    this.storage = {
      geometry,
      control: sharedBufferOf(control),
      p2m: sharedBufferOf(p2m),
      grants: sharedBufferOf(grants),
      banks: memories.map(sharedBufferOf),
      memories: { control, banks: memories },
    };
    this.#tableBases = new Map([p2m, grants].map((memory) => [memory.buffer, baseAddress(memory)]));
  }

  /** Gives the host back the whole pages of a part of the p2m or of the grants: `Platform.discardTable`. */
  discardTable = (buffer: ArrayBufferLike, byteOffset: number, byteLength: number): void => {
    const base = this.#tableBases.get(buffer);
    assert(base !== undefined);
    const start = Math.ceil(byteOffset / FRAME_BYTES) * FRAME_BYTES;
    const lengthBytes = Math.floor((byteOffset + byteLength) / FRAME_BYTES) * FRAME_BYTES - start;
    if (lengthBytes > 0) assert(advise(base + start, lengthBytes, Advice.DONTNEED) === 0);
  };

  /**
   * Closes the bank files. The machine's memory goes back to the host when the last thread has dropped its views of
   * it, which is after every vCPU thread has ended.
   */
  close(): void {
    for (const fd of this.bankFds) closeDescriptor(fd);
    for (const memory of this.#memories.slice(0, -1)) {
      // Punched through the mapping: the files are closed, but their pages live as long as the mapping does.
      advise(baseAddress(memory), SPACE_BYTES, Advice.REMOVE);
    }
  }
}

const mapBank = (fd: number): WebAssembly.Memory => {
  const memory = createSpaceMemory();
  const base = baseAddress(memory);
  check(mapFrames(base, SPACE_BYTES, PROT_READ_WRITE, fd, 0), "mmap", { length: SPACE_BYTES, fd });
  advise(base, SPACE_BYTES, Advice.DONTDUMP);
  return memory;
};

/** Makes plain byte views of banks for the calling thread: copies between plain views are `memmove`. */
export const fastBank =
  (bankBases: readonly number[]) =>
  (bank: number): Uint8Array =>
    new Uint8Array(viewMemory(bankBases[bank]!, SPACE_BYTES));
