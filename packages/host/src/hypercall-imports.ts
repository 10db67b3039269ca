/**
 * The namespace `xen` as a guest imports it: one function per hypercall, and `xen.hypercall` for all of them. Every
 * function takes a fixed number of i32 and returns an i32 at once: 0 or more, or a negative errno. There are no rest
 * parameters, no allocation and no try on this path.
 */
import {
  __HYPERVISOR_memory_op,
  __HYPERVISOR_multicall,
  ENOMEM,
  hypercalls,
  XENMEM_current_reservation,
  XENMEM_maximum_gpfn,
  XENMEM_maximum_ram_page,
  XENMEM_maximum_reservation,
} from "@xenolith/abi";
import { type Cpu, hypercall } from "@xenolith/core";
import { heapHasRoom } from "./heap-guard.ts";
import type { Upcall } from "./upcall.ts";

/** A function that a guest imports; arguments are signed as Wasm passes them. */
export type GuestFunction = (...values: number[]) => number;

/** Functions of the namespace `xen` for one vCPU, without a prototype. */
export const createHypercallImports = (cpu: Cpu, upcall: Upcall): Record<string, GuestFunction> => {
  const functions: Record<string, GuestFunction> = Object.create(null);
  for (const [name, { number, parameters }] of Object.entries(hypercalls)) {
    functions[name] = hypercallOf(cpu, upcall, number, parameters.length);
  }
  const { multicall } = functions;
  functions["memory_op"] = (command, argument) => {
    if (!isQuery(command) && !heapHasRoom()) return -ENOMEM;
    const result = hypercall(cpu, __HYPERVISOR_memory_op, command >>> 0, argument >>> 0, 0, 0, 0);
    upcall.check();
    return result;
  };
  functions["multicall"] = (list, count) => (heapHasRoom() ? multicall!(list, count) : -ENOMEM);
  functions["hypercall"] = (number, a, b, c, d, e) => {
    if (changesMemory(number >>> 0) && !heapHasRoom()) return -ENOMEM;
    const result = hypercall(cpu, number >>> 0, a >>> 0, b >>> 0, c >>> 0, d >>> 0, e >>> 0);
    upcall.check();
    return result;
  };
  return functions;
};

const changesMemory = (number: number): boolean =>
  number === __HYPERVISOR_memory_op || number === __HYPERVISOR_multicall;

/** memory_op commands that only answer a number: they change nothing, and are made often. */
const QUERIES =
  (1 << XENMEM_maximum_ram_page) |
  (1 << XENMEM_current_reservation) |
  (1 << XENMEM_maximum_reservation) |
  (1 << XENMEM_maximum_gpfn);

const isQuery = (command: number): boolean => command >>> 0 < 32 && ((QUERIES >>> command) & 1) !== 0;

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
