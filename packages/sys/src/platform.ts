/**
 * What differs between the machines that Xenolith runs on: system call numbers that no C library wraps everywhere.
 * Everything else that `sys` uses has one value on x86-64 and arm64, or comes from `node:fs` and `node:os`.
 *
 * Source: Linux `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`.
 */
import { endianness } from "node:os";
import { XenolithError } from "@xenolith/abi";

/** The page size that machine frames and WebAssembly memories rely on. */
export const PAGE_BYTES = 4096;

/** One past the highest address that user space can have on the supported machines (x86-64: 2^47, arm64: 2^48). */
export const ADDRESS_END = 2 ** 48;

interface SystemCallNumbers {
  readonly getdents64: number;
  readonly gettid: number;
  readonly memfd_secret: number;
  readonly openat2: number;
  readonly ppoll: number;
  readonly statx: number;
  readonly userfaultfd: number;
}

const numbersOf: Readonly<Record<string, SystemCallNumbers>> = {
  x64: { getdents64: 217, gettid: 186, memfd_secret: 447, openat2: 437, ppoll: 271, statx: 332, userfaultfd: 323 },
  arm64: { getdents64: 61, gettid: 178, memfd_secret: 447, openat2: 437, ppoll: 73, statx: 291, userfaultfd: 282 },
};

/** Whether this system is one that Xenolith runs on: Linux on little-endian x86-64 or arm64. */
export const isSupportedPlatform = (): boolean =>
  process.platform === "linux" && process.arch in numbersOf && endianness() === "LE";

/**
 * This machine's system call numbers.
 *
 * @throws XenolithError `CAPABILITY_MISSING` on any other system than Linux on x86-64 or arm64.
 */
export const systemCallNumbers = (): SystemCallNumbers => {
  const numbers = numbersOf[process.arch];
  if (!isSupportedPlatform() || numbers === undefined) {
    throw new XenolithError(
      "CAPABILITY_MISSING",
      `unsupported system ${process.platform}/${process.arch}: xenolith runs on linux/x64 and linux/arm64`,
    );
  }
  return numbers;
};
