import { XENSTORE_ABS_PATH_MAX } from "@xenolith/abi";
import { type Refusal, refuse } from "./refusal.ts";

// Paths in their canonical form: absolute, no empty component, no slash at the end, except "/" alone.

/** Special paths: watched like nodes, fired by the life cycle of domains. */
export const INTRODUCE_DOMAIN = "@introduceDomain";
export const RELEASE_DOMAIN = "@releaseDomain";

const specials: ReadonlySet<string> = new Set([INTRODUCE_DOMAIN, RELEASE_DOMAIN]);
const absolute = /^\/(?:[-A-Za-z0-9_@]+(?:\/[-A-Za-z0-9_@]+)*)?$/;
const home = /^\/local\/domain\/\d+\//;

/** Where relative paths of a domain begin. Source: xenstore.txt, GET_DOMAIN_PATH. */
export const domainPath = (domid: number): string => `/local/domain/${domid}`;

export const isSpecial = (path: string): boolean => specials.has(path);

/** Who names a path: relative ones begin in its home, and its quota bounds the part that is not the home. */
export interface PathOwner {
  readonly domid: number;
  /** Characters of a path, without the home of a domain at its start; all paths end at 3072. */
  readonly pathMax: number;
}

/**
 * The canonical form of what a client wrote, or `EINVAL`. Limits hold for the canonical form, so that whoever may
 * create a node can also be told its name.
 *
 * Source: xs_wire.h, xenstore.txt.
 */
export const canonicalPath = (written: string, { domid, pathMax }: PathOwner): string | Refusal => {
  if (written.length === 0 || written.length > XENSTORE_ABS_PATH_MAX || written.startsWith("@"))
    return refuse("EINVAL");
  const path = written.startsWith("/") ? written : `${domainPath(domid)}/${written}`;
  if (path.length > XENSTORE_ABS_PATH_MAX || !absolute.test(path)) return refuse("EINVAL");
  const homeLength = home.exec(path)?.[0].length ?? 0;
  return path.length - homeLength > pathMax ? refuse("EINVAL") : path;
};

/** As `canonicalPath`, but special paths pass as they are. */
export const watchablePath = (written: string, owner: PathOwner): string | Refusal =>
  isSpecial(written) ? written : canonicalPath(written, owner);

/** Components of a canonical path; none for "/". */
export const partsOf = (path: string): string[] => (path === "/" ? [] : path.slice(1).split("/"));

/** The canonical path of the first `count` components. */
export const pathOf = (parts: readonly string[], count = parts.length): string => `/${parts.slice(0, count).join("/")}`;

/** The path of a child. */
export const childPath = (path: string, name: string): string => (path === "/" ? `/${name}` : `${path}/${name}`);
