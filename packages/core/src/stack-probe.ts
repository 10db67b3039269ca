/**
 * Makes sure that an operation of the hypervisor cannot run out of stack half way. A guest may recurse as deep as it
 * likes and then make a hypercall; the RangeError of a stack overflow must come before the operation starts or not at
 * all.
 *
 * The probe is a function whose frame would be 88 KiB large, because of a call with thousands of arguments that is never
 * made. V8 compares the room that a function's frame needs with what is left when the function is entered, in every
 * tier: the interpreter because it lays the frame out, optimised code because it must be able to fall back to the
 * interpreter. Optimised, that is one comparison: it takes as long as a call of an empty function, measured on Node 20,
 * 22, 24 and 26.
 *
 * Why 88 KiB: V8 compiles a function when it is first called, and again after its bytecode was dropped, and wants 40 KiB
 * of stack for that; the deepest operation takes less than the rest. Much more is not possible: a function with more than
 * 60 KiB of bytecode is never optimised.
 */
import assert from "node:assert/strict";

/** Bytes of stack that are there when `probeStack` returns. */
export const STACK_PROBE_BYTES = 88 * 1024;

const WORD_BYTES = 8;
const NEVER = 0x7fff_ffff;

const count = (...values: number[]): number => values.length;

/** Written out in the source it would be a page of zeros; the text is constant and holds nothing from outside. */
const buildProbe = (): ((word: number) => number) => {
  const zeros = "0,".repeat(STACK_PROBE_BYTES / WORD_BYTES);
  // oxlint-disable-next-line no-new-func
  const build = new Function("count", `return function probe(word) { return word === ${NEVER} ? count(${zeros}0) : 0; }`);
  return (build as (callee: typeof count) => (word: number) => number)(count);
};

const probe = buildProbe();
assert(probe(0) === 0);

/** Returns when `STACK_PROBE_BYTES` of stack are left; throws the engine's RangeError, having done nothing, otherwise. */
export const probeStack = (): void => {
  probe(0);
};
