/**
 * The control domain's attention word: what its thread has to look at. Any thread sets bits; only the control
 * domain's thread takes them. The doorbell rings on the change from zero, so a flood costs one ring.
 */
import type { ColumnArena } from "./columns.ts";
import type { Platform } from "./platform.ts";

/** An event is pending on a dom0 port. */
export const ATTENTION_EVENT = 1;
/** A timer was set that may expire before the one the control domain sleeps for. */
export const ATTENTION_TIMER = 2;
/** A domain shut down or crashed. */
export const ATTENTION_DOMAIN = 4;
/** A console or stdio ring has bytes or room. */
export const ATTENTION_CONSOLE = 8;
/** Free frames fell below what somebody asked for (VIRQ_ENOMEM), a request waits for the control domain, or the end of a domain can go on. */
export const ATTENTION_REQUEST = 16;
/** A grant that the control domain has mapped was taken back. */
export const ATTENTION_REVOKED = 32;
/** A vCPU waits for an answer (service-call.ts). */
export const ATTENTION_SERVICE = 64;

/** The attention word of one hypervisor. */
export class Attention {
  readonly #word: Int32Array;
  readonly #platform: Platform;

  constructor(arena: ColumnArena, platform: Platform) {
    this.#word = arena.i32(2);
    this.#platform = platform;
  }

  /** Sets `bits`; rings the doorbell when the word was zero. */
  raise(bits: number): void {
    if (Atomics.or(this.#word, 0, bits) === 0) this.#platform.ringDoorbell();
  }

  /** Takes and clears all bits. */
  take(): number {
    return Atomics.exchange(this.#word, 0, 0);
  }
}
