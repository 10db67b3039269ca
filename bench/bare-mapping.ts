/**
 * The bare system calls of the memory bench: mapping a run of a memory file into a 4 GiB WebAssembly memory, touching
 * it with the same loop as the guest, and taking it away again by mapping nothing over it and punching a hole.
 */
import assert from "node:assert/strict";
import { baseAddress, createMemfd, mapFrames, PROT_READ_WRITE, punchHole, reserve } from "@xenolith/sys";
import { assembleGuest } from "./guest-text.ts";

/** Nanoseconds of each step. */
export interface MappingTimes {
  readonly map: number;
  readonly touch: number;
  readonly unmap: number;
}

const START = 0x1000_0000;
const FILE_BYTES = 2 ** 30;

const toucher = assembleGuest(`(module
  (import "bare" "memory" (memory 0 65536 shared))
  (func (export "touch") (param $at i32) (param $end i32)
    (loop $again
      (i32.store (local.get $at) (i32.const 1))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (local.get $end))))))`);

let memory: WebAssembly.Memory | undefined;
let touch: (from: number, to: number) => void = () => {};
let fd = -1;

const open = (): number => {
  if (memory === undefined) {
    memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
    fd = createMemfd({ name: "bare-bench", sizeBytes: FILE_BYTES });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(toucher), { bare: { memory } });
    touch = exports["touch"] as typeof touch;
    assert.equal(reserve(baseAddress(memory), 2 ** 32), 0);
  }
  return baseAddress(memory);
};

const time = (work: () => unknown): number => {
  const start = process.hrtime.bigint();
  const result = work();
  const elapsedNs = Number(process.hrtime.bigint() - start);
  assert.ok(result === 0 || result === undefined);
  return elapsedNs;
};

/** Maps, touches if `isTouched` and takes away `sizeBytes`. */
export const cycle = (sizeBytes: number, isTouched: boolean): MappingTimes => {
  const base = open() + START;
  const map = time(() => mapFrames(base, sizeBytes, PROT_READ_WRITE, fd, 0));
  const touched = isTouched ? time(() => touch(START, START + sizeBytes)) : 0;
  const unmap = time(() => reserve(base, sizeBytes) || punchHole(fd, 0, sizeBytes));
  return { map, touch: touched, unmap };
};
