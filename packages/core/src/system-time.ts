/**
 * Time as a guest reads it: system_time in its vcpu_time_info, wall clock in its shared_info. A wasm guest has no cycle
 * counter, so the multiplier is 0 and system_time, which every scheduling hypercall refreshes, is the time as is.
 *
 * Version protocol: odd while an update is in progress; a reader that sees an odd or changed version reads again.
 * Only the vCPU's own thread writes its vcpu_time_info (before its thread exists, whoever creates it).
 * Source: xen/include/public/xen.h.
 */
import { shared_info, vcpu_info, vcpu_time_info, XEN_PVCLOCK_TSC_STABLE_BIT } from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import type { Hypervisor } from "./hypervisor.ts";

const WORD = 0x1_0000_0000;
const NS_PER_SECOND = 1_000_000_000n;
const TIME_BYTES = vcpu_time_info.sizeBytes;
const timeAt = vcpu_info.time.offsetBytes;
const versionAt = timeAt + vcpu_time_info.version.offset;
const systemTimeAt = timeAt + vcpu_time_info.system_time.offset;
const multiplierAt = timeAt + vcpu_time_info.tsc_to_system_mul.offset;
/** tsc_shift, flags and padding are one word: shift 0, flags in its second byte. */
const shiftAndFlagsAt = timeAt + vcpu_time_info.tsc_shift.offset;
const FLAGS = XEN_PVCLOCK_TSC_STABLE_BIT << 8;

/** This thread's buffer for a registered copy. */
const buffer = new Uint8Array(TIME_BYTES);
const view = new DataView(buffer.buffer);

/** Writes `now` into the vcpu_time_info of vCPU row `index`; nothing happens when it has no vcpu_info. */
export const updateSystemTime = (hypervisor: Hypervisor, index: number, now: number): void => {
  const address = hypervisor.vcpus.vcpuInfo[index]!;
  if (address === 0) return;
  const { directMap } = hypervisor;
  const ns = Math.floor(now);
  const version = (directMap.loadU32(address + versionAt) & ~1) >>> 0;
  directMap.atomicStoreU32(address + versionAt, (version + 1) >>> 0);
  directMap.storeU32(address + systemTimeAt, ns >>> 0);
  directMap.storeU32(address + systemTimeAt + 4, Math.floor(ns / WORD));
  directMap.storeU32(address + multiplierAt, 0);
  directMap.storeU32(address + shiftAndFlagsAt, FLAGS);
  directMap.atomicStoreU32(address + versionAt, (version + 2) >>> 0);
};

/** Refreshes the caller's time, and the copy of it that the guest may have registered. */
export const refreshTime = (cpu: Cpu, now: number): void => {
  const { hypervisor, index } = cpu;
  updateSystemTime(hypervisor, index, now);
  const area = hypervisor.vcpus.timeArea[index]!;
  if (area !== 0) storeTime(cpu, area, now);
};

/** Writes a vcpu_time_info to `address` of the caller's memory, version last as it must be. False: not writable. */
export const storeTime = (cpu: Cpu, address: number, now: number): boolean => {
  const version = cpu.memory.readU32(address + vcpu_time_info.version.offset);
  if (version < 0) return false;
  buffer.fill(0);
  const even = (version & ~1) >>> 0;
  vcpu_time_info.version.set(view, 0, (even + 1) >>> 0);
  vcpu_time_info.system_time.set(view, 0, Math.floor(now));
  vcpu_time_info.flags.set(view, 0, XEN_PVCLOCK_TSC_STABLE_BIT);
  if (cpu.memory.copyToGuest(address, buffer) !== 0) return false;
  return cpu.memory.writeU32(address + vcpu_time_info.version.offset, (even + 2) >>> 0);
};

/** Writes the wall-clock time at which system time was 0 into the shared_info of the domain in `slot`. */
export const updateWallClock = (hypervisor: Hypervisor, slot: number): void => {
  const { directMap, domains, platform } = hypervisor;
  const base = (domains.sharedInfo[slot]! - 1) * FRAME_BYTES;
  if (base < 0) return;
  const startNs = platform.wallClock() - BigInt(Math.floor(platform.now()));
  const seconds = startNs / NS_PER_SECOND;
  const version = (directMap.loadU32(base + shared_info.wc_version.offset) & ~1) >>> 0;
  directMap.atomicStoreU32(base + shared_info.wc_version.offset, (version + 1) >>> 0);
  directMap.storeU32(base + shared_info.wc_sec.offset, Number(seconds % BigInt(WORD)));
  directMap.storeU32(base + shared_info.wc_nsec.offset, Number(startNs % NS_PER_SECOND));
  directMap.storeU32(base + shared_info.arch.wc_sec_hi.offset, Number(seconds / BigInt(WORD)));
  directMap.atomicStoreU32(base + shared_info.wc_version.offset, (version + 2) >>> 0);
};
