/**
 * The control domain's side of the hypercalls that its thread answers (core: service-call.ts): who answers which, a few
 * of them in each turn of the event loop, and the end of those whose domain ends.
 */
import { EIO, ENOSYS, ESRCH } from "@xenolith/abi";
import { answerServiceCall, GuestMemory, type Hypervisor, type ServiceRequest, takeServiceCalls } from "@xenolith/core";

/** One call of a guest. */
export interface ServiceCall {
  readonly slot: number;
  readonly domid: number;
  readonly vcpu: number;
  readonly command: number;
  /** As the guest gave it: the address of the command's struct, if it has one. */
  readonly argument: number;
  /** The caller's memory. What is read from it is read once and checked afterwards: its other vCPUs may change it. */
  readonly memory: GuestMemory;
  /** The domain ends, or the vCPU does: nobody waits for the answer, and nothing may be changed for it any more. */
  readonly signal: AbortSignal;
}

/**
 * Answers a call: a result >= 0 or a negative errno. Called on the control domain's thread; what takes long returns a
 * promise. A guest's mistake is an errno, never an exception.
 */
export type ServiceHandler = (call: ServiceCall) => number | Promise<number>;

/** Calls begun in one turn of the event loop: what a flood of them may delay everything else by. */
const TURN_CALLS_MAX = 64;

const ENDING: readonly string[] = ["dying", "dead", "free"];

interface Pending {
  readonly request: ServiceRequest;
  readonly ending: AbortController;
}

/** See the file's comment. */
export class ServiceCalls {
  readonly #hypervisor: Hypervisor;
  readonly #noteFault: (message: string) => void;
  readonly #handlers = new Map<number, ServiceHandler>();
  readonly #memories = new Map<number, GuestMemory>();
  readonly #pending = new Set<Pending>();
  #nextSlot = 0;

  constructor(hypervisor: Hypervisor, noteFault: (message: string) => void) {
    this.#hypervisor = hypervisor;
    this.#noteFault = noteFault;
  }

  /** Calls that were taken and are not answered. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** Names who answers hypercall `number`; without one it is -ENOSYS. */
  handle(number: number, handler: ServiceHandler): void {
    this.#handlers.set(number, handler);
  }

  /** Takes calls that wait; the domain after the last one served comes first. */
  serve(): void {
    const requests = takeServiceCalls(this.#hypervisor, this.#nextSlot, TURN_CALLS_MAX);
    for (const request of requests) {
      this.#nextSlot = request.slot + 1;
      this.#begin(request);
    }
  }

  /** The domain in `slot` ends, or only its vCPU `vcpu`: nobody waits for what it asked any more. */
  abandon(slot: number, vcpu?: number): void {
    for (const pending of this.#pending) {
      const { request, ending } = pending;
      if (request.slot !== slot || (vcpu !== undefined && request.vcpu !== vcpu)) continue;
      this.#pending.delete(pending);
      ending.abort();
    }
  }

  #begin(request: ServiceRequest): void {
    const handler = this.#handlers.get(request.number);
    const isEnding = ENDING.includes(this.#hypervisor.domains.stateOf(request.slot));
    if (handler === undefined || isEnding) {
      answerServiceCall(this.#hypervisor, request, isEnding ? -ESRCH : -ENOSYS);
      return;
    }
    const { slot, vcpu, command, argument } = request;
    const ending = new AbortController();
    const { signal } = ending;
    const domid = this.#hypervisor.domains.domid[slot]!;
    const call: ServiceCall = { slot, domid, vcpu, command, argument, memory: this.#memoryOf(slot), signal };
    const pending: Pending = { request, ending };
    this.#pending.add(pending);
    try {
      const answer = handler(call);
      if (typeof answer === "number") this.#end(pending, answer);
      else this.#endLater(pending, answer);
    } catch (error) {
      this.#fail(pending, error);
    }
  }

  #endLater(pending: Pending, answer: Promise<number>): void {
    answer.then(
      (value) => this.#end(pending, value),
      (error: unknown) => this.#fail(pending, error),
    );
  }

  #end(pending: Pending, answer: number): void {
    if (this.#pending.delete(pending)) answerServiceCall(this.#hypervisor, pending.request, answer);
  }

  #fail(pending: Pending, error: unknown): void {
    const { number, command } = pending.request;
    if (!pending.ending.signal.aborted) this.#noteFault(`hypercall ${number}, command ${command}: ${String(error)}`);
    this.#end(pending, -EIO);
  }

  #memoryOf(slot: number): GuestMemory {
    const memory = this.#memories.get(slot) ?? new GuestMemory(this.#hypervisor, slot);
    this.#memories.set(slot, memory);
    return memory;
  }
}
