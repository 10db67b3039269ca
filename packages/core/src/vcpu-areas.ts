/**
 * Guest memory that a vCPU's state is kept in: the registered vcpu_info, and the copies of runstate and time.
 *
 * The frame of a registered vcpu_info is referenced, so that it outlives whatever the guest does with its page: the
 * hypervisor goes on writing to the frame. The two copies are written by address, at the time, with the guest's rights.
 */
import { EBUSY, EFAULT, EINVAL, ENXIO, vcpu_info, vcpu_runstate_info, vcpu_time_info } from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { markAllPending } from "./event-delivery.ts";
import { getFrame, putFrame } from "./frame-reference.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { storeRunstate } from "./runstate.ts";
import { storeTime, updateSystemTime } from "./system-time.ts";

const INFO_BYTES = vcpu_info.sizeBytes;
const RUNSTATE_BYTES = vcpu_runstate_info.sizeBytes;
const TIME_BYTES = vcpu_time_info.sizeBytes;
const ALIGN_BYTES = 4;
const ADDRESS_END = 0x1_0000_0000;

/**
 * Moves the vcpu_info of vCPU `index` of the caller's domain to `offset` in guest frame `gfn`: copies it, then marks
 * everything pending, so that an event that a sender notes at the old place while this runs is found. -EBUSY: moved
 * once already; -ENXIO: misaligned or across the end of the page; -EINVAL: no writable RAM there.
 */
export const registerVcpuInfo = (cpu: Cpu, index: number, gfn: number, offset: number): number => {
  const { hypervisor, slot, memory } = cpu;
  const { vcpus } = hypervisor;
  if (vcpus.infoFrame[index] !== 0) return -EBUSY;
  if (offset % ALIGN_BYTES !== 0 || offset > FRAME_BYTES - INFO_BYTES) return -ENXIO;
  if (!memory.accessible(gfn * FRAME_BYTES + offset, INFO_BYTES, true)) return -EINVAL;
  const frame = getFrame(hypervisor, slot, gfn);
  if (frame < 0) return -EINVAL;
  const { locks } = hypervisor;
  const lock = locks.id("event", slot);
  locks.acquire(lock);
  const isFirst = vcpus.infoFrame[index] === 0;
  if (isFirst) moveInfo(hypervisor, index, frame, offset);
  locks.release(lock);
  if (!isFirst) {
    putFrame(hypervisor, frame);
    return -EBUSY;
  }
  markAllPending(hypervisor, index);
  if (index === cpu.index) updateSystemTime(hypervisor, index, hypervisor.platform.now());
  return 0;
};

/** Copies the vcpu_info to its new place, then publishes that. Under the event lock. */
const moveInfo = (hypervisor: Hypervisor, index: number, frame: number, offset: number): void => {
  const { directMap, vcpus } = hypervisor;
  const from = vcpus.vcpuInfo[index]!;
  const to = frame * FRAME_BYTES + offset;
  for (let at = 0; at < INFO_BYTES; at += 4) directMap.atomicStoreU32(to + at, directMap.atomicLoadU32(from + at));
  vcpus.infoFrame[index] = frame + 1;
  vcpus.vcpuInfo[index] = to;
};

/** Lets the hypervisor keep a copy of the runstate at `address`; 0: none. -EFAULT: it is not writable. */
export const registerRunstateArea = (cpu: Cpu, index: number, address: number): number => {
  if (address !== 0 && !storeRunstate(cpu, index, address)) return -EFAULT;
  cpu.hypervisor.vcpus.runstateArea[index] = address;
  return 0;
};

/** Lets the hypervisor keep a copy of the system time at `address`; 0: none. -EFAULT: it is not writable. */
export const registerTimeArea = (cpu: Cpu, index: number, address: number): number => {
  if (address !== 0 && !storeTime(cpu, address, cpu.hypervisor.platform.now())) return -EFAULT;
  cpu.hypervisor.vcpus.timeArea[index] = address;
  return 0;
};

/**
 * Address of an area that the guest names by physical address (here the same as its address): `low` and `high` are the
 * halves of the number. All ones unregister it: 0. -ENXIO: misaligned, or across the end of a page.
 */
export const areaAddress = (low: number, high: number, sizeBytes: number): number => {
  if (low === 0xffff_ffff && high === 0xffff_ffff) return 0;
  if (low % ALIGN_BYTES !== 0 || (low % FRAME_BYTES) + sizeBytes > FRAME_BYTES) return -ENXIO;
  return high === 0 && low + sizeBytes <= ADDRESS_END ? low : -EINVAL;
};

/** Bytes of the two areas. */
export const areaBytes = { runstate: RUNSTATE_BYTES, time: TIME_BYTES } as const;

/**
 * Forgets the registered areas of every vCPU of the domain in `slot` and drops their frames. From here on events for
 * them go nowhere. For the end of a domain after the grace period, and for soft reset with its vCPUs stopped.
 */
export const releaseVcpuAreas = (hypervisor: Hypervisor, slot: number): void => {
  const { domains, vcpus } = hypervisor;
  const base = (domains.sharedInfo[slot]! - 1) * FRAME_BYTES;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const index = vcpus.index(slot, vcpu);
    const frame = vcpus.infoFrame[index]! - 1;
    vcpus.runstateArea[index] = 0;
    vcpus.timeArea[index] = 0;
    if (frame < 0) continue;
    vcpus.vcpuInfo[index] = base < 0 ? 0 : base + vcpu * INFO_BYTES;
    vcpus.infoFrame[index] = 0;
    putFrame(hypervisor, frame);
  }
};
