/** Preloaded into programs of tests: the kernel refuses memfd_secret with ENOSYS from here on, as a container's profile does. */
import { NativeBuffer } from "@xenolith/sys";
import { createRequire } from "node:module";

type Call = (...values: readonly unknown[]) => number;

const borrowed = createRequire(createRequire(import.meta.url).resolve("@xenolith/sys"));
const library = (borrowed("koffi") as { load(name: null): { func(prototype: string): Call } }).load(null);
const prctl = library.func("int prctl(int, unsigned long, uintptr_t, unsigned long, unsigned long)");

const MEMFD_SECRET = 447;
const ENOSYS = 38;
const [PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER] = [22, 38, 2];
/** Load the call's number; if it is not this one, skip the answer; answer with an error; allow. */
const rules: readonly (readonly [code: number, yes: number, no: number, value: number])[] = [
  [0x20, 0, 0, 0],
  [0x15, 0, 1, MEMFD_SECRET],
  [0x06, 0, 0, 0x50000 + ENOSYS],
  [0x06, 0, 0, 0x7fff0000],
];

const filter = new NativeBuffer(8 * rules.length);
for (const [index, [code, yes, no, value]] of rules.entries()) {
  filter.view.setUint16(8 * index, code, true);
  filter.view.setUint8(8 * index + 2, yes);
  filter.view.setUint8(8 * index + 3, no);
  filter.view.setUint32(8 * index + 4, value, true);
}
const program = new NativeBuffer(16);
program.view.setUint16(0, rules.length, true);
program.view.setBigUint64(8, BigInt(filter.address), true);
if (
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0 ||
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program.address, 0, 0) !== 0
) {
  throw new Error("this kernel has no seccomp");
}
