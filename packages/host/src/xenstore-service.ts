/**
 * The xenstore daemon of a host, in the control domain's thread. It starts, and its code is loaded, when it is first
 * wanted: by the program, by a socket, or by a guest that asks for something; until then a domain costs it nothing but a
 * note. From then on every domain has its home in the store, and those with rings are served.
 */
import { randomUUID } from "node:crypto";
import { XenolithError } from "@xenolith/abi";
import type { Hypervisor } from "@xenolith/core";
import type { DomainTree, Keeper, XenstoreClient, XenstoreServer, XenstoreSocket } from "@xenolith/xenstore";
import { KEPT_CHARACTERS_MAX } from "./console-stream.ts";
import type { Dom0Events } from "./dom0-events.ts";
import type { RingFrames } from "./ring-frame.ts";
import { CONSOLE_REF, grantedGfn, type RingFacts, STORE_GFN, STORE_REF } from "./rings.ts";
import { XenstorePage } from "./xenstore-page.ts";

type XenstoreModule = typeof import("@xenolith/xenstore");

/** What the service works with. */
export interface XenstoreServiceParts {
  readonly hypervisor: Hypervisor;
  readonly events: Dom0Events;
  readonly ringFrames: RingFrames;
  readonly noteFault: (message: string) => void;
}

/** A domain that was created. */
export interface XenstoreDomain {
  readonly slot: number;
  readonly name: string;
  readonly memoryBytesMax: number;
  readonly rings: RingFacts | undefined;
}

/** A domain that exists. */
interface Guest extends XenstoreDomain {
  readonly domid: number;
  /** Known from its introduction on; empty before. */
  uuid: string;
  /** Its end of the channel, ours (0: none), and the page, which may be closed. */
  remotePort: number;
  port: number;
  page: XenstorePage | undefined;
  hasEnded: boolean;
  isReleased: boolean;
}

interface Running {
  readonly module: XenstoreModule;
  readonly server: XenstoreServer;
  readonly client: XenstoreClient;
}

/** The store of one host. */
export class XenstoreService {
  readonly #parts: XenstoreServiceParts;
  /** By domid, oldest first. */
  readonly #guests = new Map<number, Guest>();
  #running: Running | undefined;
  #starting: Promise<Running> | undefined;
  #socket: XenstoreSocket | undefined;
  /** Introductions and releases, one after the other. Never rejects. */
  #work: Promise<void> = Promise.resolve();
  #isClosed = false;
  #keeper: Keeper | undefined;

  constructor(parts: XenstoreServiceParts) {
    this.#parts = parts;
  }

  /**
   * The control domain's client; starts the daemon.
   *
   * @throws XenolithError `HOST_CLOSED`.
   */
  async client(): Promise<XenstoreClient> {
    const { client } = await this.#start();
    await this.#work;
    return client;
  }

  /** Has what the control domain writes kept from now on; undefined: no longer. */
  keep(keeper: Keeper | undefined): void {
    this.#keeper = keeper;
    if (this.#running !== undefined) this.#running.server.store.keeper = keeper;
  }

  /**
   * Serves the store at a path, for programs of the same user.
   *
   * @throws XenolithError `SYSTEM_CALL`.
   */
  async listen(path: string): Promise<void> {
    const { module, server } = await this.#start();
    this.#socket = await module.listenXenstore(server, path);
  }

  /**
   * Takes note of a new domain; its ring is served from now on.
   *
   * @throws XenolithError `HYPERCALL_FAILED`: no event channel is left for it.
   */
  add(domain: XenstoreDomain): void {
    const { hypervisor } = this.#parts;
    const { slot, rings } = domain;
    const guest: Guest = {
      ...domain,
      domid: hypervisor.domains.domid[slot]!,
      uuid: "",
      remotePort: 0,
      port: 0,
      page: undefined,
      hasEnded: false,
      isReleased: false,
    };
    if (rings !== undefined) {
      this.#bind(guest, rings.storePort);
      guest.page = this.#openPage(guest, STORE_GFN);
    }
    this.#guests.set(guest.domid, guest);
    if (this.#running !== undefined) this.#introduceLater(this.#running, guest);
  }

  /** Settles when all domains that were added have been introduced, or when none is to be. */
  async settled(): Promise<void> {
    await this.#work;
  }

  /** The domain shut down, crashed or suspended itself. */
  ended(domid: number): void {
    const guest = this.#guests.get(domid);
    if (guest === undefined) return;
    guest.hasEnded = true;
    this.#running?.server.domainDied(domid);
  }

  /** The domain goes on after a suspension. */
  resumed(domid: number): void {
    const guest = this.#guests.get(domid);
    if (guest === undefined) return;
    guest.hasEnded = false;
    this.#running?.server.resumeDomain(domid);
  }

  /** The domain is being destroyed: nothing of it is left in the store, and none of its frames is held. */
  release(domid: number): Promise<void> {
    const guest = this.#guests.get(domid);
    if (guest === undefined) return Promise.resolve();
    guest.isReleased = true;
    return this.#later(`release of domain ${domid}`, () => this.#releaseNow(guest));
  }

  /** Ends the daemon, after all domains. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#starting?.catch(() => {});
    await this.#work;
    await this.#socket?.close();
    this.#running?.client.close();
    this.#running?.server.close();
  }

  #start(): Promise<Running> {
    if (this.#isClosed) return Promise.reject(new XenolithError("HOST_CLOSED", "xenstore: the host is closed"));
    this.#starting ??= this.#load();
    return this.#starting;
  }

  async #load(): Promise<Running> {
    const module = await import("@xenolith/xenstore");
    const server = new module.XenstoreServer({ ringOf: (domid, _gfn, port) => this.#ringOf(domid, port) });
    server.store.keeper = this.#keeper;
    const running = { module, server, client: module.XenstoreClient.inProcess(server) };
    this.#running = running;
    for (const guest of this.#guests.values()) this.#introduceLater(running, guest);
    return running;
  }

  #introduceLater(running: Running, guest: Guest): void {
    void this.#later(`introduction of domain ${guest.domid}`, () => this.#introduce(running, guest));
  }

  async #introduce({ module, server, client }: Running, guest: Guest): Promise<void> {
    const { domid, page } = guest;
    if (guest.isReleased) return;
    server.createDomain(domid);
    guest.uuid = uuidOf(this.#parts.hypervisor, guest.slot);
    await module.writeDomainTree(client, treeOf(guest));
    if (guest.isReleased) return;
    if (page === undefined) server.store.fireSpecial(module.INTRODUCE_DOMAIN, domid);
    else {
      server.introduceDomain(domid, page);
      // The guest may have been waiting for a store to be there.
      page.notify();
    }
    if (guest.hasEnded) server.domainDied(domid);
  }

  #releaseNow(guest: Guest): void {
    const { domid, uuid } = guest;
    const { server } = this.#running ?? {};
    server?.releaseDomain(domid);
    if (uuid !== "") server?.store.remove(server.store.domains.control, `/vm/${uuid}`);
    guest.page?.close();
    if (guest.port !== 0) this.#parts.events.close(guest.port);
    this.#guests.delete(domid);
  }

  /** Does something after everything before it. */
  #later(what: string, action: () => Promise<void> | void): Promise<void> {
    this.#work = this.#work.then(action).catch((error: unknown) => {
      this.#parts.noteFault(`xenstore: ${what}: ${error instanceof Error ? error.stack : String(error)}`);
    });
    return this.#work;
  }

  /** The page of a domain that a client of the control domain introduces anew: the one that it grants for it. */
  #ringOf(domid: number, remotePort: number): XenstorePage | undefined {
    const { hypervisor } = this.#parts;
    const guest = this.#guests.get(domid);
    if (guest === undefined || guest.isReleased) return undefined;
    try {
      if (guest.remotePort !== remotePort) this.#bind(guest, remotePort);
    } catch {
      return undefined;
    }
    const page = this.#openPage(guest, grantedGfn(hypervisor, guest.slot, STORE_REF));
    if (page !== undefined) guest.page = page;
    return page;
  }

  #bind(guest: Guest, remotePort: number): void {
    const { events } = this.#parts;
    const port = events.bindInterdomain(guest.domid, remotePort);
    if (guest.port !== 0) events.close(guest.port);
    guest.port = port;
    guest.remotePort = remotePort;
    events.on(port, () => this.#attend(guest));
  }

  #openPage(guest: Guest, gfn: number): XenstorePage | undefined {
    const frame = gfn < 0 ? undefined : this.#parts.ringFrames.open(guest.slot, gfn);
    return frame === undefined ? undefined : new XenstorePage(frame, () => this.#parts.events.send(guest.port));
  }

  /** The guest sent an event. Whether there was work: the daemon does it in turns of its own. */
  #attend({ domid, page }: Guest): boolean {
    if (page === undefined) return false;
    if (this.#running !== undefined) this.#running.server.wake(domid);
    else if (page.hasRequest) {
      this.#start().catch((error: unknown) => this.#parts.noteFault(`xenstore: ${String(error)}`));
    }
    return page.takeWork();
  }
}

const treeOf = ({ domid, name, uuid, memoryBytesMax, rings }: Guest): DomainTree => {
  const memoryKib = Math.floor(memoryBytesMax / 1024);
  return {
    domid,
    name,
    uuid,
    memory: { staticMaxKib: memoryKib, targetKib: memoryKib },
    ...(rings === undefined
      ? {}
      : {
          store: { port: rings.storePort, ringRef: STORE_REF },
          console: {
            port: rings.consolePort,
            ringRef: CONSOLE_REF,
            type: "xenconsoled",
            limitBytes: KEPT_CHARACTERS_MAX,
          },
        }),
  };
};

/** The domain's handle as people write it; one that has none gets one. */
const uuidOf = ({ domains }: Hypervisor, slot: number): string => {
  const handle = domains.handle.subarray(slot * 16, slot * 16 + 16);
  if (handle.every((byte) => byte === 0)) handle.set(Buffer.from(randomUUID().replaceAll("-", ""), "hex"));
  const hex = Buffer.from(handle).toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
};
