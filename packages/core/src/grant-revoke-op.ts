/**
 * GNTTABOP_revoke, GNTTABOP_reset and GNTTABOP_unmap_notify: the hypercalls of grant-revoke.ts, grant-reset.ts and
 * grant-notify.ts. All three are extensions.
 */
import { EFAULT, gnttab_revoke, gnttab_unmap_notify } from "@xenolith/abi";
import { passGate } from "./block.ts";
import type { Cpu } from "./cpu.ts";
import { setUnmapNotify } from "./grant-notify.ts";
import { continueResetGrants, createResetCursor, RESET_GRANTS_MORE } from "./grant-reset.ts";
import { revokeGrant } from "./grant-revoke.ts";
import { perCaller } from "./per-caller.ts";

/** Entries done between two looks at whether the caller should pause. */
const SLICE_ENTRIES = 64;

/** GNTTABOP_revoke on `count` entries at `array`. 0, or -EFAULT. */
export const revokeOp = (cpu: Cpu, array: number, count: number): number => {
  const { hypervisor, memory } = cpu;
  for (let index = 0; index < count; index += 1) {
    if (index > 0 && index % SLICE_ENTRIES === 0) passGate(cpu);
    const at = array + index * gnttab_revoke.sizeBytes;
    if (!memory.fetch(at, gnttab_revoke.sizeBytes)) return -EFAULT;
    const status = revokeGrant(hypervisor, cpu.slot, gnttab_revoke.ref.get(memory.scratch, 0));
    if (!memory.writeU16(at + gnttab_revoke.status.offset, status & 0xffff)) return -EFAULT;
  }
  return 0;
};

const cursorOf = perCaller(createResetCursor);

/** GNTTABOP_reset. 0, -EBUSY: others still use plain grants of the caller's, -ENOMEM: the page table refused. */
export const resetOp = (cpu: Cpu): number => {
  const cursor = cursorOf(cpu);
  cursor.handle = -1;
  cursor.ref = -1;
  cursor.result = 0;
  for (;;) {
    const result = continueResetGrants(cpu.hypervisor, cpu.slot, cursor);
    if (result !== RESET_GRANTS_MORE) return result;
    passGate(cpu);
  }
};

/** GNTTABOP_unmap_notify on `count` entries at `array`. 0, or -EFAULT. The status is 0 or a negative errno. */
export const unmapNotifyOp = (cpu: Cpu, array: number, count: number): number => {
  const { hypervisor, memory } = cpu;
  for (let index = 0; index < count; index += 1) {
    if (index > 0 && index % SLICE_ENTRIES === 0) passGate(cpu);
    const at = array + index * gnttab_unmap_notify.sizeBytes;
    if (!memory.fetch(at, gnttab_unmap_notify.sizeBytes)) return -EFAULT;
    const view = memory.scratch;
    const target = gnttab_unmap_notify.target.get(view, 0);
    const action = gnttab_unmap_notify.action.get(view, 0);
    const offset = gnttab_unmap_notify.offset.get(view, 0);
    const port = gnttab_unmap_notify.port.get(view, 0);
    const result = setUnmapNotify(hypervisor, cpu.slot, target, action, offset, port);
    if (!memory.writeU16(at + gnttab_unmap_notify.status.offset, result & 0xffff)) return -EFAULT;
  }
  return 0;
};
