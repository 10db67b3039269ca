/**
 * 64-bit numbers between guest and host. WASI's are unsigned unless said otherwise; an import gets them as signed
 * BigInts. Sizes and offsets are numbers here, exact below 2^53, and what lies beyond is refused rather than rounded.
 */
import type { WasiMemory } from "./context.ts";

const TWO_32 = 0x1_0000_0000;

/** An unsigned size or offset, or -1 when it is 2^53 or more. */
export const sizeOf = (wide: bigint): number => {
  const size = Number(wide);
  return size >= 0 && size <= Number.MAX_SAFE_INTEGER ? size : -1;
};

/** Writes an unsigned 64-bit number to the guest; false: not writable. The kernel gives large ones as BigInt. */
export const storeU64 = (memory: WasiMemory, address: number, value: number | bigint): boolean => {
  if (typeof value === "bigint") memory.scratch.setBigUint64(0, value, true);
  else {
    memory.scratch.setUint32(0, value >>> 0, true);
    memory.scratch.setUint32(4, Math.floor(value / TWO_32), true);
  }
  return memory.store(address, 8);
};
