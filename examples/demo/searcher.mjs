// SPDX-License-Identifier: Apache-2.0
/** A guest that searches memory which others share with it, and how the demo works with it. */
import wabt from "wabt";

/** What it counts at a time. */
export const BLOCK_BYTES = 2 ** 20;
/** Where its memory has the word, the number of blocks done, and two counts per block. */
const WORD = 0x400;
const DONE = 0x500;
const COUNTS = 0x1000;

/**
 * Counts the places in `length` bytes from `address` at which the eight bytes of its word stand, and those at which
 * eight zero bytes do, block by block. It makes `passes` passes, or fewer: it stops after one in which it met zeros.
 */
const SEARCHER = `(module
  (memory (export "memory") 1)
  (func $block (param $at i32) (param $end i32) (param $to i32)
    (local $word i64) (local $here i64) (local $found i32) (local $zeros i32)
    (local.set $word (i64.load (i32.const ${WORD})))
    (loop $next
      (local.set $here (i64.load (local.get $at)))
      (local.set $found (i32.add (local.get $found) (i64.eq (local.get $here) (local.get $word))))
      (local.set $zeros (i32.add (local.get $zeros) (i64.eqz (local.get $here))))
      (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $end))))
    (i32.store (local.get $to) (local.get $found))
    (i32.store offset=4 (local.get $to) (local.get $zeros)))
  (func (export "search") (param $address i32) (param $length i32) (param $passes i32)
    (local $at i32) (local $end i32) (local $to i32) (local $zeros i32)
    (loop $pass
      (local.set $at (local.get $address))
      (local.set $end (i32.add (local.get $address) (local.get $length)))
      (local.set $to (i32.const ${COUNTS}))
      (loop $blocks
        (call $block (local.get $at)
          (i32.sub (i32.add (local.get $at) (i32.const ${BLOCK_BYTES})) (i32.const 7)) (local.get $to))
        (local.set $zeros (i32.add (local.get $zeros) (i32.load offset=4 (local.get $to))))
        (i32.store (i32.const ${DONE}) (i32.add (i32.load (i32.const ${DONE})) (i32.const 1)))
        (local.set $to (i32.add (local.get $to) (i32.const 8)))
        (br_if $blocks
          (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const ${BLOCK_BYTES}))) (local.get $end))))
      (local.set $passes (i32.sub (local.get $passes) (i32.const 1)))
      (br_if $pass (i32.and (i32.eqz (local.get $zeros)) (i32.ne (local.get $passes) (i32.const 0))))))
  (func (export "grow") (param $pages i32) (result i32)
    (i32.mul (memory.grow (local.get $pages)) (i32.const 65536)))
  (func (export "read") (param $address i32) (result i64) (i64.load (local.get $address))))`;

/** The image, as a module. */
export const assembleSearcher = async () =>
  (await wabt()).parseWat("searcher.wat", SEARCHER).toBinary({ write_debug_names: true }).buffer;

/** A searching guest: a domain, and the word of eight letters that it looks for. */
export const openSearcher = async (host, image, { name, word }) => {
  const domain = await host.createDomain({ name, image, memoryBytesMax: 2 ** 20 });
  await domain.start();
  domain.write(WORD, new TextEncoder().encode(word));
  const numbers = (address, count) => {
    const bytes = domain.read(address, count * 4);
    return [...new Uint32Array(bytes.buffer, bytes.byteOffset, count)];
  };
  return {
    domain,
    word,
    /** How many blocks of its present search it has been through. */
    blocksDone: () => numbers(DONE, 1)[0],
    /** Searches, and returns the counts of each block in its last pass. */
    search: async (address, length, passes = 1) => {
      domain.write(DONE, new Uint8Array(4));
      await domain.call("search", address, length, passes);
      const counts = numbers(COUNTS, (length / BLOCK_BYTES) * 2);
      return Array.from({ length: counts.length / 2 }, (_, block) => ({
        found: counts[block * 2],
        zeros: counts[block * 2 + 1],
      }));
    },
    /** The eight bytes at `address`, as the guest's own load sees them. */
    read: async (address) => domain.call("read", address),
  };
};

/** What a search must find: the counts of each block of `bytes`, by other means. */
export const expectedCounts = (bytes, word) =>
  Array.from({ length: bytes.length / BLOCK_BYTES }, (_, block) => {
    const view = Buffer.from(bytes.buffer, bytes.byteOffset + block * BLOCK_BYTES, BLOCK_BYTES);
    let found = 0;
    for (let at = view.indexOf(word); at >= 0; at = view.indexOf(word, at + 1)) found += 1;
    return { found, zeros: 0 };
  });

/**
 * Checks what a guest found whose memory was taken away under it: first everything as it should be, then at most one
 * block in which that changed, then zeros only. Returns how many blocks were whole.
 */
export const wholeBlocks = (counts, expected) => {
  const isWhole = ({ found, zeros }, block) => zeros === 0 && found === expected[block].found;
  const isZero = ({ found, zeros }) => found === 0 && zeros === BLOCK_BYTES - 7;
  const changed = counts.findIndex((count, block) => !isWhole(count, block));
  if (changed < 0) throw new Error("the search ended before anything was taken away");
  const isMixed = counts[changed].found <= expected[changed].found;
  if (!isMixed || !counts.slice(changed + 1).every(isZero)) {
    throw new Error(`a guest saw something else than the data or zeros: ${JSON.stringify(counts)}`);
  }
  return changed;
};

/** Waits until `isSo`, looking again and again. */
export const until = async (isSo) => {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 1));
};
