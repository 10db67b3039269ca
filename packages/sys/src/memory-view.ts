/** Between JavaScript's view of memory and addresses. */
import assert from "node:assert/strict";
import { guarded } from "./exit-guard.ts";
import { addressOf, bind, koffi } from "./libc.ts";

const memmove = bind("intptr_t memmove(uintptr_t, uintptr_t, size_t)");

/**
 * The address of byte 0 of a shared WebAssembly memory. It stays the same for as long as the memory exists: a shared
 * memory is never moved. It becomes a lie when the last reference to the memory is dropped.
 */
export const baseAddress = (memory: WebAssembly.Memory): number => {
  const buffer: ArrayBufferLike = memory.buffer;
  assert(buffer instanceof SharedArrayBuffer, "only a shared memory has a fixed address");
  return addressOf(new Uint8Array(buffer));
};

/**
 * An ArrayBuffer over raw memory, without a copy. It is not shared in JavaScript's sense: it belongs to this thread, and
 * `Atomics.wait` refuses it. Touching a page of it that is not mapped kills the process, so the caller keeps the range
 * mapped and readable for as long as anybody holds the buffer. Never put it into a transfer list.
 *
 * @param lengthBytes up to 4 GiB.
 */
export const viewMemory = (address: number, lengthBytes: number): ArrayBuffer => {
  assert(Number.isSafeInteger(address) && address > 0);
  assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0 && lengthBytes <= 2 ** 32);
  // SAFETY: koffi wraps the range and frees nothing when the buffer dies; the caller keeps the range mapped.
  return guarded(() => koffi().view(BigInt(address), lengthBytes));
};

/**
 * Copies memory to memory, as memmove(3) does, by way of nothing else: no view of either end is made, and no copy stays
 * behind. The caller keeps both ranges mapped, the one readable and the other writable, until it returns.
 */
export const copyMemory = (toAddress: number, fromAddress: number, lengthBytes: number): void => {
  assert(Number.isSafeInteger(toAddress) && toAddress > 0);
  assert(Number.isSafeInteger(fromAddress) && fromAddress > 0);
  assert(Number.isSafeInteger(lengthBytes) && lengthBytes >= 0);
  // SAFETY: the caller's ranges.
  memmove()(toAddress, fromAddress, lengthBytes);
};
