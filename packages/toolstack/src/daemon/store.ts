/**
 * What the service keeps between its runs: definitions of domains, and nothing that the hypervisor knows. Every change is
 * one transaction that is on disk before the function returns, so what was acknowledged survives the service.
 */
import { mkdirSync, readFileSync, statfsSync } from "node:fs";
import path from "node:path";
import { XenolithError } from "@xenolith/abi";
import { open, type RootDatabase } from "lmdb";
import * as v from "valibot";

/** A definition as it is stored: the configuration as it was written, never a figure of the hypervisor's. */
export interface Definition {
  readonly name: string;
  /** Counts the changes; for `If-Match`. */
  readonly revision: number;
  /** Goes when its domain goes: it came with a domain that was created, and does not start by itself. */
  readonly isTransient: boolean;
  readonly config: Readonly<Record<string, unknown>>;
}

/** A node of xenstore that is there again when the service is. */
export interface LastingNode {
  readonly path: string;
  /** Any bytes, as latin1 text. */
  readonly value: string;
}

/** What one transaction changes. */
export interface StoreChange {
  readonly put?: Definition;
  readonly remove?: string;
  /** Nodes as they are to be, in order; without a value: neither it nor what is below it. */
  readonly nodes?: readonly { readonly path: string; readonly value: string | undefined }[];
}

/** Where the state is kept. */
export interface Store {
  /** All definitions, by name. */
  definitions(): readonly Definition[];
  get(name: string): Definition | undefined;
  /** Why the last change failed, if it did. */
  readonly problem: string | undefined;
  /**
   * Keeps what is put and forgets what is removed, together or not at all; on disk when it returns.
   *
   * @throws XenolithError `STORE_FAILED`: nothing has changed.
   */
  change(change: StoreChange): void;
  /** The lasting nodes of xenstore, by path. */
  nodes(): readonly LastingNode[];
  /** Releases the state for another service. May be called again. */
  close(): Promise<void>;
}

const FORMAT = 1;
/** Most that all definitions take together; address space, not memory. */
const MAP_BYTES = 256 * 2 ** 20;
/** A disk with less than this is full. */
const SPACE_BYTES_MIN = 64 * 1024;
const FILE = "state.mdb";
const OWNER = "owner";
const PREFIX = "definition/";
const PREFIX_END = "definition0";
const NODE_PREFIX = "xenstore/";
const NODE_PREFIX_END = "xenstore0";

const StoredDefinition = v.strictObject({
  format: v.literal(FORMAT),
  revision: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  isTransient: v.boolean(),
  config: v.record(v.string(), v.unknown()),
});

/** A store that ends with the process: for a service inside another program. */
export const memoryStore = (): Store => {
  const kept = new Map<string, Definition>();
  const nodes = new Map<string, LastingNode>();
  return {
    nodes: () => [...nodes.values()].toSorted((a, b) => (a.path < b.path ? -1 : 1)),
    definitions: () => [...kept.values()].toSorted(byName),
    get: (name) => kept.get(name),
    problem: undefined,
    change: ({ put, remove, nodes: changes = [] }) => {
      if (remove !== undefined) kept.delete(remove);
      if (put !== undefined) kept.set(put.name, put);
      for (const { path: at, value } of changes) {
        if (value !== undefined) nodes.set(at, { path: at, value });
        else for (const each of nodes.keys()) if (each === at || each.startsWith(`${at}/`)) nodes.delete(each);
      }
    },
    close: async () => {},
  };
};

/**
 * Opens the state in `directory`, which is made if there is none, for this process alone.
 *
 * @throws XenolithError `STORE_FAILED`, `SERVICE_RUNNING`: another process has it open.
 */
export const openStore = (directory: string): Store => {
  const database = openDatabase(directory);
  try {
    takeOwnership(database, directory);
    return storeOf(database, directory);
  } catch (error) {
    database.close().catch(() => {});
    throw error;
  }
};

const storeOf = (database: RootDatabase<string, string>, directory: string): Store => {
  let isClosed = false;
  let problem: string | undefined;
  // Nobody else writes it: what was read once and changed here is what is stored.
  const known = new Map(listDefinitions(database).map((definition) => [definition.name, definition]));
  return {
    definitions: () => [...known.values()].toSorted(byName),
    nodes: () => listNodes(database),
    get: (name) => known.get(name),
    get problem() {
      return problem;
    },
    change: (change) => {
      try {
        applyChange(database, change);
        problem = undefined;
        if (change.remove !== undefined) known.delete(change.remove);
        if (change.put !== undefined) known.set(change.put.name, change.put);
      } catch (cause) {
        const error = failure("write", directory, cause);
        problem = error.message;
        throw error;
      }
    },
    close: async () => {
      if (isClosed) return;
      isClosed = true;
      try {
        database.transactionSync(() => database.removeSync(OWNER));
      } catch {
        // The disk is full. The next service sees that this process is gone.
      }
      await database.close();
    },
  };
};

const byName = (a: Definition, b: Definition): number => (a.name < b.name ? -1 : 1);

const failure = (what: string, directory: string, cause: unknown): XenolithError => {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new XenolithError(
    "STORE_FAILED",
    `cannot ${what} the state in ${directory}: ${reason}${fullDisk(directory)}`,
    {
      cause,
    },
  );
};

/** A full disk comes out of the store as an error of its own, among others: this says it in words. */
const fullDisk = (directory: string): string => {
  try {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize < SPACE_BYTES_MIN ? ` (the disk is full: ${bavail * bsize} bytes are free)` : "";
  } catch {
    return "";
  }
};

const openDatabase = (directory: string): RootDatabase<string, string> => {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    // Commits reach the disk one by one: with overlapping flushes a commit would be acknowledged before that.
    return open<string, string>({
      path: path.join(directory, FILE),
      noSubdir: true,
      mapSize: MAP_BYTES,
      overlappingSync: false,
      encoding: "string",
    });
  } catch (cause) {
    throw failure("open", directory, cause);
  }
};

/** Writes down which process has the state, unless another one that lives does: in one transaction, so that one wins. */
const takeOwnership = (database: RootDatabase<string, string>, directory: string): void => {
  const me = `${process.pid} ${startOf(process.pid)}`;
  let other: string | undefined;
  try {
    other = database.transactionSync(() => {
      const owner = database.get(OWNER);
      if (owner !== undefined && owner !== me && isAlive(owner)) return owner;
      database.putSync(OWNER, me);
      return undefined;
    });
  } catch (cause) {
    throw failure("write", directory, cause);
  }
  if (other === undefined) return;
  throw new XenolithError("SERVICE_RUNNING", `process ${other.split(" ")[0]} uses the state in ${directory} already`);
};

/** A process's start in clock ticks since boot, and the boot: a pid alone is given out again. */
const startOf = (pid: number): string => {
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return `${fields[19]} ${boot}`;
};

const isAlive = (owner: string): boolean => {
  const pid = Number.parseInt(owner, 10);
  try {
    return `${pid} ${startOf(pid)}` === owner;
  } catch {
    return false;
  }
};

const listDefinitions = (database: RootDatabase<string, string>): readonly Definition[] =>
  [...database.getRange({ start: PREFIX, end: PREFIX_END })].map(({ key, value }) =>
    decode(key.slice(PREFIX.length), value),
  );

const decode = (name: string, text: string): Definition => {
  try {
    const { revision, isTransient, config } = v.parse(StoredDefinition, JSON.parse(text));
    return { name, revision, isTransient, config };
  } catch (cause) {
    throw new XenolithError("STORE_FAILED", `the stored definition of ${JSON.stringify(name)} is not readable`, {
      cause,
    });
  }
};

const listNodes = (database: RootDatabase<string, string>): readonly LastingNode[] =>
  [...database.getRange({ start: NODE_PREFIX, end: NODE_PREFIX_END })].map(({ key, value }) => ({
    path: key.slice(NODE_PREFIX.length),
    value: Buffer.from(value, "base64").toString("latin1"),
  }));

const applyChange = (database: RootDatabase<string, string>, { put, remove, nodes = [] }: StoreChange): void => {
  database.transactionSync(() => {
    for (const { path: at, value } of nodes) {
      const key = NODE_PREFIX + at;
      if (value !== undefined) database.putSync(key, Buffer.from(value, "latin1").toString("base64"));
      else
        for (const each of [key, ...database.getKeys({ start: `${key}/`, end: `${key}0` })]) database.removeSync(each);
    }
    if (remove !== undefined) database.removeSync(PREFIX + remove);
    if (put === undefined) return;
    const { name, revision, isTransient, config } = put;
    database.putSync(PREFIX + name, JSON.stringify({ format: FORMAT, revision, isTransient, config }));
  });
};
