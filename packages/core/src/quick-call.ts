/**
 * The calls that are made most and do least: the caller's own reservation, sending an event, and one copy of a grant. The
 * first two read one number of the caller's memory and a few words of the tables; a gate entered with READ protects both
 * (gate.ts), so they take no lock: two atomic operations in all instead of four. The copy is in grant-copy-single.ts.
 *
 * Everything here is bounded and waits for nothing, for no lock either: READ holds up whoever takes pages from the domain,
 * and that may be who holds the lock.
 */
import {
  __HYPERVISOR_event_channel_op,
  __HYPERVISOR_grant_table_op,
  __HYPERVISOR_memory_op,
  DOMID_SELF,
  EVTCHNOP_send,
  GNTTABOP_copy,
  XENMEM_current_reservation,
} from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { sendPort } from "./event-delivery.ts";
import { copySingle } from "./grant-copy-single.ts";
import { reservationOf } from "./memory-query.ts";

/** Not a result: the call has to be made as any other. Nothing has been done. */
export const NOT_QUICK = 0x8000_0000;

/**
 * Whether a call, by its number, first and third argument, may be one of these. Their policy is that every domain may
 * make them for itself, so that they pass by the check at the door.
 */
export const isQuick = (number: number, command: number, count: number): boolean => {
  if (number === __HYPERVISOR_event_channel_op) return command === EVTCHNOP_send;
  if (number === __HYPERVISOR_grant_table_op) return command === GNTTABOP_copy && count === 1;
  return number === __HYPERVISOR_memory_op && command === XENMEM_current_reservation;
};

/** Makes a call that `isQuick`, with its second argument, inside a gate with READ. Its result, or NOT_QUICK. */
export const quickCall = (cpu: Cpu, number: number, argument: number): number => {
  if (number === __HYPERVISOR_grant_table_op) return copySingle(cpu, argument) ? 0 : NOT_QUICK;
  if (number === __HYPERVISOR_memory_op) {
    return cpu.memory.peek(argument, 2) === DOMID_SELF ? reservationOf(cpu.hypervisor, cpu.slot) : NOT_QUICK;
  }
  const port = cpu.memory.peek(argument, 4);
  return port < 0 ? NOT_QUICK : sendPort(cpu.hypervisor, cpu.slot, port);
};
