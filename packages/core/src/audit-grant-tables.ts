/**
 * The auditor's look at the frames that the hypervisor owns: those of grant tables are listed once, hooked where they
 * say they are, as many as may be; and no frame is the hypervisor's without a use.
 */
import { HYPERVISOR_OWNER, ZERO_FRAME } from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { P2M_FOREIGN, P2M_SPECIAL, p2mEntry, p2mType } from "./p2m.ts";

/** Findings about grant tables and other frames of the hypervisor's; empty when all is well. */
export const auditGrantTables = (hypervisor: Hypervisor): string[] => {
  const { domains, frames } = hypervisor;
  const findings: string[] = [];
  const known = new Set([ZERO_FRAME]);
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    const shared = domains.sharedInfo[slot]!;
    if (shared !== 0) known.add(shared - 1);
    auditTable(hypervisor, slot, known, findings);
  }
  for (const mfn of foreignFrames(hypervisor)) known.add(mfn);
  for (let mfn = 0; mfn < frames.count; mfn += 1) {
    if (frames.owner[mfn] === HYPERVISOR_OWNER && !known.has(mfn)) findings.push(`frame ${mfn}: kept for nothing`);
  }
  return findings;
};

/** Counts the references of frames of other domains that a domain has hooked by its authority. */
export const countForeign = (hypervisor: Hypervisor, references: Uint32Array): void => {
  for (const mfn of foreignFrames(hypervisor)) references[mfn]! += 1;
};

const auditTable = (hypervisor: Hypervisor, slot: number, known: Set<number>, findings: string[]): void => {
  const { frames, grants, p2m } = hypervisor;
  const count = grants.frameCount[slot]!;
  if (count > grants.frameMax[slot]!)
    findings.push(`slot ${slot}: ${count} grant frames, ${grants.frameMax[slot]} allowed`);
  for (let index = 0; index < grants.framesMax; index += 1) {
    const mfn = grants.sharedFrame[slot * grants.framesMax + index]! - 1;
    const where = `slot ${slot}: grant frame ${index}`;
    if (mfn >= 0 !== index < count) findings.push(`${where}: is frame ${mfn}, of ${count}`);
    if (mfn < 0) continue;
    if (frames.owner[mfn] !== HYPERVISOR_OWNER || known.has(mfn)) findings.push(`${where}: frame ${mfn} is another's`);
    known.add(mfn);
    const gfn = frames.gfn[mfn]! - 1;
    const isHooked = gfn < 0 || p2m.get(slot, gfn) === p2mEntry(mfn, P2M_SPECIAL);
    if (!isHooked) findings.push(`${where}: not at its gfn ${gfn}`);
  }
};

function* foreignFrames(hypervisor: Hypervisor): Generator<number> {
  const { domains, p2m } = hypervisor;
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    for (let gfn = 0; gfn < domains.gfnEnd[slot]!; gfn += 1) {
      const entry = p2m.get(slot, gfn);
      if (p2mType(entry) === P2M_FOREIGN) yield entry >>> 4;
    }
  }
}
