import { XenolithError } from "@xenolith/abi";
import type { XenstoreClient } from "./client.ts";
import { isXenstoreError } from "./client-error.ts";
import { domainPath } from "./path.ts";
import type { TreeAccess } from "./tree-access.ts";

// Both ends of a split device. Source: xen/include/public/io/xenbus.h, Linux's and mini-os's xenbus clients.

/** What one end says about itself in its `state` node. */
export const XenbusState = {
  Unknown: 0,
  Initialising: 1,
  InitWait: 2,
  Initialised: 3,
  Connected: 4,
  Closing: 5,
  Closed: 6,
  Reconfiguring: 7,
  Reconfigured: 8,
} as const;

/** One of {@link XenbusState}. */
export type XenbusState = (typeof XenbusState)[keyof typeof XenbusState];

const states: ReadonlyMap<string, XenbusState> = new Map(
  Object.values(XenbusState).map((state) => [String(state), state]),
);

/** A state out of a node that the other end may write: whatever is not one is `Unknown`. */
export const parseXenbusState = (value: string | undefined): XenbusState =>
  states.get(value ?? "") ?? XenbusState.Unknown;

/** Which device of two domains. */
export interface DeviceName {
  readonly type: string;
  readonly id: number;
  readonly frontDomid: number;
  readonly backDomid: number;
}

/** Where the front end keeps its nodes. */
export const frontPath = ({ type, id, frontDomid }: DeviceName): string =>
  `${domainPath(frontDomid)}/device/${type}/${id}`;

/** Where the back end keeps its nodes. */
export const backPath = ({ type, id, frontDomid, backDomid }: DeviceName): string =>
  `${domainPath(backDomid)}/backend/${type}/${frontDomid}/${id}`;

/** Nodes of one end besides those that every device has. */
export type DeviceNodes = Readonly<Record<string, string>>;

/**
 * Makes the nodes of a new device, both ends in state Initialising: each end owns its own and may read the other's. What
 * the back end must be able to trust belongs into `back`, which the front end cannot write (XSA-57).
 */
export const createDevice = async (
  client: XenstoreClient,
  name: DeviceName,
  nodes: { readonly front?: DeviceNodes; readonly back?: DeviceNodes } = {},
): Promise<void> => {
  const [front, back] = [frontPath(name), backPath(name)];
  const { frontDomid, backDomid } = name;
  const state = String(XenbusState.Initialising);
  await client.transaction(async (tree) => {
    await writeEnd(tree, { path: front, owner: frontDomid, reader: backDomid }, nodes.front ?? {}, {
      backend: back,
      "backend-id": String(backDomid),
      state,
    });
    await writeEnd(tree, { path: back, owner: backDomid, reader: frontDomid }, nodes.back ?? {}, {
      frontend: front,
      "frontend-id": String(frontDomid),
      state,
    });
  });
};

const writeEnd = async (
  tree: TreeAccess,
  end: { readonly path: string; readonly owner: number; readonly reader: number },
  own: DeviceNodes,
  common: DeviceNodes,
): Promise<void> => {
  await tree.mkdir(end.path);
  await tree.setPermissions(end.path, [
    { domid: end.owner, access: "n" },
    { domid: end.reader, access: "r" },
  ]);
  for (const [key, value] of Object.entries({ ...own, ...common })) await tree.write(`${end.path}/${key}`, value);
};

/** Removes the nodes of both ends. */
export const removeDevice = async (client: XenstoreClient, name: DeviceName): Promise<void> => {
  for (const path of [frontPath(name), backPath(name)]) {
    try {
      await client.rm(path);
    } catch (error) {
      if (!isXenstoreError(error, "ENOENT")) throw error;
    }
  }
};

/** One end of a device, as the control domain's code plays it. */
export class XenbusDevice {
  /** Directory of this end. */
  readonly path: string;
  /** Directory of the other end. */
  readonly otherEnd: string;
  readonly #client: XenstoreClient;

  constructor(client: XenstoreClient, ends: { readonly path: string; readonly otherEnd: string }) {
    this.#client = client;
    this.path = ends.path;
    this.otherEnd = ends.otherEnd;
  }

  /** The back end of a device. */
  static back(client: XenstoreClient, name: DeviceName): XenbusDevice {
    return new XenbusDevice(client, { path: backPath(name), otherEnd: frontPath(name) });
  }

  /** The front end of a device. */
  static front(client: XenstoreClient, name: DeviceName): XenbusDevice {
    return new XenbusDevice(client, { path: frontPath(name), otherEnd: backPath(name) });
  }

  /** The state of this end. */
  async state(): Promise<XenbusState> {
    return parseXenbusState(await this.#client.readIfPresent(`${this.path}/state`));
  }

  /** The state of the other end; `Unknown` when it is gone or says nonsense. */
  async otherState(): Promise<XenbusState> {
    return parseXenbusState(await this.#client.readIfPresent(`${this.otherEnd}/state`));
  }

  /** Says another state, unless it is the same or this end's nodes were removed. */
  async switchState(state: XenbusState): Promise<void> {
    await this.#client.transaction(async (tree) => {
      const current = await tree.readIfPresent(`${this.path}/state`);
      if (current !== undefined && current !== String(state)) await tree.write(`${this.path}/state`, String(state));
    });
  }

  /** A node of the other end, which can say anything. */
  readOther(key: string): Promise<string | undefined> {
    return this.#client.readIfPresent(`${this.otherEnd}/${key}`);
  }

  /** Sets a node of this end. */
  write(key: string, value: string): Promise<void> {
    return this.#client.write(`${this.path}/${key}`, value);
  }

  /** The states of the other end, now and whenever they change. A reader that is slow misses some in between. */
  async *watchOtherEnd(signal?: AbortSignal): AsyncGenerator<XenbusState, void> {
    const watcher = this.#client.watch(`${this.otherEnd}/state`, signal === undefined ? {} : { signal });
    try {
      let last: XenbusState | undefined;
      for await (const _ of watcher) {
        const state = await this.otherState();
        if (state !== last) yield state;
        last = state;
      }
    } finally {
      await watcher.close();
    }
  }

  /** Waits until the other end is in one of these states; returns which. `ABORTED`. */
  async waitForState(wanted: readonly XenbusState[], signal?: AbortSignal): Promise<XenbusState> {
    for await (const state of this.watchOtherEnd(signal)) if (wanted.includes(state)) return state;
    throw new XenolithError("ABORTED", `the watch of ${this.otherEnd} ended`);
  }
}

const { Unknown, Initialising, InitWait, Closing, Closed } = XenbusState;

/**
 * Shuts a front end down so that it can be connected again: Closing, Closed, Initialising, each when the back end has
 * followed. A back end that is gone counts as one that has. Source: mini-os, shutdown_blkfront.
 */
export const shutdownFrontend = async (device: XenbusDevice, signal?: AbortSignal): Promise<void> => {
  await device.switchState(Closing);
  await device.waitForState([Closing, Closed, Unknown], signal);
  await device.switchState(Closed);
  await device.waitForState([Closed, Unknown], signal);
  await device.switchState(Initialising);
  await device.waitForState([InitWait, Unknown], signal);
};
