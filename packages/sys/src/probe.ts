/**
 * What this machine, kernel, process and build of Node can do for Xenolith. Everything that can be tried is tried, and
 * nothing stays behind. For `xl info`; takes about 0.2 s, most of it for the child of the trap test.
 */
import { constants, release } from "node:os";
import { url as inspectorUrl } from "node:inspector";
import { closeSync, existsSync, openSync, readSync } from "node:fs";
import { vmaCount, vmaCountMax } from "./address-space.ts";
import { closeDescriptor, punchHole } from "./descriptor.ts";
import { mayLockBeyondLimit } from "./locked-memory.ts";
import { openDescriptorCount, overcommitMode, resourceLimit } from "./machine.ts";
import { mapAnywhere, PROT_READ_WRITE, unmap } from "./mapping.ts";
import { createMemfd, createSecretMemfd, Seal, sealsOf } from "./memfd.ts";
import { viewMemory } from "./memory-view.ts";
import { openBeneath, OpenFlag } from "./open-beneath.ts";
import { PAGE_BYTES, platformRefusal, thisPlatform } from "./platform.ts";
import { check, SystemCallError } from "./system-call-error.ts";
import { tryTraps } from "./trap-probe.ts";
import { tryWriteTracking } from "./write-tracking.ts";

/** `missing` means that what needs it does not work; `degraded` that it works less far or less safely. */
export type CapabilityState = "available" | "degraded" | "missing";

/** One thing that Xenolith needs or can use. */
export interface Capability {
  /** Stable, kebab-case. */
  readonly name: string;
  readonly state: CapabilityState;
  /** What was found. */
  readonly detail: string;
  /** What the operator can do about it; empty when there is nothing to do. */
  readonly remedy: string;
}

type Finding = Omit<Capability, "name">;

const LINUX_MIN = [5, 8] as const;
const VMA_COUNT_MIN = 65_530;
/** A pool of 64 MiB, which is the default, and what is left to others. */
const LOCKED_BYTES_MIN = 64 * 2 ** 20 + 64 * 2 ** 10;
const LOCKED_REMEDY = `raise RLIMIT_MEMLOCK to ${LOCKED_BYTES_MIN} bytes (ulimit -l ${LOCKED_BYTES_MIN / 1024}, LimitMEMLOCK=${LOCKED_BYTES_MIN})`;
const DESCRIPTORS_MIN = 4096;

/** Examines everything, in the order in which a reader wants to see it. Never throws: what fails is reported missing. */
export const capabilities = async (): Promise<readonly Capability[]> => {
  const found: Capability[] = [];
  for (const [name, examine] of Object.entries(examinations)) {
    try {
      found.push({ name, ...(await examine()) });
    } catch (error) {
      found.push({ name, ...missing(messageOf(error), remedies.get(name) ?? "") });
    }
  }
  return found;
};

const available = (detail: string): Finding => ({ state: "available", detail, remedy: "" });
const degraded = (detail: string, remedy: string): Finding => ({ state: "degraded", detail, remedy });
const missing = (detail: string, remedy: string): Finding => ({ state: "missing", detail, remedy });

const platform = (): Finding => {
  const refusal = platformRefusal(thisPlatform());
  const { system, architecture, pageBytes } = thisPlatform();
  if (refusal !== undefined) return missing(refusal, remedies.get("platform") ?? "");
  return available(`${system} on ${architecture}, pages of ${String(pageBytes)} bytes`);
};

const node = (): Finding => available(`Node.js ${process.versions.node}, V8 ${process.versions.v8}`);

const kernel = (): Finding => {
  const [major = 0, minor = 0] = kernelVersion();
  const isOld = major < LINUX_MIN[0] || (major === LINUX_MIN[0] && minor < LINUX_MIN[1]);
  return isOld ? missing(`Linux ${release()}`, "use Linux 5.8 or newer") : available(`Linux ${release()}`);
};

const memfd = (): Finding => {
  const fd = createMemfd({ name: "xenolith-probe", sizeBytes: PAGE_BYTES });
  try {
    check(punchHole(fd, 0, PAGE_BYTES), "fallocate", { fd });
    const noExec = (check(sealsOf(fd), "fcntl", { fd }) & Seal.EXEC) !== 0;
    return available(`sealed sparse memory files with hole punching${noExec ? ", never executable" : ""}`);
  } finally {
    closeDescriptor(fd);
  }
};

const trapHandler = async (): Promise<Finding> => {
  const { traps, detail } = await tryTraps();
  return traps ? available(detail) : missing(detail, remedies.get("wasm-trap-handler") ?? "");
};

const openat2 = (): Finding => {
  const root = openSync("/", OpenFlag.READ_ONLY | OpenFlag.DIRECTORY);
  try {
    closeDescriptor(check(openBeneath(root, "proc", { flags: OpenFlag.PATH }), "openat2", { path: "proc" }));
    const escape = openBeneath(root, "../proc", { flags: OpenFlag.PATH });
    if (escape >= 0) closeDescriptor(escape);
    if (escape !== -constants.errno.EXDEV) return missing("the kernel did not refuse to leave a directory", "");
    return available("paths are resolved beneath a directory by the kernel");
  } finally {
    closeSync(root);
  }
};

const secretMemory = (): Finding => {
  const fd = openSecret();
  if (typeof fd !== "number") return fd;
  try {
    const address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes: PAGE_BYTES, protection: PROT_READ_WRITE });
    try {
      new Uint8Array(viewMemory(address, PAGE_BYTES))[0] = 1;
      return kernelReads(address)
        ? missing("the kernel reads its pages", "")
        : available("the kernel cannot read its pages");
    } finally {
      check(unmap(address, PAGE_BYTES), "munmap", { address });
    }
  } finally {
    closeDescriptor(fd);
  }
};

const openSecret = (): number | Finding => {
  try {
    return createSecretMemfd(PAGE_BYTES);
  } catch (error) {
    if (!(error instanceof SystemCallError && error.errno === constants.errno.ENOSYS)) throw error;
    // The kernel lists the parameter secretmem.enable whenever secret memory is built in.
    if (existsSync("/sys/module/secretmem")) return missing("disabled in this kernel", "boot with secretmem.enable=1");
    return missing("absent from this kernel", "use Linux 5.14 or newer with CONFIG_SECRETMEM");
  }
};

/** Whether the kernel can read a page of this process on behalf of a debugger; of secret memory it says EIO. */
const kernelReads = (address: number): boolean => {
  const memory = openSync("/proc/self/mem", "r");
  try {
    return readSync(memory, new Uint8Array(1), 0, 1, address) === 1;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EIO") return false;
    throw error;
  } finally {
    closeSync(memory);
  }
};

const userfaultfd = (): Finding => {
  const { userfaultfdError } = tryWriteTracking();
  if (userfaultfdError !== undefined) throw userfaultfdError;
  return available("asynchronous write protection of shared memory");
};

const pagemapScan = (): Finding => {
  const { pagemapScanError } = tryWriteTracking();
  if (pagemapScanError !== undefined) throw pagemapScanError;
  return available("written pages can be collected");
};

const mappings = (): Finding => {
  const [used, most] = [vmaCount(), vmaCountMax()];
  const detail = `${String(used)} of ${String(most)} memory mappings in use`;
  return most < VMA_COUNT_MIN ? degraded(detail, "sysctl -w vm.max_map_count=262144") : available(detail);
};

const lockedMemory = (): Finding => {
  const { soft } = resourceLimit("MEMLOCK");
  if (mayLockBeyondLimit()) return available("no limit applies (CAP_IPC_LOCK)");
  if (soft >= LOCKED_BYTES_MIN) return available(`up to ${sizeText(soft)}`);
  return degraded(`limited to ${sizeText(soft)}`, LOCKED_REMEDY);
};

/** What a pool of secrets is here, by the two before: whether nobody reads it, and whether there is enough of it. */
const secrets = (): Finding => {
  const pages = secretMemory();
  const locked = lockedMemory();
  if (!mayLockBeyondLimit() && resourceLimit("MEMLOCK").soft < PAGE_BYTES)
    return missing("none: no memory may be locked", LOCKED_REMEDY);
  if (pages.state !== "available")
    return degraded(
      `weak: locked in RAM and in no core file, but the kernel and debuggers read it (memfd_secret is ${pages.detail})`,
      pages.remedy,
    );
  if (locked.state === "available") return available("strong: nobody but this process reads it");
  return degraded(`strong, but little of it: ${locked.detail}`, locked.remedy);
};

const overcommit = (): Finding => {
  const mode = overcommitMode();
  if (mode !== "never") return available(mode);
  return degraded(
    "never: the kernel wants 4 GiB of backing for each guest's address space",
    "sysctl -w vm.overcommit_memory=0",
  );
};

const descriptors = (): Finding => {
  const { soft } = resourceLimit("NOFILE");
  const detail = `${String(openDescriptorCount())} of ${String(soft)} in use`;
  return soft < DESCRIPTORS_MIN ? degraded(detail, "raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)") : available(detail);
};

const inspector = (): Finding => {
  const address = inspectorUrl();
  if (address === undefined) return available("none attached: images with atomic instructions may run");
  return degraded(
    `listening on ${address}: images with atomic instructions are refused`,
    "start Node without --inspect",
  );
};

const examinations: Readonly<Record<string, () => Finding | Promise<Finding>>> = {
  platform,
  node,
  kernel,
  memfd,
  "wasm-trap-handler": trapHandler,
  openat2,
  "memory-mappings": mappings,
  overcommit,
  descriptors,
  "memfd-secret": secretMemory,
  "locked-memory": lockedMemory,
  "secret-memory": secrets,
  userfaultfd,
  "pagemap-scan": pagemapScan,
  inspector,
};

/** What to do when trying something failed. */
const remedies: ReadonlyMap<string, string> = new Map([
  ["platform", "run on 64-bit Linux on x86-64 or arm64, with a kernel built for pages of 4 KiB"],
  ["memfd", "allow memfd_create and fallocate (seccomp profile, vm.memfd_noexec)"],
  [
    "wasm-trap-handler",
    "start Node without flags that disable WebAssembly's trap handler, and without a limit on address space (ulimit -v)",
  ],
  ["openat2", "allow openat2 in the seccomp profile; Linux 5.6 or newer has it"],
  ["memfd-secret", "allow memfd_secret in the seccomp profile"],
  ["secret-memory", "allow memfd_secret in the seccomp profile"],
  ["userfaultfd", "use Linux 6.7 or newer, and allow userfaultfd in the seccomp profile"],
  ["pagemap-scan", "use Linux 6.7 or newer with userfaultfd allowed"],
]);

const kernelVersion = (): readonly number[] => release().split(/[.-]/).slice(0, 2).map(Number);

const sizeText = (bytes: number): string =>
  bytes === Number.POSITIVE_INFINITY ? "any size" : `${String(Math.floor(bytes / 2 ** 10))} KiB`;

const messageOf = (error: unknown): string => {
  if (error instanceof SystemCallError) {
    const absent = error.errno === constants.errno.ENOSYS ? " (absent or disabled in this kernel)" : "";
    return `${error.message}${absent}`;
  }
  return error instanceof Error ? error.message : String(error);
};
