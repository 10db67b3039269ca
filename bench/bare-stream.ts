/** The bare side of the vchan bench's streams: memory.copy, and a ring of 1 MiB whose ends spin. */
import { assembleGuest } from "./guest-text.ts";

const MIB = 2 ** 20;
const PRODUCED = 0;
const CONSUMED = 64;
const TURN = 128;
/** What the ends do in one go when they take turns. */
const TURN_PIECE = MIB / 16;
const RING = MIB;
const SOURCE = 2 * MIB;
const TARGET = 66 * MIB;

const inRing = (index: string): string => `(i32.add (i32.const ${RING}) (i32.and ${index} (i32.const ${MIB - 1})))`;
const inWindow = (base: number, index: string): string =>
  `(i32.add (i32.const ${base}) (i32.rem_u ${index} (local.get $window)))`;
const index = "(local.get $index)";
/** Does `body` for each of `$pieces` pieces. */
const each = (name: string, body: string): string => `
  (func (export "${name}") (param $piece i32) (param $pieces i32) (param $window i32) (local $index i32)
    (loop $next
      ${body}
      (br_if $next (local.tee $pieces (i32.sub (local.get $pieces) (i32.const 1))))))`;
const advance = "(local.set $index (i32.add (local.get $index) (local.get $piece)))";

const program = assembleGuest(`(module
  (import "bare" "memory" (memory 0 65536 shared))
  ${each(
    "send",
    `(loop $wait
      (br_if $wait (i32.gt_u
        (i32.sub (i32.add ${index} (local.get $piece)) (i32.atomic.load (i32.const ${CONSUMED})))
        (i32.const ${MIB}))))
    (memory.copy ${inRing(index)} ${inWindow(SOURCE, index)} (local.get $piece))
    ${advance}
    (i32.atomic.store (i32.const ${PRODUCED}) ${index})`,
  )}
  ${each(
    "receive",
    `(loop $wait
      (br_if $wait (i32.lt_u (i32.sub (i32.atomic.load (i32.const ${PRODUCED})) ${index}) (local.get $piece))))
    (memory.copy ${inWindow(TARGET, index)} ${inRing(index)} (local.get $piece))
    ${advance}
    (i32.atomic.store (i32.const ${CONSUMED}) ${index})`,
  )}
  ${each(
    "copy",
    `(memory.copy ${inWindow(TARGET, index)} ${inWindow(SOURCE, index)} (local.get $piece))
    ${advance}`,
  )}
  (func (export "reset")
    (i32.atomic.store (i32.const ${PRODUCED}) (i32.const 0))
    (i32.atomic.store (i32.const ${CONSUMED}) (i32.const 0))))`);

type Move = (piece: number, pieces: number, window: number) => void;

let turn: Int32Array;
let bare: { readonly send: Move; readonly receive: Move; readonly copy: Move; readonly reset: () => void };

/** Works in `memory` from now on. */
export const open = (memory: WebAssembly.Memory): void => {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(program), { bare: { memory } });
  bare = exports as unknown as typeof bare;
  turn = new Int32Array(memory.buffer, TURN, 1);
  new Uint8Array(memory.buffer).fill(1, SOURCE);
};

/** The ring is empty again. */
export const reset = (): void => bare.reset();

const timed = (work: () => void): number => {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start);
};

/** Pieces of `piece` bytes go through the ring, out of a window of `window` bytes. */
export const send = (piece: number, pieces: number, window: number): void => bare.send(piece, pieces, window);
/** The other end; returns nanoseconds. */
export const receive = (piece: number, pieces: number, window: number): number =>
  timed(() => bare.receive(piece, pieces, window));
/** Copies pieces without a ring; returns nanoseconds. */
export const copy = (piece: number, pieces: number, window: number): number =>
  timed(() => bare.copy(piece, pieces, window));

/** Waits for the turn of one end, has it do its part, and gives the turn to the other; returns nanoseconds without the wait. */
const takeTurns = (turns: number, own: number, part: () => void): number => {
  let elapsedNs = 0;
  for (let done = 0; done < turns; done += 1) {
    while (Atomics.load(turn, 0) !== own) continue;
    elapsedNs += timed(part);
    Atomics.store(turn, 0, 1 - own);
  }
  return elapsedNs;
};

/** Fills the ring, `turns` times, while the other end waits that has emptied it. */
export const fill = (turns: number, window: number): number =>
  takeTurns(turns, 0, () => {
    bare.reset();
    bare.send(TURN_PIECE, MIB / TURN_PIECE, window);
  });
/** The other end: empties it while the first one waits. */
export const empty = (turns: number, window: number): number =>
  takeTurns(turns, 1, () => bare.receive(TURN_PIECE, MIB / TURN_PIECE, window));
