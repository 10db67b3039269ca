/**
 * Secret memory of guests: what secret_op does, as the control domain's thread does it. An object is a file of secret
 * memory of its own, taken out of this process's view as soon as it is made; from then on its bytes are where guests have
 * it mapped and nowhere else. Each operation does all of what it is asked for or, with a negative errno, nothing.
 *
 * An object belongs to the domain that made it, at that domain's expense. Others use it when its maker has offered it to
 * them and they have accepted: nobody finds anything in its memory, or on its bill, that it did not ask for.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  DOMID_FIRST_RESERVED,
  DOMID_INVALID,
  EDQUOT,
  EEXIST,
  EINVAL,
  EIO,
  ENOENT,
  ENOSPC,
  EPERM,
  ESRCH,
  XENSECRET_IS_HIDDEN,
  XENSECRET_IS_OWNED,
  XENSECRET_IS_READONLY,
  XENSECRET_IS_REVOKED,
  XENSECRET_IS_SEALED,
  XENSECRET_IS_SHARED,
} from "@xenolith/abi";
import {
  closeExtent,
  extentMappingState,
  type Hypervisor,
  mapSecret,
  revokeMapping,
  SECRET_PAGES_MAX,
  sealExtent,
  unmapExtent,
  unmapOwn,
} from "@xenolith/core";
import {
  SECRET_MAPPINGS_MAX,
  SECRET_OBJECTS_MAX,
  SECRET_OFFERS_MAX,
  SecretDomain,
  type SecretMapping,
  type SecretObject,
  type SecretUse,
} from "./guest-secret-objects.ts";
import type { HostSecrets } from "./host-secrets.ts";
import { FRAME_BYTES } from "./mmu.ts";
import type { SecretFiles } from "./secret-files.ts";
import { endObject, errnoOf, makeObject, refusedWith } from "./secret-object-life.ts";

/** What guests' secrets are made of. */
export interface GuestSecretsParts {
  readonly hypervisor: Hypervisor;
  readonly secrets: HostSecrets;
  readonly files: SecretFiles;
  readonly noteFault: (message: string) => void;
}

/** Where a part of an object is to appear. */
export interface SecretPlace {
  readonly gfn: number;
  readonly page: number;
  readonly count: number;
  readonly isWritable: boolean;
}

/** What a query tells. */
export interface SecretFigures {
  readonly flags: number;
  readonly pages: number;
  readonly objects: number;
  readonly objectsMax: number;
  readonly bytesUsed: number;
  readonly bytesMapped: number;
  readonly bytesMax: number;
}

/** See the file's comment. Domains are named by their slots. */
export class GuestSecrets {
  readonly #parts: GuestSecretsParts;
  readonly #domains = new Map<number, SecretDomain>();
  /** Settles in the turn in which the last object that is wanted may be made. */
  #turn: Promise<void> = Promise.resolve();

  constructor(parts: GuestSecretsParts) {
    this.#parts = parts;
  }

  /** There is a new domain, which may have so many bytes of secret memory. */
  begin(slot: number, bytesMax: number): void {
    const { domains } = this.#parts.hypervisor;
    this.#domains.set(slot, new SecretDomain(slot, domains.domid[slot]!, domains.generation[slot]!, bytesMax));
  }

  /** The domain is being destroyed and its threads are gone: its mappings end, and what it made is wiped and taken back. */
  end(slot: number): void {
    const domain = this.#domains.get(slot);
    if (domain === undefined) return;
    this.#domains.delete(slot);
    domain.isEnded = true;
    for (const [gfn, mapping] of domain.mappings) this.#endMapping(domain, gfn, mapping);
    for (const [id, use] of domain.uses) {
      const result =
        use.object.maker === domain ? this.#releaseObject(domain, id, use) : this.#dropUse(domain, id, use);
      if (result !== 0)
        this.#parts.noteFault(`secret ${id} of domain ${domain.domid} could not be given up: ${result}`);
    }
  }

  /**
   * A new object of `pages` pages: its id. -EINVAL: no such size, -EDQUOT: more than the domain may have, -ENOSPC: the
   * pool or the table is full, -ENOMEM, -EAGAIN: no memory that may be locked, -ENOSYS: no secret memory here, -ESRCH.
   */
  async allocate(slot: number, pages: number): Promise<number> {
    const domain = this.#domains.get(slot);
    if (domain === undefined) return -ESRCH;
    if (!Number.isInteger(pages) || pages < 1 || pages > SECRET_PAGES_MAX) return -EINVAL;
    if (!domain.hasRoom || pages * FRAME_BYTES > domain.bytesMax) return -EDQUOT;
    domain.pending += 1;
    await this.#nextTurn();
    const object = domain.isEnded ? -ESRCH : await makeObject(this.#parts, domain, pages);
    domain.pending -= 1;
    if (typeof object === "number") return object;
    if (domain.isEnded) {
      this.#endObject(domain, object);
      return -ESRCH;
    }
    return domain.addUse({ domain, object, isReadOnly: false, isRevoked: false });
  }

  /**
   * Lets a part of an object appear where nothing stands. -ENOENT: no such object, or it was revoked, -EPERM: it may only
   * be read, -EDQUOT: more than the domain may have mapped, and as `mapSecret` of the hypervisor.
   */
  map(slot: number, id: number, place: SecretPlace): number {
    const domain = this.#domains.get(slot);
    const use = domain?.uses.get(id);
    if (domain?.owner === undefined || use === undefined || use.isRevoked) return -ENOENT;
    if (place.isWritable && use.isReadOnly) return -EPERM;
    if (domain.mappings.size >= SECRET_MAPPINGS_MAX) return -ENOSPC;
    const { object } = use;
    // The charge is for pages that there are: the hypervisor looks at the rest.
    if (place.count < 1 || place.count > object.pages) return -EINVAL;
    const refusal = domain.owner.tryReserveMapping(place.count * FRAME_BYTES);
    if (refusal !== undefined) return refusedWith(refusal);
    const name = mapSecret(this.#parts.hypervisor, object.extent, { slot, ...place });
    if (name < 0) {
      domain.owner.returnMapping(place.count * FRAME_BYTES);
      return name;
    }
    domain.mappings.set(place.gfn, { name, use, pages: place.count, isSevered: false });
    return 0;
  }

  /** Ends a mapping, as it was made. -EINVAL: there is none like that, -ENOSPC: it cannot be cut out of its neighbours. */
  unmap(slot: number, gfn: number, pages: number): number {
    const domain = this.#domains.get(slot);
    const mapping = domain?.mappings.get(gfn);
    if (domain === undefined || mapping === undefined || mapping.pages !== pages) return -EINVAL;
    const result = unmapOwn(this.#parts.hypervisor, mapping.name);
    if (result === 0) this.#forgetMapping(domain, gfn, mapping);
    return result;
  }

  /** Makes an object read-only for good. -ENOENT: no such object of the domain's own, or the page table's errno. */
  seal(slot: number, id: number): number {
    const object = this.#ownObject(slot, id);
    if (object === undefined) return -ENOENT;
    const result = sealExtent(this.#parts.hypervisor, object.extent);
    if (result === 0) object.isSealed = true;
    return result;
  }

  /**
   * Gives an object up. Of its maker: it is wiped, and others see it revoked. -ENOENT: no such object, -EAGAIN, -ENOMEM: it
   * cannot be wiped now, -EIO: it could not be taken from another domain.
   */
  release(slot: number, id: number): number {
    const domain = this.#domains.get(slot);
    const use = domain?.uses.get(id);
    if (domain === undefined || use === undefined) return -ENOENT;
    return use.object.maker === domain ? this.#releaseObject(domain, id, use) : this.#dropUse(domain, id, use);
  }

  /**
   * Offers an object to the domain called `domid`. Whether there is one is not told. -ENOENT: no such object of the
   * domain's own, -EINVAL: itself, or no domid, -EEXIST: it is offered or given to it already, -ENOSPC: too many offers.
   */
  share(slot: number, id: number, domid: number, isReadOnly: boolean): number {
    const object = this.#ownObject(slot, id);
    if (object === undefined) return -ENOENT;
    if (domid >= DOMID_FIRST_RESERVED || domid === object.maker.domid) return -EINVAL;
    const generation = this.#byDomid(domid)?.generation ?? -1;
    const isUsed = [...object.uses].some(({ domain, isRevoked }) => domain.domid === domid && !isRevoked);
    if (isUsed || object.offers.get(domid)?.generation === generation) return -EEXIST;
    if (!object.offers.has(domid) && object.offers.size >= SECRET_OFFERS_MAX) return -ENOSPC;
    object.offers.set(domid, { generation, isReadOnly });
    return 0;
  }

  /** Accepts what domain `domid` offers by its own number: the caller's number for it. -ENOENT, -EDQUOT, as `allocate`. */
  accept(slot: number, domid: number, ownerId: number): number {
    const domain = this.#domains.get(slot);
    const maker = this.#byDomid(domid);
    const object = maker === undefined ? undefined : this.#ownObject(maker.slot, ownerId);
    const offer = domain === undefined ? undefined : object?.offers.get(domain.domid);
    if (domain === undefined || object === undefined || offer?.generation !== domain.generation) return -ENOENT;
    if (!domain.hasRoom) return -EDQUOT;
    try {
      domain.owner ??= this.#parts.secrets.guestOwner(domain.domid, domain.quota);
    } catch (error) {
      return errnoOf(error);
    }
    object.offers.delete(domain.domid);
    return domain.addUse({ domain, object, isReadOnly: offer.isReadOnly, isRevoked: false });
  }

  /**
   * Takes an object back from the domain called `domid`, or from all (DOMID_INVALID). -ENOENT: no such object of the
   * domain's own, or that domain has neither it nor an offer, -EIO: it could not be taken from all.
   */
  revoke(slot: number, id: number, domid: number): number {
    const object = this.#ownObject(slot, id);
    if (object === undefined) return -ENOENT;
    const others = [...object.uses].filter(({ domain }) => domain !== object.maker);
    if (domid === DOMID_INVALID) {
      object.offers.clear();
      return this.#revokeUses(others);
    }
    const theirs = others.filter(({ domain }) => domain.domid === domid);
    const wasOffered = object.offers.delete(domid);
    return wasOffered || theirs.length > 0 ? this.#revokeUses(theirs) : -ENOENT;
  }

  /** What there is to know about an object, or without an id about the domain. Undefined: there is no such object. */
  query(slot: number, id?: number): SecretFigures | undefined {
    const domain = this.#domains.get(slot);
    const use = id === undefined ? undefined : domain?.uses.get(id);
    if (domain === undefined || (id !== undefined && use === undefined)) return undefined;
    const { bytes = 0, mappedBytes = 0 } = domain.owner?.statistics() ?? {};
    return {
      flags: use === undefined ? 0 : flagsOf(use),
      pages: use?.object.pages ?? 0,
      objects: domain.uses.size,
      objectsMax: SECRET_OBJECTS_MAX,
      bytesUsed: bytes,
      bytesMapped: mappedBytes,
      bytesMax: domain.bytesMax,
    };
  }

  /** What does not agree with the hypervisor, a sentence each. */
  audit(): string[] {
    const findings: string[] = [];
    for (const { domid, mappings, owner } of this.#domains.values()) {
      let mappedBytes = 0;
      for (const [gfn, { name, pages, isSevered }] of mappings) {
        const state = extentMappingState(this.#parts.hypervisor, name);
        if (!isSevered) mappedBytes += pages * FRAME_BYTES;
        if (state === (isSevered ? "severed" : "live")) continue;
        findings.push(`domain ${domid}: secret at gfn ${gfn} is ${state}, severed ${String(isSevered)}`);
      }
      const charged = owner?.statistics().mappedBytes ?? 0;
      if (charged !== mappedBytes) {
        findings.push(`domain ${domid}: ${mappedBytes} bytes of secrets are mapped, ${charged} charged`);
      }
    }
    return findings;
  }

  /**
   * Waits for a turn of the event loop in which nobody else makes an object: that takes the kernel long, and guests that
   * do nothing else are not to hold up everybody.
   */
  #nextTurn(): Promise<void> {
    this.#turn = this.#turn.then(() => nextTurn());
    return this.#turn;
  }

  #byDomid(domid: number): SecretDomain | undefined {
    const slot = this.#parts.hypervisor.domains.slotOf(domid);
    const domain = this.#domains.get(slot);
    return domain?.domid === domid ? domain : undefined;
  }

  /** The object that the domain made and calls `id`. */
  #ownObject(slot: number, id: number): SecretObject | undefined {
    const domain = this.#domains.get(slot);
    const object = domain?.uses.get(id)?.object;
    return object?.maker === domain ? object : undefined;
  }

  #releaseObject(domain: SecretDomain, id: number, use: SecretUse): number {
    const { object } = use;
    try {
      // What can fail comes first: to be wiped it must be seen.
      object.region.restoreView();
    } catch (error) {
      if (!domain.isEnded) return errnoOf(error);
    }
    const others = [...object.uses].filter((other) => other !== use);
    const result = this.#revokeUses(others);
    if (result !== 0 && !domain.isEnded) {
      if (object.region.hidden) object.region.removeFromView();
      return result;
    }
    for (const [gfn, mapping] of domain.mappingsOf(use)) this.#endMapping(domain, gfn, mapping);
    domain.uses.delete(id);
    object.uses.delete(use);
    this.#endObject(domain, object);
    return result;
  }

  #endObject({ domid }: SecretDomain, object: SecretObject): void {
    const { hypervisor, files, noteFault } = this.#parts;
    closeExtent(hypervisor, object.extent);
    try {
      endObject(files, object);
    } catch (error) {
      noteFault(`a secret of domain ${domid} was not wiped: ${String(error)}`);
    }
  }

  /** Gives up the use of another's object. What was revoked of it stays where it stands until it is unmapped. */
  #dropUse(domain: SecretDomain, id: number, use: SecretUse): number {
    for (const [gfn, mapping] of domain.mappingsOf(use)) {
      if (!mapping.isSevered) this.#endMapping(domain, gfn, mapping);
    }
    domain.uses.delete(id);
    use.object.uses.delete(use);
    return 0;
  }

  /** Takes the object from those who use it. 0 or -EIO: at least one still sees it. */
  #revokeUses(uses: readonly SecretUse[]): number {
    let result = 0;
    for (const use of uses) {
      const { domain } = use;
      for (const [, mapping] of domain.mappingsOf(use)) {
        if (mapping.isSevered) continue;
        const severed = revokeMapping(this.#parts.hypervisor, mapping.name);
        // It may be gone with its domain already.
        if (severed !== 0 && severed !== -ENOENT) {
          result = -EIO;
          continue;
        }
        mapping.isSevered = true;
        domain.owner?.returnMapping(mapping.pages * FRAME_BYTES);
      }
      if (result === 0) use.isRevoked = true;
    }
    return result;
  }

  /** Makes holes where a mapping stands, whatever that costs. */
  #endMapping(domain: SecretDomain, gfn: number, mapping: SecretMapping): void {
    const result = unmapExtent(this.#parts.hypervisor, mapping.name);
    if (result !== 0 && result !== -ENOENT) {
      this.#parts.noteFault(`secret at gfn ${gfn} of domain ${domain.domid} could not be unmapped: ${result}`);
    }
    this.#forgetMapping(domain, gfn, mapping);
  }

  #forgetMapping(domain: SecretDomain, gfn: number, mapping: SecretMapping): void {
    domain.mappings.delete(gfn);
    if (!mapping.isSevered) domain.owner?.returnMapping(mapping.pages * FRAME_BYTES);
  }
}

const flagsOf = ({ domain, object, isReadOnly, isRevoked }: SecretUse): number => {
  const isOwned = object.maker === domain;
  const isShared = isOwned ? [...object.uses].some((use) => use.domain !== domain && !use.isRevoked) : true;
  const flags: readonly (readonly [boolean, number])[] = [
    [object.region.hidden, XENSECRET_IS_HIDDEN],
    [object.isSealed, XENSECRET_IS_SEALED],
    [isOwned, XENSECRET_IS_OWNED],
    [isShared, XENSECRET_IS_SHARED],
    [isReadOnly, XENSECRET_IS_READONLY],
    [isRevoked, XENSECRET_IS_REVOKED],
  ];
  return flags.reduce((sum, [isSet, flag]) => (isSet ? sum | flag : sum), 0);
};
