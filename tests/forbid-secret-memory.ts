/** Has the kernel refuse memfd_secret to this process from now on, as a container's seccomp profile does. */
// oxlint-disable-next-line eslint/no-restricted-imports -- a filter of system calls, which no package sets.
import koffi from "koffi";
import { NativeBuffer } from "@xenolith/sys";

const PR_SET_NO_NEW_PRIVS = 38;
const PR_SET_SECCOMP = 22;
const SECCOMP_MODE_FILTER = 2;
/** The same number on x86-64 and arm64. */
const MEMFD_SECRET = 447;

/** `errno` is what the caller of memfd_secret gets. */
export const forbidSecretMemory = (errno: number): void => {
  const prctl = koffi.load(null).func("int prctl(int, unsigned long, uintptr_t, unsigned long, unsigned long)");
  const rules = [
    [0x20, 0, 0, 0],
    [0x15, 0, 1, MEMFD_SECRET],
    [0x06, 0, 0, 0x5_0000 + errno],
    [0x06, 0, 0, 0x7fff_0000],
  ] as const;
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
  // SAFETY: the filter and its description live as long as this call, which copies them.
  const isForbidden =
    Number(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) === 0 &&
    Number(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program.address, 0, 0)) === 0;
  if (!isForbidden) throw new Error("the kernel sets no filter of system calls");
};
