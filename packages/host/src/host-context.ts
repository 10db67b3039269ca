/**
 * What the parts of one host share on the control domain's thread. Not for users of the library.
 */
import type { Cpu, Hypervisor } from "@xenolith/core";
import type { AddressSpacePool } from "./address-space-pool.ts";
import type { Dom0Events } from "./dom0-events.ts";
import type { Dom0Space } from "./dom0-space.ts";
import type { GuestSecrets } from "./guest-secrets.ts";
import type { HostKeys } from "./host-keys.ts";
import type { HostSecrets } from "./host-secrets.ts";
import type { HostTable } from "./host-table.ts";
import type { Machine } from "./machine.ts";
import type { HostPolicy } from "./policy.ts";
import type { RingFrames } from "./ring-frame.ts";
import type { ServiceCalls } from "./service-calls.ts";
import type { VcpuPool } from "./vcpu-pool.ts";
import type { XenstoreService } from "./xenstore-service.ts";

/** Parts of a host. */
export interface HostContext {
  readonly machine: Machine;
  readonly hypervisor: Hypervisor;
  /** The control domain's calling side. */
  readonly dom0: Cpu;
  /** Its event channels. */
  readonly events: Dom0Events;
  readonly hostTable: HostTable;
  readonly pool: VcpuPool;
  readonly spaces: AddressSpacePool;
  /** The control domain's own address space: memory that it shares, and what others share with it. */
  readonly window: Dom0Space;
  /** What its devices reach of others. */
  readonly dmaView: Dom0Space;
  /** Frames of guests that it serves rings in. */
  readonly ringFrames: RingFrames;
  readonly xenstore: XenstoreService;
  /** Secret memory of the program, of guests and of keys. */
  readonly secrets: HostSecrets;
  readonly keys: HostKeys;
  /** Secret objects of guests. */
  readonly guestSecrets: GuestSecrets;
  /** Hypercalls that this thread answers. */
  readonly services: ServiceCalls;
  /** What the operator takes from domains. */
  readonly policy: HostPolicy;
  /** Looks at the attention word now. Called when a ring of the doorbell may have been lost. */
  readonly attend: () => void;
  /** Notes that our own code failed somewhere; `Host.audit` tells it. */
  readonly noteFault: (message: string) => void;
}
