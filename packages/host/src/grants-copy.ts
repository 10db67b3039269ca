/**
 * Copies between pages that other domains granted to the control domain, and its own bytes, without mapping anything:
 * what GNTTABOP_copy is for guests.
 */
import { DOMID_SELF, GNTST_bad_copy_arg, GNTST_okay, XenolithError } from "@xenolith/abi";
import { CopyHold, type Cpu } from "@xenolith/core";
import { FRAME_BYTES } from "./mmu.ts";

/** A place in a page that another domain granted. */
export interface GrantedPlace {
  readonly domid: number;
  readonly ref: number;
  /** Where in the page; 0 by default. */
  readonly offset?: number;
}

/** One copy, from or to one granted page, or from one to another. */
export interface GrantCopy {
  readonly from: GrantedPlace | Uint8Array;
  readonly to: GrantedPlace | Uint8Array;
  /** By default the length of the array; it must be given when there is none. */
  readonly lengthBytes?: number;
}

const hold = new CopyHold();

/** Makes the copies in order and returns the status of each (GNTST_*): later ones are made when earlier ones fail. */
export const copyAll = (cpu: Cpu, copies: readonly GrantCopy[]): number[] => {
  // Nothing below may throw while locks are held.
  const checked = copies.map(check);
  const statuses = checked.map((copy) => copyOne(cpu, copy));
  hold.close();
  return statuses;
};

interface CheckedCopy {
  readonly from: Required<GrantedPlace> | Uint8Array;
  readonly to: Required<GrantedPlace> | Uint8Array;
  readonly lengthBytes: number;
}

const check = (copy: GrantCopy): CheckedCopy => {
  const from = checkEnd(copy.from);
  const to = checkEnd(copy.to);
  if (from instanceof Uint8Array && to instanceof Uint8Array) {
    throw new XenolithError("INVALID_ARGUMENT", "neither end of the copy is a granted page");
  }
  const local = from instanceof Uint8Array ? from : to instanceof Uint8Array ? to : undefined;
  const lengthBytes = copy.lengthBytes ?? local?.length ?? -1;
  const limit = Math.min(FRAME_BYTES, local?.length ?? FRAME_BYTES);
  if (Number.isInteger(lengthBytes) && lengthBytes >= 0 && lengthBytes <= limit) return { from, to, lengthBytes };
  throw new XenolithError("INVALID_SIZE", `a copy is ${lengthBytes} bytes, it must be 0 to ${limit}`);
};

const checkEnd = (end: GrantedPlace | Uint8Array): Required<GrantedPlace> | Uint8Array => {
  if (end instanceof Uint8Array) return end;
  const { domid, ref, offset = 0 } = end;
  const isSound = isWhole(domid, 0xffff) && isWhole(ref, 0xffff_ffff) && isWhole(offset, FRAME_BYTES);
  if (isSound) return { domid, ref, offset };
  throw new XenolithError("INVALID_ARGUMENT", `no place in a page: domain ${domid}, reference ${ref}, byte ${offset}`);
};

const isWhole = (value: number, max: number): boolean => Number.isInteger(value) && value >= 0 && value <= max;

const copyOne = (cpu: Cpu, { from, to, lengthBytes }: CheckedCopy): number => {
  // C1
  if (lengthBytes === 0) return GNTST_okay;
  const source = from instanceof Uint8Array ? undefined : from;
  const dest = to instanceof Uint8Array ? undefined : to;
  const sourceDomid = source?.domid ?? DOMID_SELF;
  const destDomid = dest?.domid ?? DOMID_SELF;
  const refused = hold.enter(cpu, sourceDomid, destDomid, source !== undefined, dest !== undefined);
  if (refused !== 0) return refused;
  const fromFrame = source === undefined ? 0 : hold.source(source.ref);
  if (fromFrame < 0) return fromFrame;
  const toFrame = dest === undefined ? 0 : hold.dest(dest.ref);
  if (toFrame < 0) return toFrame;
  const isInPages = Math.max(source?.offset ?? 0, dest?.offset ?? 0) + lengthBytes <= FRAME_BYTES;
  // C10
  if (!isInPages) return GNTST_bad_copy_arg;
  const { directMap } = cpu.hypervisor;
  if (to instanceof Uint8Array) directMap.copyOut(fromFrame * FRAME_BYTES + source!.offset, to, 0, lengthBytes);
  else if (from instanceof Uint8Array) directMap.copyIn(toFrame * FRAME_BYTES + to.offset, from, 0, lengthBytes);
  else hold.copy(toFrame, to.offset, fromFrame, from.offset, lengthBytes);
  return GNTST_okay;
};
