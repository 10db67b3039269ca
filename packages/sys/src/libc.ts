/**
 * The C library, bound through koffi when it is first called. Nothing else in Xenolith imports koffi.
 *
 * Every binding takes and returns plain numbers: pointers are addresses (user addresses fit in 48 bits), strings and
 * structs lie in a {@link NativeBuffer}. So koffi has nothing to convert, and a call costs the system call plus about
 * 100 ns. Each thread binds for itself, because a module instance belongs to one thread.
 *
 * Result convention: {@link resultOf} gives what the C function returned when that is not -1, else the negative errno,
 * and neither throws nor allocates. `check` turns a negative result into a `SystemCallError`.
 */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { sep } from "node:path";
import { guarded } from "./exit-guard.ts";
import { lazily } from "./lazily.ts";
import { systemCallNumbers } from "./platform.ts";

type Koffi = typeof import("koffi").default;

/** A C function of numbers. What does not fit a number without loss is a bigint, both ways. */
type NativeFunction = (...values: readonly (number | bigint)[]) => number | bigint;

/** Not called `require`: programs of threads are linked into one script that has a `require` already. */
const moduleLoader = createRequire(import.meta.url);

/** Where koffi's compiled part is, in a thread that was told. */
let knownAddon: string | undefined;

/** koffi, loaded on first use: it takes 15 ms once per process, which commands that map nothing should not pay. */
export const koffi = lazily((): Koffi => {
  systemCallNumbers();
  return guarded(() => (knownAddon === undefined ? undefined : loadAddon(knownAddon)) ?? loadPackage());
});

const loadPackage = (): Koffi => {
  const load: (name: string) => { readonly default?: Koffi } & Koffi = moduleLoader;
  const loaded = load("koffi");
  return loaded.default ?? loaded;
};

/** koffi's compiled part without the JavaScript around it, which only looks for it and adds what is deprecated. */
const loadAddon = (path: string): Koffi | undefined => {
  const load: (path: string) => Partial<Koffi> = moduleLoader;
  try {
    const loaded = load(path);
    const isWhole = needed.every((name) => typeof loaded[name] === "function");
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- all that is used of it is there.
    return isWhole ? (loaded as Koffi) : undefined;
  } catch {
    return undefined;
  }
};

/** What Xenolith uses of koffi. */
const needed = ["address", "config", "errno", "load", "view"] as const;

/** The file of koffi's compiled part that the calling thread uses; undefined when it cannot be told. */
export const addonPath = (): string | undefined => {
  koffi();
  return Object.keys(moduleLoader.cache).find((path) => path.endsWith(`${sep}koffi.node`));
};

/** Tells a further thread of this process where koffi's compiled part is: finding it takes 4 ms of each thread's start. */
export const useAddon = (path: string | undefined): void => {
  knownAddon = path;
};

const library = lazily(() => koffi().load(null));

/** Binds one function on first use, from its C declaration. */
export const bind = (declaration: string): (() => NativeFunction) =>
  lazily((): NativeFunction => guarded(() => library().func(declaration)));

/**
 * The result of a C function that returns -1 on failure: the result itself, or the negative errno.
 * Must come right after the call: errno belongs to the thread and the next failing call overwrites it.
 */
export const resultOf = (returned: number | bigint): number =>
  // A failure must never look like success, so an errno of 0, which no failing call leaves, becomes EIO.
  returned === -1 ? -(koffi().errno() || constants.errno.EIO) : Number(returned);

/** How often an interrupted call is tried again before its EINTR is handed to the caller. */
const INTERRUPTS_MAX = 64;

/** As {@link resultOf}, for a call that is made again when a signal interrupted it before it did anything. */
export const retried = (call: () => number | bigint): number => {
  for (let attempt = 1; ; attempt++) {
    const result = resultOf(call());
    if (result !== -constants.errno.EINTR || attempt === INTERRUPTS_MAX) return result;
  }
};

const syscall = bind("long syscall(long, intptr_t, intptr_t, intptr_t, intptr_t, intptr_t)");

/**
 * A system call that the C library may not wrap, by number. Unused arguments are 0.
 * The caller states in its own `SAFETY:` comment why the pointers among the arguments are valid.
 */
export const rawSystemCall = (number: number, a = 0, b = 0, c = 0, d = 0, e = 0): number =>
  // SAFETY: syscall(2) passes at most the five arguments that every call made here takes; integer arguments travel the
  // same way for variadic and fixed prototypes on x86-64 and arm64 Linux.
  resultOf(syscall()(number, a, b, c, d, e));

/**
 * A fixed piece of memory that C functions can read and write. Its address never changes: the bytes of an ArrayBuffer
 * lie outside the collected heap, and this object keeps them alive.
 */
export class NativeBuffer {
  /** Where it begins in this process. */
  readonly address: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;

  constructor(sizeBytes: number) {
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes > 0);
    const buffer = new ArrayBuffer(sizeBytes);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.address = addressOf(this.bytes);
    assert(this.address > 0);
  }
}

/** The address of a view's first byte. Valid for as long as somebody keeps the view's buffer. */
export const addressOf = (view: Uint8Array): number => {
  // SAFETY: koffi reads the data pointer of the view and touches no memory.
  const address = Number(koffi().address(view));
  assert(Number.isSafeInteger(address));
  return address;
};
