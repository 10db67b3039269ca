import { pad, u32, u64n } from "./scalar.ts";
import { struct } from "./struct.ts";
import { domid_t } from "./types.ts";

// secret_op: secret memory in guests. Extension: the whole hypercall is Xenolith's own.

/** Makes an object of whole pages, zeroed, at the caller's expense. */
export const XENSECRET_allocate = 0;
/** Lets pages of an object appear at frames of the caller where nothing stands. */
export const XENSECRET_map = 1;
/** Ends one mapping: nothing stands there afterwards. */
export const XENSECRET_unmap = 2;
/** Makes an object read-only for everybody and for good. Its owner only. */
export const XENSECRET_seal = 3;
/** Gives up an object. When its owner does, it is wiped, and others see it revoked. */
export const XENSECRET_release = 4;
/** Offers an object to another domain. Nothing happens there until it accepts. Its owner only. */
export const XENSECRET_share = 5;
/** Takes what another domain offers. */
export const XENSECRET_accept = 6;
/** Takes an object back from one domain or from all that accepted it. Its owner only. */
export const XENSECRET_revoke = 7;
/** Tells about an object, or about what the caller has and may have. */
export const XENSECRET_query = 8;

/** Flag of map and share: for reading only. */
export const XENSECRET_READONLY = 1 << 0;

/** Id of no object: a query about the caller itself. */
export const XENSECRET_QUOTA = 0xffff_ffff;

/** Of a query: not even the kernel can read secret memory here. */
export const XENSECRET_IS_HIDDEN = 1 << 0;
/** Of a query: sealed. */
export const XENSECRET_IS_SEALED = 1 << 1;
/** Of a query: the caller made it. */
export const XENSECRET_IS_OWNED = 1 << 2;
/** Of a query: others have accepted it, or the caller has accepted it from another. */
export const XENSECRET_IS_SHARED = 1 << 3;
/** Of a query: the caller may only read it, sealed or not. */
export const XENSECRET_IS_READONLY = 1 << 4;
/** Of a query: it was taken back from the caller, who can only give it up. */
export const XENSECRET_IS_REVOKED = 1 << 5;

export const xen_secret_allocate = struct("xen_secret_allocate", 12, {
  pages: u32,
  /** 0. */
  flags: u32,
  /** Out: the caller's number for it. */
  id: u32,
});

export const xen_secret_map = struct("xen_secret_map", 20, {
  id: u32,
  /** First frame of the caller where it is to appear; nothing stands at any of them. */
  gfn: u32,
  /** First page of the object. */
  first_page: u32,
  pages: u32,
  /** XENSECRET_READONLY. */
  flags: u32,
});

export const xen_secret_unmap = struct("xen_secret_unmap", 8, {
  /** As they were mapped. */
  gfn: u32,
  pages: u32,
});

/** For seal and release. */
export const xen_secret_object = struct("xen_secret_object", 4, { id: u32 });

export const xen_secret_share = struct("xen_secret_share", 12, {
  id: u32,
  domid: domid_t,
  _pad0: pad(2),
  /** XENSECRET_READONLY. */
  flags: u32,
});

export const xen_secret_accept = struct("xen_secret_accept", 12, {
  /** Its owner. */
  domid: domid_t,
  _pad0: pad(2),
  /** The owner's number for it. */
  owner_id: u32,
  /** Out: the caller's number for it. */
  id: u32,
});

export const xen_secret_revoke = struct("xen_secret_revoke", 8, {
  id: u32,
  /** From whom; DOMID_INVALID: from all. */
  domid: domid_t,
  _pad0: pad(2),
});

export const xen_secret_query = struct("xen_secret_query", 44, {
  /** XENSECRET_QUOTA: no object. */
  id: u32,
  /** Out: XENSECRET_IS_*. */
  flags: u32,
  /** Out: its size. */
  pages: u32,
  /** Out: objects that the caller has, accepted ones included, and may have. */
  objects: u32,
  objects_max: u32,
  /** Out: secret memory that the caller has made, in bytes. */
  bytes_used: u64n,
  /** Out: secret memory that the caller has mapped, its own and others', once for each mapping. */
  bytes_mapped: u64n,
  /** Out: the limit of either. */
  bytes_max: u64n,
});
