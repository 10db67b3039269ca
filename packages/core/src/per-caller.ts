/**
 * Scratch space of operations that may let their caller park half way: one for each caller, because in a simulation,
 * where many callers share a thread, another one may make the same call meanwhile.
 */
import type { Cpu } from "./cpu.ts";

/** Finds the caller's object, made by `create` when it first asks. */
export const perCaller = <T extends object>(create: () => T): ((cpu: Cpu) => T) => {
  const kept = new WeakMap<Cpu, T>();
  return (cpu) => {
    const found = kept.get(cpu);
    if (found !== undefined) return found;
    const made = create();
    kept.set(cpu, made);
    return made;
  };
};
