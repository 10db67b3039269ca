/**
 * secret_op, a guest's way to secret memory: reads its structs once, checks, and lets guest-secrets.ts act. Called on the
 * control domain's thread for a vCPU that waits meanwhile. Answers are 0 or negative errnos; what is handed out is written
 * into the struct when all else is done.
 */
import {
  EFAULT,
  EINVAL,
  ENOENT,
  ENOSYS,
  ESRCH,
  xen_secret_accept,
  xen_secret_allocate,
  xen_secret_map,
  xen_secret_object,
  xen_secret_query,
  xen_secret_revoke,
  xen_secret_share,
  xen_secret_unmap,
  XENSECRET_accept,
  XENSECRET_allocate,
  XENSECRET_map,
  XENSECRET_query,
  XENSECRET_QUOTA,
  XENSECRET_READONLY,
  XENSECRET_release,
  XENSECRET_revoke,
  XENSECRET_seal,
  XENSECRET_share,
  XENSECRET_unmap,
} from "@xenolith/abi";
import type { GuestSecrets } from "./guest-secrets.ts";
import type { ServiceCall } from "./service-calls.ts";

/** What of a call matters here. */
type SecretCall = Pick<ServiceCall, "slot" | "command" | "argument" | "memory" | "signal">;

/** What one command does once its struct, `sizeBytes` long, lies at the start of `memory.scratch`. */
interface Command {
  readonly sizeBytes: number;
  /** Something is written into the struct: it must be writable before anything is done. */
  readonly hasOutput?: boolean;
  readonly act: (secrets: GuestSecrets, call: SecretCall, view: DataView) => number | Promise<number>;
}

/** Answers a secret_op. */
export const secretOp = (secrets: GuestSecrets, call: SecretCall): number | Promise<number> => {
  const { argument, memory } = call;
  const command = commands[call.command];
  if (command === undefined) return -ENOSYS;
  if (command.hasOutput === true && !memory.accessible(argument, command.sizeBytes, true)) return -EFAULT;
  return memory.fetch(argument, command.sizeBytes) ? command.act(secrets, call, memory.scratch) : -EFAULT;
};

const allocate = async (secrets: GuestSecrets, call: SecretCall, view: DataView): Promise<number> => {
  const { slot, argument, memory, signal } = call;
  const pages = xen_secret_allocate.pages.get(view, 0);
  if (xen_secret_allocate.flags.get(view, 0) !== 0) return -EINVAL;
  const id = await secrets.allocate(slot, pages);
  if (id >= 0 && signal.aborted) {
    // Its vCPU was ended: nobody would ever know of it.
    secrets.release(slot, id);
    return -ESRCH;
  }
  if (id < 0 || memory.writeU32(argument + xen_secret_allocate.id.offset, id)) return Math.min(id, 0);
  secrets.release(slot, id);
  return -EFAULT;
};

const map = (secrets: GuestSecrets, { slot }: SecretCall, view: DataView): number => {
  const flags = xen_secret_map.flags.get(view, 0);
  if ((flags & ~XENSECRET_READONLY) !== 0) return -EINVAL;
  return secrets.map(slot, xen_secret_map.id.get(view, 0), {
    gfn: xen_secret_map.gfn.get(view, 0),
    page: xen_secret_map.first_page.get(view, 0),
    count: xen_secret_map.pages.get(view, 0),
    isWritable: flags === 0,
  });
};

const share = (secrets: GuestSecrets, { slot }: SecretCall, view: DataView): number => {
  const flags = xen_secret_share.flags.get(view, 0);
  if ((flags & ~XENSECRET_READONLY) !== 0) return -EINVAL;
  return secrets.share(slot, xen_secret_share.id.get(view, 0), xen_secret_share.domid.get(view, 0), flags !== 0);
};

const accept = (secrets: GuestSecrets, { slot, argument, memory }: SecretCall, view: DataView): number => {
  const { domid, owner_id } = xen_secret_accept;
  const id = secrets.accept(slot, domid.get(view, 0), owner_id.get(view, 0));
  if (id < 0 || memory.writeU32(argument + xen_secret_accept.id.offset, id)) return Math.min(id, 0);
  secrets.release(slot, id);
  return -EFAULT;
};

const query = (secrets: GuestSecrets, { slot, argument, memory }: SecretCall, view: DataView): number => {
  const id = xen_secret_query.id.get(view, 0);
  const figures = secrets.query(slot, id === XENSECRET_QUOTA ? undefined : id);
  if (figures === undefined) return -ENOENT;
  xen_secret_query.flags.set(view, 0, figures.flags);
  xen_secret_query.pages.set(view, 0, figures.pages);
  xen_secret_query.objects.set(view, 0, figures.objects);
  xen_secret_query.objects_max.set(view, 0, figures.objectsMax);
  xen_secret_query.bytes_used.set(view, 0, figures.bytesUsed);
  xen_secret_query.bytes_mapped.set(view, 0, figures.bytesMapped);
  xen_secret_query.bytes_max.set(view, 0, figures.bytesMax);
  return memory.store(argument, xen_secret_query.sizeBytes) ? 0 : -EFAULT;
};

const commands: Readonly<Partial<Record<number, Command>>> = {
  [XENSECRET_allocate]: { sizeBytes: xen_secret_allocate.sizeBytes, hasOutput: true, act: allocate },
  [XENSECRET_map]: { sizeBytes: xen_secret_map.sizeBytes, act: map },
  [XENSECRET_unmap]: {
    sizeBytes: xen_secret_unmap.sizeBytes,
    act: (secrets, { slot }, view) =>
      secrets.unmap(slot, xen_secret_unmap.gfn.get(view, 0), xen_secret_unmap.pages.get(view, 0)),
  },
  [XENSECRET_seal]: {
    sizeBytes: xen_secret_object.sizeBytes,
    act: (secrets, { slot }, view) => secrets.seal(slot, xen_secret_object.id.get(view, 0)),
  },
  [XENSECRET_release]: {
    sizeBytes: xen_secret_object.sizeBytes,
    act: (secrets, { slot }, view) => secrets.release(slot, xen_secret_object.id.get(view, 0)),
  },
  [XENSECRET_share]: { sizeBytes: xen_secret_share.sizeBytes, act: share },
  [XENSECRET_accept]: { sizeBytes: xen_secret_accept.sizeBytes, hasOutput: true, act: accept },
  [XENSECRET_revoke]: {
    sizeBytes: xen_secret_revoke.sizeBytes,
    act: (secrets, { slot }, view) =>
      secrets.revoke(slot, xen_secret_revoke.id.get(view, 0), xen_secret_revoke.domid.get(view, 0)),
  },
  [XENSECRET_query]: { sizeBytes: xen_secret_query.sizeBytes, hasOutput: true, act: query },
};
