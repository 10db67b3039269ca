/**
 * The two pages that a guest shares with the control domain from its creation, its console and its way to xenstore: RAM
 * of the guest, granted to domain 0, each with an event channel that waits for domain 0. A guest finds them in start_info
 * or by HVM parameters, as on Xen.
 */
import {
  errnoName,
  GTF_permit_access,
  GTF_reading,
  GTF_writing,
  HVM_PARAM_CONSOLE_EVTCHN,
  HVM_PARAM_CONSOLE_PFN,
  HVM_PARAM_STORE_EVTCHN,
  HVM_PARAM_STORE_PFN,
  XenolithError,
} from "@xenolith/abi";
import { allocateUnbound, type Hypervisor } from "@xenolith/core";
import type { ImageManifest } from "@xenolith/loader";

/** Where the pages stand, one above the other, below shared_info. */
export const STORE_GFN = 0xf_fffa;
export const CONSOLE_GFN = STORE_GFN + 1;
export const RING_FRAMES = 2;

/** Grant references that a toolstack fills. Source: xen/include/public/grant_table.h (GNTTAB_RESERVED_*). */
export const CONSOLE_REF = 0;
export const STORE_REF = 1;

/** The guest's ports of the two channels. */
export interface RingFacts {
  readonly storePort: number;
  readonly consolePort: number;
}

/**
 * Whether a guest gets rings: one that starts the Xen way, and any other that can ask where they are (it imports
 * `xen.hvm_op`). The others would pay two frames for pages that they cannot find.
 */
export const hasRings = ({ kind, imports }: Pick<ImageManifest, "imports" | "kind">): boolean =>
  kind === "xen" || imports.some(({ module, name }) => module === "xen" && name === "hvm_op");

/**
 * Makes channels, parameters and grants of the ring pages of a new domain, which are populated.
 *
 * @throws XenolithError `HYPERCALL_FAILED`.
 */
export const connectRings = (hypervisor: Hypervisor, slot: number): RingFacts => {
  const facts = { storePort: openPort(hypervisor, slot), consolePort: openPort(hypervisor, slot) };
  const { hvmParams } = hypervisor;
  hvmParams.set(slot, HVM_PARAM_STORE_PFN, BigInt(STORE_GFN));
  hvmParams.set(slot, HVM_PARAM_STORE_EVTCHN, BigInt(facts.storePort));
  hvmParams.set(slot, HVM_PARAM_CONSOLE_PFN, BigInt(CONSOLE_GFN));
  hvmParams.set(slot, HVM_PARAM_CONSOLE_EVTCHN, BigInt(facts.consolePort));
  writeGrant(hypervisor, slot, CONSOLE_REF, CONSOLE_GFN);
  writeGrant(hypervisor, slot, STORE_REF, STORE_GFN);
  return facts;
};

/** The gfn that the domain in `slot` grants domain 0 for writing under `ref`; -1: it grants none. */
export const grantedGfn = ({ directMap, grants }: Hypervisor, slot: number, ref: number): number => {
  if (ref >= grants.refCount(slot)) return -1;
  const entry = grants.entryAddress(slot, ref);
  const isGranted = (directMap.atomicLoadU32(entry) & ~(GTF_reading | GTF_writing)) === GTF_permit_access;
  return isGranted ? directMap.atomicLoadU32(entry + 4) : -1;
};

const openPort = (hypervisor: Hypervisor, slot: number): number => {
  const port = allocateUnbound(hypervisor, slot, 0);
  if (port > 0) return port;
  throw new XenolithError("HYPERCALL_FAILED", `event channel alloc_unbound failed: ${errnoName(port) ?? port}`);
};

/** Flags and domid 0 are one word, the frame is the next. */
const writeGrant = ({ directMap, grants }: Hypervisor, slot: number, ref: number, gfn: number): void => {
  const entry = grants.entryAddress(slot, ref);
  directMap.atomicStoreU32(entry + 4, gfn);
  directMap.atomicStoreU32(entry, GTF_permit_access);
};
