/**
 * Fairness of event handling in the control domain. Each port is masked while its event is handled and unmasked when the
 * handler says that it is done; a port whose events keep bringing no work is unmasked later and later, so that a sender
 * that does nothing but send costs a bounded share of the receiver's time and delays nobody else.
 *
 * Private to one thread; time is given by the caller, in nanoseconds. After Linux's "late EOI" (events_base.c), restated.
 */
import assert from "node:assert/strict";

/** Events without work that a port may have in a row before it is slowed down. */
export const SPURIOUS_FREE_COUNT = 1;
/** First delay of a port that is slowed down; each further event without work doubles it ... */
export const DELAY_FIRST_NS = 1_000_000;
/** ... up to this. */
export const DELAY_MAX_NS = 1_000_000_000;

const DOUBLINGS_MAX = 10;

/** How long a port stays masked after `spuriousCount` events in a row that brought no work. */
export const lateEoiDelayNs = (spuriousCount: number): number => {
  const excess = spuriousCount - SPURIOUS_FREE_COUNT;
  if (excess <= 0) return 0;
  return Math.min(DELAY_MAX_NS, DELAY_FIRST_NS * 2 ** Math.min(excess - 1, DOUBLINGS_MAX));
};

/** State of every port of one domain whose events are handled by host code. */
export class EventThrottle {
  readonly #spurious: Uint32Array;
  /** When the port may be unmasked; Infinity: it is being handled, 0: it is unmasked. */
  readonly #dueNs: Float64Array;
  #delayed = 0;

  /** For ports 0 to `portCount` - 1. */
  constructor(portCount: number) {
    this.#spurious = new Uint32Array(portCount);
    this.#dueNs = new Float64Array(portCount);
  }

  /** The event of `port` is about to be handled. The caller has masked it. */
  begin(port: number): void {
    assert(this.#dueNs[port] === 0);
    this.#dueNs[port] = Infinity;
  }

  /**
   * The event of `port` was handled; `hadWork` says whether it brought any. Returns true when the caller is to unmask the
   * port now; otherwise `takeDue` names it later.
   */
  end(port: number, hadWork: boolean, nowNs: number): boolean {
    assert(this.#dueNs[port] === Infinity);
    const count = hadWork ? 0 : Math.min(this.#spurious[port]! + 1, 0xffff_ffff);
    this.#spurious[port] = count;
    const delayNs = lateEoiDelayNs(count);
    this.#dueNs[port] = delayNs === 0 ? 0 : nowNs + delayNs;
    if (delayNs !== 0) this.#delayed += 1;
    return delayNs === 0;
  }

  /** Whether the event of `port` is being handled, or the port is held back. */
  isHeld(port: number): boolean {
    return this.#dueNs[port] !== 0;
  }

  /** A port whose delay is over, which the caller is to unmask now; -1: none. */
  takeDue(nowNs: number): number {
    if (this.#delayed === 0) return -1;
    for (let port = 0; port < this.#dueNs.length; port += 1) {
      const due = this.#dueNs[port]!;
      if (due === 0 || due > nowNs) continue;
      this.#dueNs[port] = 0;
      this.#delayed -= 1;
      return port;
    }
    return -1;
  }

  /** When `takeDue` has something to say next; Infinity: never. */
  nextDueNs(): number {
    let next = Infinity;
    if (this.#delayed === 0) return next;
    for (const due of this.#dueNs) if (due !== 0 && due < next) next = due;
    return next;
  }

  /** Forgets `port`: it was closed. */
  reset(port: number): void {
    const due = this.#dueNs[port]!;
    if (due !== 0 && due !== Infinity) this.#delayed -= 1;
    this.#dueNs[port] = 0;
    this.#spurious[port] = 0;
  }
}
