/**
 * What nobody who maps granted frames can leave out, written as a bare loop without a check that could fail: the request
 * is read, the granter's entry is taken with a compare-and-swap, the frame that it names is looked up and gets a
 * reference, the mapper's p2m and a row of its maptrack say what is mapped, and the request is answered. Beside it stands
 * the one system call that maps all of the frames.
 */
import assert from "node:assert/strict";
import { GTF_permit_access, GTF_reading, GTF_writing } from "@xenolith/abi";
import { baseAddress, createMemfd, mapFrames, PROT_READ_WRITE, reserve } from "@xenolith/sys";
import { assembleGuest } from "./guest-text.ts";

const PAGE = 4096;
const MIB = 2 ** 20;
/** Tables for FRAMES frames in the memory's ordinary part. */
const FRAMES = 1024;
const REQUESTS = MIB;
const ENTRIES = 2 * MIB;
const P2M = 3 * MIB;
const REFERENCES = 4 * MIB;
const ROWS = 5 * MIB;
const REQUEST_BYTES = 32;
const ENTRY_BYTES = 8;
const ROW_BYTES = 16;
/** In a request: where to map, the reference, and the answer. */
const REQUEST_REF = 12;
const REQUEST_STATUS = 16;
const REQUEST_HANDLE = 20;
/** Where the pages go: reserved addresses on both sides. */
const WINDOW = 0x4000_0000;
const WINDOW_BYTES = 2 ** 26;
const PLACE = WINDOW + WINDOW_BYTES / 2;

const BITS = GTF_reading | GTF_writing;
const index = "(local.get $index)";
const request = `(i32.add (i32.const ${REQUESTS}) (i32.mul ${index} (i32.const ${REQUEST_BYTES})))`;
const cell = (table: number, at: string, bytes: number): string =>
  `(i32.add (i32.const ${table}) (i32.mul ${at} (i32.const ${bytes})))`;

const program = assembleGuest(`(module
  (import "bare" "memory" (memory 0 65536 shared))
  (func (export "begin") (param $count i32)
    (local $index i32) (local $request i32) (local $entry i32) (local $ref i32) (local $frame i32) (local $row i32)
    (loop $next
      (local.set $request ${request})
      (local.set $ref (i32.load offset=${REQUEST_REF} (local.get $request)))
      (local.set $entry ${cell(ENTRIES, "(local.get $ref)", ENTRY_BYTES)})
      (drop (i32.atomic.rmw.cmpxchg (local.get $entry)
        (i32.const ${GTF_permit_access}) (i32.const ${GTF_permit_access | BITS})))
      (local.set $frame (i32.load ${cell(P2M, "(i32.load offset=4 (local.get $entry))", 4)}))
      (drop (i32.atomic.rmw.add ${cell(REFERENCES, "(local.get $frame)", 4)} (i32.const 1)))
      (i32.store ${cell(P2M, `(i32.add (i32.const ${FRAMES}) (i32.load (local.get $request)))`, 4)} (local.get $frame))
      (local.set $row ${cell(ROWS, index, ROW_BYTES)})
      (i32.store (local.get $row) (local.get $ref))
      (i32.store offset=4 (local.get $row) (local.get $frame))
      (i32.store offset=8 (local.get $row) (i32.load (local.get $request)))
      (i32.store offset=${REQUEST_STATUS} (local.get $request) (i32.const 0))
      (i32.store offset=${REQUEST_HANDLE} (local.get $request) ${index})
      (br_if $next (i32.ne (local.tee $index (i32.add ${index} (i32.const 1))) (local.get $count)))))
  (func (export "end") (param $count i32) (local $index i32)
    (loop $next
      (drop (i32.atomic.rmw.and ${cell(ENTRIES, index, ENTRY_BYTES)} (i32.const ${~BITS})))
      (drop (i32.atomic.rmw.sub ${cell(REFERENCES, index, 4)} (i32.const 1)))
      (br_if $next (i32.ne (local.tee $index (i32.add ${index} (i32.const 1))) (local.get $count))))))`);

/** Nanoseconds of the system calls, and of the loops. */
export interface Duties {
  readonly map: number;
  readonly duties: number;
}

interface Program {
  begin(count: number): void;
  end(count: number): void;
}

let fd = -1;
let base = 0;
let bare: Program;
let entries: Int32Array;

/** Works in `memory`, which has 4 GiB, from now on. */
export const open = (memory: WebAssembly.Memory): void => {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(program), { bare: { memory } });
  bare = exports as unknown as Program;
  base = baseAddress(memory);
  fd = createMemfd({ name: "bare-bench", sizeBytes: FRAMES * PAGE });
  assert.equal(reserve(base + WINDOW, WINDOW_BYTES), 0);
  entries = new Int32Array(memory.buffer, ENTRIES, FRAMES * 2);
  const requests = new Int32Array(memory.buffer, REQUESTS, (FRAMES * REQUEST_BYTES) / 4);
  const p2m = new Int32Array(memory.buffer, P2M, 2 * FRAMES);
  for (let frame = 0; frame < FRAMES; frame += 1) {
    entries[frame * 2] = GTF_permit_access;
    entries[frame * 2 + 1] = frame;
    p2m[frame] = frame;
    requests[(frame * REQUEST_BYTES) / 4] = frame;
    requests[(frame * REQUEST_BYTES + REQUEST_REF) / 4] = frame;
  }
};

const timed = (work: () => void): number => {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start);
};

/** Maps `count` frames, which nobody touches, and does what has to be done for each; `turns` times. */
export const mapRun = (count: number, turns: number): Duties => {
  const times = { map: 0, duties: 0 };
  let failed = 0;
  for (let turn = 0; turn < turns; turn += 1) {
    times.map += timed(() => (failed |= mapFrames(base + PLACE, count * PAGE, PROT_READ_WRITE, fd, 0)));
    times.duties += timed(() => bare.begin(count));
    assert.equal(entries[count * 2 - 2], GTF_permit_access | BITS);
    failed |= reserve(base + PLACE, count * PAGE);
    bare.end(count);
  }
  assert.equal(failed, 0);
  return times;
};
