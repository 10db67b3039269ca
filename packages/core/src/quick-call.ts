/**
 * The calls that are made most and do least: the caller's own reservation, and sending an event. They read one number of
 * the caller's memory and a few words of the tables. A gate entered with READ protects both (gate.ts), so they take no
 * lock: two atomic operations in all instead of four.
 *
 * Everything here is bounded, waits for nothing and takes no lock: READ holds up whoever takes pages from the domain.
 */
import {
  __HYPERVISOR_event_channel_op,
  __HYPERVISOR_memory_op,
  DOMID_SELF,
  EVTCHNOP_send,
  XENMEM_current_reservation,
} from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { sendPort } from "./event-delivery.ts";
import { reservationOf } from "./memory-query.ts";

/** Not a result: the call has to be made as any other. Nothing has been done. */
export const NOT_QUICK = 0x8000_0000;

/**
 * Whether a call may be one of these. Their policy is that every domain may make them for itself, so that they pass by
 * the check at the door.
 */
export const isQuick = (number: number, command: number): boolean =>
  number === __HYPERVISOR_event_channel_op
    ? command === EVTCHNOP_send
    : number === __HYPERVISOR_memory_op && command === XENMEM_current_reservation;

/** Makes a call that `isQuick`, inside a gate with READ. Its result, or NOT_QUICK. */
export const quickCall = (cpu: Cpu, number: number, argument: number): number => {
  if (number === __HYPERVISOR_memory_op) {
    return cpu.memory.peek(argument, 2) === DOMID_SELF ? reservationOf(cpu.hypervisor, cpu.slot) : NOT_QUICK;
  }
  const port = cpu.memory.peek(argument, 4);
  return port < 0 ? NOT_QUICK : sendPort(cpu.hypervisor, cpu.slot, port);
};
