/**
 * Nodes of xenstore that outlive the service: what programs of the control domain keep below `/tool`. Everything else
 * there is of this run: domains get new numbers and new homes. A node is written to the state before it is in xenstore.
 */
import { XENSTORE_PAYLOAD_MAX, XenolithError } from "@xenolith/abi";
import type { Host } from "@xenolith/host";
import type { LastingNode, Store } from "./store.ts";

/** Nodes that are kept at once. */
export const NODE_COUNT_MAX = 1024;
const PATH_LENGTH_MAX = 512;
const PATH = /^\/tool(?:\/[A-Za-z0-9_@:-]+)+$/;

/** The lasting nodes of one service. */
export class LastingNodes {
  readonly #store: Store;
  readonly #host: Host;

  constructor(store: Store, host: Host) {
    this.#store = store;
    this.#host = host;
  }

  /** All, by path. */
  list(): readonly LastingNode[] {
    return this.#store.nodes();
  }

  /** Writes all of them into xenstore, before any domain is there. */
  async restore(): Promise<void> {
    const nodes = this.list();
    if (nodes.length === 0) return;
    const xenstore = await this.#host.xenstore();
    for (const { path, value } of nodes) await xenstore.write(path, Buffer.from(value, "latin1"));
  }

  /**
   * Keeps a node, and writes it.
   *
   * @throws XenolithError `REQUEST_INVALID`: no path below /tool, `REQUEST_TOO_LARGE`, `STORE_FAILED`.
   */
  async put(path: string, value: Uint8Array): Promise<void> {
    checkPath(path);
    if (value.length > XENSTORE_PAYLOAD_MAX - path.length - 1) {
      throw new XenolithError(
        "REQUEST_TOO_LARGE",
        `path and value are ${path.length + 1 + value.length} bytes, the limit of a node is ${XENSTORE_PAYLOAD_MAX}`,
      );
    }
    const nodes = this.list();
    if (nodes.length >= NODE_COUNT_MAX && !nodes.some((node) => node.path === path))
      throw new XenolithError("INVALID_ARGUMENT", `there are ${NODE_COUNT_MAX} lasting nodes, which is the limit`);
    this.#store.change({ putNode: { path, value: Buffer.from(value).toString("latin1") } });
    const xenstore = await this.#host.xenstore();
    await xenstore.write(path, value);
  }

  /**
   * Forgets a node, and removes it with what is below it in xenstore; what is kept below it must be forgotten before.
   *
   * @throws XenolithError `REQUEST_INVALID`, `STORE_FAILED`.
   */
  async remove(path: string): Promise<void> {
    checkPath(path);
    const nodes = this.list();
    if (!nodes.some((node) => node.path === path))
      throw new XenolithError("REQUEST_INVALID", `no lasting node is at ${path}`);
    if (nodes.some((node) => node.path.startsWith(`${path}/`)))
      throw new XenolithError("REQUEST_INVALID", `lasting nodes are below ${path}: forget those first`);
    this.#store.change({ removeNode: path });
    const xenstore = await this.#host.xenstore();
    if ((await xenstore.readIfPresent(path)) !== undefined) await xenstore.rm(path);
  }
}

const checkPath = (path: string): void => {
  if (path.length <= PATH_LENGTH_MAX && PATH.test(path)) return;
  throw new XenolithError(
    "REQUEST_INVALID",
    `${JSON.stringify(path.slice(0, 100))} is no path below /tool of at most ${PATH_LENGTH_MAX} characters`,
  );
};
