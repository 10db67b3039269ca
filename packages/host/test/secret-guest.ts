// A guest that does with secret memory what a test says: a reactor, one call at a time.
import assert from "node:assert/strict";
import * as abi from "@xenolith/abi";
import { createSecretMemfd, closeDescriptor, PAGE_BYTES } from "@xenolith/sys";
import type { Domain, DomainOptions, Host, HostOptions } from "../src/index.ts";
import { guest, openHost, run } from "./support.ts";

export const PAGE = 4096;
/** Where structs stand in the guest. */
const ARGUMENT = 1024;

/** Why tests of hidden memory are skipped here; false where the kernel has it. */
export const withoutSecretMemory = ((): string | false => {
  try {
    closeDescriptor(createSecretMemfd(PAGE_BYTES));
    return false;
  } catch (error) {
    return `this kernel gives no secret memory: ${String(error)}`;
  }
})();

/** A host whose secret memory is of whichever kind this kernel can give. */
export const openSecretHost = (options: HostOptions = {}): Promise<Host> =>
  openHost({ warmVcpuCount: 1, secrets: { policy: "degraded", underPressure: () => false }, ...options });

/** The same for programs: loads and stores, and every hypercall. */
export const puppetImage = guest(`(module
  (import "xen" "hypercall" (func $hypercall (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "hyper") (param i32 i32 i32 i32 i32 i32) (result i32)
    (call $hypercall (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)))
  (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))
  (func (export "fill") (param $at i32) (param $seed i32) (param $count i32)
    (loop $next
      (i32.store8 (local.get $at) (local.get $seed))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      ;; The guest makes the bytes of the marker by itself: they are nowhere else.
      (local.set $seed (i32.add (i32.mul (local.get $seed) (i32.const 5)) (i32.const 3)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $next (local.get $count))))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))`);

/** What "fill" writes. */
export const fillOf = (seed: number, count: number): Buffer => {
  const bytes = Buffer.alloc(count);
  let value = seed;
  for (let at = 0; at < count; at += 1) {
    bytes[at] = value & 0xff;
    value = (Math.imul(value, 5) + 3) | 0;
  }
  return bytes;
};

/** A field of a struct that was handed out. */
interface Field {
  readonly offset: number;
}

/** One such guest. */
export class Puppet {
  readonly domain: Domain;
  readonly host: Host;

  constructor(host: Host, domain: Domain) {
    this.host = host;
    this.domain = domain;
  }

  static async start(host: Host, options: Partial<DomainOptions> = {}): Promise<Puppet> {
    return new Puppet(host, await run(host, puppetImage, options));
  }

  get slot(): number {
    return this.host.hypervisor.domains.slotOf(this.domain.domid);
  }

  async hyper(number: number, ...values: readonly number[]): Promise<number> {
    const [a = 0, b = 0, c = 0, d = 0, e = 0] = values;
    return Number(await this.domain.call("hyper", number, a, b, c, d, e));
  }

  /** secret_op with a struct of these words. */
  op(command: number, ...words: readonly number[]): Promise<number> {
    this.domain.write(ARGUMENT, new Uint8Array(Uint32Array.from(words, (word) => word >>> 0).buffer));
    return this.hyper(abi.__HYPERVISOR_secret_op, command, ARGUMENT);
  }

  /** A number that the last call handed out. */
  out({ offset }: Field): number {
    const bytes = this.domain.read(ARGUMENT + offset, 4);
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  }

  /** The id of a new object, or an errno. */
  async allocate(pages: number): Promise<number> {
    const result = await this.op(abi.XENSECRET_allocate, pages, 0, 0xdead);
    return result === 0 ? this.out(abi.xen_secret_allocate.id) : result;
  }

  map(id: number, gfn: number, [page, count]: readonly [number, number], flags = 0): Promise<number> {
    return this.op(abi.XENSECRET_map, id, gfn, page, count, flags);
  }

  unmap(gfn: number, pages: number): Promise<number> {
    return this.op(abi.XENSECRET_unmap, gfn, pages);
  }

  seal(id: number): Promise<number> {
    return this.op(abi.XENSECRET_seal, id);
  }

  release(id: number): Promise<number> {
    return this.op(abi.XENSECRET_release, id);
  }

  share(id: number, domid: number, flags = 0): Promise<number> {
    return this.op(abi.XENSECRET_share, id, domid, flags);
  }

  /** The caller's id of what another offers, or an errno. */
  async accept(domid: number, ownerId: number): Promise<number> {
    const result = await this.op(abi.XENSECRET_accept, domid, ownerId, 0xdead);
    return result === 0 ? this.out(abi.xen_secret_accept.id) : result;
  }

  revoke(id: number, domid: number = abi.DOMID_INVALID): Promise<number> {
    return this.op(abi.XENSECRET_revoke, id, domid);
  }

  /** What a query hands out, or an errno. */
  async query(id: number = abi.XENSECRET_QUOTA) {
    const { xen_secret_query: layout } = abi;
    const result = await this.op(abi.XENSECRET_query, id, ...Array<number>(10).fill(0));
    if (result !== 0) return result;
    return {
      flags: this.out(layout.flags),
      pages: this.out(layout.pages),
      objects: this.out(layout.objects),
      used: this.out(layout.bytes_used),
      mapped: this.out(layout.bytes_mapped),
      max: this.out(layout.bytes_max),
    };
  }

  /** An object that is mapped, writable, from `gfn` on. */
  async secretAt(gfn: number, pages: number): Promise<number> {
    const id = await this.allocate(pages);
    assert.ok(id >= 0, `allocate: ${abi.errnoName(id)}`);
    assert.equal(await this.map(id, gfn, [0, pages]), 0);
    return id;
  }

  async load(address: number): Promise<number> {
    return Number(await this.domain.call("load", address));
  }

  async store(address: number, value: number): Promise<void> {
    await this.domain.call("store", address, value);
  }

  async fill(address: number, seed: number, count: number): Promise<void> {
    await this.domain.call("fill", address, seed, count);
  }
}
