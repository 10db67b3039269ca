/**
 * What the routes work on.
 */
import type { Host } from "@xenolith/host";
import type { Definitions } from "./definitions.ts";
import type { EventLog } from "./event-log.ts";
import type { GuestActions } from "./guest-actions.ts";
import type { Guests } from "./guests.ts";
import type { HypervisorNotes } from "./hypervisor-notes.ts";
import type { LastingNodes } from "./lasting-nodes.ts";
import type { ServiceLog } from "./service-log.ts";
import type { ServiceMetrics } from "./metrics.ts";
import type { ViewSource } from "./views.ts";

/** The parts of one service. */
export interface ServiceParts {
  readonly host: Host;
  readonly guests: Guests;
  readonly actions: GuestActions;
  readonly definitions: Definitions;
  readonly nodes: LastingNodes;
  readonly events: EventLog;
  readonly log: ServiceLog;
  readonly hypervisorNotes: HypervisorNotes;
  readonly metrics: ServiceMetrics;
  readonly views: ViewSource;
  /** What is wrong with the service now, one sentence each. */
  problems(): readonly string[];
}
