/**
 * Nodes of xenstore that outlive the service: what programs of the control domain write below `/tool`, through the API, the
 * socket or `xl xenstore`. Everything else there is of this run: domains get new numbers and new homes. A change is in the
 * state before it is in xenstore, and before it is answered.
 */
import { XENSTORE_PAYLOAD_MAX, XenolithError } from "@xenolith/abi";
import type { Host } from "@xenolith/host";
import type { KeptChange, XenstoreErrorName } from "@xenolith/xenstore";
import type { LastingNode, Store } from "./store.ts";

const ROOT = "/tool";
/** Nodes that are kept at once. */
export const NODE_COUNT_MAX = 1024;
const PATH_LENGTH_MAX = 512;
const PATH = /^\/tool(?:\/[A-Za-z0-9_@:-]+)+$/;

/** The lasting nodes of one service. */
export class LastingNodes {
  readonly #store: Store;
  readonly #host: Host;
  /** Values by path, as they are stored. */
  readonly #known: Map<string, string>;
  #failure: unknown;

  /** Keeps what is written from now on. */
  constructor(store: Store, host: Host) {
    this.#store = store;
    this.#host = host;
    this.#known = new Map(store.nodes().map(({ path, value }) => [path, value]));
    host.keepXenstore({ path: ROOT, keep: (changes) => this.#keep(changes) });
  }

  /** All, by path. */
  list(): readonly LastingNode[] {
    return [...this.#known].map(([path, value]) => ({ path, value })).toSorted((a, b) => (a.path < b.path ? -1 : 1));
  }

  /** Keeps nothing any more. */
  close(): void {
    this.#host.keepXenstore(undefined);
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
    const xenstore = await this.#host.xenstore();
    await this.#orWhy(() => xenstore.write(path, value));
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
    const xenstore = await this.#host.xenstore();
    await this.#orWhy(() => xenstore.rm(path));
  }

  /** A refusal of xenstore has no room for the reason. */
  async #orWhy(change: () => Promise<void>): Promise<void> {
    this.#failure = undefined;
    try {
      await change();
    } catch (error) {
      throw this.#failure ?? error;
    }
  }

  #keep(changes: readonly KeptChange[]): XenstoreErrorName | undefined {
    const after = new Map(this.#known);
    const news: { path: string; value: string | undefined }[] = [];
    for (const { path, value: bytes } of changes) {
      const value = bytes === undefined ? undefined : Buffer.from(bytes).toString("latin1");
      if (value === undefined) {
        const gone = [...after.keys()].filter((each) => each === path || each.startsWith(`${path}/`));
        if (gone.length === 0) continue;
        for (const each of gone) after.delete(each);
      } else if (after.get(path) === value) continue;
      else if (path.length > PATH_LENGTH_MAX) return "ENOSPC";
      else after.set(path, value);
      news.push({ path, value });
    }
    if (after.size > NODE_COUNT_MAX) return "ENOSPC";
    return news.length === 0 ? undefined : this.#commit(news, after);
  }

  #commit(
    nodes: readonly { path: string; value: string | undefined }[],
    after: ReadonlyMap<string, string>,
  ): XenstoreErrorName | undefined {
    try {
      this.#store.change({ nodes });
    } catch (error) {
      this.#failure = error;
      return "EIO";
    }
    this.#known.clear();
    for (const [path, value] of after) this.#known.set(path, value);
    return undefined;
  }
}

const checkPath = (path: string): void => {
  if (path.length <= PATH_LENGTH_MAX && PATH.test(path)) return;
  throw new XenolithError(
    "REQUEST_INVALID",
    `${JSON.stringify(path.slice(0, 100))} is no path below /tool of at most ${PATH_LENGTH_MAX} characters`,
  );
};
