/**
 * The namespace `xen` as a guest imports it: one function per hypercall, and `xen.hypercall` for all of them. Every
 * function takes a fixed number of i32 and returns an i32 at once: 0 or more, or a negative errno. There are no rest
 * parameters, no allocation and no try on this path.
 */
import { hypercalls } from "@xenolith/abi";
import { type Cpu, hypercall } from "@xenolith/core";
import type { Upcall } from "./upcall.ts";

/** A function that a guest imports; arguments are signed as Wasm passes them. */
export type GuestFunction = (...values: number[]) => number;

/** Functions of the namespace `xen` for one vCPU, without a prototype. */
export const createHypercallImports = (cpu: Cpu, upcall: Upcall): Record<string, GuestFunction> => {
  const functions: Record<string, GuestFunction> = Object.create(null);
  for (const [name, { number, parameters }] of Object.entries(hypercalls)) {
    functions[name] = hypercallOf(cpu, upcall, number, parameters.length);
  }
  functions["hypercall"] = (number, a, b, c, d, e) => {
    const result = hypercall(cpu, number >>> 0, a >>> 0, b >>> 0, c >>> 0, d >>> 0, e >>> 0);
    upcall.check();
    return result;
  };
  return functions;
};

/** Hypercall `number` with its number of parameters: V8 calls a function of the exact arity without an adaptor. */
const hypercallOf = (cpu: Cpu, upcall: Upcall, number: number, parameterCount: number): GuestFunction => {
  switch (parameterCount) {
    case 1:
      return (a) => {
        const result = hypercall(cpu, number, a >>> 0, 0, 0, 0, 0);
        upcall.check();
        return result;
      };
    case 2:
      return (a, b) => {
        const result = hypercall(cpu, number, a >>> 0, b >>> 0, 0, 0, 0);
        upcall.check();
        return result;
      };
    case 3:
      return (a, b, c) => {
        const result = hypercall(cpu, number, a >>> 0, b >>> 0, c >>> 0, 0, 0);
        upcall.check();
        return result;
      };
    default:
      return (a, b, c, d, e) => {
        const result = hypercall(cpu, number, a >>> 0, b >>> 0, c >>> 0, d >>> 0, e >>> 0);
        upcall.check();
        return result;
      };
  }
};
