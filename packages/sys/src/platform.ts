/**
 * What differs between the machines that Xenolith runs on: system call numbers that no C library wraps everywhere.
 * Everything else that `sys` uses has one value on x86-64 and arm64, or comes from `node:fs` and `node:os`.
 *
 * Source: getauxval(3), Linux `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`.
 */
import { readFileSync } from "node:fs";
import { endianness } from "node:os";
import { XenolithError } from "@xenolith/abi";
import { lazily } from "./lazily.ts";

/** The page size that machine frames and WebAssembly memories rely on. */
export const PAGE_BYTES = 4096;

/** One past the highest address that user space can have on the supported machines (x86-64: 2^47, arm64: 2^48). */
export const ADDRESS_END = 2 ** 48;

interface SystemCallNumbers {
  readonly getdents64: number;
  readonly gettid: number;
  readonly setpriority: number;
  readonly memfd_secret: number;
  readonly mseal: number;
  readonly openat2: number;
  readonly ppoll: number;
  readonly statx: number;
  readonly userfaultfd: number;
}

const numbersOf: Readonly<Record<string, SystemCallNumbers>> = {
  x64: {
    getdents64: 217,
    gettid: 186,
    setpriority: 141,
    memfd_secret: 447,
    mseal: 462,
    openat2: 437,
    ppoll: 271,
    statx: 332,
    userfaultfd: 323,
  },
  arm64: {
    getdents64: 61,
    gettid: 178,
    setpriority: 140,
    memfd_secret: 447,
    mseal: 462,
    openat2: 437,
    ppoll: 73,
    statx: 291,
    userfaultfd: 282,
  },
};

/** What a system must be for Xenolith to run on it. */
export interface Platform {
  readonly system: string;
  readonly architecture: string;
  readonly byteOrder: "BE" | "LE";
  readonly pageBytes: number;
}

/** This system. */
export const thisPlatform = lazily((): Platform => {
  const system = process.platform;
  const pageBytes = system === "linux" ? kernelPageBytes() : 0;
  return { system, architecture: process.arch, byteOrder: endianness(), pageBytes };
});

/** Why Xenolith cannot run on a platform, or undefined when it can. */
export const platformRefusal = ({ system, architecture, byteOrder, pageBytes }: Platform): string | undefined => {
  if (system !== "linux" || !(architecture in numbersOf) || byteOrder !== "LE") {
    return `unsupported system ${system}/${architecture}/${byteOrder}: xenolith runs on linux/x64/LE and linux/arm64/LE`;
  }
  if (pageBytes !== PAGE_BYTES) {
    return `unsupported page size ${String(pageBytes)}: machine frames are ${String(PAGE_BYTES)} bytes, and the kernel cannot map less than its own page`;
  }
  return undefined;
};

/**
 * This machine's system call numbers.
 *
 * @throws XenolithError `CAPABILITY_MISSING` on a platform that Xenolith does not run on.
 */
export const systemCallNumbers = lazily((): SystemCallNumbers => {
  const numbers = numbersOf[process.arch];
  const refusal = platformRefusal(thisPlatform());
  if (refusal !== undefined || numbers === undefined) {
    throw new XenolithError("CAPABILITY_MISSING", refusal ?? `unsupported architecture ${process.arch}`);
  }
  return numbers;
});

const AT_NULL = 0n;
const AT_PAGESZ = 6n;

/** The page size as the kernel told the process when it started: pairs of 8-byte words, type and value. */
const kernelPageBytes = (): number => {
  const file = readFileSync("/proc/self/auxv");
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  for (let at = 0; at + 16 <= view.byteLength && view.getBigUint64(at, true) !== AT_NULL; at += 16) {
    if (view.getBigUint64(at, true) === AT_PAGESZ) return Number(view.getBigUint64(at + 8, true));
  }
  return 0;
};
