/**
 * One vCPU as the thread that executes it sees it: what every hypercall handler gets as its first argument.
 */
import type { GuestMemory } from "./guest-memory.ts";
import type { Hypervisor } from "./hypervisor.ts";

/** The caller of a hypercall. */
export interface Cpu {
  readonly hypervisor: Hypervisor;
  /** Domain slot of the caller. */
  readonly slot: number;
  /** Its domid. */
  readonly domid: number;
  /** Its vCPU id. */
  readonly vcpu: number;
  /** Row of the vCPU in `hypervisor.vcpus`. */
  readonly index: number;
  /** The caller's memory, as itself. */
  readonly memory: GuestMemory;
  /** The hypercall that it makes and its command, as the policy knows them. */
  operation: number;
  command: number;
  /** What becomes of an exception inside the hypervisor: frees locks and gate and ends the domain, or dom0's call. */
  readonly fail: (cpu: Cpu, thrown: unknown) => never;
}

/**
 * A hypercall or sub-operation. Arguments are unsigned 32-bit. Returns a result >= 0 or a negative errno; never
 * throws, allocates nothing, and is called inside the caller's gate.
 */
export type Handler = (cpu: Cpu, a: number, b: number, c: number, d: number, e: number) => number;
