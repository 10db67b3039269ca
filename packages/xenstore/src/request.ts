import type { Connection } from "./connection.ts";
import type { DomainRecord } from "./domain-table.ts";
import { canonicalPath, type PathOwner } from "./path.ts";
import { type Refusal, refuse } from "./refusal.ts";
import type { Store } from "./store.ts";
import type { Transaction } from "./transaction.ts";
import { joinStrings, latinText, splitStrings } from "./wire.ts";

/** What the control domain can ask besides what the store does. */
export interface Control {
  /** Bits that domains are offered unless they have a mask of their own. */
  readonly featuresOffered: number;
  introduce(domid: number, gfn: number, port: number): true | Refusal;
  release(domid: number): true | Refusal;
  resume(domid: number): true | Refusal;
  command(words: readonly string[]): string | Refusal;
  /** A transaction begins after others of the connection failed because of `culprits`. */
  shield(connection: Connection): void;
  unshield(connection: Connection): void;
}

/** One request, its transaction looked up. */
export interface Request {
  readonly store: Store;
  readonly control: Control;
  readonly connection: Connection;
  readonly caller: DomainRecord;
  readonly payload: Uint8Array;
  readonly transactionId: number;
  readonly transaction: Transaction | undefined;
}

/** Answers a request with the payload of its reply. */
export type Handler = (request: Request) => Uint8Array | Refusal;

const ok = joinStrings(["OK"]);

/** The reply to what has no result. */
export const acknowledge = (result: true | Refusal): Uint8Array | Refusal => (result === true ? ok : result);

/** The strings of the payload if their number is from `least` to `most`, else `EINVAL`. */
export const stringsOf = ({ payload }: Request, least: number, most = least): string[] | Refusal => {
  const strings = splitStrings(payload);
  return strings === undefined || strings.length < least || strings.length > most ? refuse("EINVAL") : strings;
};

const XENSTORE_PATH_MAX = 3072;

/** Whose paths the request names. */
export const pathOwner = ({ store, caller }: Request): PathOwner => ({
  domid: caller.domid,
  pathMax: Math.min(store.domains.limit(caller, "path-max"), XENSTORE_PATH_MAX),
});

/** The canonical path that the first string of the payload names, and the bytes behind its terminator. */
export const pathAndRest = (request: Request): { readonly path: string; readonly rest: Uint8Array } | Refusal => {
  const end = request.payload.indexOf(0);
  if (end < 0) return refuse("EINVAL");
  const path = canonicalPath(latinText(request.payload.subarray(0, end)), pathOwner(request));
  return typeof path === "string" ? { path, rest: request.payload.subarray(end + 1) } : path;
};

/** The canonical path that is the whole payload. */
export const onlyPath = (request: Request): string | Refusal => {
  const found = pathAndRest(request);
  if (!("path" in found)) return found;
  return found.rest.length === 0 ? found.path : refuse("EINVAL");
};

const decimal = /^\d{1,10}$/;

/** A decimal number of 32 bits. */
export const numberIn = (text: string | undefined): number | undefined => {
  if (text === undefined || !decimal.test(text)) return undefined;
  const number = Number(text);
  return number <= 0xffff_ffff ? number : undefined;
};
