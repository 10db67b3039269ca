/**
 * What a guest can import, for one vCPU: the namespaces, without prototypes, so that a name that is not offered is not
 * found. As a table: guest-interface.ts.
 */
import { ENOMEM } from "@xenolith/abi";
import { type Cpu, enterHypercall, failInside, leaveHypercall } from "@xenolith/core";
import { type FunctionImport, MEMORY_IMPORT } from "@xenolith/loader";
import { heapHasRoom } from "./heap-guard.ts";
import { createHypercallImports, type GuestFunction } from "./hypercall-imports.ts";
import type { GuestValue } from "./protocol.ts";
import type { Upcall } from "./upcall.ts";
import {
  createWasi,
  WASI_MODULES,
  type WasiContext,
  wasiErrno,
  type WasiModule,
  wasiSignatures,
} from "./wasi/index.ts";

/** Namespace of the hypercalls and of the memory. */
export const HYPERCALL_NAMESPACE = "xen";
/** Namespace of wasi-threads. */
export const THREAD_NAMESPACE = "wasi";
/** Its one function. */
export const THREAD_SPAWN = "thread-spawn";

/** The WASI function that opens files. */
const OPENING = "path_open";
const NO_MEMORY = wasiErrno(-ENOMEM);

/** What the imports of one vCPU are made from. */
export interface ImportParts {
  readonly cpu: Cpu;
  readonly memory: WebAssembly.Memory;
  /** Namespaces that the module imports from; the others are not made. */
  readonly namespaces: readonly string[];
  readonly upcall: Upcall;
  readonly wasi: WasiContext;
  /** Starts a vCPU on `wasi_thread_start`; returns its thread id or a negative errno. Inside the gate. */
  readonly spawnThread: (argument: number) => number;
  /** Functions that the calling program offers to this domain. */
  readonly offered: readonly FunctionImport[];
  /** Calls offered function `offered` and waits for its result. Inside the gate. */
  readonly ask: (offered: number, values: readonly GuestValue[]) => GuestValue | undefined;
}

/** The import object of one vCPU. */
export const createImports = (parts: ImportParts): WebAssembly.Imports => {
  const { cpu, upcall } = parts;
  const imports: WebAssembly.Imports = Object.create(null);
  const hypercallNamespace: WebAssembly.ModuleImports = createHypercallImports(cpu, upcall);
  hypercallNamespace[MEMORY_IMPORT.name] = parts.memory;
  imports[HYPERCALL_NAMESPACE] = Object.freeze(hypercallNamespace);
  const threads: WebAssembly.ModuleImports = Object.create(null);
  threads[THREAD_SPAWN] = inGate(cpu, upcall, 1, (argument) => parts.spawnThread(argument));
  imports[THREAD_NAMESPACE] = Object.freeze(threads);
  for (const module of WASI_MODULES) {
    if (parts.namespaces.includes(module)) imports[module] = wasiNamespace(parts, module);
  }
  addOffered(parts, imports);
  return Object.freeze(imports);
};

/** Puts the offered functions beside ours, in namespaces of their own. */
const addOffered = ({ cpu, upcall, offered, ask }: ImportParts, imports: WebAssembly.Imports): void => {
  for (const [number, { module, name }] of offered.entries()) {
    const namespace: WebAssembly.ModuleImports = imports[module] ?? Object.create(null);
    imports[module] = namespace;
    namespace[name] = (...values: GuestValue[]) => {
      enterHypercall(cpu);
      const value = orFail(cpu, () => ask(number, values));
      leaveHypercall(cpu);
      upcall.check();
      return value;
    };
  }
};

const wasiNamespace = (parts: ImportParts, module: WasiModule): WebAssembly.ModuleImports => {
  const functions = createWasi(parts.wasi, module);
  const namespace: WebAssembly.ModuleImports = Object.create(null);
  for (const { name, params } of wasiSignatures(module)) {
    // WASI functions take numbers and bigints as Wasm passes them and return an error number.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    const inner = functions[name] as GuestFunction;
    const door = inGate(parts.cpu, parts.upcall, params.length, inner);
    // A thread that ends between opening a file and entering it in the table would leave it open for ever.
    namespace[name] = name === OPENING ? (...values: number[]) => (heapHasRoom() ? door(...values) : NO_MEMORY) : door;
  }
  return Object.freeze(namespace);
};

/** The same function, executed inside the vCPU's gate, with exactly as many parameters. */
const inGate = (cpu: Cpu, upcall: Upcall, parameterCount: number, inner: GuestFunction): GuestFunction => {
  const finish = (result: number): number => {
    leaveHypercall(cpu);
    upcall.check();
    return result;
  };
  switch (parameterCount) {
    case 0:
      return () => (enterHypercall(cpu), finish(orFail(cpu, () => inner())));
    case 1:
      return (a) => (enterHypercall(cpu), finish(orFail(cpu, () => inner(a))));
    case 2:
      return (a, b) => (enterHypercall(cpu), finish(orFail(cpu, () => inner(a, b))));
    case 3:
      return (a, b, c) => (enterHypercall(cpu), finish(orFail(cpu, () => inner(a, b, c))));
    case 4:
      return (a, b, c, d) => (enterHypercall(cpu), finish(orFail(cpu, () => inner(a, b, c, d))));
    default:
      return (...values) => (enterHypercall(cpu), finish(orFail(cpu, () => inner(...values))));
  }
};

/** What `operation` returns; what it throws ends the domain, so that the guest cannot go on with its gate held. */
const orFail = <T>(cpu: Cpu, operation: () => T): T => {
  try {
    return operation();
  } catch (thrown) {
    return failInside(cpu, thrown);
  }
};
