/**
 * Notes about guests: what the hypervisor would print if it printed. Each domain has its own few rows and its own rate,
 * so that a guest that misbehaves a million times a second neither fills a log nor displaces what others did. `core`
 * only records; the control domain takes the records and prints them.
 *
 *     column      type   holds                                          written by
 *     sequence    u32    number of the record + 1 (publishes the row)   whoever notes
 *     event       u32    TRACE_EVENTS index                             whoever notes
 *     first       u32    meaning depends on the event                   whoever notes
 *     second      u32    meaning depends on the event                   whoever notes
 *     timeNs      f64    when                                           whoever notes
 *     produced    u32    per domain: records ever written               whoever notes, atomically
 *     consumed    u32    per domain: records taken                      control domain
 *     suppressed  u32    per domain: notes not recorded                 whoever notes, atomically
 *     tokens      f64    per domain: see rate-limit.ts                  whoever notes
 *     refilledNs  f64    per domain: see rate-limit.ts                  whoever notes
 *
 * No lock: two vCPUs of one domain that race for the last token may both get it, which the size of the ring absorbs.
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";
import { admitted } from "./rate-limit.ts";

/** What can be noted; the index is what the column holds. `first` and `second` are in brackets. */
export const TRACE_EVENTS = [
  "none",
  /** A call without privilege [hypercall, command]. */
  "denied",
  /** A hypercall that does not exist [hypercall, command]. */
  "unknown-hypercall",
  /** The domain was crashed [0, 0]; its row says why. */
  "crashed",
] as const;
/** One kind of note. */
export type TraceEvent = (typeof TRACE_EVENTS)[number];

/** Records kept of each domain. */
export const TRACE_RECORDS_MAX = 16;
/** Notes a domain may cause at once ... */
export const TRACE_BURST = 8;
/** ... and per second in the long run. */
export const TRACE_PER_SECOND = 4;

/** One note, as the control domain reads it. */
export interface TraceRecord {
  readonly event: TraceEvent;
  readonly first: number;
  readonly second: number;
  readonly timeNs: number;
}

/** Notes about all domains. */
export class TraceTable {
  readonly suppressed: Uint32Array;
  readonly #sequence: Uint32Array;
  readonly #event: Uint32Array;
  readonly #first: Uint32Array;
  readonly #second: Uint32Array;
  readonly #timeNs: Float64Array;
  readonly #produced: Uint32Array;
  readonly #consumed: Uint32Array;
  readonly #tokens: Float64Array;
  readonly #refilledNs: Float64Array;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const count = geometry.domainCountMax;
    const rows = count * TRACE_RECORDS_MAX;
    this.#sequence = arena.u32(rows);
    this.#event = arena.u32(rows);
    this.#first = arena.u32(rows);
    this.#second = arena.u32(rows);
    this.#timeNs = arena.f64(rows);
    this.#produced = arena.u32(count);
    this.#consumed = arena.u32(count);
    this.suppressed = arena.u32(count);
    this.#tokens = arena.f64(count);
    this.#refilledNs = arena.f64(count);
  }

  /** Forgets everything about `slot`. */
  reset(slot: number, nowNs: number): void {
    this.#sequence.fill(0, slot * TRACE_RECORDS_MAX, (slot + 1) * TRACE_RECORDS_MAX);
    this.#produced[slot] = 0;
    this.#consumed[slot] = 0;
    this.suppressed[slot] = 0;
    this.#tokens[slot] = TRACE_BURST;
    this.#refilledNs[slot] = nowNs;
  }

  /** Notes that `slot` caused `event`, unless it causes too many. */
  note(
    slot: number,
    event: TraceEvent,
    about: { readonly nowNs: number; readonly first: number; readonly second: number },
  ): void {
    const bucket = { tokens: this.#tokens, refilledNs: this.#refilledNs, row: slot };
    if (!admitted(bucket, 1, about.nowNs, { burst: TRACE_BURST, perSecond: TRACE_PER_SECOND })) {
      Atomics.add(this.suppressed, slot, 1);
      return;
    }
    const number = Atomics.add(this.#produced, slot, 1);
    const row = slot * TRACE_RECORDS_MAX + (number % TRACE_RECORDS_MAX);
    Atomics.store(this.#sequence, row, 0);
    this.#event[row] = TRACE_EVENTS.indexOf(event);
    this.#first[row] = about.first;
    this.#second[row] = about.second;
    this.#timeNs[row] = about.nowNs;
    Atomics.store(this.#sequence, row, (number + 1) >>> 0);
  }

  /** Takes the notes about `slot` that are complete and not overwritten, oldest first. Control domain only. */
  take(slot: number): TraceRecord[] {
    const produced = Atomics.load(this.#produced, slot);
    const unread = Math.min((produced - this.#consumed[slot]!) >>> 0, TRACE_RECORDS_MAX);
    const records: TraceRecord[] = [];
    for (let number = produced - unread; number < produced; number += 1) {
      const record = this.#read(slot, number);
      if (record !== undefined) records.push(record);
    }
    this.#consumed[slot] = produced;
    return records;
  }

  #read(slot: number, number: number): TraceRecord | undefined {
    const row = slot * TRACE_RECORDS_MAX + (number % TRACE_RECORDS_MAX);
    const published = Atomics.load(this.#sequence, row);
    const record = {
      event: TRACE_EVENTS[this.#event[row]!] ?? "none",
      first: this.#first[row]!,
      second: this.#second[row]!,
      timeNs: this.#timeNs[row]!,
    };
    const isWhole = published === (number + 1) >>> 0 && Atomics.load(this.#sequence, row) === published;
    return isWhole ? record : undefined;
  }
}
