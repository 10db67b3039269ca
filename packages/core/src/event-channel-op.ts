/**
 * event_channel_op: reads the guest's arguments, once, and passes them on to event-ports.ts and event-delivery.ts. Only
 * the 2-level ABI exists here, so the operations of the FIFO one are refused.
 *
 * The port that an operation opened is closed again when its number cannot be handed to the guest.
 * Source: xen/include/public/event_channel.h.
 */
import {
  BIND_PIRQ__WILL_SHARE,
  DOMID_SELF,
  EFAULT,
  EINVAL,
  ENOSYS,
  EOPNOTSUPP,
  evtchn_alloc_unbound,
  evtchn_bind_interdomain,
  evtchn_bind_ipi,
  evtchn_bind_pirq,
  evtchn_bind_vcpu,
  evtchn_bind_virq,
  evtchn_reset,
  evtchn_status,
  EVTCHNOP_alloc_unbound,
  EVTCHNOP_bind_interdomain,
  EVTCHNOP_bind_ipi,
  EVTCHNOP_bind_pirq,
  EVTCHNOP_bind_vcpu,
  EVTCHNOP_bind_virq,
  EVTCHNOP_close,
  EVTCHNOP_expand_array,
  EVTCHNOP_init_control,
  EVTCHNOP_reset,
  EVTCHNOP_send,
  EVTCHNOP_status,
  EVTCHNOP_unmask,
  EVTCHNSTAT_interdomain,
  EVTCHNSTAT_unbound,
} from "@xenolith/abi";
import { passGate } from "./block.ts";
import type { Cpu, Handler } from "./cpu.ts";
import { portEnd, sendPort, unmaskPort } from "./event-delivery.ts";
import { allocateUnbound, bindInterdomain, bindIpi, bindPirq, bindVcpu, bindVirq, closePort } from "./event-ports.ts";
import { beginReset, continueReset, RESET_MORE } from "./event-reset.ts";
import { portKind, portPayload, portRemotePort, portRemoteSlot, portVcpu } from "./event-table.ts";
import { resumePirq } from "./pirq.ts";
import { resolveDomain } from "./policy.ts";

/** event_channel_op(command, arg). */
export const eventChannelOp: Handler = (cpu, command, arg) => {
  switch (command) {
    case EVTCHNOP_send:
      return send(cpu, arg);
    case EVTCHNOP_unmask:
      return unmask(cpu, arg);
    case EVTCHNOP_close:
      return close(cpu, arg);
    case EVTCHNOP_alloc_unbound:
      return allocUnbound(cpu, arg);
    case EVTCHNOP_bind_interdomain:
      return interdomain(cpu, arg);
    case EVTCHNOP_bind_virq:
      return virq(cpu, arg);
    case EVTCHNOP_bind_ipi:
      return ipi(cpu, arg);
    case EVTCHNOP_bind_pirq:
      return pirq(cpu, arg);
    case EVTCHNOP_bind_vcpu:
      return vcpu(cpu, arg);
    case EVTCHNOP_status:
      return status(cpu, arg);
    case EVTCHNOP_reset:
      return reset(cpu, arg);
    case EVTCHNOP_init_control:
    case EVTCHNOP_expand_array:
      return -EOPNOTSUPP;
    default:
      return -ENOSYS;
  }
};

const send = (cpu: Cpu, arg: number): number => {
  const port = cpu.memory.readU32(arg);
  return port < 0 ? -EFAULT : sendPort(cpu.hypervisor, cpu.slot, port);
};

const unmask = (cpu: Cpu, arg: number): number => {
  const port = cpu.memory.readU32(arg);
  return port < 0 ? -EFAULT : unmaskPort(cpu.hypervisor, cpu.slot, port);
};

const close = (cpu: Cpu, arg: number): number => {
  const port = cpu.memory.readU32(arg);
  return port < 0 ? -EFAULT : closePort(cpu.hypervisor, cpu.slot, port);
};

/** Hands the number of a new port of the domain in `slot` to the guest. Returns 0, or the refusal that `port` is. */
const handOut = (cpu: Cpu, slot: number, port: number, address: number): number => {
  if (port < 0) return port;
  if (cpu.memory.writeU32(address, port)) return 0;
  closePort(cpu.hypervisor, slot, port);
  return -EFAULT;
};

const allocUnbound = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, evtchn_alloc_unbound.sizeBytes)) return -EFAULT;
  const domid = evtchn_alloc_unbound.dom.get(memory.scratch, 0);
  const remote = evtchn_alloc_unbound.remote_dom.get(memory.scratch, 0);
  const slot = resolveDomain(cpu, domid, "TARGET");
  if (slot < 0) return slot;
  const port = allocateUnbound(hypervisor, slot, remote === DOMID_SELF ? cpu.domid : remote);
  return handOut(cpu, slot, port, arg + evtchn_alloc_unbound.port.offset);
};

const interdomain = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, evtchn_bind_interdomain.sizeBytes)) return -EFAULT;
  const domid = evtchn_bind_interdomain.remote_dom.get(memory.scratch, 0);
  const remotePort = evtchn_bind_interdomain.remote_port.get(memory.scratch, 0);
  const port = bindInterdomain(hypervisor, cpu.slot, domid === DOMID_SELF ? cpu.domid : domid, remotePort);
  return handOut(cpu, cpu.slot, port, arg + evtchn_bind_interdomain.local_port.offset);
};

const virq = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, evtchn_bind_virq.sizeBytes)) return -EFAULT;
  const number = evtchn_bind_virq.virq.get(memory.scratch, 0);
  const onVcpu = evtchn_bind_virq.vcpu.get(memory.scratch, 0);
  const port = bindVirq(hypervisor, cpu.slot, number, onVcpu);
  return handOut(cpu, cpu.slot, port, arg + evtchn_bind_virq.port.offset);
};

const ipi = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, evtchn_bind_ipi.sizeBytes)) return -EFAULT;
  const port = bindIpi(hypervisor, cpu.slot, evtchn_bind_ipi.vcpu.get(memory.scratch, 0));
  return handOut(cpu, cpu.slot, port, arg + evtchn_bind_ipi.port.offset);
};

const pirq = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, evtchn_bind_pirq.sizeBytes)) return -EFAULT;
  const number = evtchn_bind_pirq.pirq.get(memory.scratch, 0);
  const flags = evtchn_bind_pirq.flags.get(memory.scratch, 0);
  if ((flags & ~BIND_PIRQ__WILL_SHARE) !== 0) return -EINVAL;
  const port = bindPirq(hypervisor, cpu.slot, number, flags !== 0);
  const result = handOut(cpu, cpu.slot, port, arg + evtchn_bind_pirq.port.offset);
  if (result === 0) resumePirq(hypervisor, cpu.slot, number);
  return result;
};

const vcpu = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, evtchn_bind_vcpu.sizeBytes)) return -EFAULT;
  const port = evtchn_bind_vcpu.port.get(memory.scratch, 0);
  return bindVcpu(hypervisor, cpu.slot, port, evtchn_bind_vcpu.vcpu.get(memory.scratch, 0));
};

const status = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, evtchn_status.sizeBytes)) return -EFAULT;
  const port = evtchn_status.port.get(memory.scratch, 0);
  const slot = resolveDomain(cpu, evtchn_status.dom.get(memory.scratch, 0), "TARGET");
  if (slot < 0) return slot;
  if (port < 1 || port >= portEnd(hypervisor, slot)) return -EINVAL;
  describe(cpu, hypervisor.events.load(slot, port));
  return memory.store(arg, evtchn_status.sizeBytes) ? 0 : -EFAULT;
};

/** Writes the outputs of a status request into the scratch buffer. */
const describe = (cpu: Cpu, word: number): void => {
  const { scratch } = cpu.memory;
  const kind = portKind(word);
  const { u } = evtchn_status;
  evtchn_status.status.set(scratch, 0, kind);
  evtchn_status.vcpu.set(scratch, 0, portVcpu(word));
  u.virq.set(scratch, 0, 0);
  u.interdomain.port.set(scratch, 0, 0);
  if (kind === EVTCHNSTAT_unbound) u.unbound.dom.set(scratch, 0, portPayload(word));
  else if (kind === EVTCHNSTAT_interdomain) {
    u.interdomain.dom.set(scratch, 0, cpu.hypervisor.domains.domid[portRemoteSlot(word)]!);
    u.interdomain.port.set(scratch, 0, portRemotePort(word));
  } else u.virq.set(scratch, 0, portPayload(word));
};

/** Closes all ports of a domain, in slices between which the caller may be paused or stopped. */
const reset = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, evtchn_reset.sizeBytes)) return -EFAULT;
  const slot = resolveDomain(cpu, evtchn_reset.dom.get(memory.scratch, 0), "TARGET");
  if (slot < 0) return slot;
  if (slot !== cpu.slot && hypervisor.domains.pauses[slot] === 0) return -EINVAL;
  const refused = beginReset(hypervisor, slot);
  if (refused !== 0) return refused;
  for (;;) {
    const result = continueReset(hypervisor, slot);
    if (result !== RESET_MORE) return result;
    if (slot === cpu.slot) passGate(cpu);
  }
};
