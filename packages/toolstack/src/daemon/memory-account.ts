/**
 * Where the machine's memory is, counted frame by frame: what the free lists, the domains' tot_pages and the hypervisor's
 * own frames say together must be all of it.
 */
import { domainInfo, freeFrameCount, HYPERVISOR_OWNER, listDomains } from "@xenolith/core";
import type { Host } from "@xenolith/host";
import type { MemoryAccountView } from "./api-types.ts";

const FRAME_BYTES = 4096;

/** The account of this moment. Reads the owner of every frame: for audits, which do so anyway. */
export const memoryAccount = ({ hypervisor }: Host): MemoryAccountView => {
  let hypervisorFrames = 0;
  for (const owner of hypervisor.frames.owner) if (owner === HYPERVISOR_OWNER) hypervisorFrames += 1;
  const domainPages = listDomains(hypervisor).reduce((sum, slot) => sum + domainInfo(hypervisor, slot).totPages, 0);
  return {
    machineBytes: hypervisor.geometry.machineFrames * FRAME_BYTES,
    freeBytes: freeFrameCount(hypervisor) * FRAME_BYTES,
    hypervisorBytes: hypervisorFrames * FRAME_BYTES,
    domainBytes: domainPages * FRAME_BYTES,
  };
};
