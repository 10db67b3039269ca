/**
 * Hypercalls that the control domain's thread answers, because what they are about lives there (secret memory, keys): the
 * vCPU posts the call, sleeps as SCHEDOP_block does, and returns with the answer. It can be paused, taken down and ended
 * meanwhile; a vCPU that is ended leaves its call to nobody, and an answer that comes later finds another serial.
 *
 *     state     set by                    to
 *     NONE      its own thread            POSTED: number, command and argument stand there
 *     POSTED    the control domain        TAKEN
 *     TAKEN     the control domain        ANSWERED, then the vCPU is woken
 *     ANSWERED  its own thread            NONE
 *     any       the end of the thread     NONE
 */
import { ENOSYS } from "@xenolith/abi";
import { ATTENTION_SERVICE } from "./attention.ts";
import { blockVcpu, cancelBlock, prepareBlock } from "./block.ts";
import type { Handler } from "./cpu.ts";
import { DOM0_SLOT } from "./domain-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { SERVICE_ANSWERED, SERVICE_NONE, SERVICE_POSTED, SERVICE_TAKEN } from "./service-table.ts";
import { wakeVcpu } from "./vcpu-wake.ts";

/** A call that was taken. */
export interface ServiceRequest {
  readonly slot: number;
  readonly vcpu: number;
  /** Names this call among all of its vCPU. */
  readonly serial: number;
  /** Number of the hypercall. */
  readonly number: number;
  readonly command: number;
  readonly argument: number;
}

/**
 * The handler of hypercall `number`, whose calls the control domain's thread answers. The control domain itself has no
 * use for it: -ENOSYS.
 */
export const serviceCall =
  (number: number): Handler =>
  (cpu, command, argument) => {
    const { hypervisor, index, slot } = cpu;
    const { attention, services } = hypervisor;
    if (slot === DOM0_SLOT) return -ENOSYS;
    services.number[index] = number;
    services.command[index] = command;
    services.argument[index] = argument;
    services.serial[index]! += 1;
    Atomics.add(services.posted, 0, 1);
    Atomics.store(services.state, index, SERVICE_POSTED);
    attention.raise(ATTENTION_SERVICE);
    for (;;) {
      const seen = prepareBlock(cpu);
      if (Atomics.load(services.state, index) === SERVICE_ANSWERED) break;
      blockVcpu(cpu, Infinity, seen);
    }
    cancelBlock(cpu);
    const answer = services.answer[index]!;
    Atomics.store(services.state, index, SERVICE_NONE);
    return answer;
  };

/**
 * Takes calls, a domain's all together, until there are `countMax`: those of the slots from `firstSlot` on first, and the
 * others after them. For the control domain's thread, on ATTENTION_SERVICE, which is raised again when calls may be left.
 */
export const takeServiceCalls = (hypervisor: Hypervisor, firstSlot: number, countMax: number): ServiceRequest[] => {
  const { attention, domains, services } = hypervisor;
  const requests: ServiceRequest[] = [];
  for (let step = 0; step < domains.slotCount && requests.length < countMax; step += 1) {
    if (Atomics.load(services.posted, 0) === 0) return requests;
    takeOfDomain(hypervisor, (firstSlot + step) % domains.slotCount, requests);
  }
  if (Atomics.load(services.posted, 0) !== 0) attention.raise(ATTENTION_SERVICE);
  return requests;
};

/** All calls of one domain: its vCPUs have one each. */
const takeOfDomain = ({ domains, services, vcpus }: Hypervisor, slot: number, requests: ServiceRequest[]): void => {
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const index = vcpus.index(slot, vcpu);
    if (Atomics.compareExchange(services.state, index, SERVICE_POSTED, SERVICE_TAKEN) !== SERVICE_POSTED) continue;
    Atomics.sub(services.posted, 0, 1);
    requests.push({
      slot,
      vcpu,
      serial: services.serial[index]!,
      number: services.number[index]!,
      command: services.command[index]!,
      argument: services.argument[index]!,
    });
  }
};

/** Answers a call that was taken; false: nobody waits for the answer any more. */
export const answerServiceCall = (hypervisor: Hypervisor, request: ServiceRequest, answer: number): boolean => {
  const { services, vcpus } = hypervisor;
  const index = vcpus.index(request.slot, request.vcpu);
  if (services.serial[index] !== request.serial || Atomics.load(services.state, index) !== SERVICE_TAKEN) return false;
  services.answer[index] = answer;
  Atomics.store(services.state, index, SERVICE_ANSWERED);
  wakeVcpu(hypervisor, index);
  return true;
};

/** The thread of vCPU row `index` is gone: nobody waits for an answer any more. For the control domain's thread. */
export const abandonServiceCall = ({ services }: Hypervisor, index: number): void => {
  if (Atomics.exchange(services.state, index, SERVICE_NONE) === SERVICE_POSTED) Atomics.sub(services.posted, 0, 1);
};
