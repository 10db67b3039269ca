/**
 * How large a host is, with defaults that fit the machine.
 */
import { XenolithError } from "@xenolith/abi";
import { type Geometry, productionGeometry } from "@xenolith/core";
import { machineMemory, NICE_MAX, vmaCount, vmaCountMax } from "@xenolith/sys";
import type { HostKeysOptions } from "./host-keys.ts";
import type { HostSecretsOptions } from "./host-secrets.ts";
import { FRAME_BYTES } from "./mmu.ts";
import type { PolicyDocument } from "./policy.ts";

/** Everything can be left out. */
export interface HostOptions {
  /** Machine memory in bytes; three quarters of what the machine or its control group has by default. Not taken at once. */
  readonly memoryBytes?: number;
  /** vCPU threads that are kept warm; 2 by default. Each takes about 10 MiB. */
  readonly warmVcpuCount?: number;
  /**
   * How far threads give way while they run guests, 0 to 19: guests that compute without an end leave the control domain's
   * thread, and the start of others, the processors that they need. Other programs of the machine come first too.
   */
  readonly vcpuNice?: number;
  /** Mappings that guests may use together; most of what `vm.max_map_count` leaves by default. */
  readonly vmaCountMax?: number;
  /** Where rewritten images are kept; the user's cache directory by default. */
  readonly cacheDirectory?: string;
  /** Serves xenstore at this path, for programs of the same user (`xl xenstore`); nowhere by default. Keeps the process alive. */
  readonly xenstoreSocket?: string;
  /** Takes operations from domains that the hypervisor's own table gives them; takes nothing by default. */
  readonly policy?: PolicyDocument;
  /** Secret memory (`Host.secrets`): how much of it, and what happens where the kernel has none. */
  readonly secrets?: HostSecretsOptions;
  /** Keys (`Host.keys`): who starts helpers, limits, types of one's own. */
  readonly keys?: HostKeysOptions;
}

/** Banks of 4 GiB that the direct map may have. */
const BANK_COUNT_MAX = 64;
const BANK_FRAMES = 2 ** 20;
const MEMORY_SHARE = 0.75;
/** Share of the mappings that are left which guests may use; the rest is for V8, whose failing munmap ends the process. */
const VMA_SHARE = 0.5;
/** Mappings kept back for taking memory away from guests. */
const VMA_RESERVE_SHARE = 0.1;
/** Threads that somebody could want to keep warm. */
const WARM_COUNT_MAX = 256;
const WARM_COUNT_DEFAULT = 2;
const VCPU_NICE_DEFAULT = 5;

/** Geometry of a host. Throws XenolithError `INVALID_SIZE`. */
export const geometryOf = (options: HostOptions): Geometry => {
  const { totalBytes, controlGroupBytes } = machineMemory();
  const available = Math.min(totalBytes, controlGroupBytes);
  const memoryBytes =
    options.memoryBytes ?? Math.min(available * MEMORY_SHARE, BANK_COUNT_MAX * BANK_FRAMES * FRAME_BYTES);
  const frames = Math.floor(memoryBytes / FRAME_BYTES);
  if (!Number.isFinite(memoryBytes) || frames < 1) {
    throw new XenolithError(
      "INVALID_SIZE",
      `machine memory is ${memoryBytes} bytes, it must be at least ${FRAME_BYTES}`,
    );
  }
  if (memoryBytes > available) {
    throw new XenolithError("INVALID_SIZE", `machine memory is ${memoryBytes} bytes, this machine has ${available}`);
  }
  if (frames > BANK_COUNT_MAX * BANK_FRAMES) {
    const limit = BANK_COUNT_MAX * BANK_FRAMES * FRAME_BYTES;
    throw new XenolithError("INVALID_SIZE", `machine memory is ${memoryBytes} bytes, the limit is ${limit}`);
  }
  return productionGeometry(frames, vmaShares(options));
};

const vmaShares = ({ vmaCountMax: wanted }: HostOptions): { limit: number; reserve: number } => {
  const free = Math.max(0, vmaCountMax() - vmaCount());
  const limit = wanted ?? Math.floor(free * VMA_SHARE);
  if (!Number.isInteger(limit) || limit < 1 || limit > free) {
    throw new XenolithError(
      "INVALID_SIZE",
      `mappings for guests are ${limit}, it must be a whole number from 1 to ${free}`,
    );
  }
  return { limit, reserve: Math.floor(Math.min(limit, free - limit) * VMA_RESERVE_SHARE) };
};

/** Nice value of vCPU threads in guests. Throws XenolithError `INVALID_ARGUMENT`. */
export const vcpuNiceOf = ({ vcpuNice = VCPU_NICE_DEFAULT }: HostOptions): number => {
  if (Number.isInteger(vcpuNice) && vcpuNice >= 0 && vcpuNice <= NICE_MAX) return vcpuNice;
  throw new XenolithError(
    "INVALID_ARGUMENT",
    `vcpuNice is ${vcpuNice}, it must be a whole number from 0 to ${NICE_MAX}`,
  );
};

/** vCPU threads to keep warm. Throws XenolithError `INVALID_ARGUMENT`. */
export const warmCountOf = ({ warmVcpuCount = WARM_COUNT_DEFAULT }: HostOptions): number => {
  if (!Number.isInteger(warmVcpuCount) || warmVcpuCount < 0 || warmVcpuCount > WARM_COUNT_MAX) {
    throw new XenolithError(
      "INVALID_ARGUMENT",
      `warmVcpuCount is ${warmVcpuCount}, it must be a whole number from 0 to ${WARM_COUNT_MAX}`,
    );
  }
  return warmVcpuCount;
};
