/**
 * What shares consist of: runs of a domain's frames, each an extent of the hypervisor's; and what the hypervisor says
 * about them, in the words of a program that uses the library.
 */
import { E2BIG, EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, EPERM, errnoName, ESRCH, XenolithError } from "@xenolith/abi";
import { closeExtent, createExtent, extentRunLength, type Hypervisor } from "@xenolith/core";
import { SPACE_BYTES } from "./machine.ts";
import { FRAME_BYTES } from "./mmu.ts";

/** One run of frames of a share. */
export interface Piece {
  readonly extent: number;
  /** Frames. */
  readonly count: number;
}

/**
 * Makes the extents for `count` gfns from `gfn` of the domain in `slot`, as few as there can be.
 *
 * @throws XenolithError `GUEST_ADDRESS` when they are not all RAM of the domain, `HYPERCALL_FAILED`.
 */
export const createPieces = (hypervisor: Hypervisor, slot: number, gfn: number, count: number): readonly Piece[] => {
  const pieces: Piece[] = [];
  try {
    for (let done = 0; done < count; done += pieces.at(-1)!.count) {
      const length = extentRunLength(hypervisor, slot, gfn + done, count - done);
      if (length === 0) {
        const at = (gfn + done) * FRAME_BYTES;
        throw new XenolithError("GUEST_ADDRESS", `address ${at} of slot ${slot} is no memory of the domain's own`);
      }
      const extent = createExtent(hypervisor, slot, gfn + done, length);
      if (extent < 0) throw new XenolithError("HYPERCALL_FAILED", `share of ${count} pages: ${textOf(extent)}`);
      pieces.push({ extent, count: length });
    }
    return pieces;
  } catch (error) {
    for (const { extent } of pieces) closeExtent(hypervisor, extent);
    throw error;
  }
};

/** The gfn at an address that a caller named. Throws XenolithError `GUEST_ADDRESS`. */
export const checkAddress = (address: number, lengthBytes: number): number => {
  const isPage = Number.isSafeInteger(address) && address >= 0 && address % FRAME_BYTES === 0;
  if (isPage && address + lengthBytes <= SPACE_BYTES) return address / FRAME_BYTES;
  throw new XenolithError(
    "GUEST_ADDRESS",
    `${lengthBytes} bytes at address ${address} are no whole pages of ${FRAME_BYTES} bytes below 4 GiB`,
  );
};

/** Why the hypervisor does not map `lengthBytes` bytes at `address` into the domain called `domid`. */
export const refusal = (errno: number, domid: number, lengthBytes: number, address: number): XenolithError => {
  const what = `domain ${domid} cannot map ${lengthBytes} bytes at address ${address}`;
  switch (-errno) {
    case EEXIST:
      return new XenolithError("GUEST_ADDRESS", `${what}: something stands there`);
    case EINVAL:
      return new XenolithError("INVALID_ARGUMENT", `${what}: it is its own memory`);
    case ESRCH:
      return new XenolithError("DOMAIN_STATE", `${what}: it, or the domain whose memory it is, is being destroyed`);
    case ENOENT:
      return new XenolithError("SHARE_CLOSED", `${what}: the share is gone`);
    case ENOSPC:
      return new XenolithError("VMA_EXHAUSTED", `${what}: its budget of mappings is spent`);
    case E2BIG:
    case EPERM:
      return new XenolithError("MEMORY_LIMIT", `${what} for writing: it would own more memory than it may`);
    case ENOMEM:
      return new XenolithError("MEMORY_EXHAUSTED", `${what}: no contiguous memory is left to replace it when revoked`);
    default:
      return new XenolithError("HYPERCALL_FAILED", `${what}: ${textOf(errno)}`);
  }
};

const textOf = (errno: number): string => errnoName(errno) ?? String(errno);
