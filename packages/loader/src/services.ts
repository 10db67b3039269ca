import type { Signature } from "./wasm-type.ts";

/** One hypervisor service that rewritten code may call. */
export interface Service extends Signature {
  /** Where the host puts the function in the table. */
  readonly slot: number;
}

/** Name of the exported function table through which rewritten code reaches the hypervisor. */
export const SERVICE_TABLE_EXPORT = "xenolith.services";

/** Entries of that table, in every image that has one. */
export const SERVICE_TABLE_SIZE = 8;

/**
 * The services. `paravirtualise` emits calls to these slots and `ImageManifest.services` says which of them an image
 * uses; the host fills the table with `bindServices` before it calls anything in the instance.
 */
export const services = {
  /** Size of the memory in pages of 64 KiB. */
  memory_size: { slot: 0, params: [], results: ["i32"] },
  /** (pages of 64 KiB) -> size before in such pages, or -1. */
  memory_grow: { slot: 1, params: ["i32"], results: ["i32"] },
  /** (address, expected, timeout in ns, negative for none) -> 0 woken, 1 not equal, 2 timed out. The address is aligned. */
  atomic_wait32: { slot: 2, params: ["i32", "i32", "i64"], results: ["i32"] },
  /** As `atomic_wait32`, for 64 bits. */
  atomic_wait64: { slot: 3, params: ["i32", "i64", "i64"], results: ["i32"] },
  /** (address, greatest number to wake) -> number woken. The address is aligned to 4. */
  atomic_notify: { slot: 4, params: ["i32", "i32"], results: ["i32"] },
  /** (segment, destination, offset in the segment, length in bytes) -> 0, or nonzero for a trap. */
  memory_init: { slot: 5, params: ["i32", "i32", "i32", "i32"], results: ["i32"] },
  /** (segment): the segment is empty from now on. */
  data_drop: { slot: 6, params: ["i32"], results: [] },
  /** Called from loops in images that were made with `poll`; returns after how many loop turns (at least 1) to call again. */
  poll: { slot: 7, params: [], results: ["i32"] },
} as const satisfies Record<string, Service>;

/** The name of a service function. */
export type ServiceName = keyof typeof services;
