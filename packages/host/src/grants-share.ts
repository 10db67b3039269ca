/**
 * Pages of the control domain that it shares with another one: the counterpart of gntalloc for dom0. Made by
 * `HostGrants.share`.
 */
import { EventEmitter } from "node:events";
import { XenolithError } from "@xenolith/abi";
import { depopulateRun, DOM0_SLOT } from "@xenolith/core";
import type { GrantAccess, GrantRefs } from "./grants-refs.ts";
import { type EndNotice, revokableRefusal, type TakenNotice, takeNotice } from "./grants-notify.ts";
import type { HostContext } from "./host-context.ts";
import { FRAME_BYTES } from "./mmu.ts";

/** What shared pages tell their listeners. */
export interface GrantedPagesEventMap {
  /** The domain that they were shared with is gone; the end has begun by itself. */
  orphaned: [];
  /** Access has ended everywhere and the memory is given back. */
  ended: [];
}

/** What shared pages are made of. Not for users of the library. */
export interface GrantedPagesParts {
  readonly context: HostContext;
  readonly table: GrantRefs;
  /** The domain that they are shared with, and which of all that ever have its number. */
  readonly domid: number;
  readonly generation: number;
  readonly access: GrantAccess;
  readonly refs: readonly number[];
  /** Where they stand in the control domain's window. */
  readonly gfn: number;
  /** When the other domain is gone access ends, but the memory stays until `end`. */
  readonly isKept: boolean;
  /** Some of them are still in use: try again later. */
  readonly onDeferred: (pages: GrantedPages) => void;
  readonly onEnded: (pages: GrantedPages) => void;
}

/** Pages shared with one domain. */
export class GrantedPages implements AsyncDisposable {
  /** The domain that they are shared with. */
  readonly domid: number;
  /** The reference of each page, for the other domain. */
  readonly refs: readonly number[];
  /** The pages. They can be used for ever; when access has ended they show zeros. */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  readonly isReadOnly: boolean;
  readonly isRevokable: boolean;
  /** Tells of `orphaned` and `ended`. */
  readonly events = new EventEmitter<GrantedPagesEventMap>();
  readonly #parts: GrantedPagesParts;
  /** Pages to which access has ended although `end` was not called. */
  readonly #closed = new Set<number>();
  /** Per page: access has ended, the reference is somebody else's now. */
  readonly #isDone: boolean[];
  #left: number;
  #isOrphaned = false;
  #notice: TakenNotice | undefined;
  #ending: Promise<void> | undefined;
  #resolve: () => void = () => {};

  /** Only `HostGrants` makes them. */
  constructor(parts: GrantedPagesParts) {
    const { context, access, refs, gfn } = parts;
    this.#parts = parts;
    this.domid = parts.domid;
    this.refs = refs;
    this.bytes = context.window.bytes(gfn, refs.length * FRAME_BYTES);
    this.isReadOnly = access.isReadOnly;
    this.isRevokable = access.isRevokable;
    this.#isDone = refs.map(() => false);
    this.#left = refs.length;
    for (const [index, ref] of refs.entries()) parts.table.grant(ref, parts.domid, gfn + index, access);
  }

  /** Whether the other domain has one of the pages mapped, or copies it, now. */
  get isInUse(): boolean {
    return this.#open().some((index) => this.#parts.table.isInUse(this.refs[index]!));
  }

  /** Whether `end` was called, or has begun by itself because the other domain is gone. */
  get isEnding(): boolean {
    return this.#ending !== undefined;
  }

  /**
   * From now on, when access ends (`end`), a byte becomes 0 just before, and an event goes out just after. Replaces an
   * earlier request.
   *
   * @throws XenolithError `INVALID_ARGUMENT`: the pages are revokable, no such byte, or the port is not connected.
   */
  notifyOnEnd(notice: EndNotice): void {
    if (this.isRevokable) throw revokableRefusal();
    if (this.isEnding) throw new XenolithError("INVALID_ARGUMENT", "access to these pages is ending already");
    const { hypervisor } = this.#parts.context;
    this.#notice = takeNotice({ hypervisor, targets: this.refs, isRef: true, before: this.#notice }, notice);
  }

  /**
   * Takes pages back, one by its reference or all: when this returns the other domain sees a page of its own, or zeros,
   * where the page was, and cannot reach it in any way. The memory stays the control domain's until `end`.
   *
   * @throws XenolithError `INVALID_ARGUMENT` (not revokable, or no such reference), `HYPERCALL_FAILED` when the kernel
   * refuses to change a mapping of the control domain itself.
   */
  revoke(ref?: number): void {
    if (!this.isRevokable) throw new XenolithError("INVALID_ARGUMENT", "these pages were not shared as revokable");
    const index = ref === undefined ? -1 : this.refs.indexOf(ref);
    if (ref !== undefined && index < 0) {
      throw new XenolithError("INVALID_ARGUMENT", `reference ${ref} is none of these pages`);
    }
    const failed = this.#revoke(this.#open().filter((each) => ref === undefined || each === index));
    if (failed === undefined) return;
    throw new XenolithError("HYPERCALL_FAILED", `reference ${failed} could not be revoked`);
  }

  /**
   * Ends access and gives the memory back: at once for pages that nobody uses, and for revokable ones, which are taken
   * back; as soon as the other domain lets go for the others. These are looked at once a second, which does not keep the
   * process alive. Resolves when all of it is done: a domain can delay that as long as it lives. Repeatable.
   */
  end(): Promise<void> {
    if (this.#ending !== undefined) return this.#ending;
    this.#ending = new Promise((resolve) => (this.#resolve = resolve));
    const notice = this.#notice;
    if (notice !== undefined) this.#clear(notice);
    this.retry();
    if (notice?.port !== undefined) this.#parts.context.events.send(notice.port);
    return this.#ending;
  }

  /** Begins the end, as `end`, and does not wait for the other domain. */
  async [Symbol.asyncDispose](): Promise<void> {
    void this.end();
    await Promise.resolve();
  }

  /** Ends what can be ended now; returns how many pages are left. For `HostGrants`. */
  retry(): number {
    if (this.isRevokable) this.#revoke(this.#open());
    const { context, table, gfn, refs } = this.#parts;
    const idle = this.#open().filter((index) => this.#closed.has(index) || table.endIfIdle(refs[index]!));
    for (const index of idle) this.#isDone[index] = true;
    table.give(idle.map((index) => refs[index]!));
    for (const [first, count] of runsOf(idle)) depopulateRun(context.hypervisor, DOM0_SLOT, gfn + first, count);
    this.#left -= idle.length;
    if (this.#left > 0) this.#parts.onDeferred(this);
    else this.#finish();
    return this.#left;
  }

  /** A domain is gone; perhaps the one that has these pages. For `HostGrants`. */
  look(): void {
    const { context, domid, generation } = this.#parts;
    const { domains } = context.hypervisor;
    const slot = domains.slotOf(domid);
    const isThere = slot >= 0 && domains.generation[slot] === generation;
    if (isThere && !["dying", "dead"].includes(domains.stateOf(slot))) return;
    if (this.isEnding) {
      if (this.#left > 0) this.retry();
      return;
    }
    // Its number may be another domain's one day, which must not find these grants.
    if (!this.#parts.isKept) void this.end();
    else this.#closeIdle();
    if (!this.#isOrphaned) queueMicrotask(() => this.events.emit("orphaned"));
    this.#isOrphaned = true;
  }

  /** Ends access to the pages that the domain, which is going, does not use any more; it comes to the others later. */
  #closeIdle(): void {
    const { table } = this.#parts;
    for (const index of this.#open()) {
      if (!this.#closed.has(index) && table.endIfIdle(this.refs[index]!)) this.#closed.add(index);
    }
  }

  /** The byte goes to 0; the hypervisor need not watch over it any more. */
  #clear({ index, clearByte }: TakenNotice): void {
    const { hypervisor } = this.#parts.context;
    const before = { index };
    takeNotice({ hypervisor, targets: this.refs, isRef: true, before }, {});
    if (clearByte !== undefined) Atomics.store(this.bytes, clearByte, 0);
  }

  /** Indices of pages whose access has not ended. */
  #open(): number[] {
    return this.refs.map((_, index) => index).filter((index) => !this.#isDone[index]);
  }

  /** Access is removed from all of them before the first is taken back. Returns a reference that was not. */
  #revoke(indices: readonly number[]): number | undefined {
    const { table } = this.#parts;
    for (const index of indices) table.removeAccess(this.refs[index]!);
    return indices.map((index) => this.refs[index]!).find((ref) => !table.revoke(ref));
  }

  #finish(): void {
    const { context, gfn, refs } = this.#parts;
    // What could not be unhooked before, because the kernel was short of mappings.
    const rest = refs
      .map((_, index) => index)
      .filter((index) => context.hypervisor.p2m.get(DOM0_SLOT, gfn + index) !== 0);
    for (const [first, count] of runsOf(rest)) depopulateRun(context.hypervisor, DOM0_SLOT, gfn + first, count);
    const isEmpty = refs.every((_, index) => context.hypervisor.p2m.get(DOM0_SLOT, gfn + index) === 0);
    if (isEmpty) context.window.give(gfn, refs.length);
    this.#parts.onEnded(this);
    this.#resolve();
    queueMicrotask(() => this.events.emit("ended"));
  }
}

/** Runs of consecutive numbers of an ascending list: the first of each, and how many there are. */
const runsOf = (indices: readonly number[]): [first: number, count: number][] => {
  const runs: [number, number][] = [];
  for (const index of indices) {
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === index) last[1] += 1;
    else runs.push([index, 1]);
  }
  return runs;
};
