/**
 * The addresses of one chunk or region: a WebAssembly memory of its own, in which everything is inaccessible but what is
 * mapped between two guard pages.
 *
 *     guard page | chunk or region | guard page, and what is left of 64 KiB
 *
 * Why a WebAssembly memory: `grow(0)` detaches every view that exists of its buffer. So a view that somebody was lent
 * and kept is empty afterwards, rather than a window to the next secret at that place; and nobody can transfer it. As
 * the first page is a guard, a structured clone of the whole buffer ends the process before it copies a secret.
 *
 * Why one for each: V8 counts the whole memory as allocated anew at each `grow(0)`, and collects garbage for it when that
 * is 64 MiB or more (1 ms a time; with 2 MiB it takes 0.3 us).
 */
import { addressOf, check, PAGE_BYTES, reserve } from "@xenolith/sys";

const WASM_PAGE_BYTES = 65_536;

/** How many functions use bytes of a pool now. */
export interface Loans {
  count: number;
}

/** See above. For this package. */
export class SecretSpace {
  /** Where the chunk or region is. */
  readonly address: number;
  readonly sizeBytes: number;
  readonly #memory: WebAssembly.Memory;
  readonly #loans: Loans;
  #bytes: Uint8Array<ArrayBuffer> | undefined;
  #words: DataView<ArrayBuffer> | undefined;
  #lent = 0;

  /** @throws RangeError when there are no addresses for it. */
  constructor(sizeBytes: number, loans: Loans) {
    this.sizeBytes = sizeBytes;
    this.#loans = loans;
    const pages = Math.ceil((sizeBytes + 2 * PAGE_BYTES) / WASM_PAGE_BYTES);
    this.#memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const address = addressOf(new Uint8Array(this.#memory.buffer));
    const length = pages * WASM_PAGE_BYTES;
    check(reserve(address, length), "mmap", { address, length });
    this.address = address + PAGE_BYTES;
  }

  /** The bytes, for this package only: nobody else may keep a view. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return (this.#bytes ??= new Uint8Array(this.#memory.buffer, PAGE_BYTES, this.sizeBytes));
  }

  /** The same bytes. */
  get words(): DataView<ArrayBuffer> {
    return (this.#words ??= new DataView(this.#memory.buffer, PAGE_BYTES, this.sizeBytes));
  }

  /** Runs `use` with a view of a stretch, and takes the view back. */
  lend<T>(offset: number, lengthBytes: number, use: (bytes: Uint8Array<ArrayBuffer>) => T): T {
    const view = new Uint8Array(this.#memory.buffer, PAGE_BYTES + offset, lengthBytes);
    this.#lent += 1;
    this.#loans.count += 1;
    try {
      return use(view);
    } finally {
      this.#lent -= 1;
      this.#loans.count -= 1;
      if (this.#lent === 0) this.#detach();
    }
  }

  /** Makes all of it inaccessible: what was mapped here is gone from this process. Views become empty. */
  withdraw(): void {
    this.#detach();
    check(reserve(this.address, this.sizeBytes), "mmap", { address: this.address, length: this.sizeBytes });
  }

  #detach(): void {
    this.#bytes = undefined;
    this.#words = undefined;
    this.#memory.grow(0);
  }
}
