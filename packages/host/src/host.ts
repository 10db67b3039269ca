/**
 * A host: one hypervisor in this process, whose control domain is the calling program.
 */
import { XenolithError } from "@xenolith/abi";
import { audit, type Cpu, freeFramesNow, type Hypervisor, vmaTotal } from "@xenolith/core";
import { ImageCache } from "@xenolith/loader";
import type { KeyService } from "@xenolith/keys";
import type { SecretPool } from "@xenolith/secrets";
import type { Keeper, XenstoreClient } from "@xenolith/xenstore";
import { type ActionOptions, checkBounds } from "./action.ts";
import { auditSpaces } from "./audit-spaces.ts";
import { Domain } from "./domain.ts";
import { assembleDomain } from "./domain-assembly.ts";
import { checkOptions, type DomainOptions } from "./domain-options.ts";
import type { Dom0Events } from "./dom0-events.ts";
import type { Dom0Space } from "./dom0-space.ts";
import type { GuestSecrets } from "./guest-secrets.ts";
import type { HostGrants } from "./grants.ts";
import { type HostParts, openParts } from "./host-opening.ts";
import type { HostOptions } from "./host-options.ts";
import { listOffered, signaturesOf } from "./offered-functions.ts";
import { HostVchans } from "./vchans.ts";
import { type BootImage, type ImageSource, loadImage } from "./image.ts";
import { FRAME_BYTES } from "./mmu.ts";
import type { Share } from "./share.ts";
import type { ShareSource } from "./shares.ts";

/** Figures of a host. */
export interface HostInfo {
  /** Machine memory, and what is left of it, in bytes. */
  readonly memoryBytes: number;
  readonly memoryFreeBytes: number;
  /** Set aside for domains that are being built, in bytes. */
  readonly memoryClaimedBytes: number;
  /** Mappings that guests use, and may use together. */
  readonly vmas: number;
  readonly vmaLimit: number;
  readonly domainCount: number;
  readonly domainCountMax: number;
  /** vCPU threads that exist, and those of them that are warm and free. */
  readonly threadCount: number;
  readonly warmThreadCount: number;
}

/** One hypervisor. */
export class Host implements AsyncDisposable {
  readonly #parts: HostParts;
  readonly #cache: ImageCache;
  #vchans: HostVchans | undefined;
  #closing: Promise<void> | undefined;

  private constructor(parts: HostParts, cache: ImageCache) {
    this.#parts = parts;
    this.#cache = cache;
  }

  /**
   * Opens a host. Needs no options; takes address space and a few MiB, no machine memory. Does not keep the process
   * alive: running guests do.
   *
   * @throws XenolithError `CAPABILITY_MISSING`, `INVALID_SIZE`, `INVALID_ARGUMENT`, `CONFIG_INVALID` (the policy),
   * `SYSTEM_CALL` (the socket);
   * SystemCallError.
   */
  static async open(options: HostOptions = {}): Promise<Host> {
    const { cacheDirectory, xenstoreSocket } = options;
    const cache = new ImageCache(cacheDirectory === undefined ? {} : { directory: cacheDirectory });
    const host = new Host(openParts(options), cache);
    if (xenstoreSocket !== undefined) await host.#listen(xenstoreSocket);
    return host;
  }

  /** The domains that exist, dom0 excluded, oldest first. */
  get domains(): readonly Domain[] {
    return [...this.#parts.domains.values()].toSorted((a, b) => a.generation - b.generation);
  }

  /** Event channels of the control domain. */
  get events(): Dom0Events {
    return this.#parts.events;
  }

  /** The hypervisor itself, for tools that need more than this library offers: tests, benchmarks, a toolstack. */
  get hypervisor(): Hypervisor {
    return this.#parts.context.hypervisor;
  }

  /** The control domain's own calling side. */
  get dom0(): Cpu {
    return this.#parts.context.dom0;
  }

  /** Secret objects of guests, for tools that need more than this library offers. */
  get guestSecrets(): GuestSecrets {
    return this.#parts.context.guestSecrets;
  }

  /** The control domain's address space: memory of its own, and what others share with it. */
  get window(): Dom0Space {
    return this.#parts.context.window;
  }

  /** The DMA view: what the control domain's devices reach of others. */
  get dmaView(): Dom0Space {
    return this.#parts.context.dmaView;
  }

  /** Pages that the control domain shares with other domains, and maps of theirs, by grant reference. */
  get grants(): HostGrants {
    return this.#parts.grants;
  }

  /** Channels between the control domain and guests. */
  get vchans(): HostVchans {
    const { events, grants } = this.#parts;
    this.#vchans ??= new HostVchans({ events, grants, xenstore: () => this.xenstore() });
    return this.#vchans;
  }

  /**
   * The control domain's client of xenstore, one for the host. The daemon starts with the first call, a guest's first
   * request, or `HostOptions.xenstoreSocket`; from then on every domain has its home in the store.
   *
   * @throws XenolithError `HOST_CLOSED`.
   */
  async xenstore(): Promise<XenstoreClient> {
    this.#requireOpen();
    return this.#parts.context.xenstore.client();
  }

  /**
   * Has what programs of the control domain write to a part of xenstore kept, before they are answered, by somebody who
   * can write it again some day; undefined: no longer. What guests write is not kept.
   */
  keepXenstore(keeper: Keeper | undefined): void {
    this.#parts.context.xenstore.keep(keeper);
  }

  /**
   * Secret memory, one pool for the host: of the program, of guests' secret objects, of the payloads of keys. It is opened
   * by the first call, and closed with the host.
   *
   * @throws XenolithError `HOST_CLOSED`, `SECRET_UNSUPPORTED`, `SECRET_MEMLOCK`, `SECRET_MEMORY`, `SECRET_CEILING`,
   * `INVALID_ARGUMENT`.
   */
  async secrets(): Promise<SecretPool> {
    this.#requireOpen();
    return this.#parts.context.secrets.pool();
  }

  /** The pool that `secrets` opens, if somebody has wanted one: for who only looks. */
  get openedSecrets(): SecretPool | undefined {
    return this.#parts.context.secrets.opened;
  }

  /**
   * The key service of the host, whose payloads are in its secret memory: domains are users of it. It starts with the first
   * call.
   *
   * @throws XenolithError as `secrets`.
   */
  async keys(): Promise<KeyService> {
    this.#requireOpen();
    return this.#parts.context.keys.service();
  }

  /** The domain that has this number now. */
  domain(domid: number): Domain | undefined {
    return this.domains.find((domain) => domain.domid === domid);
  }

  /**
   * Reads, rewrites and compiles a module, to be booted many times.
   *
   * @throws XenolithError `FILE_NOT_FOUND`, `MODULE_INVALID`, `MODULE_UNSUPPORTED`, `MODULE_TOO_LARGE`,
   * `IMPORT_UNKNOWN`, `INSPECTOR_ATTACHED`, `HOST_CLOSED`.
   */
  async loadImage(
    source: ImageSource,
    options: Pick<DomainOptions, "imports" | "preemptible"> = {},
  ): Promise<BootImage> {
    this.#requireOpen();
    const offered = signaturesOf(listOffered(options.imports));
    return loadImage(this.#cache, source, { offered, preemptible: options.preemptible === true });
  }

  /**
   * Creates a domain with its memory filled; `Domain.start` lets it run.
   *
   * @throws XenolithError as `loadImage`, and `DOMAIN_LIMIT`, `MEMORY_LIMIT`, `MEMORY_EXHAUSTED`, `VMA_EXHAUSTED`,
   * `INVALID_SIZE`, `INVALID_ARGUMENT`, `DIRECTORY_NOT_FOUND`, `DOMAIN_NOT_FOUND` (`deviceModelFor`), `ABORTED`.
   */
  async createDomain(options: DomainOptions, action?: Pick<ActionOptions, "signal">): Promise<Domain> {
    this.#requireOpen();
    checkBounds("creation of a domain", action);
    const { context, domains } = this.#parts;
    checkOptions(options, context.hypervisor.geometry.vcpusPerDomain);
    context.pool.prepare();
    const image = isBootImage(options.image) ? options.image : await this.loadImage(options.image, options);
    if (options.preemptible === true && !image.isPreemptible)
      throw new XenolithError("INVALID_ARGUMENT", "preemptible is true, the image was loaded without it");
    this.#requireOpen();
    checkBounds("creation of a domain", action);
    const assembled = await assembleDomain(context, image, options);
    const { slot } = assembled;
    // The slot may have a new owner by the time its old one has been told that it is gone.
    const onDestroyed = (): void => {
      if (domains.get(slot) === domain) domains.delete(slot);
      this.#parts.shares.look();
      this.#parts.grants.look();
    };
    const domain: Domain = new Domain({ ...assembled, onDestroyed });
    domains.set(slot, domain);
    this.#parts.shares.prepare(domain);
    await context.xenstore.settled();
    return domain;
  }

  /**
   * Puts a buffer into machine memory, to be mapped into domains and taken back from them: a copy of `source`, or that
   * many bytes of zeros. The calling program writes it directly (`Share.bytes`).
   *
   * @throws XenolithError `INVALID_SIZE`, `MEMORY_EXHAUSTED`, `HOST_CLOSED`.
   */
  share(source: ShareSource): Share {
    this.#requireOpen();
    return this.#parts.shares.create(source);
  }

  /**
   * Makes a part of a domain's own memory shareable with others: whole pages from `address`. It ends with the domain.
   *
   * @throws XenolithError `DOMAIN_STATE`, `INVALID_SIZE`, `GUEST_ADDRESS`, `HYPERCALL_FAILED`, `HOST_CLOSED`.
   */
  shareFrom(domain: Domain, address: number, lengthBytes: number): Share {
    this.#requireOpen();
    return this.#parts.shares.createFrom(domain, address, lengthBytes);
  }

  /** Figures of the host now. */
  info(): HostInfo {
    const { context, domains } = this.#parts;
    const { hypervisor, pool } = context;
    const { geometry } = hypervisor;
    const { free, claimed } = freeFramesNow(hypervisor);
    return {
      memoryBytes: geometry.machineFrames * FRAME_BYTES,
      memoryFreeBytes: free * FRAME_BYTES,
      memoryClaimedBytes: claimed * FRAME_BYTES,
      vmas: vmaTotal(hypervisor),
      vmaLimit: geometry.vmaLimit,
      domainCount: domains.size,
      domainCountMax: geometry.domainCountMax - 2,
      threadCount: pool.threadCount,
      warmThreadCount: pool.readyCount,
    };
  }

  /**
   * Recomputes everything from scratch and compares; returns what does not agree, one sentence each. The domains should
   * be at rest meanwhile: paused, blocked or not started.
   */
  audit(): string[] {
    const { context, domains, faults } = this.#parts;
    const memory = audit(context.hypervisor, context.ringFrames.mfns());
    const secrets = context.guestSecrets.audit();
    const keys = context.keys.audit();
    return [...faults, ...memory, ...secrets, ...keys, ...auditSpaces(context.hypervisor, domains.keys())];
  }

  /** Waits until the vCPU threads that are kept warm are ready: for programs that care about the first start. */
  async warm(): Promise<void> {
    this.#requireOpen();
    await this.#parts.context.pool.warm();
  }

  /** Destroys all domains and gives everything back. */
  close(): Promise<void> {
    this.#closing ??= this.#closeNow();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #closeNow(): Promise<void> {
    const { context, domains, timers, attention } = this.#parts;
    await Promise.all([...domains.values()].map((domain) => domain.destroy()));
    await context.xenstore.close();
    await context.keys.close();
    await context.secrets.close();
    await context.pool.close();
    timers.close();
    attention.close();
    this.#parts.events.end();
    this.#parts.shares.close();
    this.#parts.grants.close();
    context.window.close();
    context.dmaView.close();
    context.machine.close();
  }

  async #listen(path: string): Promise<void> {
    try {
      await this.#parts.context.xenstore.listen(path);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  #requireOpen(): void {
    if (this.#closing !== undefined) throw new XenolithError("HOST_CLOSED", "the host is closed");
  }
}

const isBootImage = (image: ImageSource | BootImage): image is BootImage =>
  typeof image === "object" && "module" in image && "bareManifest" in image;
