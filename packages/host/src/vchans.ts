/**
 * Opening vchans in the control domain, as their server or their client. Layout and negotiation are libxenvchan's; the
 * revokable mode is ours (guest/include/xenolith/vchan.h).
 */
import { XenolithError } from "@xenolith/abi";
import type { NodePermission, TreeAccess, XenstoreClient } from "@xenolith/xenstore";
import { type ActionOptions, bounded, checkBounds } from "./action.ts";
import type { Dom0Events } from "./dom0-events.ts";
import type { HostGrants } from "./grants.ts";
import type { GrantedPages } from "./grants-share.ts";
import type { MappedGrants } from "./grants-map.ts";
import { Vchan } from "./vchan.ts";
import {
  areOrdersPossible,
  chooseOrders,
  CLI_LIVE,
  CLI_NOTIFY,
  GRANTS_WORD,
  LEFT_ORDER,
  LIVE_WAITING,
  NOTIFY_WRITE,
  PAGE_BYTES,
  pagesOfOrder,
  RIGHT_ORDER,
  SRV_LIVE,
  SRV_NOTIFY,
  VchanRings,
} from "./vchan-ring.ts";

/** What is offered. */
export interface VchanOffer {
  /** Least sizes of the rings, at most 1 MiB each: from the client, and to it. 64 KiB each by default. */
  readonly leftBytes?: number;
  readonly rightBytes?: number;
  /** The memory can be taken back from the client at any time. It has to know how to bear that. */
  readonly revokable?: boolean;
}

/** What channels are made with. */
export interface VchansParts {
  readonly events: Dom0Events;
  readonly grants: HostGrants;
  readonly xenstore: () => Promise<XenstoreClient>;
}

const RING_BYTES_DEFAULT = 65_536;

/** What a client finds in the xenstore. */
interface Invitation {
  readonly ringRef: number;
  readonly port: number;
  /** 0: not revokable. */
  readonly epoch: number;
}

/** Channels of the control domain. Reached as `Host.vchans`. */
export class HostVchans {
  readonly #parts: VchansParts;
  /** Numbers epochs. */
  #serial = 0;

  constructor(parts: VchansParts) {
    this.#parts = parts;
  }

  /**
   * Offers a channel to the domain called `domid` at `path` in the xenstore, and does not wait for it to come
   * (`Vchan.opened` does).
   *
   * @throws XenolithError `INVALID_SIZE`, `DOMAIN_NOT_FOUND`, `GRANT_LIMIT`, `MEMORY_EXHAUSTED`, `HYPERCALL_FAILED`,
   * `HOST_CLOSED`; XenstoreError.
   */
  async serve(domid: number, path: string, offer: VchanOffer = {}): Promise<Vchan> {
    const { events, grants } = this.#parts;
    const { leftBytes = RING_BYTES_DEFAULT, rightBytes = RING_BYTES_DEFAULT, revokable = false } = offer;
    const orders = checkSizes(leftBytes, rightBytes);
    const xenstore = await this.#parts.xenstore();
    const pages = 1 + pagesOfOrder(orders.left) + pagesOfOrder(orders.right) + Number(revokable);
    // Kept: a client that has gone may have written what is still to be read.
    const granted = grants.share(domid, { pages, revokable, keep: true });
    let port = 0;
    try {
      port = events.allocateUnbound(domid);
      const epoch = revokable ? this.#newEpoch() : 0;
      const channel = serverEnd({ granted, events, port, domid, orders, epoch }, () =>
        withdraw(xenstore, path, revokable),
      );
      await publish(xenstore, path, domid, { ringRef: granted.refs[0]!, port, epoch });
      return channel;
    } catch (error) {
      if (port !== 0) events.close(port);
      void granted.end();
      throw error;
    }
  }

  /**
   * Connects to the channel that the domain called `domid` offers at `path`; waits until it is offered.
   *
   * @throws XenolithError `CHANNEL_BROKEN` (what is offered cannot be), `CHANNEL_CLOSED`, `HYPERCALL_FAILED`, `TIMEOUT`,
   * `ABORTED`, `HOST_CLOSED`; XenstoreError.
   */
  async connect(domid: number, path: string, options: ActionOptions = {}): Promise<Vchan> {
    const what = `connection to the channel at ${path}`;
    checkBounds(what, options);
    const xenstore = await this.#parts.xenstore();
    const stop = new AbortController();
    const invitation = await bounded(what, findInvitation(xenstore, path, stop.signal), options, () => stop.abort());
    return this.#join(domid, path, invitation);
  }

  #join(domid: number, path: string, { ringRef, port: remotePort, epoch }: Invitation): Vchan {
    const { events, grants } = this.#parts;
    const revokable = epoch !== 0;
    if (ringRef === 0 || remotePort === 0) throw broken(domid, `${path} says reference ${ringRef}, port ${remotePort}`);
    const maps: MappedGrants[] = [];
    const map = (refs: readonly number[], readOnly: boolean): Uint8Array<SharedArrayBuffer> => {
      if (refs.length === 0) return new Uint8Array(new SharedArrayBuffer(0));
      const mapped = grants.map(domid, refs, { readOnly, revokable });
      maps.push(mapped);
      return mapped.bytes;
    };
    const port = events.bindInterdomain(domid, remotePort);
    try {
      return clientEnd({ events, port, domid, epoch, maps, map, control: map([ringRef], false) });
    } catch (error) {
      for (const mapped of maps) mapped.unmap();
      events.close(port);
      throw error;
    }
  }

  /** A number that is not 0 and that no channel of ours had for a long time. */
  #newEpoch(): number {
    this.#serial += 1;
    return (Math.imul(Date.now() | 0, 2_654_435_761) + this.#serial) >>> 0 || 1;
  }
}

interface ServerParts {
  readonly granted: GrantedPages;
  readonly events: Dom0Events;
  readonly port: number;
  readonly domid: number;
  readonly orders: { readonly left: number; readonly right: number };
  /** 0: not revokable. */
  readonly epoch: number;
}

/** Pages in the order of their references: control page, left ring, right ring, and in revokable mode the guard (R2). */
const serverEnd = (parts: ServerParts, withdrawn: () => Promise<void>): Vchan => {
  const { granted, events, port, domid, orders, epoch } = parts;
  const { bytes, refs } = granted;
  const control = bytes.subarray(0, PAGE_BYTES);
  const rightPage = 1 + pagesOfOrder(orders.left);
  const endPage = rightPage + pagesOfOrder(orders.right);
  // Before anything else: however this process lets go of the page, the client is told.
  if (epoch === 0) granted.notifyOnEnd({ clearByte: SRV_LIVE });
  const words = new Uint32Array(control.buffer, control.byteOffset, PAGE_BYTES / 4);
  const halves = new Uint16Array(control.buffer, control.byteOffset, PAGE_BYTES / 2);
  words.set(refs.slice(1, endPage), GRANTS_WORD);
  halves[LEFT_ORDER / 2] = orders.left;
  halves[RIGHT_ORDER / 2] = orders.right;
  const epochWord = GRANTS_WORD + endPage - 1;
  if (epoch !== 0) {
    new Uint32Array(bytes.buffer, bytes.byteOffset + endPage * PAGE_BYTES, 1)[0] = epoch;
    words.set([epoch, refs[endPage]!], epochWord);
  }
  control[CLI_NOTIFY] = NOTIFY_WRITE;
  control[CLI_LIVE] = LIVE_WAITING;
  Atomics.store(control, SRV_LIVE, 1);
  const rings = new VchanRings({
    isServer: true,
    control,
    left: bytes.subarray(PAGE_BYTES, rightPage * PAGE_BYTES),
    right: bytes.subarray(rightPage * PAGE_BYTES, endPage * PAGE_BYTES),
    leftOrder: orders.left,
    rightOrder: orders.right,
  });
  let isOrphaned = false;
  granted.events.on("orphaned", () => (isOrphaned = true));
  const revoke = (): void => {
    Atomics.store(control, SRV_LIVE, 0);
    Atomics.store(words, epochWord, 0);
    granted.revoke(refs[0]);
    granted.revoke();
    Atomics.store(control, CLI_LIVE, 0);
  };
  return new Vchan({
    rings,
    events,
    port,
    domid,
    isRevokable: epoch !== 0,
    isReachable: () => !isOrphaned && (epoch === 0 || granted.isInUse),
    revoke: epoch === 0 ? undefined : revoke,
    release: async () => {
      Atomics.store(control, SRV_LIVE, 0);
      if (epoch !== 0) revoke();
      // A plain channel's pages are given back when the client has unmapped them, which nobody waits for.
      void granted.end();
      await withdrawn();
    },
  });
};

interface ClientParts {
  readonly events: Dom0Events;
  readonly port: number;
  readonly domid: number;
  readonly epoch: number;
  /** Everything mapped so far. */
  readonly maps: MappedGrants[];
  readonly map: (refs: readonly number[], readOnly: boolean) => Uint8Array<SharedArrayBuffer>;
  readonly control: Uint8Array<SharedArrayBuffer>;
}

const clientEnd = (parts: ClientParts): Vchan => {
  const { events, port, domid, epoch, maps, map, control } = parts;
  // One copy of what the server wrote: it may write other things at any time.
  const seen = control.slice();
  const words = new Uint32Array(seen.buffer);
  const halves = new Uint16Array(seen.buffer);
  const leftOrder = halves[LEFT_ORDER / 2]!;
  const rightOrder = halves[RIGHT_ORDER / 2]!;
  if (!areOrdersPossible(leftOrder, rightOrder)) throw broken(domid, `rings of orders ${leftOrder} and ${rightOrder}`);
  if (epoch === 0) maps[0]!.unmapNotify({ clearByte: CLI_LIVE, port });
  const rightAt = GRANTS_WORD + pagesOfOrder(leftOrder);
  const end = rightAt + pagesOfOrder(rightOrder);
  const left = map([...words.subarray(GRANTS_WORD, rightAt)], false);
  const right = map([...words.subarray(rightAt, end)], true);
  const guard = epoch === 0 ? undefined : { value: epoch, word: end, guard: map([words[end + 1]!], true) };
  const rings = new VchanRings({
    isServer: false,
    control,
    left,
    right,
    leftOrder,
    rightOrder,
    ...(guard === undefined ? {} : { epoch: guard }),
  });
  if (rings.peerLive !== 1) throw new XenolithError("CHANNEL_CLOSED", `the channel's server, domain ${domid}, is gone`);
  let isOrphaned = false;
  maps[0]!.events.on("orphaned", () => (isOrphaned = true));
  Atomics.store(control, CLI_LIVE, 1);
  Atomics.store(control, SRV_NOTIFY, NOTIFY_WRITE);
  events.notify(port);
  return new Vchan({
    rings,
    events,
    port,
    domid,
    isRevokable: epoch !== 0,
    isReachable: () => !isOrphaned,
    revoke: undefined,
    release: async () => {
      for (const mapped of maps.slice(1)) mapped.unmap();
      Atomics.store(control, CLI_LIVE, 0);
      maps[0]!.unmap();
      await Promise.resolve();
    },
  });
};

const publish = (
  xenstore: XenstoreClient,
  path: string,
  domid: number,
  { ringRef, port, epoch }: Invitation,
): Promise<void> => {
  const access: readonly NodePermission[] = [
    { domid: 0, access: "n" },
    { domid, access: "r" },
  ];
  const nodes = [["ring-ref", ringRef], ["event-channel", port], ...(epoch === 0 ? [] : [["revokable", epoch]])];
  return xenstore.transaction(async (tree: TreeAccess) => {
    for (const [name, value] of nodes) {
      await tree.write(`${path}/${name}`, String(value));
      await tree.setPermissions(`${path}/${name}`, access);
    }
  });
};

/** The client may have gone first, and what it had with it. */
const withdraw = async (xenstore: XenstoreClient, path: string, revokable: boolean): Promise<void> => {
  for (const name of ["ring-ref", "event-channel", ...(revokable ? ["revokable"] : [])]) {
    await xenstore.rm(`${path}/${name}`).catch(() => {});
  }
};

const findInvitation = async (xenstore: XenstoreClient, path: string, signal: AbortSignal): Promise<Invitation> => {
  // The first event comes at once.
  for await (const changed of xenstore.watch(path, { signal })) {
    void changed;
    const invitation = await xenstore.transaction((tree) => readInvitation(tree, path));
    if (invitation !== undefined) return invitation;
  }
  throw new XenolithError("HOST_CLOSED", "the xenstore was closed");
};

/** What the nodes say; they are the other domain's, and may say anything. */
const readInvitation = async (tree: TreeAccess, path: string): Promise<Invitation | undefined> => {
  const texts = [];
  for (const name of ["ring-ref", "event-channel", "revokable"])
    texts.push(await tree.readIfPresent(`${path}/${name}`));
  const [ringRef, port, epoch = "0"] = texts;
  if (ringRef === undefined || port === undefined) return undefined;
  return { ringRef: numberOf(ringRef), port: numberOf(port), epoch: numberOf(epoch) };
};

const NUMBER = /^\d{1,10}$/;

/** 0, which is never valid, for whatever is no number of 32 bits. */
const numberOf = (text: string): number => {
  const value = NUMBER.test(text) ? Number(text) : 0;
  return value > 0xffff_ffff ? 0 : value;
};

const broken = (domid: number, problem: string): XenolithError =>
  new XenolithError("CHANNEL_BROKEN", `the channel that domain ${domid} offers cannot be: ${problem}`);

const checkSizes = (leftBytes: number, rightBytes: number): { readonly left: number; readonly right: number } => {
  const isSize = (bytes: number): boolean => Number.isInteger(bytes) && bytes >= 1;
  const orders = isSize(leftBytes) && isSize(rightBytes) ? chooseOrders(leftBytes, rightBytes) : undefined;
  if (orders !== undefined) return orders;
  throw new XenolithError(
    "INVALID_SIZE",
    `rings of ${leftBytes} and ${rightBytes} bytes, each must be 1 to ${2 ** 20}`,
  );
};
