import { XenolithError } from "@xenolith/abi";
import type { XenstoreClient } from "./client.ts";
import { domainPath } from "./path.ts";

/** What the toolstack says about a domain. Source: xenstore-paths.pandoc. */
export interface DomainTree {
  readonly domid: number;
  readonly name: string;
  /** Identity across save, migration and reboot. */
  readonly uuid: string;
  readonly memory: { readonly staticMaxKib: number; readonly targetKib: number; readonly videoramKib?: number };
  readonly store?: { readonly port: number; readonly ringRef: number };
  readonly console?: {
    readonly port: number;
    readonly ringRef: number;
    readonly type: string;
    readonly limitBytes: number;
  };
}

/** Nodes of its home that a guest owns. Everything else there is the control domain's, and the guest may read it. */
export const guestOwnedNodes: readonly string[] = ["attr", "control/shutdown", "data", "drivers", "error"];

/** What a toolstack writes into `control/shutdown`; the guest clears it to say that it has seen it. */
export type ShutdownRequest = "poweroff" | "reboot" | "suspend" | "halt";

const nodesOf = ({ domid, name, uuid, memory, store, console }: DomainTree): Record<string, string | number> => ({
  domid,
  name,
  vm: `/vm/${uuid}`,
  "memory/static-max": memory.staticMaxKib,
  "memory/target": memory.targetKib,
  "memory/videoram": memory.videoramKib ?? 0,
  ...(store === undefined ? {} : { "store/port": store.port, "store/ring-ref": store.ringRef }),
  ...(console === undefined
    ? {}
    : {
        "console/port": console.port,
        "console/ring-ref": console.ringRef,
        "console/type": console.type,
        "console/limit": console.limitBytes,
      }),
});

/**
 * Writes the home of a new domain in one transaction. The daemon must know the domain (`createDomain`), or its
 * permissions name nobody. What steers a privileged reader (console, store) is not the guest's to write (XSA-57).
 */
export const writeDomainTree = async (client: XenstoreClient, tree: DomainTree): Promise<void> => {
  const { domid, uuid, name } = tree;
  const home = domainPath(domid);
  const guestMayRead = [
    { domid: 0, access: "n" },
    { domid, access: "r" },
  ] as const;
  await client.transaction(async (access) => {
    await access.rm(home);
    await access.mkdir(home);
    await access.setPermissions(home, guestMayRead);
    for (const [key, value] of Object.entries(nodesOf(tree))) await access.write(`${home}/${key}`, String(value));
    for (const key of ["control", "device"]) await access.mkdir(`${home}/${key}`);
    for (const key of guestOwnedNodes) {
      await access.mkdir(`${home}/${key}`);
      await access.setPermissions(`${home}/${key}`, [{ domid, access: "n" }]);
    }
    await access.mkdir(`/vm/${uuid}`);
    await access.setPermissions(`/vm/${uuid}`, guestMayRead);
    await access.write(`/vm/${uuid}/name`, name);
    await access.write(`/vm/${uuid}/uuid`, uuid);
  });
};

/** Removes the home of a domain and what `/vm` says of it. */
export const removeDomainTree = async (client: XenstoreClient, domid: number): Promise<void> => {
  const home = domainPath(domid);
  const vm = await client.readIfPresent(`${home}/vm`);
  await client.rm(home);
  if (vm !== undefined && /^\/vm\/[-A-Za-z0-9_]+$/.test(vm) && (await client.readIfPresent(vm)) !== undefined) {
    await client.rm(vm);
  }
};

/** Asks a guest to shut down, and waits until it has seen that. `ABORTED`. */
export const requestShutdown = async (
  client: XenstoreClient,
  domid: number,
  request: ShutdownRequest,
  signal?: AbortSignal,
): Promise<void> => {
  const path = `${domainPath(domid)}/control/shutdown`;
  await client.write(path, request);
  await using watcher = client.watch(path, signal === undefined ? {} : { signal });
  for await (const _ of watcher) if ((await client.readIfPresent(path)) !== request) return;
  throw new XenolithError("ABORTED", `the watch of ${path} ended`);
};
