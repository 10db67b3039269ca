/**
 * Limits and figures of the machine and of this process.
 *
 * Source: proc_meminfo(5), proc_sys_vm(5), getrlimit(2).
 */
import { fstatSync, readdirSync, readFileSync } from "node:fs";
import { kibibyteTable } from "./address-space.ts";
import { lazily } from "./lazily.ts";
import { bind, NativeBuffer, resultOf } from "./libc.ts";
import { check } from "./system-call-error.ts";

/** Memory of the machine, in bytes. */
export interface MachineMemory {
  readonly totalBytes: number;
  /** An estimate of what can be had without swapping. */
  readonly availableBytes: number;
  /** What the process's control group may have; Infinity without a limit. */
  readonly controlGroupBytes: number;
}

/** How much memory the machine has, and this process may have, now. */
export const machineMemory = (): MachineMemory => {
  const sizes = kibibyteTable(readFileSync("/proc/meminfo", "latin1"));
  const totalBytes = sizes.get("MemTotal") ?? 0;
  const constrainedBytes = process.constrainedMemory();
  return {
    totalBytes,
    availableBytes: sizes.get("MemAvailable") ?? sizes.get("MemFree") ?? 0,
    controlGroupBytes:
      constrainedBytes > 0 && constrainedBytes < totalBytes ? constrainedBytes : Number.POSITIVE_INFINITY,
  };
};

/** How freely the kernel promises memory (`vm.overcommit_memory`). */
export type OvercommitMode = "always" | "heuristic" | "never";

/** How the kernel of this machine promises memory. */
export const overcommitMode = (): OvercommitMode => {
  const mode = readFileSync("/proc/sys/vm/overcommit_memory", "latin1").trim();
  if (mode === "2") return "never";
  return mode === "1" ? "always" : "heuristic";
};

/** Resources with limits: Linux's `RLIMIT_*`. */
const resources = { FSIZE: 1, CORE: 4, NOFILE: 7, MEMLOCK: 8, AS: 9 } as const;
/** A resource with a limit. */
export type Resource = keyof typeof resources;

/** A limit of the process. */
export interface ResourceLimit {
  /** What is enforced; Infinity without a limit. Bytes, or a count for NOFILE. */
  readonly soft: number;
  /** How far an unprivileged process may raise `soft`. */
  readonly hard: number;
}

const getrlimit = bind("int getrlimit(int, uintptr_t)");

/** One limit of this process. */
export const resourceLimit = (resource: Resource): ResourceLimit => {
  const { address, view } = limitPair();
  // SAFETY: the kernel writes two 8-byte words to a native buffer that holds two.
  check(resultOf(getrlimit()(resources[resource], address)), "getrlimit", { resource });
  return { soft: limitAt(view, 0), hard: limitAt(view, 8) };
};

const setrlimit = bind("int setrlimit(int, uintptr_t)");

/** Makes sure that this process and its children leave no core file, which would hold every guest's memory. */
export const forbidCoreDumps = (): void => {
  const { address, bytes } = limitPair();
  bytes.fill(0);
  // SAFETY: the kernel reads two 8-byte words from a native buffer that holds two.
  check(resultOf(setrlimit()(resources.CORE, address)), "setrlimit", { resource: "CORE" });
};

const limitPair = lazily(() => new NativeBuffer(16));

const RLIM_INFINITY = 2n ** 64n - 1n;

const limitAt = (view: DataView, offset: number): number => {
  const limit = view.getBigUint64(offset, true);
  return limit === RLIM_INFINITY ? Number.POSITIVE_INFINITY : Number(limit);
};

/** How many descriptors the process has open. */
export const openDescriptorCount = (): number => readdirSync("/proc/self/fd").length - 1;

/** Memory that a memory file's pages take now, in bytes. */
export const memfdResidentBytes = (fd: number): number => fstatSync(fd).blocks * 512;
