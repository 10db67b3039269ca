// A guest that does what it is told: grants, maps, revokes, reads, writes, spins. For the tests of the grants of dom0.
import {
  DOMID_SELF,
  EVTCHNOP_alloc_unbound,
  GNTMAP_host_map,
  GNTMAP_readonly,
  GNTTABOP_map_grant_ref,
  GNTTABOP_map_revokable,
  GNTTABOP_revoke,
  GNTTABOP_unmap_grant_ref,
  GNTTABOP_unmap_notify,
  GTF_permit_access,
  XENMAPSPACE_grant_table,
  XENMEM_add_to_physmap,
} from "@xenolith/abi";
import type { Domain, Host } from "../src/index.ts";
import { guest, run } from "./support.ts";

/** Where its grant table stands, where it puts what it maps, where its arguments lie, and its first page to share. */
export const TABLE = 0x4000_0000;
export const TARGET = 0x5000_0000;
const ARGUMENTS = 0x1000;
export const OWN_GFN = 16;
/** Address of its own page number `index`. */
export const own = (index: number): number => (OWN_GFN + index) * 4096;

const image = guest(`(module
  (import "xen" "grant_table_op" (func $grant_table_op (param i32 i32 i32) (result i32)))
  (import "xen" "memory_op" (func $memory_op (param i32 i32) (result i32)))
  (import "xen" "event_channel_op" (func $event_channel_op (param i32 i32) (result i32)))
  (memory (export "memory") 64)
  (func (export "grants") (param i32 i32 i32) (result i32)
    (call $grant_table_op (local.get 0) (local.get 1) (local.get 2)))
  (func (export "memoryOp") (param i32 i32) (result i32) (call $memory_op (local.get 0) (local.get 1)))
  (func (export "events") (param i32 i32) (result i32) (call $event_channel_op (local.get 0) (local.get 1)))
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store (local.get 0) (local.get 1)))
  ;; Counts in the word at $at until the word at 256 is not 0, and tells at 264 how often.
  (func (export "hammer") (param $at i32) (local $n i32)
    (loop $again
      (local.set $n (i32.add (i32.load (local.get $at)) (i32.const 1)))
      (i32.store (local.get $at) (local.get $n))
      (i32.store (i32.const 264) (i32.add (i32.load (i32.const 264)) (i32.const 1)))
      (br_if $again (i32.eqz (i32.load (i32.const 256))))))
  (func (export "crash") unreachable))`);

interface MapOptions {
  readonly readOnly?: boolean;
  readonly revokable?: boolean;
}

/** One such guest. */
export class Puppet {
  readonly domain: Domain;

  private constructor(domain: Domain) {
    this.domain = domain;
  }

  /** Starts one, with one frame of its grant table in place. */
  static async start(host: Host): Promise<Puppet> {
    const puppet = new Puppet(await run(host, image, { memoryBytesMax: 8 * 2 ** 20 }));
    const words = [DOMID_SELF | (0 << 16), XENMAPSPACE_grant_table, 0, TABLE / 4096];
    // domid u16, size u16, space u32, idx u32, gpfn u32.
    const result = await puppet.#ask("memoryOp", [XENMEM_add_to_physmap], words);
    if (result !== 0) throw new Error(`no grant table: ${result}`);
    return puppet;
  }

  get domid(): number {
    return this.domain.domid;
  }

  /** Grants its frame `gfn` to dom0. */
  grant(ref: number, gfn: number, flags = 0): void {
    this.grantTo(0, ref, gfn, flags);
  }

  /** Grants its frame `gfn` to the domain called `domid`. */
  grantTo(domid: number, ref: number, gfn: number, flags = 0): void {
    this.domain.write(TABLE + ref * 8 + 4, bytesOf([gfn]));
    this.domain.write(TABLE + ref * 8, bytesOf([GTF_permit_access | flags | (domid << 16)]));
  }

  /** The flags of its shared entry. */
  flags(ref: number): number {
    return wordAt(this.domain.read(TABLE + ref * 8, 4)) & 0xffff;
  }

  /** Takes access away from the entry. */
  removeAccess(ref: number): void {
    this.domain.write(TABLE + ref * 8, Uint8Array.of(this.flags(ref) & 0xfc));
  }

  /** Removes access and revokes; returns the status. */
  async revoke(ref: number): Promise<number> {
    this.removeAccess(ref);
    await this.#ask("grants", [GNTTABOP_revoke], [ref, 0]);
    return this.#status(4);
  }

  /** Maps a page of dom0's at `address`; returns the status and the handle. */
  map(ref: number, address: number, options: MapOptions = {}): Promise<Mapped> {
    return this.mapFrom(0, ref, address, options);
  }

  /** Maps a page of the domain called `domid`. */
  async mapFrom(domid: number, ref: number, address: number, options: MapOptions = {}): Promise<Mapped> {
    const flags = GNTMAP_host_map | (options.readOnly === true ? GNTMAP_readonly : 0);
    const words = [address, 0, flags, ref, domid, 0, 0, 0, 0xffff_ffff];
    const operation = options.revokable === true ? GNTTABOP_map_revokable : GNTTABOP_map_grant_ref;
    await this.#ask("grants", [operation], words);
    const handle = wordAt(this.domain.read(ARGUMENTS + 20, 4));
    return { status: this.#status(18), handle };
  }

  /** Unmaps; returns the status. */
  async unmap(handle: number, address: number): Promise<number> {
    await this.#ask("grants", [GNTTABOP_unmap_grant_ref], [address, 0, 0, 0, handle, 0]);
    return this.#status(20);
  }

  /** Asks for a notification of the end of a mapping; returns the status. */
  async notify(handle: number, action: number, offset: number, port: number): Promise<number> {
    await this.#ask("grants", [GNTTABOP_unmap_notify], [handle, action, offset, port, 0]);
    return this.#status(16);
  }

  /** Opens a port that dom0 may bind to. */
  async port(): Promise<number> {
    // dom u16, remote_dom u16, port u32.
    await this.#ask("events", [EVTCHNOP_alloc_unbound], [DOMID_SELF, 0]);
    return wordAt(this.domain.read(ARGUMENTS + 4, 4));
  }

  /** The word that its program reads at `address`. */
  async load(address: number): Promise<number> {
    return Number(await this.domain.call("load", address)) >>> 0;
  }

  async store(address: number, value: number): Promise<void> {
    await this.domain.call("store", address, value);
  }

  /** Begins to count in the word at `address`; the returned function ends that, and tells how often it counted. */
  hammer(address: number): () => Promise<number> {
    this.domain.write(256, new Uint8Array(12));
    const end = this.domain.call("hammer", address);
    return async () => {
      this.domain.write(256, Uint8Array.of(1));
      await end;
      return this.count;
    };
  }

  /** How often the program that `hammer` began has counted so far. */
  get count(): number {
    return wordAt(this.domain.read(264, 4));
  }

  async #ask(name: "grants" | "memoryOp" | "events", first: number[], words: number[]): Promise<number> {
    this.domain.write(ARGUMENTS, bytesOf(words));
    const last = name === "grants" ? [1] : [];
    return Number(await this.domain.call(name, ...first, ARGUMENTS, ...last));
  }

  #status(offset: number): number {
    const [low = 0, high = 0] = this.domain.read(ARGUMENTS + offset, 2);
    return ((low | (high << 8)) << 16) >> 16;
  }
}

/** What became of a map operation. */
export interface Mapped {
  readonly status: number;
  readonly handle: number;
}

export const bytesOf = (words: readonly number[]): Uint8Array =>
  new Uint8Array(Uint32Array.from(words, (word) => word >>> 0).buffer);

export const wordAt = (bytes: Uint8Array, offset = 0): number =>
  new DataView(bytes.buffer, bytes.byteOffset).getUint32(offset, true);
