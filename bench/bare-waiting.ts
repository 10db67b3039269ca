/**
 * Ping-pong between two threads over two words of shared memory, as any program does it: word 0 counts pings, word 1
 * pongs. Sleeping with Atomics.wait, or spinning in a loop of WebAssembly as a guest's is.
 */
import { assembleGuest } from "./guest-text.ts";

const PING = 0;
const PONG = 1;

const say = (words: Int32Array, word: number, turn: number): void => {
  Atomics.store(words, word, turn);
  Atomics.notify(words, word);
};

const hear = (words: Int32Array, word: number, turn: number): void => {
  for (let now = Atomics.load(words, word); now !== turn; now = Atomics.load(words, word))
    Atomics.wait(words, word, now);
};

/** Plays `turns` turns, sleeping, after one to meet the other. The words are 0 at first. Returns the nanoseconds. */
export const pingSleeping = (words: Int32Array, turns: number): number => {
  say(words, PING, 1);
  hear(words, PONG, 1);
  const start = process.hrtime.bigint();
  for (let turn = 2; turn <= turns + 1; turn += 1) {
    say(words, PING, turn);
    hear(words, PONG, turn);
  }
  return Number(process.hrtime.bigint() - start);
};

/** The other side of `pingSleeping`. */
export const pongSleeping = (words: Int32Array, turns: number): void => {
  for (let turn = 1; turn <= turns + 1; turn += 1) {
    hear(words, PING, turn);
    say(words, PONG, turn);
  }
};

const spinner = assembleGuest(`(module
  (import "bare" "memory" (memory 1 1 shared))
  (func $hear (param $word i32) (param $turn i32)
    (loop $again (br_if $again (i32.ne (i32.atomic.load (local.get $word)) (local.get $turn)))))
  (func (export "ping") (param $turn i32) (param $turns i32)
    (loop $again
      (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
      (i32.atomic.store (i32.const 0) (local.get $turn))
      (call $hear (i32.const 64) (local.get $turn))
      (br_if $again (i32.ne (local.get $turn) (local.get $turns)))))
  (func (export "pong") (param $turn i32) (param $turns i32)
    (loop $again
      (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
      (call $hear (i32.const 0) (local.get $turn))
      (i32.atomic.store (i32.const 64) (local.get $turn))
      (br_if $again (i32.ne (local.get $turn) (local.get $turns))))))`);

type Play = (from: number, to: number) => void;
let exports: Readonly<Record<string, Play>> | undefined;

const playerOf = (memory: WebAssembly.Memory, side: "ping" | "pong"): Play => {
  exports ??= new WebAssembly.Instance(new WebAssembly.Module(spinner), { bare: { memory } })
    .exports as unknown as Readonly<Record<string, Play>>;
  return exports[side]!;
};

/** As `pingSleeping`, spinning over two words of `memory`. */
export const pingSpinning = (memory: WebAssembly.Memory, turns: number): number => {
  const play = playerOf(memory, "ping");
  play(0, 1);
  const start = process.hrtime.bigint();
  play(1, turns + 1);
  return Number(process.hrtime.bigint() - start);
};

/** The other side of `pingSpinning`. */
export const pongSpinning = (memory: WebAssembly.Memory, turns: number): void => playerOf(memory, "pong")(0, turns + 1);
