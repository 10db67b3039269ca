/**
 * vcpu_op: what a domain does with its own vCPUs.
 *
 * VCPUOP_initialise takes the head of Xen's vcpu_hvm_context in its 32-bit mode: `eip` is the index of the function in
 * the guest's table, `esp` its stack pointer, `eax` its argument.
 * Source: xen/include/public/vcpu.h, hvm/hvm_vcpu.h.
 */
import * as abi from "@xenolith/abi";
import { passGate } from "./block.ts";
import type { Cpu, Handler } from "./cpu.ts";
import { storeRunstate } from "./runstate.ts";
import { refreshTime } from "./system-time.ts";
import { setPeriodic, setSingleshot } from "./timers.ts";
import { areaAddress, areaBytes, registerRunstateArea, registerTimeArea, registerVcpuInfo } from "./vcpu-areas.ts";
import { bringUp, initialiseVcpu, isUp, takeDown, whileOffline } from "./vcpu-life.ts";
import { VCPU_NMI_PENDING } from "./vcpu-table.ts";
import { wakeVcpu } from "./vcpu-wake.ts";

const { EFAULT, EINVAL, ENOENT, ENOSYS } = abi;
const { vcpu_register_runstate_memory_area, vcpu_register_time_memory_area, vcpu_register_vcpu_info } = abi;
const { vcpu_set_periodic_timer, vcpu_set_singleshot_timer } = abi;

/** VCPU_HVM_MODE_32B: what `mode` of the context must be. */
const MODE_32 = 0;
const MODE_AT = 0;
const EAX_AT = 8;
const ESP_AT = 24;
const EIP_AT = 40;
const CONTEXT_BYTES = 44;

/** vcpu_op(command, vcpu id, arg). */
export const vcpuOp: Handler = (cpu, command, vcpu, arg) => {
  if (vcpu >= cpu.hypervisor.domains.vcpuCount[cpu.slot]!) return -ENOENT;
  const index = cpu.hypervisor.vcpus.index(cpu.slot, vcpu);
  switch (command) {
    case abi.VCPUOP_initialise:
      return initialise(cpu, index, arg);
    case abi.VCPUOP_up:
      return bringUp(cpu.hypervisor, index);
    case abi.VCPUOP_down:
      return down(cpu, vcpu);
    case abi.VCPUOP_is_up:
      return isUp(cpu.hypervisor, index) ? 1 : 0;
    case abi.VCPUOP_get_runstate_info:
      return storeRunstate(cpu, index, arg) ? 0 : -EFAULT;
    case abi.VCPUOP_send_nmi:
      return sendNmi(cpu, index, arg);
    case abi.VCPUOP_get_physid:
      // Only for a vCPU that is pinned to a processor, which no thread is.
      return -EINVAL;
    case abi.VCPUOP_register_vcpu_info:
      return registerInfo(cpu, index, arg);
    default:
      return timerOrAreaOp(cpu, command, index, arg);
  }
};

const timerOrAreaOp = (cpu: Cpu, command: number, index: number, arg: number): number => {
  switch (command) {
    case abi.VCPUOP_set_periodic_timer:
      return periodic(cpu, index, arg);
    case abi.VCPUOP_stop_periodic_timer:
      return setPeriodic(cpu.hypervisor, index, 0);
    case abi.VCPUOP_set_singleshot_timer:
      return singleshot(cpu, index, arg);
    case abi.VCPUOP_stop_singleshot_timer:
      return stopSingleshot(cpu, index);
    case abi.VCPUOP_register_runstate_memory_area:
      return runstateArea(cpu, index, arg, false);
    case abi.VCPUOP_register_vcpu_time_memory_area:
      return timeArea(cpu, index, arg, false);
    case abi.VCPUOP_register_runstate_phys_area:
      return runstateArea(cpu, index, arg, true);
    case abi.VCPUOP_register_vcpu_time_phys_area:
      return timeArea(cpu, index, arg, true);
    default:
      return -ENOSYS;
  }
};

const initialise = (cpu: Cpu, index: number, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, CONTEXT_BYTES)) return -EFAULT;
  const { scratch } = memory;
  if (scratch.getUint32(MODE_AT, true) !== MODE_32) return -EINVAL;
  return initialiseVcpu(hypervisor, index, {
    entry: scratch.getUint32(EIP_AT, true),
    stack: scratch.getUint32(ESP_AT, true),
    argument: scratch.getUint32(EAX_AT, true),
  });
};

/** A vCPU that takes itself down goes on after this call when another brings it up. */
const down = (cpu: Cpu, vcpu: number): number => {
  const result = takeDown(cpu.hypervisor, cpu.slot, vcpu);
  const isOwn = vcpu === cpu.vcpu && !isUp(cpu.hypervisor, cpu.index);
  if (isOwn) whileOffline(cpu, () => passGate(cpu));
  return result;
};

const sendNmi = (cpu: Cpu, index: number, arg: number): number => {
  if (arg !== 0) return -EINVAL;
  const { vcpus } = cpu.hypervisor;
  const before = Atomics.or(vcpus.flags, index, VCPU_NMI_PENDING);
  if ((before & VCPU_NMI_PENDING) === 0) wakeVcpu(cpu.hypervisor, index);
  return 0;
};

const registerInfo = (cpu: Cpu, index: number, arg: number): number => {
  const { memory } = cpu;
  if (!memory.fetch(arg, vcpu_register_vcpu_info.sizeBytes)) return -EFAULT;
  const gfn = vcpu_register_vcpu_info.mfn.get(memory.scratch, 0);
  return registerVcpuInfo(cpu, index, gfn, vcpu_register_vcpu_info.offset.get(memory.scratch, 0));
};

const periodic = (cpu: Cpu, index: number, arg: number): number => {
  const { memory } = cpu;
  if (!memory.fetch(arg, vcpu_set_periodic_timer.sizeBytes)) return -EFAULT;
  const periodNs = vcpu_set_periodic_timer.period_ns.get(memory.scratch, 0);
  return periodNs === 0 ? -EINVAL : setPeriodic(cpu.hypervisor, index, periodNs);
};

const singleshot = (cpu: Cpu, index: number, arg: number): number => {
  if (index !== cpu.index) return -EINVAL;
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, vcpu_set_singleshot_timer.sizeBytes)) return -EFAULT;
  const deadlineNs = vcpu_set_singleshot_timer.timeout_abs_ns.get(memory.scratch, 0);
  // Unlike set_timer_op, 0 here is a time like any other, long past.
  setSingleshot(hypervisor, index, Math.max(deadlineNs, 1));
  refreshTime(cpu, hypervisor.platform.now());
  return 0;
};

const stopSingleshot = (cpu: Cpu, index: number): number => {
  if (index !== cpu.index) return -EINVAL;
  setSingleshot(cpu.hypervisor, index, 0);
  return 0;
};

const runstateArea = (cpu: Cpu, index: number, arg: number, isPhysical: boolean): number => {
  const { memory } = cpu;
  if (!memory.fetch(arg, vcpu_register_runstate_memory_area.sizeBytes)) return -EFAULT;
  const { addr } = vcpu_register_runstate_memory_area;
  const low = addr.p.low.get(memory.scratch, 0);
  const address = isPhysical ? areaAddress(low, addr.p.high.get(memory.scratch, 0), areaBytes.runstate) : low;
  return address < 0 ? address : registerRunstateArea(cpu, index, address);
};

const timeArea = (cpu: Cpu, index: number, arg: number, isPhysical: boolean): number => {
  const { memory } = cpu;
  if (!memory.fetch(arg, vcpu_register_time_memory_area.sizeBytes)) return -EFAULT;
  const { addr } = vcpu_register_time_memory_area;
  const low = addr.p.low.get(memory.scratch, 0);
  const address = isPhysical ? areaAddress(low, addr.p.high.get(memory.scratch, 0), areaBytes.time) : low;
  return address < 0 ? address : registerTimeArea(cpu, index, address);
};
