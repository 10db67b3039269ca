/**
 * Makes sure that an operation of the hypervisor cannot run out of stack half way. A guest may recurse as deep as it
 * likes and then make a hypercall; the RangeError of a stack overflow must come before the operation starts or not at
 * all.
 *
 * The probe is a function whose frame would be 88 KiB large: it has thousands of variables, which are used where it never
 * comes to, so that they take room in the frame and none in the code. V8 compares the room that a function's frame needs
 * with what is left when the function is entered, in every tier: the interpreter because it lays the frame out, optimised
 * code because it must be able to fall back to the interpreter. Optimised, that is one comparison: it takes as long as a
 * call of an empty function, measured on Node 20, 22, 24 and 26. A call that is never made keeps the function too long
 * to be inlined, which would take the comparison away.
 *
 * The interpreter fills the frame, which takes 2 us. So the probe is optimised on purpose when it has been used a few
 * times: turns of its loop count as calls do. The length of its code matters for that: V8 waits longer before it
 * optimises a longer function. Not earlier, because that takes a millisecond, which a thread that starts should not.
 *
 * Why 88 KiB: V8 compiles a function when it is first called, and again after its bytecode was dropped, and wants 40 KiB
 * of stack for that; the deepest operation takes less than the rest.
 */
/** Bytes of stack that are there when `probeStack` returns. */
export const STACK_PROBE_BYTES = 88 * 1024;

const WORD_BYTES = 8;
const NEVER = 0x7fff_ffff;
/** Arguments of the call that is never made: enough code (over 460 bytes) that the function is not inlined. */
const PADDING_ARGUMENTS = 150;
/** Uses before the probe is optimised. */
const EARLY_USES = 32;
/** Calls of the probe with so many turns each, after which every supported V8 has optimised it or is about to. */
const WARM_UP_CALLS = 300;
const WARM_UP_TURNS = 100;

/**
 * The probe as a JavaScript expression that needs nothing around it. Written out in the source it would be a page of
 * names. The parentheses around the inner function make V8 compile it at once instead of reading it twice; what links
 * programs of threads puts the text in place of the call that compiles it, so that V8's code cache holds it.
 */
export const stackProbeText = (): string => {
  const names = Array.from({ length: STACK_PROBE_BYTES / WORD_BYTES }, (_, index) => `_${index.toString(36)}`).join();
  const padding = "0,".repeat(PADDING_ARGUMENTS);
  return `(() => {
    const count = (...values) => values.length;
    return (function probe(turns) {
      var ${names};
      for (var i = 0; i < turns; i += 1) if (turns === ${NEVER}) return count(${padding}0);
      return turns;
      ${names};
    });
  })()`;
};

/** The text is constant and holds nothing from outside. */
const compile = (text: string): ((turns: number) => number) => {
  // oxlint-disable-next-line typescript/no-implied-eval
  const build = new Function(`return ${text};`);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return (build as () => (turns: number) => number)();
};

const probe = compile(stackProbeText());

/** Uses of the probe so far, as far as they are counted. */
let uses = 0;

/** One of the first uses. A stack overflow leaves the count, and the next use tries again. */
const useEarly = (): void => {
  probe(0);
  if (uses === EARLY_USES - 1) for (let call = 0; call < WARM_UP_CALLS; call += 1) probe(WARM_UP_TURNS);
  uses += 1;
};

/** Returns when `STACK_PROBE_BYTES` of stack are left; throws the engine's RangeError, having done nothing, otherwise. */
export const probeStack = (): void => {
  if (uses < EARLY_USES) useEarly();
  else probe(0);
};

/** Makes the probe of the calling thread as fast as it gets. */
export const warmStackProbe = (): void => {
  while (uses < EARLY_USES) probeStack();
};
