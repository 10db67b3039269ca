/**
 * The auditor: recomputes from scratch what the tables say, and tells every difference. For tests after each operation,
 * and for `xl debug audit`. The hypervisor must be at rest: no thread but the caller's is inside it.
 */
import { auditDomains } from "./audit-domains.ts";
import { auditEvents } from "./audit-events.ts";
import { auditExtents } from "./audit-extents.ts";
import { auditGrantTables } from "./audit-grant-tables.ts";
import { auditGrants } from "./audit-grants.ts";
import { auditMemory } from "./audit-memory.ts";
import type { Hypervisor } from "./hypervisor.ts";

/**
 * All findings, one sentence each; empty when everything agrees. `held` names the frames that host code holds references
 * to, once for each.
 */
export const audit = (hypervisor: Hypervisor, held: Iterable<number> = []): string[] => [
  ...auditDomains(hypervisor),
  ...auditMemory(hypervisor, held),
  ...auditEvents(hypervisor),
  ...auditExtents(hypervisor),
  ...auditGrants(hypervisor),
  ...auditGrantTables(hypervisor),
];
