/**
 * Pages of secret memory, made when they are promised and not when they are used: each page of a new file is stored to,
 * because nothing else brings in a page of memfd_secret. Where that could kill the process (a control group near its
 * limit: the kernel sends SIGKILL, not an error), a helper process stores first, with the highest score for being
 * killed; the pages belong to the file, so they are there when the helper ends.
 *
 * Source: memfd_secret(2), proc_pid_oom_score_adj(5).
 */
import { type ChildProcess, spawn, spawnSync, type StdioOptions } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import {
  Advice,
  advise,
  check,
  closeDescriptor,
  type ControlGroupMemory,
  controlGroupMemory,
  createMemfd,
  createSecretMemfd,
  duplicate,
  lockMemory,
  machineMemory,
  mapFrames,
  PAGE_BYTES,
  PROT_READ_WRITE,
  SystemCallError,
} from "@xenolith/sys";
import { type GrowthPlace, memlockText } from "./limits.ts";
import { SecretRefusal } from "./refusal.ts";
import type { SecretSpace } from "./space.ts";

/** Free memory of a control group below which growing is left to a helper. */
const GROUP_HEADROOM_BYTES = 64 * 2 ** 20;
/** Free memory of the machine below which nothing is made unswappable. */
const MACHINE_HEADROOM_BYTES = 32 * 2 ** 20;

/** What is to be made: as much as its space has room for. */
export interface GrowthRequest {
  readonly space: SecretSpace;
  /** Whether the kernel itself must be unable to read it. */
  readonly hidden: boolean;
  readonly place: GrowthPlace;
  /** Whether it is still wanted when a helper has come back. */
  readonly isWanted: () => boolean;
}

/** Makes a file of secret memory and maps it; its descriptor, or why not. Blocks while a helper works. */
export const growNow = (request: GrowthRequest): number | SecretRefusal => {
  const fd = createFile(request);
  if (typeof fd !== "number") return fd;
  if (!needsHelper(request.place)) return finish(request, fd);
  const { status, signal } = spawnSync("sh", helperArguments(request.space.sizeBytes), { stdio: helperFiles(fd) });
  return judge(request, fd, status, signal);
};

/** As {@link growNow}; the program goes on while a helper works. */
export const growSoon = async (request: GrowthRequest): Promise<number | SecretRefusal> => {
  const fd = createFile(request);
  if (typeof fd !== "number") return fd;
  if (!needsHelper(request.place)) return finish(request, fd);
  const child = spawn("sh", helperArguments(request.space.sizeBytes), { stdio: helperFiles(fd) });
  const [status, signal] = await ended(child);
  return judge(request, fd, status, signal);
};

const ended = async (child: ChildProcess): Promise<readonly [number | null, NodeJS.Signals | null]> => {
  try {
    await once(child, "exit");
  } catch {
    // It could not be started: it has neither.
  }
  return [child.exitCode, child.signalCode];
};

/** The shell raises the score before Node takes memory. */
const helperArguments = (lengthBytes: number): readonly string[] => [
  "-c",
  'echo 1000 >/proc/self/oom_score_adj; exec "$0" "$1" "$2"',
  process.execPath,
  fileURLToPath(new URL("./growth-child.js", import.meta.url)),
  String(lengthBytes),
];

const helperFiles = (fd: number): StdioOptions => ["ignore", "ignore", "ignore", fd];

const needsHelper = (place: GrowthPlace): boolean => {
  if (place !== "auto") return place === "helper";
  const group = controlGroupMemory();
  return group !== undefined && headroomOf(group) < GROUP_HEADROOM_BYTES;
};

/** What a control group can still have: pages of files that nobody uses give way. */
const headroomOf = ({ maxBytes, currentBytes, reclaimableBytes }: ControlGroupMemory): number =>
  maxBytes - (currentBytes - reclaimableBytes);

const createFile = ({ hidden, space }: GrowthRequest): number | SecretRefusal => {
  const lengthBytes = space.sizeBytes;
  if (machineMemory().availableBytes < MACHINE_HEADROOM_BYTES + lengthBytes) {
    return new SecretRefusal("SECRET_MEMORY", `the machine has no ${String(lengthBytes)} bytes to make unswappable`);
  }
  try {
    return hidden ? createSecretMemfd(lengthBytes) : createMemfd({ name: "xenolith-secrets", sizeBytes: lengthBytes });
  } catch (error) {
    return refusalOf(error);
  }
};

const judge = (
  request: GrowthRequest,
  fd: number,
  status: number | null,
  signal: NodeJS.Signals | null,
): number | SecretRefusal => {
  if (status === 0 && request.isWanted()) return finish(request, fd);
  closeDescriptor(fd);
  if (status === 0) return new SecretRefusal("SECRET_MEMORY", "the pool was closed while it grew");
  const how = signal === null ? `exit code ${String(status)}` : signal;
  return new SecretRefusal(
    "SECRET_MEMORY",
    `the helper that makes ${String(request.space.sizeBytes)} bytes of secret memory ended by ${how}`,
  );
};

/** Maps the file, and puts every page into this process's page tables. */
const finish = (request: GrowthRequest, fd: number): number | SecretRefusal => {
  try {
    mapSecret(request.space, request.hidden, fd);
    const { bytes } = request.space;
    for (let at = 0; at < bytes.length; at += PAGE_BYTES) bytes[at] = 0;
    return fd;
  } catch (error) {
    request.space.withdraw();
    closeDescriptor(fd);
    return refusalOf(error);
  }
};

/** Maps a file that another process made, and may have pages of, at its place; a descriptor of our own. */
export const adopt = (request: GrowthRequest, fd: number): number | SecretRefusal => {
  try {
    const own = check(duplicate(fd), "fcntl", { fd });
    try {
      mapSecret(request.space, request.hidden, own);
      return own;
    } catch (error) {
      request.space.withdraw();
      closeDescriptor(own);
      throw error;
    }
  } catch (error) {
    return refusalOf(error);
  }
};

/**
 * Maps a file of secret memory at its place: not inherited by forks, in no core file, and locked.
 *
 * @throws SystemCallError when the kernel refuses any of that: nothing here is ignored.
 */
export const mapSecret = ({ address, sizeBytes: lengthBytes }: SecretSpace, hidden: boolean, fd: number): void => {
  const args = { address, length: lengthBytes };
  check(mapFrames(address, lengthBytes, PROT_READ_WRITE, fd, 0), "mmap", args);
  check(advise(address, lengthBytes, Advice.DONTFORK), "madvise", args);
  check(advise(address, lengthBytes, Advice.DONTDUMP), "madvise", args);
  if (!hidden) check(lockMemory(address, lengthBytes), "mlock", args);
};

/** What the kernel's refusal means for who wanted secret memory. Other errors are bugs, and thrown on. */
export const refusalOf = (error: unknown): SecretRefusal => {
  if (!(error instanceof SystemCallError)) throw error;
  const { EAGAIN, ENOMEM, ENOSYS, EPERM } = constants.errno;
  const { errno, syscall, message } = error;
  if (syscall === "memfd_secret" && (errno === ENOSYS || errno === EPERM)) {
    return new SecretRefusal("SECRET_UNSUPPORTED", `the kernel gives no secret memory: ${message}`);
  }
  const isLimit = (syscall === "mmap" && errno === EAGAIN) || (syscall === "mlock" && [ENOMEM, EPERM].includes(errno));
  if (isLimit) return new SecretRefusal("SECRET_MEMLOCK", memlockText());
  return new SecretRefusal("SECRET_MEMORY", message);
};
