/**
 * Bytes into and out of a guest's secret pages, for the control domain: from memory to memory by the C library, through
 * the guest's own mapping, because there is no other. No view of a secret page ever exists in JavaScript.
 *
 * The p2m lock is held from the look at each page's type to the end of the copy. So nobody takes a page away meanwhile,
 * and what was looked at is what is copied to.
 */
import { EFAULT } from "@xenolith/abi";
import { type Hypervisor, isSecret, P2M_SECRET_RW, p2mType } from "@xenolith/core";
import { addressOf, copyMemory } from "@xenolith/sys";
import { SPACE_BYTES } from "./machine.ts";
import { FRAME_BYTES } from "./mmu.ts";

/**
 * Writes `source` to `address` of the domain in `slot`. 0, or -EFAULT: not all of it is secret memory that the guest may
 * write, and nothing was written. The source is not a view that somebody could detach meanwhile: a secret's `withBytes`.
 */
export const writeSecret = (hypervisor: Hypervisor, slot: number, address: number, source: Uint8Array): number =>
  copy(hypervisor, slot, address, source, true);

/** Fills `target` from `address` of the domain in `slot`. 0, or -EFAULT: not all of it is secret memory. */
export const readSecret = (hypervisor: Hypervisor, slot: number, address: number, target: Uint8Array): number =>
  copy(hypervisor, slot, address, target, false);

/** Whether all of a range of the domain in `slot` is secret memory at this moment, which it may write if `isWrite`. */
export const isSecretRange = (
  hypervisor: Hypervisor,
  slot: number,
  range: { readonly address: number; readonly lengthBytes: number },
  isWrite: boolean,
): boolean => {
  const { locks } = hypervisor;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const isAllowed = areSecret(hypervisor, slot, range.address, range.lengthBytes, isWrite);
  locks.release(lock);
  return isAllowed;
};

const copy = (hypervisor: Hypervisor, slot: number, address: number, local: Uint8Array, isWrite: boolean): number => {
  const { domains, locks } = hypervisor;
  const lengthBytes = local.length;
  const localAddress = lengthBytes === 0 ? 0 : addressOf(local);
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const base = domains.spaceBase[slot]!;
  const isAllowed = base !== 0 && areSecret(hypervisor, slot, address, lengthBytes, isWrite);
  if (isAllowed && lengthBytes > 0) {
    if (isWrite) copyMemory(base + address, localAddress, lengthBytes);
    else copyMemory(localAddress, base + address, lengthBytes);
  }
  locks.release(lock);
  return isAllowed ? 0 : -EFAULT;
};

/** Under the p2m lock. */
const areSecret = (
  { p2m }: Hypervisor,
  slot: number,
  address: number,
  lengthBytes: number,
  isWrite: boolean,
): boolean => {
  const isInside = Number.isSafeInteger(address) && address >= 0 && address + lengthBytes <= SPACE_BYTES;
  if (!isInside) return false;
  for (let gfn = Math.floor(address / FRAME_BYTES); gfn * FRAME_BYTES < address + lengthBytes; gfn += 1) {
    const entry = p2m.get(slot, gfn);
    if (isWrite ? p2mType(entry) !== P2M_SECRET_RW : !isSecret(entry)) return false;
  }
  return true;
};
