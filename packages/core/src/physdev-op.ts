/**
 * physdev_op: physical interrupts of a domain. There are no PCI devices and no interrupt controllers to program here:
 * the operations that concern those are refused.
 * Source: xen/include/public/physdev.h.
 */
import * as abi from "@xenolith/abi";
import type { Cpu, Handler } from "./cpu.ts";
import { GSI_COUNT, IRQ_COUNT, IRQ_MSI_BASE, PIRQ_COUNT, PIRQ_SHARED } from "./pirq-table.ts";
import { endPirq, mapPirq, reservePirq, setEoiPage, unmapPirq } from "./pirq.ts";
import { isPrivileged, resolveDomain } from "./policy.ts";

const { EFAULT, EINVAL, ENODEV, ENOSYS, EPERM } = abi;
const { physdev_eoi, physdev_get_free_pirq, physdev_irq_status_query, physdev_map_pirq } = abi;
const { physdev_pirq_eoi_gmfn, physdev_unmap_pirq } = abi;

/** physdev_op(command, arg). */
export const physdevOp: Handler = (cpu, command, arg) => {
  switch (command) {
    case abi.PHYSDEVOP_eoi:
      return eoi(cpu, arg);
    case abi.PHYSDEVOP_irq_status_query:
      return statusQuery(cpu, arg);
    case abi.PHYSDEVOP_map_pirq:
      return map(cpu, arg);
    case abi.PHYSDEVOP_unmap_pirq:
      return unmap(cpu, arg);
    case abi.PHYSDEVOP_get_free_pirq:
      return freePirq(cpu, arg);
    case abi.PHYSDEVOP_pirq_eoi_gmfn_v1:
      return eoiPage(cpu, arg, true);
    case abi.PHYSDEVOP_pirq_eoi_gmfn_v2:
      return eoiPage(cpu, arg, false);
    case abi.PHYSDEVOP_IRQ_UNMASK_NOTIFY:
    case abi.PHYSDEVOP_free_irq_vector:
    case abi.PHYSDEVOP_set_iopl:
    case abi.PHYSDEVOP_set_iobitmap:
      return nothingToDo(command);
    default:
      return hardware(cpu, command);
  }
};

/** Operations of times past that succeed without effect, and the port permissions that a guest cannot have. */
const nothingToDo = (command: number): number =>
  command === abi.PHYSDEVOP_free_irq_vector || command === abi.PHYSDEVOP_IRQ_UNMASK_NOTIFY ? 0 : -ENOSYS;

/** Operations on hardware that is not there. */
const hardware = (cpu: Cpu, command: number): number => {
  switch (command) {
    case abi.PHYSDEVOP_manage_pci_add:
    case abi.PHYSDEVOP_manage_pci_remove:
    case abi.PHYSDEVOP_restore_msi:
    case abi.PHYSDEVOP_manage_pci_add_ext:
    case abi.PHYSDEVOP_pci_mmcfg_reserved:
    case abi.PHYSDEVOP_pci_device_add:
    case abi.PHYSDEVOP_pci_device_remove:
    case abi.PHYSDEVOP_restore_msi_ext:
    case abi.PHYSDEVOP_prepare_msix:
    case abi.PHYSDEVOP_release_msix:
    case abi.PHYSDEVOP_pci_device_reset:
      return isPrivileged(cpu.hypervisor, cpu.slot) ? -ENODEV : -EPERM;
    default:
      return -ENOSYS;
  }
};

const eoi = (cpu: Cpu, arg: number): number => {
  const pirq = cpu.memory.readU32(arg + physdev_eoi.irq.offset);
  return pirq < 0 ? -EFAULT : endPirq(cpu.hypervisor, cpu.slot, pirq);
};

/** Says of every mapped irq that it needs an EOI: that is always right to do, and the guest need not know the kind. */
const statusQuery = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, physdev_irq_status_query.sizeBytes)) return -EFAULT;
  const pirq = physdev_irq_status_query.irq.get(memory.scratch, 0);
  if (pirq >= PIRQ_COUNT) return -EINVAL;
  const { pirqs } = hypervisor;
  const row = pirqs.row(cpu.slot, pirq);
  const isMapped = Atomics.load(pirqs.irq, row) !== 0;
  const isShared = (Atomics.load(pirqs.state, row) & PIRQ_SHARED) !== 0;
  const flags = (isMapped ? abi.XENIRQSTAT_needs_eoi : 0) | (isShared ? abi.XENIRQSTAT_shared : 0);
  return memory.writeU32(arg + physdev_irq_status_query.flags.offset, flags) ? 0 : -EFAULT;
};

const map = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, physdev_map_pirq.sizeBytes)) return -EFAULT;
  const { scratch } = memory;
  const domid = physdev_map_pirq.domid.get(scratch, 0);
  const type = physdev_map_pirq.type.get(scratch, 0);
  const index = physdev_map_pirq.index.get(scratch, 0);
  const wanted = physdev_map_pirq.pirq.get(scratch, 0);
  const slot = resolveIrqDomain(cpu, domid);
  if (slot < 0) return slot;
  const irq = irqOf(type, index);
  if (irq < 0) return irq;
  const pirq = mapPirq(hypervisor, slot, irq, wanted);
  if (pirq < 0) return pirq;
  if (memory.writeU32(arg + physdev_map_pirq.pirq.offset, pirq)) return 0;
  unmapPirq(hypervisor, slot, pirq);
  return -EFAULT;
};

/** irq of a source as map_pirq names it: a line by its number, a message by its index. */
const irqOf = (type: number, index: number): number => {
  if (type === abi.MAP_PIRQ_TYPE_GSI) return index >= 0 && index < GSI_COUNT ? index : -EINVAL;
  if (type !== abi.MAP_PIRQ_TYPE_MSI) return type >= 0 && type <= abi.MAP_PIRQ_TYPE_MULTI_MSI ? -ENODEV : -EINVAL;
  return index >= 0 && index < IRQ_COUNT - IRQ_MSI_BASE ? IRQ_MSI_BASE + index : -EINVAL;
};

const unmap = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, physdev_unmap_pirq.sizeBytes)) return -EFAULT;
  const pirq = physdev_unmap_pirq.pirq.get(memory.scratch, 0);
  const slot = resolveIrqDomain(cpu, physdev_unmap_pirq.domid.get(memory.scratch, 0));
  return slot < 0 ? slot : unmapPirq(hypervisor, slot, pirq);
};

/** A domain maps what it was given the right to itself; for another it takes a device model or the control domain. */
const resolveIrqDomain = (cpu: Cpu, domid: number): number =>
  resolveDomain(cpu, domid, domid === abi.DOMID_SELF || domid === cpu.domid ? "TARGET" : "DM_PRIV");

const freePirq = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(arg, physdev_get_free_pirq.sizeBytes)) return -EFAULT;
  const type = physdev_get_free_pirq.type.get(memory.scratch, 0);
  if (type < 0 || type > abi.MAP_PIRQ_TYPE_MULTI_MSI) return -EINVAL;
  const pirq = reservePirq(hypervisor, cpu.slot, type === abi.MAP_PIRQ_TYPE_GSI);
  if (pirq < 0) return pirq;
  if (memory.writeU32(arg + physdev_get_free_pirq.pirq.offset, pirq)) return 0;
  Atomics.store(hypervisor.pirqs.state, hypervisor.pirqs.row(cpu.slot, pirq), 0);
  return -EFAULT;
};

const eoiPage = (cpu: Cpu, arg: number, autoUnmask: boolean): number => {
  const gfn = cpu.memory.readU32(arg + physdev_pirq_eoi_gmfn.gmfn.offset);
  return gfn < 0 ? -EFAULT : setEoiPage(cpu.hypervisor, cpu.slot, gfn, autoUnmask);
};
