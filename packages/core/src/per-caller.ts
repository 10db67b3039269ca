/**
 * Scratch space of operations that may let their caller park half way: one for each caller, because in a simulation,
 * where many callers share a thread, another one may make the same call meanwhile.
 */
import type { Cpu } from "./cpu.ts";

/** Finds the caller's object, made by `create` when it first asks. */
export const perCaller = <T extends object>(create: () => T): ((cpu: Cpu) => T) => {
  const kept = new WeakMap<Cpu, T>();
  // A vCPU's thread has one caller: the last one is mostly the next one too.
  let last: Cpu | undefined;
  let ofLast: T | undefined;
  return (cpu) => {
    if (cpu === last) return ofLast!;
    last = cpu;
    ofLast = kept.get(cpu);
    if (ofLast === undefined) {
      ofLast = create();
      kept.set(cpu, ofLast);
    }
    return ofLast;
  };
};
