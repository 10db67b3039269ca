/**
 * Program of a child process: touches absent and read-only pages of a shared WebAssembly memory and says what happened.
 * When V8's trap handler is not active, a signal kills it, which is the answer too. See `trap-probe.ts`.
 */
import { forbidCoreDumps } from "./machine.ts";
import { mapFrames, PROT_READ, reserve } from "./mapping.ts";
import { createMemfd } from "./memfd.ts";
import { baseAddress } from "./memory-view.ts";
import { PAGE_BYTES } from "./platform.ts";
import { check } from "./system-call-error.ts";

const MEMORY_PAGES = 65536;
const MEMORY_BYTES = 2 ** 32;
const READ_ONLY_PAGE = 7;

/**
 * (module (import "" "m" (memory 0 65536 shared))
 *   (func (export "l") (param i32) (result i32) (i32.load (local.get 0)))
 *   (func (export "s") (param i32) (i32.store (local.get 0) (i32.const 1))))
 */
const touching = Uint8Array.of(
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  ...[0x01, 0x0a, 0x02, 0x60, 0x01, 0x7f, 0x01, 0x7f, 0x60, 0x01, 0x7f, 0x00],
  ...[0x02, 0x0a, 0x01, 0x00, 0x01, 0x6d, 0x02, 0x03, 0x00, 0x80, 0x80, 0x04],
  ...[0x03, 0x03, 0x02, 0x00, 0x01],
  ...[0x07, 0x09, 0x02, 0x01, 0x6c, 0x00, 0x00, 0x01, 0x73, 0x00, 0x01],
  ...[0x0a, 0x13, 0x02],
  ...[0x07, 0x00, 0x20, 0x00, 0x28, 0x02, 0x00, 0x0b],
  ...[0x09, 0x00, 0x20, 0x00, 0x41, 0x01, 0x36, 0x02, 0x00, 0x0b],
);

type Touch = (address: number) => unknown;

const isTouch = (value: unknown): value is Touch => typeof value === "function";

const touches = (memory: WebAssembly.Memory): readonly (readonly [string, Touch, number])[] => {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(touching), { "": { m: memory } });
  const [load, store]: readonly unknown[] = [exports["l"], exports["s"]];
  if (!isTouch(load) || !isTouch(store)) throw new Error("the module exports two functions");
  return [
    ["load of an absent page", load, 3 * PAGE_BYTES],
    ["load of the last word", load, MEMORY_BYTES - 4],
    ["store to an absent page", store, 3 * PAGE_BYTES],
    ["store to a read-only page", store, READ_ONLY_PAGE * PAGE_BYTES],
  ];
};

forbidCoreDumps();
const memory = new WebAssembly.Memory({ initial: MEMORY_PAGES, maximum: MEMORY_PAGES, shared: true });
const base = baseAddress(memory);
check(reserve(base, MEMORY_BYTES), "mmap", { address: base });
const fd = createMemfd({ name: "xenolith-probe", sizeBytes: PAGE_BYTES });
check(mapFrames(base + READ_ONLY_PAGE * PAGE_BYTES, PAGE_BYTES, PROT_READ, fd, 0), "mmap", { fd });

for (const [what, touch, address] of touches(memory)) {
  try {
    touch(address);
    console.log(`${what}: no trap`);
  } catch (error) {
    console.log(error instanceof WebAssembly.RuntimeError ? `${what}: trap` : `${what}: ${String(error)}`);
  }
}
