/**
 * The bare side of the grant bench: what mapping, revoking and copying are without a hypervisor, i.e. system calls for
 * pages of a memory file in a 4 GiB WebAssembly memory, and memory.copy. The same loops as in guests/grant.c.
 */
import assert from "node:assert/strict";
import { baseAddress, createMemfd, mapFrames, PROT_READ, PROT_READ_WRITE, reserve } from "@xenolith/sys";
import type { MappingTimes } from "./bare-mapping.ts";
import { assembleGuest } from "./guest-text.ts";

const PAGE = 4096;
const FILE_BYTES = 2 ** 26;
/** In the file: pages that stand for the granted ones, from here on; page 0 stays zero. */
const SHARED = PAGE;
/** Also there: zeroed pages that take the place of others. */
const OWN = FILE_BYTES / 2;
const WINDOW = 0x4000_0000;
const WINDOW_BYTES = 2 ** 26;
/** Where pages go: with reserved addresses on both sides, as in a guest, so that the kernel splits and merges the same. */
const PLACE = WINDOW + WINDOW_BYTES / 2;
/** Agreement of the two threads, in the memory's ordinary part. */
const CONTROL = 64;
const COPY_FROM = 0x10_0000;
const COPY_TO = 0x80_0000;

const program = assembleGuest(`(module
  (import "bare" "memory" (memory 0 65536 shared))
  (func (export "read") (param $at i32) (param $count i32) (result i32) (local $sum i32)
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (i32.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const ${PAGE})))
      (br_if $again (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))
    (local.get $sum))
  (func (export "follow") (param $count i32) (local $index i32) (local $at i32)
    (local.set $at (i32.const ${PLACE}))
    (loop $next
      (drop (i32.load (local.get $at)))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (i32.atomic.store (i32.const ${CONTROL}) (local.get $index))
      (loop $again (br_if $again (i32.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const ${PAGE})))
      (br_if $next (i32.ne (local.get $index) (local.get $count)))))
  (func (export "await") (param $index i32)
    (loop $again (br_if $again (i32.ne (i32.atomic.load (i32.const ${CONTROL})) (local.get $index)))))
  (func (export "reset") (i32.atomic.store (i32.const ${CONTROL}) (i32.const 0)))
  (func (export "copy") (param $bytes i32) (param $turns i32)
    (loop $again
      (memory.copy (i32.const ${COPY_TO}) (i32.const ${COPY_FROM}) (local.get $bytes))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))))`);

interface Program {
  read(at: number, count: number): number;
  follow(count: number): void;
  await(index: number): void;
  reset(): void;
  copy(bytes: number, turns: number): void;
}

let fd = -1;
let base = 0;
let bare: Program;

/** Works in `memory`, which has 4 GiB, from now on. */
export const open = (memory: WebAssembly.Memory): void => {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(program), { bare: { memory } });
  bare = exports as unknown as Program;
  base = baseAddress(memory);
};

/** As `open`, and makes the file and its window there. */
export const openWindow = (memory: WebAssembly.Memory): void => {
  open(memory);
  fd = createMemfd({ name: "bare-bench", sizeBytes: FILE_BYTES });
  fillFile(memory);
  assert.equal(reserve(base + WINDOW, WINDOW_BYTES), 0);
  new Uint8Array(memory.buffer).fill(1, COPY_FROM, COPY_TO);
};

/** Every page of the file's first half, but its first page, begins with a 1. */
const fillFile = (memory: WebAssembly.Memory): void => {
  assert.equal(mapFrames(base + WINDOW, FILE_BYTES, PROT_READ_WRITE, fd, 0), 0);
  const words = new Uint32Array(memory.buffer, WINDOW, OWN / 4);
  for (let at = PAGE / 4; at < words.length; at += PAGE / 4) words[at] = 1;
};

const now = (): bigint => process.hrtime.bigint();

const timed = (work: () => void): number => {
  const start = now();
  work();
  return Number(now() - start);
};

/** Maps one page and takes it away, `turns` times. */
export const mapOne = (turns: number): number => {
  let failed = 0;
  const elapsedNs = timed(() => {
    for (let turn = 0; turn < turns; turn += 1) {
      failed |= mapFrames(base + PLACE, PAGE, PROT_READ_WRITE, fd, SHARED);
      failed |= reserve(base + PLACE, PAGE);
    }
  });
  assert.equal(failed, 0);
  return elapsedNs;
};

/**
 * Maps `count` pages, every `step`-th of the file: consecutive ones in one system call. Reads them and takes them away.
 * The times of `turns` turns.
 */
export const mapRun = (count: number, step: number, isTouched: boolean, turns: number): MappingTimes => {
  const [calls, pages] = step === 1 ? [1, count] : [count, 1];
  const lengthBytes = pages * PAGE;
  const times = { map: 0, touch: 0, unmap: 0 };
  let failed = 0;
  for (let turn = 0; turn < turns; turn += 1) {
    times.map += timed(() => {
      for (let call = 0; call < calls; call += 1) {
        const offset = SHARED + call * step * PAGE;
        failed |= mapFrames(base + PLACE + call * lengthBytes, lengthBytes, PROT_READ_WRITE, fd, offset);
      }
    });
    if (isTouched) times.touch += timed(() => assert.equal(bare.read(PLACE, count), count));
    times.unmap += timed(() => (failed |= reserve(base + PLACE, count * PAGE)));
  }
  assert.equal(failed, 0);
  return times;
};

/** Maps `count` pages to be revoked, and reads them. */
export const arm = (count: number, isWritable: boolean): void => {
  const protection = isWritable ? PROT_READ_WRITE : PROT_READ;
  for (let index = 0; index < count; index += 1) {
    assert.equal(mapFrames(base + PLACE + index * PAGE, PAGE, protection, fd, SHARED + index * PAGE), 0);
  }
  assert.equal(bare.read(PLACE, count), count);
};

/**
 * Maps another page over each of `count` pages: the page of zeros for reading, one of its own each for writing. With a
 * reader when it has come to the page.
 */
export const revoke = (count: number, isWritable: boolean, hasReader: boolean): number => {
  const protection = isWritable ? PROT_READ_WRITE : PROT_READ;
  let failed = 0;
  let sum = 0;
  const begin = now();
  for (let index = 0; index < count; index += 1) {
    if (hasReader) bare.await(index + 1);
    const start = hasReader ? now() : begin;
    failed |= mapFrames(base + PLACE + index * PAGE, PAGE, protection, fd, isWritable ? OWN + index * PAGE : 0);
    if (hasReader) sum += Number(now() - start);
  }
  const elapsedNs = hasReader ? sum : Number(now() - begin);
  assert.equal(failed, 0);
  bare.reset();
  return elapsedNs;
};

/** The reader: spins on each page until another one is there. */
export const follow = (count: number): void => bare.follow(count);

/** Takes the pages of `arm` away. */
export const disarm = (count: number): void => {
  assert.equal(reserve(base + PLACE, count * PAGE), 0);
};

/** Copies `bytes` bytes, `turns` times. */
export const copy = (bytes: number, turns: number): number => timed(() => bare.copy(bytes, turns));
