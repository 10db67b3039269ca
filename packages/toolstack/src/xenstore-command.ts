/**
 * `xl xenstore`: what the tools of Xen call xenstore-ls, -list, -read, -write, -rm, -chmod, -watch and -exists, over the
 * daemon's Unix socket. Exits with 0; 1 when the store refuses or a node does not exist; 125 when xl itself fails.
 */
import { setMaxListeners } from "node:events";
import { XenolithError } from "@xenolith/abi/error";
import type { NodePermission, XenstoreClient } from "@xenolith/xenstore";
import { defaultXenstoreSocket } from "./runtime-directory.ts";
import { complain, EXIT_REFUSED } from "./terminal.ts";
import { formatNode, formatPermissions, formatValue, type ListedNode } from "./xenstore-format.ts";

/** Options of every command here. */
export interface XenstoreFlags {
  readonly socket?: string;
  readonly json?: boolean;
}

/** Options of `ls`. */
export interface ListingFlags extends XenstoreFlags {
  readonly full?: boolean;
  readonly permissions?: boolean;
}

/** Options of `read`. */
export interface ReadFlags extends XenstoreFlags {
  readonly raw?: boolean;
}

/** Options of `watch`. */
export interface WatchFlags extends XenstoreFlags {
  readonly count?: string;
}

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

const print = (line: string): void => void process.stdout.write(`${line}\n`);
const printJson = (value: unknown): void => print(JSON.stringify(value));

/** Connects, does something, and says what the store refused. */
const withClient = async (
  flags: XenstoreFlags,
  action: (client: XenstoreClient, module: typeof import("@xenolith/xenstore")) => Promise<number>,
): Promise<number> => {
  const module = await import("@xenolith/xenstore");
  const path = flags.socket ?? defaultXenstoreSocket();
  await using client = await connect(module, path);
  try {
    return await action(client, module);
  } catch (error) {
    if (!(error instanceof module.XenstoreError)) throw error;
    complain(error.message);
    return EXIT_REFUSED;
  }
};

const connect = async (module: typeof import("@xenolith/xenstore"), path: string): Promise<XenstoreClient> => {
  try {
    return await module.XenstoreClient.connect(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError(
      "SYSTEM_CALL",
      `${reason}: no xenstore is served there; xl run --xenstore-socket PATH serves one, --socket PATH names it`,
      { cause },
    );
  }
};

/** `xl xenstore ls`. */
export const xenstoreLs = (path: string, flags: ListingFlags): Promise<number> =>
  withClient(flags, async (client, module) => {
    const tree: Record<string, unknown> = {};
    for await (const node of walk(client, module, path, flags.permissions === true)) {
      if (flags.json !== true) print(formatNode(node, flags.full === true));
      else tree[node.path] = jsonOf(node);
    }
    if (flags.json === true) printJson(tree);
    return 0;
  });

const jsonOf = ({ value, permissions }: ListedNode): unknown => {
  const text = formatValue(value);
  return permissions === undefined ? text : { value: text, permissions: formatPermissions(permissions) };
};

/** All nodes below a path, parents first. Nodes that go away meanwhile are left out. */
async function* walk(
  client: XenstoreClient,
  module: typeof import("@xenolith/xenstore"),
  path: string,
  withPermissions: boolean,
): AsyncGenerator<ListedNode, void, undefined> {
  const left = childrenOf(path, await client.directory(path), 0);
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    try {
      const value = await client.readBytes(next.path);
      const permissions = withPermissions ? await client.getPermissions(next.path) : undefined;
      yield { ...next, value, permissions };
      left.push(...childrenOf(next.path, await client.directory(next.path), next.depth + 1));
    } catch (error) {
      if (!module.isXenstoreError(error, "ENOENT")) throw error;
    }
  }
}

/** Children as places to look at, the first one last. */
const childrenOf = (path: string, names: readonly string[], depth: number): { path: string; depth: number }[] =>
  names.map((name) => ({ path: path === "/" ? `/${name}` : `${path}/${name}`, depth })).toReversed();

/** `xl xenstore list`. */
export const xenstoreList = (paths: readonly string[], flags: XenstoreFlags): Promise<number> =>
  withClient(flags, async (client) => {
    const lists: Record<string, readonly string[]> = {};
    for (const path of paths) {
      lists[path] = await client.directory(path);
      if (flags.json !== true) for (const name of lists[path]) print(name);
    }
    if (flags.json === true) printJson(lists);
    return 0;
  });

/** `xl xenstore read`. */
export const xenstoreRead = (paths: readonly string[], flags: ReadFlags): Promise<number> =>
  withClient(flags, async (client) => {
    const values: Record<string, string> = {};
    for (const path of paths) {
      const value = await client.readBytes(path);
      values[path] = formatValue(value);
      if (flags.raw === true) process.stdout.write(value);
      else if (flags.json !== true) print(values[path]);
    }
    if (flags.json === true) printJson(values);
    return 0;
  });

/** `xl xenstore write`: path and value in turn, all or none. */
export const xenstoreWrite = (words: readonly string[], flags: XenstoreFlags): Promise<number> => {
  if (words.length % 2 !== 0) {
    throw new XenolithError("CONFIG_INVALID", `path "${words.at(-1)}" has no value: write takes PATH VALUE in turn`);
  }
  return withClient(flags, async (client) => {
    await client.transaction(async (tree) => {
      for (let at = 0; at < words.length; at += 2) await tree.write(words[at]!, words[at + 1]!);
    });
    return 0;
  });
};

/** `xl xenstore rm`. A node that is not there is refused, as xenstore-rm does. */
export const xenstoreRm = (paths: readonly string[], flags: XenstoreFlags): Promise<number> =>
  withClient(flags, async (client) => {
    await client.transaction(async (tree) => {
      for (const path of paths) {
        await tree.readBytes(path);
        await tree.rm(path);
      }
    });
    return 0;
  });

/** `xl xenstore chmod`. */
export const xenstoreChmod = (path: string, modes: readonly string[], flags: XenstoreFlags): Promise<number> => {
  const entries = modes.map(parseMode);
  return withClient(flags, async (client) => {
    await client.setPermissions(path, entries);
    return 0;
  });
};

const parseMode = (mode: string): NodePermission => {
  const [, access, domid] = /^([nrwb])(\d{1,5})$/.exec(mode) ?? [];
  if (domid === undefined || (access !== "n" && access !== "r" && access !== "w" && access !== "b")) {
    throw new XenolithError("CONFIG_INVALID", `mode "${mode}" is not n, r, w or b and a domid, as in n0 or r5`);
  }
  return { access, domid: Number(domid) };
};

/** `xl xenstore exists`. */
export const xenstoreExists = (paths: readonly string[], flags: XenstoreFlags): Promise<number> =>
  withClient(flags, async (client) => {
    const found: Record<string, boolean> = {};
    for (const path of paths) found[path] = (await client.readIfPresent(path)) !== undefined;
    if (flags.json === true) printJson(found);
    return Object.values(found).every(Boolean) ? 0 : EXIT_REFUSED;
  });

/** `xl xenstore watch`: the path of each event, until `--count` of them or a signal. */
export const xenstoreWatch = (paths: readonly string[], flags: WatchFlags): Promise<number> => {
  const countMax = flags.count === undefined ? Infinity : Number(flags.count);
  if (!(countMax >= 1) || (countMax !== Infinity && !Number.isInteger(countMax))) {
    throw new XenolithError("CONFIG_INVALID", `count is "${flags.count}", it must be a whole number from 1`);
  }
  return withClient(flags, async (client) => {
    const end = new AbortController();
    setMaxListeners(paths.length + 1, end.signal);
    const stop = (): void => end.abort();
    for (const signal of SIGNALS) process.once(signal, stop);
    let count = 0;
    const follow = async (path: string): Promise<void> => {
      for await (const event of client.watch(path, { signal: end.signal })) {
        if (count >= countMax) return;
        count += 1;
        if (flags.json === true) printJson({ path: event, watch: path });
        else print(event);
        if (count >= countMax) end.abort();
      }
    };
    try {
      await Promise.all(paths.map(follow));
    } catch (error) {
      if (!end.signal.aborted) throw error;
    } finally {
      for (const signal of SIGNALS) process.off(signal, stop);
    }
    return 0;
  });
};
