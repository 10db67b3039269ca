/**
 * XENMEM_memory_map, XENMEM_machine_memory_map and XENMEM_set_memory_map.
 */
import { E2BIG, e820entry, EFAULT, EINVAL, ENOSYS, ESRCH, xen_foreign_memory_map, xen_memory_map } from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { MEMORY_MAP_ENTRIES_MAX } from "./memory-map-table.ts";
import { resolveDomain } from "./policy.ts";

const E820_RAM = 1;
const bytes = new Uint8Array(MEMORY_MAP_ENTRIES_MAX * e820entry.sizeBytes);
const view = new DataView(bytes.buffer);

/** XENMEM_memory_map: the caller's own map. -ENOSYS: none was set. */
export const memoryMapOp = (cpu: Cpu, argument: number): number => {
  const { memoryMaps } = cpu.hypervisor.frames;
  const lock = cpu.hypervisor.locks.id("p2m", cpu.slot);
  cpu.hypervisor.locks.acquire(lock);
  const count = memoryMaps.count[cpu.slot]!;
  bytes.set(memoryMaps.entries(cpu.slot, count));
  cpu.hypervisor.locks.release(lock);
  return count === 0 ? -ENOSYS : giveMap(cpu, argument, count);
};

/** XENMEM_machine_memory_map: all machine memory as one range. */
export const machineMemoryMapOp = (cpu: Cpu, argument: number): number => {
  e820entry.addr.set(view, 0, 0);
  e820entry.size.set(view, 0, cpu.hypervisor.geometry.machineFrames * FRAME_BYTES);
  e820entry.type.set(view, 0, E820_RAM);
  return giveMap(cpu, argument, 1);
};

/** XENMEM_set_memory_map. -E2BIG: more than MEMORY_MAP_ENTRIES_MAX entries, -EINVAL: none, -ESRCH: it is dying. */
export const setMemoryMapOp = (cpu: Cpu, argument: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(argument, xen_foreign_memory_map.sizeBytes)) return -EFAULT;
  const count = xen_foreign_memory_map.map.nr_entries.get(memory.scratch, 0);
  const buffer = xen_foreign_memory_map.map.buffer.get(memory.scratch, 0);
  const slot = resolveDomain(cpu, xen_foreign_memory_map.domid.get(memory.scratch, 0), "TARGET");
  if (slot < 0) return slot;
  if (!isAlive(hypervisor, slot)) return -ESRCH;
  if (count > MEMORY_MAP_ENTRIES_MAX) return -E2BIG;
  if (count === 0) return -EINVAL;
  const entries = bytes.subarray(0, count * e820entry.sizeBytes);
  if (memory.copyFromGuest(buffer, entries) !== 0) return -EFAULT;
  const lock = hypervisor.locks.id("p2m", slot);
  hypervisor.locks.acquire(lock);
  hypervisor.frames.memoryMaps.entries(slot, count).set(entries);
  hypervisor.frames.memoryMaps.count[slot] = count;
  hypervisor.locks.release(lock);
  return 0;
};

/** Writes as many of the `count` entries in `bytes` as the caller has room for, and how many that is. */
const giveMap = (cpu: Cpu, argument: number, count: number): number => {
  const { memory } = cpu;
  if (!memory.fetch(argument, xen_memory_map.sizeBytes)) return -EFAULT;
  const given = Math.min(count, xen_memory_map.nr_entries.get(memory.scratch, 0));
  const buffer = xen_memory_map.buffer.get(memory.scratch, 0);
  if (memory.copyToGuest(buffer, bytes.subarray(0, given * e820entry.sizeBytes)) !== 0) return -EFAULT;
  xen_memory_map.nr_entries.set(memory.scratch, 0, given);
  return memory.store(argument, xen_memory_map.sizeBytes) ? 0 : -EFAULT;
};
