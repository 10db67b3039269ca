import { XENSTORE_PAYLOAD_MAX } from "@xenolith/abi";
import { listBytes, sliceNames } from "./name-tree.ts";
import type { StoreNode } from "./node.ts";
import { watchablePath } from "./path.ts";
import { formatPermissions, parsePermissions } from "./permissions.ts";
import { refuse, refused } from "./refusal.ts";
import { acknowledge, type Handler, numberIn, onlyPath, pathAndRest, pathOwner, stringsOf } from "./request.ts";
import { joinStrings, latinBytes } from "./wire.ts";

export const read: Handler = (request) => {
  const path = onlyPath(request);
  return refused(path) ? path : request.store.read(request.caller, path, request.transaction);
};

export const write: Handler = (request) => {
  const found = pathAndRest(request);
  if (refused(found)) return found;
  return acknowledge(request.store.write(request.caller, found.path, found.rest, request.transaction));
};

export const mkdir: Handler = (request) => {
  const path = onlyPath(request);
  return refused(path) ? path : acknowledge(request.store.mkdir(request.caller, path, request.transaction));
};

export const rm: Handler = (request) => {
  const path = onlyPath(request);
  return refused(path) ? path : acknowledge(request.store.remove(request.caller, path, request.transaction));
};

export const directory: Handler = (request) => {
  const path = onlyPath(request);
  if (refused(path)) return path;
  const node = request.store.list(request.caller, path, request.transaction);
  if (refused(node)) return node;
  if (listBytes(node.children) > XENSTORE_PAYLOAD_MAX) return refuse("E2BIG");
  return joinStrings(sliceNames(node.children, 0, XENSTORE_PAYLOAD_MAX).names);
};

/** Changes whenever the list of children does. */
const generationOf = (node: StoreNode): string => String(Math.max(node.generation, node.listGeneration));

/** The list from a byte offset on; an empty string more says that this was the end. Source: xenstore.txt. */
export const directoryPart: Handler = (request) => {
  const strings = stringsOf(request, 2);
  if (refused(strings)) return strings;
  const path = watchablePath(strings[0]!, pathOwner(request));
  const offset = numberIn(strings[1]);
  if (refused(path)) return path;
  if (offset === undefined) return refuse("EINVAL");
  const node = request.store.list(request.caller, path, request.transaction);
  if (refused(node)) return node;
  const generation = generationOf(node);
  const room = XENSTORE_PAYLOAD_MAX - generation.length - 2;
  const { names, last } = sliceNames(node.children, offset, room);
  return joinStrings([generation, ...names, ...(last ? [""] : [])]);
};

export const getPermissions: Handler = (request) => {
  const strings = stringsOf(request, 1);
  if (refused(strings)) return strings;
  const path = watchablePath(strings[0]!, pathOwner(request));
  if (refused(path)) return path;
  const permissions = request.store.permissions(request.caller, path, request.transaction);
  return refused(permissions) ? permissions : joinStrings(formatPermissions(permissions, request.store.domains.isLive));
};

export const setPermissions: Handler = (request) => {
  const strings = stringsOf(request, 2, XENSTORE_PAYLOAD_MAX);
  if (refused(strings)) return strings;
  const [written, ...entries] = strings;
  const path = watchablePath(written!, pathOwner(request));
  if (refused(path)) return path;
  const { domains } = request.store;
  if (entries.length > domains.limit(request.caller, "node-permissions")) return refuse("ENOSPC");
  const permissions = parsePermissions(entries, domains.incarnationOf);
  if (refused(permissions)) return permissions;
  return acknowledge(request.store.setPermissions(request.caller, path, permissions, request.transaction));
};

export const transactionStart: Handler = (request) => {
  const strings = stringsOf(request, 1);
  if (refused(strings)) return strings;
  if (request.transactionId !== 0) return refuse("EBUSY");
  const transaction = request.store.begin(request.caller);
  if (refused(transaction)) return transaction;
  const id = request.connection.addTransaction(transaction);
  request.control.shield(request.connection);
  return joinStrings([String(id)]);
};

export const transactionEnd: Handler = (request) => {
  const { connection, store, transaction } = request;
  const strings = stringsOf(request, 1);
  if (refused(strings)) return strings;
  const [verdict] = strings;
  if (verdict !== "T" && verdict !== "F") return refuse("EINVAL");
  if (transaction === undefined) return refuse("ENOENT");
  connection.transactions.delete(request.transactionId);
  request.control.unshield(connection);
  if (verdict === "F") {
    store.abort(transaction);
    return latinBytes("OK\0");
  }
  const result = store.commit(transaction);
  if (result.outcome === "refused") return result.refusal;
  if (result.outcome === "conflict") {
    connection.conflictCount += 1;
    for (const domid of result.culprits) connection.culprits.add(domid);
    return refuse("EAGAIN");
  }
  connection.conflictCount = 0;
  connection.culprits.clear();
  return latinBytes("OK\0");
};
