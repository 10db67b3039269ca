/** The guest that fills and copies: loops of memory.fill and memory.copy. */
import { assembleGuest } from "./guest-text.ts";

/** Lengths that the rewrite bench measures. */
export const bulkShapes = [
  { name: "8B", sizeBytes: 8, count: 2_000_000 },
  { name: "31B", sizeBytes: 31, count: 2_000_000 },
  { name: "64B", sizeBytes: 64, count: 2_000_000 },
  { name: "4KiB", sizeBytes: 4096, count: 100_000 },
  { name: "1MiB", sizeBytes: 2 ** 20, count: 300 },
] as const;

const FROM = 0x10_0000;
const TO = 0x30_0000;

/** Exports `copy(length, turns)` and `fill(length, turns)`. */
export const bulkGuest = (): Uint8Array<ArrayBuffer> =>
  assembleGuest(`(module
    (memory (export "memory") 80)
    (func (export "copy") (param $length i32) (param $turns i32)
      (loop $again
        (memory.copy (i32.const ${TO}) (i32.const ${FROM}) (local.get $length))
        (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))
    (func (export "fill") (param $length i32) (param $turns i32)
      (loop $again
        (memory.fill (i32.const ${TO}) (local.get $turns) (local.get $length))
        (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))))`);
