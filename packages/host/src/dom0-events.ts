/**
 * Event channels of the control domain: its code is the host program's, so its upcall is a callback.
 */
import { ENOSPC, errnoName, XenolithError } from "@xenolith/abi";
import {
  allocateUnbound,
  bindInterdomain,
  bindVirq,
  closePort,
  type Cpu,
  EventThrottle,
  maskPort,
  sendPort,
  takePending,
  unmaskPort,
} from "@xenolith/core";

/**
 * Called with the port that fired. Events of one port merge: look at all there is to do. Returns false when there was
 * nothing: a sender that keeps sending without work is served less and less often, up to once a second.
 */
export type EventHandler = (port: number) => unknown;

/** Ports served in one turn; the rest keeps the attention word set. */
const PORTS_PER_TURN = 256;

/** dom0's ports. */
export class Dom0Events {
  readonly #cpu: Cpu;
  readonly #handlers = new Map<number, EventHandler>();
  readonly #fired = new Uint16Array(PORTS_PER_TURN);
  readonly #throttle: EventThrottle;
  readonly #onFault: (message: string) => void;
  readonly #portCountMax: number;
  #heldTimer: NodeJS.Timeout | undefined;

  constructor(cpu: Cpu, onFault: (message: string) => void) {
    this.#cpu = cpu;
    // Port 0 is nobody's.
    this.#portCountMax = cpu.hypervisor.geometry.portsPerDomain - 1;
    this.#throttle = new EventThrottle(cpu.hypervisor.geometry.portsPerDomain);
    this.#onFault = onFault;
  }

  /**
   * Opens a port that the domain called `domid` may bind to.
   *
   * @throws XenolithError `HYPERCALL_FAILED`.
   */
  allocateUnbound(domid: number, handler?: EventHandler): number {
    return this.#opened("alloc_unbound", allocateUnbound(this.#cpu.hypervisor, this.#cpu.slot, domid), handler);
  }

  /**
   * Connects a new port with a port that another domain has opened for dom0.
   *
   * @throws XenolithError `HYPERCALL_FAILED`.
   */
  bindInterdomain(domid: number, remotePort: number, handler?: EventHandler): number {
    return this.#opened(
      "bind_interdomain",
      bindInterdomain(this.#cpu.hypervisor, this.#cpu.slot, domid, remotePort),
      handler,
    );
  }

  /**
   * Opens a port for a virtual interrupt.
   *
   * @throws XenolithError `HYPERCALL_FAILED`.
   */
  bindVirq(virq: number, handler?: EventHandler): number {
    return this.#opened("bind_virq", bindVirq(this.#cpu.hypervisor, this.#cpu.slot, virq, 0), handler);
  }

  /** Has `handler` called when `port` fires, in place of the handler before. */
  on(port: number, handler: EventHandler): void {
    this.#handlers.set(port, handler);
    this.#check("unmask", unmaskPort(this.#cpu.hypervisor, this.#cpu.slot, port));
  }

  /**
   * Sends an event through `port`.
   *
   * @throws XenolithError `HYPERCALL_FAILED`.
   */
  notify(port: number): void {
    this.#check("send", sendPort(this.#cpu.hypervisor, this.#cpu.slot, port));
  }

  /** Sends an event through `port`, if there is still somebody at the other end. */
  send(port: number): void {
    sendPort(this.#cpu.hypervisor, this.#cpu.slot, port);
  }

  /**
   * Closes `port`.
   *
   * @throws XenolithError `HYPERCALL_FAILED`.
   */
  close(port: number): void {
    this.#handlers.delete(port);
    this.#throttle.reset(port);
    this.#check("close", closePort(this.#cpu.hypervisor, this.#cpu.slot, port));
  }

  /** Calls the handlers of the ports that fired. For the host's attention loop. */
  dispatch(): void {
    const { hypervisor, slot, vcpu } = this.#cpu;
    const count = takePending(hypervisor, slot, vcpu, this.#fired);
    for (const port of this.#fired.slice(0, count)) this.#serve(port);
    this.#scheduleHeld();
  }

  /** Serves nothing any more. */
  end(): void {
    clearTimeout(this.#heldTimer);
    this.#handlers.clear();
  }

  /** Calls the handler of `port`, which stays masked meanwhile, and longer if its events keep bringing no work. */
  #serve(port: number): void {
    const { hypervisor, slot } = this.#cpu;
    const handler = this.#handlers.get(port);
    if (handler === undefined || this.#throttle.isHeld(port)) return;
    maskPort(hypervisor, slot, port);
    this.#throttle.begin(port);
    const hadWork = this.#call(handler, port);
    // The handler may have closed the port.
    if (!this.#throttle.isHeld(port)) return;
    if (this.#throttle.end(port, hadWork, hypervisor.platform.now())) unmaskPort(hypervisor, slot, port);
  }

  #call(handler: EventHandler, port: number): boolean {
    try {
      return handler(port) !== false;
    } catch (error) {
      // One handler's mistake must not keep the others from being called; it is reported, not swallowed.
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.#onFault(`handler of dom0's port ${port}: ${text}`);
      return true;
    }
  }

  /** Unmasks the ports that have been held back long enough, and comes back for the others. */
  #scheduleHeld(): void {
    const { hypervisor, slot } = this.#cpu;
    const now = hypervisor.platform.now();
    for (let port = this.#throttle.takeDue(now); port >= 0; port = this.#throttle.takeDue(now)) {
      unmaskPort(hypervisor, slot, port);
    }
    const next = this.#throttle.nextDueNs();
    clearTimeout(this.#heldTimer);
    if (next === Infinity) return;
    this.#heldTimer = setTimeout(() => this.dispatch(), Math.max(1, (next - now) / 1e6)).unref();
  }

  #opened(operation: string, result: number, handler: EventHandler | undefined): number {
    const port = this.#check(operation, result);
    if (handler !== undefined) this.on(port, handler);
    return port;
  }

  #check(operation: string, result: number): number {
    if (result >= 0) return result;
    const reason = result === -ENOSPC ? `: all ${this.#portCountMax} ports of the control domain are in use` : "";
    const name = errnoName(result) ?? result;
    throw new XenolithError("HYPERCALL_FAILED", `event channel ${operation} failed: ${name}${reason}`);
  }
}
