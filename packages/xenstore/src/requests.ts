import * as abi from "@xenolith/abi";
import type { Connection } from "./connection.ts";
import { refuse, refused } from "./refusal.ts";
import type { Control, Handler, Request } from "./request.ts";
import * as domain from "./requests-domain.ts";
import * as tree from "./requests-tree.ts";
import * as watching from "./requests-watch.ts";
import type { Store } from "./store.ts";
import { encodeMessage, joinStrings, type Message } from "./wire.ts";

/** Every message that a client may send. Source: xs_wire.h. */
const handlers: ReadonlyMap<number, Handler> = new Map([
  [abi.XS_CONTROL, domain.control],
  [abi.XS_DIRECTORY, tree.directory],
  [abi.XS_READ, tree.read],
  [abi.XS_GET_PERMS, tree.getPermissions],
  [abi.XS_WATCH, watching.watch],
  [abi.XS_UNWATCH, watching.unwatch],
  [abi.XS_TRANSACTION_START, tree.transactionStart],
  [abi.XS_TRANSACTION_END, tree.transactionEnd],
  [abi.XS_INTRODUCE, domain.introduce],
  [abi.XS_RELEASE, domain.release],
  [abi.XS_GET_DOMAIN_PATH, domain.getDomainPath],
  [abi.XS_WRITE, tree.write],
  [abi.XS_MKDIR, tree.mkdir],
  [abi.XS_RM, tree.rm],
  [abi.XS_SET_PERMS, tree.setPermissions],
  [abi.XS_IS_DOMAIN_INTRODUCED, domain.isDomainIntroduced],
  [abi.XS_RESUME, domain.resume],
  [abi.XS_SET_TARGET, domain.setTarget],
  [abi.XS_RESET_WATCHES, watching.resetWatches],
  [abi.XS_DIRECTORY_PART, tree.directoryPart],
  [abi.XS_GET_FEATURE, domain.getFeature],
  [abi.XS_SET_FEATURE, domain.setFeature],
  [abi.XS_GET_QUOTA, domain.getQuota],
  [abi.XS_SET_QUOTA, domain.setQuota],
]);

const answer = (request: Request, type: number): ReturnType<Handler> => {
  const handler = handlers.get(type);
  if (handler === undefined) return refuse("ENOSYS");
  if (request.transactionId !== 0 && request.transaction === undefined) return refuse("ENOENT");
  const reply = handler(request);
  return refused(reply) || reply.length <= abi.XENSTORE_PAYLOAD_MAX ? reply : refuse("E2BIG");
};

/** Answers one message of a connection: exactly one reply is queued. */
export const handleMessage = (
  message: Message,
  connection: Connection,
  on: { readonly store: Store; readonly control: Control },
): void => {
  const { type, requestId, transactionId, payload } = message;
  const transaction = connection.transactions.get(transactionId);
  const { caller } = connection;
  const { store, control } = on;
  const reply = answer({ store, control, connection, caller, payload, transactionId, transaction }, type);
  const encoded = refused(reply)
    ? encodeMessage({ type: abi.XS_ERROR, requestId, transactionId, payload: joinStrings([reply.error]) })
    : encodeMessage({ type, requestId, transactionId, payload: reply });
  connection.reply(encoded);
};
