/**
 * grant_table_op: finds the command of an operation and checks what all of them have in common, in this order: the
 * number of entries, the bits of the command that are reserved, whether there is such a command, and whether its array
 * lies in the guest's address space. What fails in an entry is that entry's status, and no failure of the call.
 * Source: xen/include/public/grant_table.h.
 */
import * as abi from "@xenolith/abi";
import type { Cpu, Handler } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { copyGrantOp } from "./grant-copy.ts";
import { mapGrantOp, mapRevokableOp } from "./grant-map-op.ts";
import { resetOp, revokeOp, unmapNotifyOp } from "./grant-revoke-op.ts";
import * as setup from "./grant-setup.ts";
import { unmapAndReplaceOp, unmapGrantOp } from "./grant-unmap-op.ts";

/** One command on `count` entries at `array`. 0, or the errno of the whole call. */
export type GrantOperation = (cpu: Cpu, array: number, count: number) => number;

/** A command, and how long one entry is; 0: it takes one structure, whatever the count. */
interface GrantCommand {
  readonly run: GrantOperation;
  readonly entryBytes: number;
}

const { EFAULT, EINVAL, ENOSYS } = abi;

const COUNT_MAX = 0x7fff_ffff;
/** Commands are below this; the bits above are for continuations, which guests do not make. */
const COMMAND_END = 1 << 12;

const one = (run: GrantOperation): GrantCommand => ({ run, entryBytes: 0 });
const batch = (run: GrantOperation, entry: { readonly sizeBytes: number }): GrantCommand => ({
  run,
  entryBytes: entry.sizeBytes,
});

/** What is not here does not exist: dump_table, which was removed, and cache_flush, which other processors have. */
const commands: readonly (GrantCommand | undefined)[] = Object.assign(
  new Array<GrantCommand | undefined>(abi.GNTTABOP_unmap_notify + 1).fill(undefined),
  {
    [abi.GNTTABOP_map_grant_ref]: batch(mapGrantOp, abi.gnttab_map_grant_ref),
    [abi.GNTTABOP_unmap_grant_ref]: batch(unmapGrantOp, abi.gnttab_unmap_grant_ref),
    [abi.GNTTABOP_unmap_and_replace]: batch(unmapAndReplaceOp, abi.gnttab_unmap_and_replace),
    [abi.GNTTABOP_map_revokable]: batch(mapRevokableOp, abi.gnttab_map_revokable),
    [abi.GNTTABOP_revoke]: batch(revokeOp, abi.gnttab_revoke),
    [abi.GNTTABOP_reset]: one(resetOp),
    [abi.GNTTABOP_unmap_notify]: batch(unmapNotifyOp, abi.gnttab_unmap_notify),
    [abi.GNTTABOP_setup_table]: one(setup.setupTable),
    [abi.GNTTABOP_transfer]: batch(setup.transfer, abi.gnttab_transfer),
    [abi.GNTTABOP_copy]: batch(copyGrantOp, abi.gnttab_copy),
    [abi.GNTTABOP_query_size]: one(setup.querySize),
    [abi.GNTTABOP_set_version]: one(setup.setVersion),
    [abi.GNTTABOP_get_status_frames]: one(setup.getStatusFrames),
    [abi.GNTTABOP_get_version]: one(setup.getVersion),
    [abi.GNTTABOP_swap_grant_ref]: batch(setup.swapGrantRefs, abi.gnttab_swap_grant_ref),
  },
);

/** grant_table_op(cmd, array, count). */
export const grantTableOp: Handler = (cpu, command, array, count) => {
  if (count > COUNT_MAX || command >= COMMAND_END) return -EINVAL;
  const found = command < commands.length ? commands[command] : undefined;
  if (found === undefined) return -ENOSYS;
  if (array + count * found.entryBytes > cpu.hypervisor.p2m.gfnCount * FRAME_BYTES) return -EFAULT;
  return found.run(cpu, array, count);
};
