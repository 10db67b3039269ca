/** What the faces of a domain share: finding its row, and turning refusals of memory limits into errors. */
import { EBUSY, EPERM, errnoName, XenolithError } from "@xenolith/abi";
import { findDomain, type Hypervisor } from "@xenolith/core";
import type { DomainName } from "./domain-options.ts";

/** Slot of a domain that must be there. */
export const slotOf = (hypervisor: Hypervisor, { domid, generation }: DomainName): number => {
  const slot = findDomain(hypervisor, domid, generation);
  if (slot < 0) throw new XenolithError("DOMAIN_STATE", `domain ${domid} is gone`);
  return slot;
};

/** Turns a refusal into an error; returns what is none. */
export const check = ({ domid }: DomainName, result: number): number => {
  if (result >= 0) return result;
  if (result === -EBUSY) throw new XenolithError("MEMORY_FROZEN", `the memory limits of domain ${domid} are frozen`);
  if (result === -EPERM)
    throw new XenolithError("MEMORY_LIMIT", `a device model may not set this limit of domain ${domid}`);
  throw new XenolithError("DOMAIN_STATE", `max_mem of domain ${domid} failed: ${errnoName(result) ?? result}`);
};
