import { XENSTORE_ABS_PATH_MAX, XENSTORE_PAYLOAD_MAX, XENSTORE_SERVER_FEATURE_WATCHDEPTH } from "@xenolith/abi";
import { domainPath, isSpecial, partsOf, watchablePath } from "./path.ts";
import { refuse, refused } from "./refusal.ts";
import { acknowledge, type Handler, numberIn, pathOwner, type Request, stringsOf } from "./request.ts";
import type { Watch } from "./watch-index.ts";

/** So that an event fits into a message whatever node it is for. */
const TOKEN_BYTES_MAX = XENSTORE_PAYLOAD_MAX - XENSTORE_ABS_PATH_MAX - 2;

const keyOf = (path: string, token: string): string => `${path}\0${token}`;

const hasDepth = ({ caller, control }: Request): boolean =>
  ((caller.features ?? control.featuresOffered) & XENSTORE_SERVER_FEATURE_WATCHDEPTH) !== 0;

export const watch: Handler = (request) => {
  const { caller, connection, store } = request;
  const strings = stringsOf(request, 2, hasDepth(request) ? 3 : 2);
  if (refused(strings)) return strings;
  const [written, token] = [strings[0]!, strings[1]!];
  const path = watchablePath(written, pathOwner(request));
  if (refused(path)) return path;
  const depth = strings.length === 3 ? numberIn(strings[2]) : undefined;
  if (strings.length === 3 && depth === undefined) return refuse("EINVAL");
  if (token.length > TOKEN_BYTES_MAX) return refuse("E2BIG");
  if (connection.watches.has(keyOf(path, token))) return refuse("EEXIST");
  if (caller.watchCount >= store.domains.limit(caller, "watches")) return refuse("ENOSPC");
  if (caller.memoryBytes > store.domains.limit(caller, "memory")) return refuse("ENOSPC");
  const special = isSpecial(written);
  const added: Watch = {
    owner: connection,
    special,
    parts: special ? [written] : partsOf(path),
    written,
    prefixLength: special || written.startsWith("/") ? 0 : domainPath(caller.domid).length + 1,
    token,
    depth,
    pending: new Map(),
  };
  connection.addWatch(keyOf(path, token), added);
  return acknowledge(true);
};

export const unwatch: Handler = (request) => {
  const strings = stringsOf(request, 2);
  if (refused(strings)) return strings;
  const path = watchablePath(strings[0]!, pathOwner(request));
  if (refused(path)) return path;
  return acknowledge(request.connection.removeWatch(keyOf(path, strings[1]!)) || refuse("ENOENT"));
};

export const resetWatches: Handler = (request) => {
  const strings = stringsOf(request, 1);
  if (refused(strings)) return strings;
  request.control.unshield(request.connection);
  request.connection.dropState();
  return acknowledge(true);
};
