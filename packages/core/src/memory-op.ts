/**
 * memory_op: one handler per command. What is not in the table does not exist here (-ENOSYS): physical-to-machine lists
 * and hypervisor mappings (for guests that know machine frames), paging, access and sharing.
 */
import * as abi from "@xenolith/abi";
import type { Cpu, Handler } from "./cpu.ts";
import { exchangeOp } from "./memory-exchange.ts";
import { machineMemoryMapOp, memoryMapOp, setMemoryMapOp } from "./memory-map-op.ts";
import { addToPhysmapBatchOp, addToPhysmapOp, removeFromPhysmapOp } from "./memory-physmap-op.ts";
import * as query from "./memory-query.ts";
import { acquireResource } from "./memory-resource.ts";
import { decreaseReservation, increaseReservation, populatePhysmap } from "./memory-reservation.ts";

/** One command; `argument` is the guest address of its struct. */
type MemoryCommand = (cpu: Cpu, argument: number) => number;

const { EINVAL, ENOSYS, EOPNOTSUPP } = abi;

const commands: readonly (MemoryCommand | undefined)[] = Object.assign(new Array<undefined>(abi.MEMOP_CMD_MASK + 1), {
  [abi.XENMEM_increase_reservation]: increaseReservation,
  [abi.XENMEM_decrease_reservation]: decreaseReservation,
  [abi.XENMEM_maximum_ram_page]: query.maximumRamPage,
  [abi.XENMEM_current_reservation]: query.currentReservation,
  [abi.XENMEM_maximum_reservation]: query.maximumReservation,
  [abi.XENMEM_populate_physmap]: populatePhysmap,
  [abi.XENMEM_add_to_physmap]: addToPhysmapOp,
  [abi.XENMEM_memory_map]: memoryMapOp,
  [abi.XENMEM_machine_memory_map]: machineMemoryMapOp,
  [abi.XENMEM_exchange]: exchangeOp,
  [abi.XENMEM_set_memory_map]: setMemoryMapOp,
  [abi.XENMEM_maximum_gpfn]: query.maximumGpfn,
  [abi.XENMEM_remove_from_physmap]: removeFromPhysmapOp,
  [abi.XENMEM_set_pod_target]: query.setPodTarget,
  [abi.XENMEM_get_pod_target]: query.getPodTarget,
  [abi.XENMEM_get_sharing_freed_pages]: (): number => 0,
  [abi.XENMEM_get_sharing_shared_pages]: (): number => 0,
  [abi.XENMEM_add_to_physmap_batch]: addToPhysmapBatchOp,
  [abi.XENMEM_claim_pages]: query.claimPages,
  [abi.XENMEM_get_vnumainfo]: (): number => -EOPNOTSUPP,
  [abi.XENMEM_acquire_resource]: acquireResource,
});

/** memory_op(cmd, arg). Long operations are not continued by the guest: a cursor in `cmd` is -EINVAL. */
export const memoryOp: Handler = (cpu, command, argument) => {
  if (command > abi.MEMOP_CMD_MASK) return -EINVAL;
  return commands[command]?.(cpu, argument) ?? -ENOSYS;
};
