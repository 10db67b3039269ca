/**
 * What the control domain knows of guests' secret objects: who made which, who may use it, and where it is mapped. The
 * rules are in guest-secrets.ts; here is only what there is.
 */
import type { SecretOwner, SecretQuota, SecretRegion } from "@xenolith/secrets";

/** Objects that a domain has, accepted ones included. */
export const SECRET_OBJECTS_MAX = 64;
/** Mappings of secrets that a domain has, revoked ones included. */
export const SECRET_MAPPINGS_MAX = 1024;
/** Offers of one object that nobody has accepted yet. */
export const SECRET_OFFERS_MAX = 16;

/** One object: whole pages of secret memory. */
export interface SecretObject {
  readonly region: SecretRegion;
  /** The hypervisor's name for it. */
  readonly extent: number;
  /** What the page table knows it by. */
  readonly handle: number;
  readonly pages: number;
  readonly maker: SecretDomain;
  /** To whom it is offered, by domid. */
  readonly offers: Map<number, SecretOffer>;
  /** Everybody's use of it, its maker's included. */
  readonly uses: Set<SecretUse>;
  isSealed: boolean;
}

/** An offer that has not been accepted. */
export interface SecretOffer {
  /** Of the domain that it is for; -1: there was none. */
  readonly generation: number;
  readonly isReadOnly: boolean;
}

/** One domain's use of an object. */
export interface SecretUse {
  readonly domain: SecretDomain;
  readonly object: SecretObject;
  readonly isReadOnly: boolean;
  isRevoked: boolean;
}

/** One mapping in a domain. */
export interface SecretMapping {
  /** The hypervisor's name for it. */
  readonly name: number;
  readonly use: SecretUse;
  readonly pages: number;
  /** It shows what replaces the secret. */
  isSevered: boolean;
}

/** One domain, as far as secrets are concerned. */
export class SecretDomain {
  readonly slot: number;
  readonly domid: number;
  readonly generation: number;
  /** Most bytes that its objects may have, and that it may have mapped. */
  readonly bytesMax: number;
  /** By the domain's own number for the object. */
  readonly uses = new Map<number, SecretUse>();
  /** By first gfn. */
  readonly mappings = new Map<number, SecretMapping>();
  /** Objects that are being made. */
  pending = 0;
  isEnded = false;
  /** Who pays, once it has had a secret. */
  owner: SecretOwner | undefined = undefined;

  constructor(slot: number, domid: number, generation: number, bytesMax: number) {
    this.slot = slot;
    this.domid = domid;
    this.generation = generation;
    this.bytesMax = bytesMax;
  }

  /** What it may have, as the pool counts it. */
  get quota(): SecretQuota {
    return { bytes: this.bytesMax, slots: SECRET_OBJECTS_MAX };
  }

  /** Whether it can have another object. */
  get hasRoom(): boolean {
    return this.uses.size + this.pending < SECRET_OBJECTS_MAX;
  }

  /** Enters a use under the lowest number that is free, and returns that. */
  addUse(use: SecretUse): number {
    let id = 0;
    while (this.uses.has(id)) id += 1;
    this.uses.set(id, use);
    use.object.uses.add(use);
    return id;
  }

  /** Its mappings of an object, by first gfn. */
  mappingsOf(use: SecretUse): readonly (readonly [gfn: number, mapping: SecretMapping])[] {
    return [...this.mappings].filter(([, mapping]) => mapping.use === use);
  }
}
