import { XenolithError } from "@xenolith/abi";
import { PAGE_BYTES } from "@xenolith/sys";
import { pagesOf } from "./account.ts";
import type { Tag } from "./canary.ts";
import type { Chunk } from "./chunk.ts";
import type { OwnerState, PoolState } from "./owner-state.ts";
import { type SecretOwner, stateOf } from "./owner.ts";
import { SecretRefusal } from "./refusal.ts";
import type { SecretPlace } from "./secret.ts";
import { CANARY_BYTES } from "./slots.ts";

/** What places are a multiple of. */
const UNIT_BYTES = 64;
/** Up to this size a byte loop is faster than a call of `set`. */
const LOOP_BYTES_MAX = 64;

interface Found extends SecretPlace {
  /** What is taken: the slot, or the pages. */
  readonly cost: number;
  /** What the mark at its end says. */
  readonly tag: Tag;
}

/** Where bytes of a secret go: a Uint8Array, or anything else that takes them. */
export interface SecretTarget {
  readonly length: number;
  /** The bytes are lent for the call. */
  set(bytes: Uint8Array): void;
}

/**
 * Secrets by number, for programs that keep very many: nothing of the JavaScript heap belongs to one of them. Who has it
 * and how long it is stands in the mark at the end of its slot, behind the secret, so a wrong number is refused.
 *
 *     secret | zeros | mark (16 bytes)
 *
 * A number means nothing to another table; after `release` it may be given again.
 */
export class SecretTable implements Disposable {
  readonly #pool: PoolState;
  readonly #number: number;
  readonly #unitsPerChunk: number;
  /** Pages of secrets that are larger than a slot, by number. */
  readonly #runs = new Map<number, number>();
  #count = 0;

  /** @internal Pools make tables: `SecretPool.table`. */
  constructor(pool: PoolState) {
    this.#pool = pool;
    this.#number = pool.giveNumber();
    this.#unitsPerChunk = Math.ceil(pool.store.limits.chunkBytes / UNIT_BYTES);
    pool.tables.add(this);
  }

  /** Secrets in it. */
  get count(): number {
    return this.#count;
  }

  /**
   * Keeps a copy of these bytes for an owner of the same pool: its number, or why there is none. The source stays as it
   * is: wipe it.
   *
   * @throws XenolithError `SECRET_RELEASED` when the owner is closed; `INVALID_ARGUMENT` for an owner of another pool.
   */
  put(source: Uint8Array, owner: SecretOwner): number | SecretRefusal {
    const state = this.#mine(owner);
    const place = state.take(source.length);
    if (place instanceof SecretRefusal) return place;
    const { bytes } = place.chunk.space;
    const { offset } = place;
    if (source.length > LOOP_BYTES_MAX) bytes.set(source, offset);
    else for (let at = 0; at < source.length; at += 1) bytes[offset + at] = source[at]!;
    return this.#enter(place, state, source.length);
  }

  /**
   * Gives a secret to another owner, of which it then takes the place: its number from now on; or why it stays where it
   * is.
   *
   * @throws XenolithError as `put`, and `SECRET_RELEASED` for a number that is none.
   */
  give(number: number, owner: SecretOwner): number | SecretRefusal {
    const state = this.#mine(owner);
    const found = this.#find(number);
    const { offset, chunk, tag } = found;
    const place = state.take(tag.size);
    if (place instanceof SecretRefusal) return place;
    place.chunk.space.bytes.set(chunk.space.bytes.subarray(offset, offset + tag.size), place.offset);
    // Something that wrote past it is counted, and no more: the secret itself has its new number by now.
    if (!isZero(found)) this.#pool.overruns += 1;
    this.#drop(number, found);
    return this.#enter(place, state, tag.size);
  }

  /** How many bytes a secret has. @throws XenolithError `SECRET_RELEASED` for a number that is none. */
  sizeOf(number: number): number {
    return this.#find(number).tag.size;
  }

  /**
   * Copies the first `length` bytes of a secret to the beginning of memory of yours, which you wipe; or lends them to
   * another kind of target, once, whose view is empty afterwards.
   *
   * @throws XenolithError `SECRET_RELEASED` for a number that is none; `INVALID_SIZE` when it or the target has fewer.
   */
  copyTo(number: number, length: number, target: SecretTarget): void {
    const { offset, chunk, tag } = this.#find(number);
    if (!Number.isSafeInteger(length) || length < 0 || length > tag.size || length > target.length) {
      throw new XenolithError(
        "INVALID_SIZE",
        `${length} bytes of a secret of ${tag.size} for a target of ${target.length}`,
      );
    }
    const { space } = chunk;
    if (!(target instanceof Uint8Array)) {
      space.lend(offset, length, (view) => target.set(view));
      return;
    }
    const { bytes } = space;
    if (length > LOOP_BYTES_MAX) target.set(bytes.subarray(offset, offset + length));
    else for (let at = 0; at < length; at += 1) target[at] = bytes[offset + at]!;
  }

  /**
   * Wipes a secret and gives its memory back, now.
   *
   * @throws XenolithError `SECRET_RELEASED` for a number that is none; `SECRET_OVERRUN` when something had written past
   * it, and it is wiped and released all the same.
   */
  release(number: number): void {
    const found = this.#find(number);
    const isRight = isZero(found);
    this.#drop(number, found);
    if (isRight) return;
    this.#pool.overruns += 1;
    throw new XenolithError("SECRET_OVERRUN", `something wrote past a secret of ${found.tag.size} bytes`);
  }

  /** Wipes and releases all that is in it. */
  [Symbol.dispose](): void {
    for (const owner of this.#pool.owners.values()) if (owner.tabled > 0) this.releaseAllOf(owner);
    this.#pool.tables.delete(this);
  }

  /** @internal For owners that are closed while they still have something: looks at every slot. */
  releaseAllOf(owner: OwnerState): void {
    const { store } = this.#pool;
    for (const number of [...this.#runs.keys()]) this.#dropIfOf(owner, number);
    for (let index = 0; index < store.limits.chunkCountMax; index += 1) {
      for (const page of store.chunk(index)?.slotPages ?? []) {
        if (page === undefined) continue;
        for (let at = 0; at < PAGE_BYTES; at += page.slotBytes) {
          this.#dropIfOf(owner, this.#numberOf(page.chunk, page.offset + at));
        }
      }
    }
  }

  #dropIfOf(owner: OwnerState, number: number): void {
    const found = this.#look(number);
    if (found?.tag.owner === owner.number) this.#drop(number, found);
  }

  #mine(owner: SecretOwner): OwnerState {
    const state = stateOf(owner);
    if (state.pool === this.#pool) return state;
    throw new XenolithError("INVALID_ARGUMENT", `owner ${owner.path} is one of another pool`);
  }

  #enter(place: SecretPlace, owner: OwnerState, size: number): number {
    const { chunk, offset, page } = place;
    const pages = page === undefined ? pagesOf(size + CANARY_BYTES) : 0;
    const end = offset + (page?.slotBytes ?? pages * PAGE_BYTES) - CANARY_BYTES;
    this.#pool.canary.writeTag(chunk.space.words, end, { owner: owner.number, table: this.#number, size });
    const number = this.#numberOf(chunk, offset);
    if (page === undefined) this.#runs.set(number, pages);
    owner.tabled += 1;
    this.#count += 1;
    return number;
  }

  #drop(number: number, found: Found): void {
    const owner = this.#pool.owners.get(found.tag.owner)!;
    owner.give(found, found.cost);
    if (found.page === undefined) this.#runs.delete(number);
    owner.tabled -= 1;
    this.#count -= 1;
  }

  #numberOf(chunk: Chunk, offset: number): number {
    return chunk.index * this.#unitsPerChunk + offset / UNIT_BYTES;
  }

  #find(number: number): Found {
    const found = this.#look(number);
    if (found !== undefined) return found;
    throw new XenolithError("SECRET_RELEASED", `there is no secret ${String(number)} in this table`);
  }

  /** What a number stands for; undefined when it is none of this table's, or something wrote over the mark. */
  #look(number: number): Found | undefined {
    if (!Number.isSafeInteger(number) || number < 0) return undefined;
    const chunk = this.#pool.store.chunk(Math.floor(number / this.#unitsPerChunk));
    if (chunk === undefined) return undefined;
    const offset = (number % this.#unitsPerChunk) * UNIT_BYTES;
    const page = chunk.slotPages[Math.floor(offset / PAGE_BYTES)];
    const cost = page === undefined ? (this.#runs.get(number) ?? 0) * PAGE_BYTES : page.slotBytes;
    if (cost === 0 || (page !== undefined && offset % cost !== 0)) return undefined;
    const tag = this.#pool.canary.readTag(chunk.space.words, offset + cost - CANARY_BYTES);
    return tag?.table === this.#number ? { offset, chunk, page, cost, tag } : undefined;
  }
}

/** Whether nothing stands between a secret and its mark. */
const isZero = ({ chunk, offset, cost, tag }: Found): boolean => {
  const { bytes } = chunk.space;
  for (let at = offset + tag.size; at < offset + cost - CANARY_BYTES; at += 1) if (bytes[at] !== 0) return false;
  return true;
};
