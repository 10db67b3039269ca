/**
 * A scatter-gather copy engine, as a device of one domain. Its driver shares a ring page with it, lets it reach pages by
 * granting them, and puts lists of copies between their bus addresses into the ring; an interrupt says when they are
 * done. The engine reaches pages through the host's DMA view and in no other way, so a page that the driver takes back is
 * out of its reach at that moment, also in the middle of a copy: from then on it writes to a page of its own.
 *
 * A driver is not trusted. Whatever it writes, its device answers with an error or stops; there is one way of stopping,
 * for every reason, and it leaves nothing behind.
 */
import { EFAULT, XenolithError } from "@xenolith/abi";
import type { Domain, Host, InterruptSource, MappedGrants } from "@xenolith/host";
import { AttachedPages } from "./attached-pages.ts";
import { decode, encode, type Request } from "./requests.ts";
import { BackRing } from "./ring.ts";

/** Where an engine stands; it only ever moves to the right. */
export type EngineState = "waiting" | "connected" | "stopped";

/** What a driver tells its engine to begin with, as it stands in xenstore. */
export interface EngineConnection {
  /** Reference of the ring page. */
  readonly ringRef: number;
  /** The driver may take the ring page back; that ends the engine. */
  readonly isRingRevokable: boolean;
  /** Port that the driver has opened for the control domain. */
  readonly port: number;
}

/** Bytes that one turn of the event loop copies. */
const TURN_BYTES = 2 ** 18;
/** Requests that one turn takes. */
const TURN_REQUESTS = 16;
/** No port of a domain is higher. */
const PORT_MAX = 1023;
/** Part of a list that is not made because one before it failed. */
const ECANCELED = 125;

/** A copy that is being made. */
interface Job {
  readonly request: Extract<Request, { operation: "copy" }>;
  readonly source: MappedGrants;
  readonly dest: MappedGrants;
  left: number;
}

/** The engine of one domain. */
export class CopyEngine implements Disposable {
  readonly #host: Host;
  readonly #domain: Domain;
  readonly #interrupt: InterruptSource;
  readonly #pages: AttachedPages;
  readonly #bus: Uint8Array;
  #state: EngineState = "waiting";
  #reason = "";
  #ringPage: MappedGrants | undefined;
  #ring: BackRing | undefined;
  #port = 0;
  #job: Job | undefined;
  /** A request of the list that is being worked on has failed. */
  #isListFailed = false;
  #isScheduled = false;
  readonly #ended = new AbortController();

  /**
   * Gives `domain` an engine whose interrupt is `irq` (64 to 255).
   *
   * @throws XenolithError as `Domain.interrupt`.
   */
  constructor(host: Host, domain: Domain, irq: number) {
    this.#host = host;
    this.#domain = domain;
    this.#interrupt = domain.interrupt(irq);
    this.#pages = new AttachedPages(host, domain.domid);
    this.#bus = new Uint8Array(host.dmaView.buffer);
    domain.events.once("exit", () => this.#stop("the domain has ended"));
    domain.events.once("destroyed", () => this.#stop("the domain is gone"));
  }

  /** The driver's number of the interrupt. */
  get pirq(): number {
    return this.#interrupt.pirq;
  }

  get state(): EngineState {
    return this.#state;
  }

  /** Why it stopped. */
  get reason(): string {
    return this.#reason;
  }

  /** Waits until the driver has put its half of the handshake into xenstore, and connects. Resolves early when it ends. */
  async serve(): Promise<void> {
    const store = await this.#host.xenstore();
    const home = `/local/domain/${this.#domain.domid}/data/copy-engine`;
    const number = async (name: string): Promise<number> => Number(await store.readIfPresent(`${home}/${name}`));
    for await (const _ of store.watch(home, { signal: this.#ended.signal })) {
      if (this.#state !== "waiting") return;
      if ((await store.readIfPresent(`${home}/state`)) !== "ready") continue;
      const isRingRevokable = (await number("ring-revokable")) === 1;
      this.connect({ ringRef: await number("ring-ref"), port: await number("event-channel"), isRingRevokable });
      return;
    }
  }

  /** Connects to the driver's ring. What the driver named wrongly stops the engine. */
  connect({ ringRef, port, isRingRevokable }: EngineConnection): void {
    if (this.#state !== "waiting") return;
    if (!Number.isInteger(port) || port < 1 || port > PORT_MAX) {
      this.#stop(`cannot connect: port ${port}`);
      return;
    }
    try {
      this.#ringPage = this.#host.grants.map(this.#domain.domid, [ringRef], { revokable: isRingRevokable });
      this.#ringPage.events.once("revoked", () => this.#stop("the ring was taken back"));
      this.#port = this.#host.events.bindInterdomain(this.#domain.domid, port, () => this.#kick());
    } catch (error) {
      if (!(error instanceof XenolithError)) throw error;
      this.#stop(`cannot connect: ${error.message}`);
      return;
    }
    this.#ring = new BackRing(this.#ringPage.bytes);
    this.#state = "connected";
    this.#schedule();
  }

  /** Stops it and gives back all that it had. Harmless when repeated. */
  close(): void {
    this.#stop("closed");
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** The driver rang. Returns false when there was nothing to do: whoever rings without work is served less often. */
  #kick(): boolean {
    const hasWork = this.#ring !== undefined && this.#ring.waiting !== 0;
    if (hasWork) this.#schedule();
    return hasWork || this.#job !== undefined;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#turn();
    });
  }

  /** Works for a while, publishes what is done, and comes back if there is more. */
  #turn(): void {
    const ring = this.#ring;
    if (this.#state !== "connected" || ring === undefined) return;
    let bytes = TURN_BYTES;
    for (let requests = 0; requests < TURN_REQUESTS && bytes > 0; requests += 1) {
      const { waiting } = ring;
      if (waiting < 0) {
        this.#stop("the driver's request index is more than a ring ahead");
        return;
      }
      if (this.#job === undefined && waiting > 0) this.#begin(ring, decode(ring.take()));
      while (this.#job !== undefined && bytes > 0) bytes -= this.#copySome(ring, this.#job, bytes);
    }
    if (ring.push()) this.#interrupt.raise();
    if (this.#job === undefined) ring.sleep();
    if (this.#job !== undefined || ring.waiting !== 0) this.#schedule();
  }

  /** Does a request, or begins to. */
  #begin(ring: BackRing, request: Request): void {
    switch (request.operation) {
      case "attach": {
        const address = this.#pages.attach(request.refs, request.isWritable, request.isRevokable);
        ring.answer(encode(request, Math.min(address, 0), Math.max(address, 0)));
        return;
      }
      case "detach":
        ring.answer(encode(request, this.#pages.detach(request.address), 0));
        return;
      case "copy":
        this.#beginCopy(ring, request);
        return;
      case "invalid":
        this.#isListFailed = request.hasMore;
        ring.answer(encode(request, 0, 0));
    }
  }

  #beginCopy(ring: BackRing, request: Job["request"]): void {
    const source = this.#pages.find(request.source, request.lengthBytes, false);
    const dest = this.#pages.find(request.dest, request.lengthBytes, true);
    if (this.#isListFailed) this.#endCopy(ring, request, -ECANCELED, 0);
    else if (source === undefined || dest === undefined) this.#endCopy(ring, request, -EFAULT, 0);
    else this.#job = { request, source, dest, left: request.times };
  }

  /** Copies up to `bytesMax` bytes of a job, or once; returns how many (at least 1, so that turns end). */
  #copySome(ring: BackRing, job: Job, bytesMax: number): number {
    const { source, dest, lengthBytes, times } = job.request;
    const rounds = Math.max(1, Math.min(job.left, Math.floor(bytesMax / Math.max(lengthBytes, 1))));
    for (let round = 0; round < rounds; round += 1) this.#bus.copyWithin(dest, source, source + lengthBytes);
    job.left -= rounds;
    if (job.left > 0) return Math.max(rounds * lengthBytes, 1);
    this.#job = undefined;
    // The device has not noticed; its driver should know that the result is not where it wanted it.
    const isLost = isAnyRevoked(job.source) || isAnyRevoked(job.dest);
    this.#endCopy(ring, job.request, isLost ? -EFAULT : 0, times);
    return Math.max(rounds * lengthBytes, 1);
  }

  #endCopy(ring: BackRing, request: Job["request"], status: number, times: number): void {
    this.#isListFailed = request.hasMore && (this.#isListFailed || status !== 0);
    ring.answer(encode(request, status, times));
  }

  /** The one way in which an engine ends. */
  #stop(reason: string): void {
    if (this.#state === "stopped") return;
    this.#state = "stopped";
    this.#reason = reason;
    this.#ended.abort();
    this.#job = undefined;
    this.#ring = undefined;
    this.#pages.clear();
    this.#ringPage?.unmap();
    if (this.#port > 0) this.#host.events.close(this.#port);
    // The number of a domain that is gone may be another's.
    if (this.#host.domain(this.#domain.domid) === this.#domain && this.#domain.state !== "free")
      this.#interrupt.close();
  }
}

const isAnyRevoked = (run: MappedGrants): boolean => run.refs.some((_, index) => run.isRevoked(index));
