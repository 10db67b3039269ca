import type { OperationName, ReceivedArguments } from "../client/protocol.ts";
import { EACCES, EINVAL } from "../errno.ts";
import type { KeyService } from "../service.ts";
import type { KeyLimits } from "../limits.ts";
import type { Answer } from "../pending.ts";
import type { Process } from "../process.ts";
import type { Parent } from "../process-operations.ts";

/** One operation under way. */
export interface Call {
  readonly service: KeyService;
  readonly process: Process;
  /** The caller's parent, looked up only when an operation needs it. */
  readonly parent: () => Parent | undefined;
  /** What goes with the result. Valid until the next call; the connection wipes it once it is copied. */
  bytes: Uint8Array | undefined;
}

/** Operations that are carried out; the connection itself sees to the others. */
export type CallName = Exclude<OperationName, "hello" | "cancel">;

type Calls = { readonly [Name in CallName]: (call: Call, ...values: ReceivedArguments<Name>) => Answer };

const SCRATCH_BYTES = 64 * 1024;
const PAGE_BYTES = 256 * 1024;
/** "As it is", in words that cannot be negative. */
const KEEP = 0xffff_ffff;

const scratch = new Uint8Array(SCRATCH_BYTES);

/** Runs an operation that fills a buffer, with one as large as the caller's and never larger than what there is to say. */
const fill = (call: Call, size: number, operation: (target: Uint8Array) => Answer): Answer => {
  // A buffer that is cut keeps its remainder by four: reading a keyring looks at that.
  const given = size <= SCRATCH_BYTES ? size : SCRATCH_BYTES - 4 + (size % 4);
  let target: Uint8Array = scratch.subarray(0, given);
  let answer = operation(target);
  if (typeof answer !== "number") return answer;
  if (answer > given && answer <= size) {
    target = new Uint8Array(answer);
    answer = operation(target);
    if (typeof answer !== "number") return answer;
  }
  if (answer > 0 && answer <= target.length) call.bytes = target.subarray(0, answer);
  return answer;
};

const idOrKeep = (value: number): number => (value === KEEP ? -1 : value);

/** The limits by the names that /proc/sys/kernel/keys has for them. */
export const limitNames: Readonly<Record<string, keyof KeyLimits>> = {
  maxkeys: "maxKeys",
  maxbytes: "maxBytes",
  root_maxkeys: "rootMaxKeys",
  root_maxbytes: "rootMaxBytes",
  gc_delay: "gcDelaySeconds",
  persistent_keyring_expiry: "persistentSeconds",
};

const limitOf = (name: Uint8Array): keyof KeyLimits | undefined => {
  const text = Buffer.from(name).toString("latin1");
  return Object.hasOwn(limitNames, text) ? limitNames[text] : undefined;
};

const answerText = (call: Call, text: string): number => {
  call.bytes = Buffer.from(text, "latin1");
  return call.bytes.length;
};

/** What each operation does. */
export const calls: Calls = {
  addKey: ({ service, process }, type, description, payload, ring) =>
    service.addKey(process, type, description, payload, ring),
  requestKey: ({ service, process }, type, description, callout, ring) =>
    service.requestKey(process, type, description, callout, ring),
  getKeyringId: ({ service, process }, id, create) => service.getKeyringId(process, id, create !== 0),
  joinSession: ({ service, process }, name) => service.joinSession(process, name),
  update: ({ service, process }, id, payload) => service.update(process, id, payload),
  revoke: ({ service, process }, id) => service.revoke(process, id),
  chown: ({ service, process }, id, uid, gid) => service.chown(process, id, idOrKeep(uid), idOrKeep(gid)),
  setPermissions: ({ service, process }, id, mask) => service.setPermissions(process, id, mask),
  describe: (call, id, size) => fill(call, size, (target) => call.service.describe(call.process, id, target)),
  clear: ({ service, process }, id) => service.clear(process, id),
  link: ({ service, process }, key, ring) => service.link(process, key, ring),
  unlink: ({ service, process }, key, ring) => service.unlink(process, key, ring),
  search: ({ service, process }, ring, type, description, destination) =>
    service.search(process, ring, type, description, destination),
  read: (call, id, size) => fill(call, size, (target) => call.service.read(call.process, id, target)),
  instantiate: ({ service, process }, id, payload, ring) => service.instantiate(process, id, payload, ring),
  negate: ({ service, process }, id, seconds, ring) => service.negate(process, id, seconds, ring),
  reject: ({ service, process }, id, seconds, error, ring) => service.reject(process, id, { seconds, error, ring }),
  setDefaultRing: ({ service, process }, ring) => service.setDefaultRing(process, ring),
  setTimeout: ({ service, process }, id, seconds) => service.setTimeout(process, id, seconds),
  assumeAuthority: ({ service, process }, id) => service.assumeAuthority(process, id),
  getSecurity: (call, id, size) => fill(call, size, (target) => call.service.getSecurity(call.process, id, target)),
  sessionToParent: ({ service, process, parent }) => service.sessionToParent(process, parent()),
  invalidate: ({ service, process }, id) => service.invalidate(process, id),
  getPersistent: ({ service, process }, uid, ring) => service.getPersistent(process, idOrKeep(uid), ring),
  restrict: ({ service, process }, ring, type, restriction) => service.restrict(process, ring, type, restriction),
  move: ({ service, process }, key, from, to, flags) => service.move(process, key, from, to, flags),
  capabilities: (call, size) => fill(call, size, (target) => call.service.capabilities(target)),
  notSupported: ({ service }) => service.notSupported(),
  procKeys: (call, after) => answerText(call, pageOf(call.service.procKeys(call.process), after)),
  procKeyUsers: (call) => answerText(call, call.service.procKeyUsers()),
  limit: ({ service }, name) => {
    const limit = limitOf(name);
    return limit === undefined ? -EINVAL : service.limits[limit];
  },
  setLimit: ({ service, process }, name, value) => {
    if (!process.sysAdmin) return -EACCES;
    const limit = limitOf(name);
    return limit === undefined ? -EINVAL : service.setLimit(limit, value);
  },
};

/** Whole lines of the list of keys, beginning after a serial, as many as fit. */
const pageOf = (list: string, after: number): string => {
  let from = 0;
  while (after > 0 && from < list.length && Number.parseInt(list.slice(from, from + 8), 16) <= after)
    from = list.indexOf("\n", from) + 1;
  if (list.length - from <= PAGE_BYTES) return list.slice(from);
  return list.slice(from, list.lastIndexOf("\n", from + PAGE_BYTES) + 1);
};

/** Carries out an operation with the arguments that were decoded for it. */
export const carryOut = (call: Call, name: CallName, values: readonly unknown[]): Answer =>
  // Decoding followed the same table entry that the types of the arguments are made from.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  (calls[name] as (call: Call, ...values: readonly unknown[]) => Answer)(call, ...values);
