/**
 * What the control domain asks for when one of its mappings, or its own use of a page that it shares, comes to an end.
 */
import {
  EINVAL,
  errnoName,
  UNMAP_NOTIFY_CLEAR_BYTE,
  UNMAP_NOTIFY_REF,
  UNMAP_NOTIFY_SEND_EVENT,
  XenolithError,
} from "@xenolith/abi";
import { DOM0_SLOT, type Hypervisor, setUnmapNotify } from "@xenolith/core";
import { FRAME_BYTES } from "./mmu.ts";

/** What is to happen at the end; nothing of both takes an earlier request back. */
export interface EndNotice {
  /** This byte, counted from the first page, becomes 0 just before. */
  readonly clearByte?: number;
  /** An event goes out through this port just after: one of the control domain's, bound by another or not yet. */
  readonly port?: number;
}

/** A request that the hypervisor has taken. */
export interface TakenNotice extends EndNotice {
  /** Page that it belongs to. */
  readonly index: number;
}

/** Who asks: pages whose handles, or own references, are `targets`. */
export interface NoticeParts {
  readonly hypervisor: Hypervisor;
  readonly targets: readonly number[];
  readonly isRef: boolean;
  readonly before: TakenNotice | undefined;
}

/**
 * Takes a request, in place of the one before.
 *
 * @throws XenolithError `INVALID_ARGUMENT`: no such byte, not a port to another domain, a byte that cannot be written. The request
 * before stays then.
 */
export const takeNotice = (parts: NoticeParts, notice: EndNotice): TakenNotice | undefined => {
  const { targets, before } = parts;
  const { clearByte, port } = notice;
  const lengthBytes = targets.length * FRAME_BYTES;
  if (clearByte !== undefined && !(Number.isInteger(clearByte) && clearByte >= 0 && clearByte < lengthBytes)) {
    throw new XenolithError("INVALID_ARGUMENT", `clearByte is ${clearByte}, it must be 0 to ${lengthBytes - 1}`);
  }
  const index = Math.floor((clearByte ?? 0) / FRAME_BYTES);
  const action =
    (clearByte === undefined ? 0 : UNMAP_NOTIFY_CLEAR_BYTE) | (port === undefined ? 0 : UNMAP_NOTIFY_SEND_EVENT);
  if (action !== 0) set(parts, index, action, notice);
  if (before !== undefined && (action === 0 || before.index !== index)) set(parts, before.index, 0, {});
  return action === 0 ? undefined : { ...notice, index };
};

const set = (parts: NoticeParts, index: number, action: number, { clearByte, port }: EndNotice): void => {
  const { hypervisor, targets, isRef } = parts;
  const form = isRef ? UNMAP_NOTIFY_REF : 0;
  const offset = (clearByte ?? 0) % FRAME_BYTES;
  const isPort = port === undefined || (Number.isInteger(port) && port >= 0);
  const word = (action | form) >>> 0;
  const result = isPort ? setUnmapNotify(hypervisor, DOM0_SLOT, targets[index]!, word, offset, port ?? 0) : -EINVAL;
  if (result === 0 || action === 0) return;
  throw new XenolithError(
    "INVALID_ARGUMENT",
    `a notification with clearByte ${clearByte ?? "none"} and port ${port ?? "none"} is refused: ` +
      `${errnoName(result) ?? result} (the port must be one to another domain, the page writable)`,
  );
};

/** Why a revokable grant takes no request. */
export const revokableRefusal = (): XenolithError =>
  new XenolithError(
    "INVALID_ARGUMENT",
    "a revokable grant has no notification of its end: whoever waits for it may no longer see the page",
  );
