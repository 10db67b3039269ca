/** What stands behind owners: what each has, and the pool that it is in. For this package. */
import { fstatSync, readlinkSync } from "node:fs";
import { type ErrorCode, XenolithError } from "@xenolith/abi";
import { PAGE_BYTES, Seal, sealsOf } from "@xenolith/sys";
import { Account, pagesOf } from "./account.ts";
import { Canary } from "./canary.ts";
import type { SecretPolicy } from "./limits.ts";
import { granted, SecretRefusal } from "./refusal.ts";
import { costOf, type Ledger, Secret, type SecretPlace } from "./secret.ts";
import { CANARY_BYTES, slotBytesOf, slotClassOf } from "./slots.ts";
import { SecretRegion } from "./region.ts";
import type { RegionMemory, SecretStore } from "./store.ts";

/** What ends with its owner. */
export interface Member {
  /** Wipes and forgets. */
  [Symbol.dispose](): void;
}

/** What a closed owner needs of tables. */
export interface Table {
  /** Wipes and forgets what the owner has in it. */
  releaseAllOf(owner: OwnerState): void;
}

/** What all owners of a pool share. */
export class PoolState {
  readonly store: SecretStore;
  readonly canary = new Canary();
  readonly root: OwnerState;
  /** Owners by number: what the marks behind secrets of tables say. */
  readonly owners = new Map<number, OwnerState>();
  readonly tables = new Set<Table>();
  #numbersGiven = 0;
  /** Refused requests, by code. */
  readonly refusals = new Map<ErrorCode, number>();
  overruns = 0;

  constructor(store: SecretStore) {
    this.store = store;
    this.root = new OwnerState(this, new Account("pool", {}, true, store.limits.chunkCountMax), "degraded");
  }

  /** A number that no other owner or table of this pool had. */
  giveNumber(): number {
    this.#numbersGiven += 1;
    return this.#numbersGiven;
  }
}

/** One owner. */
export class OwnerState implements Ledger {
  readonly pool: PoolState;
  readonly account: Account;
  readonly policy: SecretPolicy;
  readonly hidden: boolean;
  readonly members = new Set<Member>();
  readonly children = new Map<string, OwnerState>();
  readonly number: number;
  /** Secrets that it has in tables. */
  tabled = 0;
  isClosed = false;

  constructor(pool: PoolState, account: Account, policy: SecretPolicy) {
    this.pool = pool;
    this.account = account;
    this.policy = policy;
    this.hidden = pool.store.hidden;
    this.number = pool.giveNumber();
    pool.owners.set(this.number, this);
  }

  /** A place of zeros for a secret, which is charged, or why there is none. */
  take(size: number): SecretPlace | SecretRefusal {
    this.checkOpen();
    const place = this.#placeFor(size);
    if (place instanceof SecretRefusal) return this.noteRefusal(place);
    this.account.charge(costOf(place, size), place.chunk.index);
    return place;
  }

  /** Wipes a place and gives it back. */
  give(place: SecretPlace, cost: number): void {
    const { store } = this.pool;
    const { offset, chunk, page } = place;
    chunk.space.bytes.fill(0, offset, offset + cost);
    if (page === undefined) store.givePages(place, pagesOf(cost));
    else store.giveSlot(page, offset);
    this.account.discharge(cost, chunk.index);
  }

  /** A secret of zeros, or why there is none. */
  allocate(size: number): Secret | SecretRefusal {
    const place = this.take(size);
    if (place instanceof SecretRefusal) return place;
    const secret = new Secret(this, place, size);
    this.members.add(secret);
    return secret;
  }

  /** A region of zeros, or why there is none. */
  allocateRegion(size: number): SecretRegion | SecretRefusal {
    this.checkOpen();
    const refusal = this.#regionRefusal(size);
    if (refusal !== undefined) return this.noteRefusal(refusal);
    const memory = this.pool.store.takeRegion(this.account, size);
    return memory instanceof SecretRefusal ? this.noteRefusal(memory) : this.#addRegion(memory);
  }

  /** As `allocateRegion`; the program goes on while the memory is made, and what it will have is charged meanwhile. */
  async allocateRegionSoon(size: number): Promise<SecretRegion | SecretRefusal> {
    this.checkOpen();
    const refusal = this.#regionRefusal(size);
    if (refusal !== undefined) return this.noteRefusal(refusal);
    this.account.charge(size, -1);
    const memory = await this.pool.store.takeRegionSoon(this.account, size);
    if (memory instanceof SecretRefusal) {
      this.account.discharge(size, -1);
      return this.noteRefusal(memory);
    }
    const region = this.#enterRegion(memory);
    if (this.isClosed) region.release();
    this.checkOpen();
    return region;
  }

  /** Counts a further mapping of so many bytes of regions, or says why not. */
  takeMapping(bytes: number): SecretRefusal | undefined {
    this.checkOpen();
    const refusal =
      this.policyRefusal() ?? this.account.mappingRefusal(bytes) ?? this.pool.store.takeMapping(this.account, bytes);
    if (refusal !== undefined) return this.noteRefusal(refusal);
    this.account.chargeMapping(bytes);
    return undefined;
  }

  /** So many bytes of regions are mapped no more. */
  giveMapping(bytes: number): void {
    this.pool.store.giveMapping(bytes);
    this.account.chargeMapping(-bytes);
  }

  /** The region of another process behind a descriptor, which is duplicated. */
  adoptRegion(fd: number): SecretRegion | SecretRefusal {
    this.checkOpen();
    const size = secretFileSize(fd, this.hidden);
    const refusal = this.#regionRefusal(size);
    if (refusal !== undefined) return this.noteRefusal(refusal);
    const memory = this.pool.store.adoptRegion(this.account, fd, size);
    return memory instanceof SecretRefusal ? this.noteRefusal(memory) : this.#addRegion(memory);
  }

  scratch(size: number): Secret {
    return granted(this.pool.root.allocate(size));
  }

  writeCanary({ chunk, offset }: SecretPlace, size: number): void {
    this.pool.canary.write(chunk.space.words, offset + size);
  }

  free(secret: Secret, place: SecretPlace, size: number): boolean {
    const isRight = this.pool.canary.isRight(place.chunk.space.words, place.offset + size);
    this.give(place, costOf(place, size));
    this.members.delete(secret);
    if (!isRight) this.pool.overruns += 1;
    return isRight;
  }

  /** Wipes and forgets what it and those below it have. */
  close(): void {
    if (this.isClosed) return;
    if (this.pool.store.loans.count > 0)
      throw new XenolithError("SECRET_IN_USE", `owner ${this.account.path} lends bytes now`);
    for (const child of this.children.values()) child.close();
    this.isClosed = true;
    const overrun: unknown[] = [];
    for (const member of this.members) {
      try {
        member[Symbol.dispose]();
      } catch (error) {
        overrun.push(error);
      }
    }
    if (this.tabled > 0) for (const table of this.pool.tables) table.releaseAllOf(this);
    this.pool.owners.delete(this.number);
    if (overrun.length > 0) throw overrun[0];
  }

  checkOpen(): void {
    if (this.isClosed) throw new XenolithError("SECRET_RELEASED", `owner ${this.account.path} is closed`);
  }

  /** What it may not have at all, whatever there is. */
  policyRefusal(): SecretRefusal | undefined {
    if (this.hidden || this.policy === "degraded") return undefined;
    const why = "this pool is degraded: its memory is locked and not dumped, but the kernel can read it";
    return new SecretRefusal("SECRET_UNSUPPORTED", `owner ${this.account.path} is strict, and ${why}`);
  }

  noteRefusal(refusal: SecretRefusal): SecretRefusal {
    const { refusals } = this.pool;
    refusals.set(refusal.code, (refusals.get(refusal.code) ?? 0) + 1);
    this.account.refusals += 1;
    return refusal;
  }

  #regionRefusal(size: number): SecretRefusal | undefined {
    const sizeMax = this.pool.store.limits.ceilingBytes;
    if (!Number.isSafeInteger(size) || size < 1 || size > sizeMax || size % PAGE_BYTES !== 0) {
      const text = `a region has a multiple of ${PAGE_BYTES} bytes, at most ${sizeMax}, not ${String(size)}`;
      return new SecretRefusal("INVALID_SIZE", text);
    }
    return this.policyRefusal() ?? this.account.refusal(size);
  }

  #addRegion(memory: RegionMemory): SecretRegion {
    const region = this.#enterRegion(memory);
    this.account.charge(region.size, -1);
    return region;
  }

  #enterRegion(memory: RegionMemory): SecretRegion {
    const region = new SecretRegion(this, memory);
    this.members.add(region);
    return region;
  }

  #placeFor(size: number): SecretPlace | SecretRefusal {
    const { store } = this.pool;
    const sizeMax = store.limits.chunkBytes - CANARY_BYTES;
    if (!Number.isSafeInteger(size) || size < 1 || size > sizeMax) {
      return new SecretRefusal("INVALID_SIZE", `a secret has 1 to ${sizeMax} bytes, not ${String(size)}`);
    }
    const slotClass = slotClassOf(size);
    const pages = slotClass === undefined ? pagesOf(size + CANARY_BYTES) : 0;
    const cost = slotClass === undefined ? pages * PAGE_BYTES : slotBytesOf(slotClass);
    const refusal = this.policyRefusal() ?? this.account.refusal(cost);
    if (refusal !== undefined) return refusal;
    if (slotClass === undefined) {
      const run = store.runFor(this.account, pages);
      return run instanceof SecretRefusal ? run : { ...run, page: undefined };
    }
    const page = store.pageFor(this.account, slotClass);
    return page instanceof SecretRefusal ? page : { offset: store.takeSlot(page), chunk: page.chunk, page };
  }
}

/**
 * The size of a file of secret memory, which can never change: no touch of a page of it can fail.
 *
 * @throws XenolithError `INVALID_ARGUMENT` when it is another file.
 */
const secretFileSize = (fd: number, hidden: boolean): number => {
  if (!Number.isSafeInteger(fd) || fd < 0) {
    throw new XenolithError("INVALID_ARGUMENT", `a descriptor is a number of 0 or more, not ${String(fd)}`);
  }
  const isHidden = readlinkSync(`/proc/self/fd/${fd}`).startsWith("/secretmem");
  const isFixed = isHidden || (!hidden && sealsOf(fd) > 0 && (sealsOf(fd) & Seal.SHRINK) !== 0);
  if (isFixed) return fstatSync(fd).size;
  throw new XenolithError("INVALID_ARGUMENT", `descriptor ${fd} is no secret memory of this pool's kind`);
};
