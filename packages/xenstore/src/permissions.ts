import { DOMID_FIRST_RESERVED } from "@xenolith/abi";
import { type Refusal, refuse } from "./refusal.ts";

/** None, read, write, both. */
export type Access = "n" | "r" | "w" | "b";

/**
 * A domain as permissions know it: its number and which of the domains that had this number. A permission that was given
 * to an earlier one names nobody. Incarnation 0 is the control domain, and of any other number nobody.
 */
export interface Principal {
  readonly domid: number;
  readonly incarnation: number;
}

export interface Permission extends Principal {
  readonly access: Access;
}

/** Entry 0: the owner, and what everybody may who is not listed. The rest: what one domain may. */
export type Permissions = readonly [Permission, ...Permission[]];

/** Who asks. */
export interface Caller extends Principal {
  /** The control domain, which always passes. */
  readonly privileged: boolean;
  /** SET_TARGET: whose rights the caller has besides its own. */
  readonly target: Principal | undefined;
}

/** Owned by the control domain and closed to everybody else. */
export const CLOSED: Permissions = [{ domid: 0, incarnation: 0, access: "n" }];

const same = (left: Principal, right: Principal): boolean =>
  left.domid === right.domid && left.incarnation === right.incarnation;

const speaksFor = (caller: Caller, principal: Principal): boolean =>
  same(caller, principal) || (caller.target !== undefined && same(caller.target, principal));

const allows = (access: Access, wanted: "r" | "w"): boolean => access === "b" || access === wanted;

/** Whether the caller is the owner, has the owner's rights, or is privileged. */
export const ownsNode = (permissions: Permissions, caller: Caller): boolean =>
  caller.privileged || speaksFor(caller, permissions[0]);

/** Whether the caller may read or write. Source: xenstore.txt, "permissions". */
export const mayAccess = (permissions: Permissions, caller: Caller, wanted: "r" | "w"): boolean => {
  if (ownsNode(permissions, caller)) return true;
  for (let index = 1; index < permissions.length; index += 1) {
    const entry = permissions[index]!;
    if (speaksFor(caller, entry)) return allows(entry.access, wanted);
  }
  return allows(permissions[0].access, wanted);
};

/** What a new node gets: its parent's list, owned by its creator unless that is privileged. */
export const inherit = (
  parent: Permissions,
  creator: Caller,
  isLive: (principal: Principal) => boolean,
): Permissions => {
  const [first, ...others] = parent;
  const { domid, incarnation } = creator.privileged ? first : creator;
  const live = others.every(isLive) ? others : others.filter(isLive);
  return [{ domid, incarnation, access: first.access }, ...live];
};

const written = /^([nrwb])(\d{1,5})$/;

const parseOne = (text: string, incarnationOf: (domid: number) => number): Permission | undefined => {
  const [, letter, number] = written.exec(text) ?? [];
  const domid = Number(number);
  if (!(domid < DOMID_FIRST_RESERVED)) return undefined;
  if (letter !== "n" && letter !== "r" && letter !== "w" && letter !== "b") return undefined;
  return { domid, incarnation: incarnationOf(domid), access: letter };
};

/** A list from its strings ("n0", "r5"), or `EINVAL`. Numbers that no domain has now get the incarnation of nobody. */
export const parsePermissions = (
  strings: readonly string[],
  incarnationOf: (domid: number) => number,
): Permissions | Refusal => {
  const entries: Permission[] = [];
  for (const text of strings) {
    const entry = parseOne(text, incarnationOf);
    if (entry === undefined) return refuse("EINVAL");
    entries.push(entry);
  }
  const [first, ...others] = entries;
  return first === undefined ? refuse("EINVAL") : [first, ...others];
};

/** The strings of a list; entries that name a domain of the past are left out, the owner never is. */
export const formatPermissions = (permissions: Permissions, isLive: (principal: Principal) => boolean): string[] =>
  permissions.filter((entry, index) => index === 0 || isLive(entry)).map(({ domid, access }) => `${access}${domid}`);
