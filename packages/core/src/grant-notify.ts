/**
 * Unmap notifications: a byte of the shared page that becomes 0 just before a mapping goes, and an event that is sent
 * when it is gone, so that the other side learns that its peer has ended, however it ended. A request belongs to a
 * mapping (gntdev's form) or to a reference of the owner's table (gntalloc's form, for when the owner ends).
 *
 * A page that its granter may take back at any time can promise neither, so requests for one are refused.
 *
 * One word: bits 0-1 UNMAP_NOTIFY_*, 2-13 the byte's offset, 14-31 the port.
 */
import {
  EINVAL,
  ENOENT,
  EVTCHNSTAT_interdomain,
  EVTCHNSTAT_unbound,
  GNTMAP_readonly,
  GTF_permit_access,
  GTF_revokable,
  GTF_type_mask,
  UNMAP_NOTIFY_CLEAR_BYTE,
  UNMAP_NOTIFY_REF,
  UNMAP_NOTIFY_SEND_EVENT,
} from "@xenolith/abi";
import { FRAME_BYTES } from "./direct-map.ts";
import { sendPort } from "./event-delivery.ts";
import { portIsXen, portKind } from "./event-table.ts";
import { GRANT_MODE_PLAIN } from "./grant-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { MAPPING_FLAG_EXTENT, MAPPING_FLAG_REVOKABLE, MAPPING_LIVE } from "./maptrack-table.ts";
import { p2mType, P2M_RAM } from "./p2m.ts";

const ACTIONS = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT;
const OFFSET_SHIFT = 2;
const PORT_SHIFT = 14;

/**
 * Notes what the domain in `slot` wants done when `target` ends: a handle, or with UNMAP_NOTIFY_REF a reference of its
 * own table. `action` is UNMAP_NOTIFY_*; without CLEAR_BYTE and SEND_EVENT an earlier request is removed, else it is
 * replaced. 0, -EINVAL: unknown action, `offset` not in the page, `port` not one that it sends to another domain through,
 * a byte of a page that is mapped for reading, or a revokable grant; -ENOENT: no such mapping or grant.
 *
 * A port that nobody has bound yet will do, as a server has it when it opens: the event goes to whoever has bound it when it
 * is sent, and nowhere while nobody has.
 */
export const setUnmapNotify = (
  hypervisor: Hypervisor,
  slot: number,
  target: number,
  action: number,
  offset: number,
  port: number,
): number => {
  const { events } = hypervisor;
  if ((action & ~(ACTIONS | UNMAP_NOTIFY_REF)) !== 0 || offset >= FRAME_BYTES) return -EINVAL;
  if ((action & UNMAP_NOTIFY_SEND_EVENT) !== 0) {
    const word = port < events.portsPerDomain ? events.load(slot, port) : 0;
    const kind = portKind(word);
    const leadsOut = kind === EVTCHNSTAT_interdomain || kind === EVTCHNSTAT_unbound;
    if (!leadsOut || portIsXen(word)) return -EINVAL;
  }
  const actions = action & ACTIONS;
  const kept = (actions & UNMAP_NOTIFY_SEND_EVENT) === 0 ? 0 : port;
  const notify = actions === 0 ? 0 : (actions | (offset << OFFSET_SHIFT) | (kept << PORT_SHIFT)) >>> 0;
  return (action & UNMAP_NOTIFY_REF) === 0
    ? notifyOfMapping(hypervisor, slot, target, notify)
    : notifyOfRef(hypervisor, slot, target, notify);
};

const notifyOfMapping = (hypervisor: Hypervisor, slot: number, handle: number, notify: number): number => {
  const { locks, maptrack } = hypervisor;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const row = maptrack.row(slot, handle);
  const flags = row < 0 ? 0 : maptrack.flags[row]!;
  const isOwn = row >= 0 && (flags & MAPPING_FLAG_EXTENT) === 0;
  let result = 0;
  if (isOwn && maptrack.state[row] !== 0 && (flags & MAPPING_FLAG_REVOKABLE) !== 0) result = -EINVAL;
  else if (!isOwn || maptrack.state[row] !== MAPPING_LIVE) result = -ENOENT;
  else if ((notify & UNMAP_NOTIFY_CLEAR_BYTE) !== 0 && (flags & GNTMAP_readonly) !== 0) result = -EINVAL;
  if (result === 0) maptrack.notify[row] = notify;
  locks.release(lock);
  return result;
};

const notifyOfRef = (hypervisor: Hypervisor, slot: number, ref: number, notify: number): number => {
  const { directMap, grants, locks } = hypervisor;
  const lock = locks.id("grantTable", slot);
  locks.acquire(lock);
  let result = -ENOENT;
  if (ref < grants.refCount(slot)) {
    const row = grants.row(slot, ref);
    const flags = directMap.loadU32(grants.entryAddress(slot, ref));
    const isPinned = grants.pin[row] !== 0;
    const isRevokable = isPinned ? grants.mode[row] !== GRANT_MODE_PLAIN : (flags & GTF_revokable) !== 0;
    const isGranted = isPinned || (flags & GTF_type_mask) === GTF_permit_access;
    // What was asked for a reference that is granted no more can still be taken back.
    if (isGranted || notify === 0) result = isRevokable && notify !== 0 ? -EINVAL : 0;
    if (result === 0) grants.notify[row] = notify;
  }
  locks.release(lock);
  return result;
};

/** Clears the byte of `notify`, if it names one, in frame `mfn`, which is still mapped or owned. */
export const clearNotified = (hypervisor: Hypervisor, notify: number, mfn: number): void => {
  if ((notify & UNMAP_NOTIFY_CLEAR_BYTE) === 0) return;
  const offset = (notify >>> OFFSET_SHIFT) & (FRAME_BYTES - 1);
  hypervisor.directMap.atomicStoreU8(mfn * FRAME_BYTES + offset, 0);
};

/** Sends the event of `notify`, if it names a port, as the domain in `slot`. */
export const sendNotified = (hypervisor: Hypervisor, slot: number, notify: number): void => {
  if ((notify & UNMAP_NOTIFY_SEND_EVENT) !== 0) sendPort(hypervisor, slot, notify >>> PORT_SHIFT);
};

/**
 * Does what was asked for reference `ref` of the domain in `slot`, and forgets it: the owner lets go of the page. The
 * byte is cleared in the frame that is in use, or else in the one that the entry names, if that is the owner's RAM.
 */
export const fireRefNotify = (hypervisor: Hypervisor, slot: number, ref: number): void => {
  const { directMap, grants, locks, p2m } = hypervisor;
  const home = locks.id("p2m", slot);
  const table = locks.id("grantTable", slot);
  locks.acquire(home);
  locks.acquire(table);
  let notify = 0;
  if (ref < grants.refCount(slot)) {
    const row = grants.row(slot, ref);
    notify = grants.notify[row]!;
    grants.notify[row] = 0;
    const entry = p2m.get(slot, directMap.loadU32(grants.entryAddress(slot, ref) + 4));
    const pinned = grants.pin[row] === 0 ? -1 : grants.frame[row]! - 1;
    if (pinned >= 0) clearNotified(hypervisor, notify, pinned);
    else if (p2mType(entry) === P2M_RAM) clearNotified(hypervisor, notify, entry >>> 4);
  }
  locks.release(table);
  locks.release(home);
  sendNotified(hypervisor, slot, notify);
};
