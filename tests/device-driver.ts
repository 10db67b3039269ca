/**
 * A driver of the copy engine in examples/copy-engine that obeys a test: the guest lends its memory, its grant table and
 * its hypercalls, the test writes the ring.
 */
import assert from "node:assert/strict";
import path from "node:path";
import {
  __HYPERVISOR_event_channel_op,
  __HYPERVISOR_grant_table_op,
  __HYPERVISOR_memory_op,
  DOMID_SELF,
  EVTCHNOP_alloc_unbound,
  EVTCHNOP_bind_pirq,
  EVTCHNOP_send,
  GNTTABOP_revoke,
  GTF_permit_access,
  GTF_reading,
  GTF_readonly,
  GTF_revokable,
  GTF_writing,
  XENMAPSPACE_grant_table,
  XENMEM_add_to_physmap,
} from "@xenolith/abi";
import { clearPending, isPending } from "@xenolith/core";
import type { Domain, Host } from "@xenolith/host";
import { assemble, eventually, run, wordAt } from "./advisory-guests.ts";

const root = path.join(import.meta.dirname, "../..");
// From the compiled test's place the module is elsewhere than the compiler thinks.
const { CopyEngine } = (await import(
  path.join(root, "examples/copy-engine/dist/copy-engine.js")
)) as typeof import("../examples/copy-engine/copy-engine.ts");

/** What tests do with an engine. */
export interface Engine {
  readonly state: string;
  readonly reason: string;
  readonly pirq: number;
  connect(connection: { ringRef: number; port: number; isRingRevokable: boolean }): void;
  close(): void;
}

/** Gives a domain an engine. */
export const createEngine = (host: Host, domain: Domain, irq: number): Engine => new CopyEngine(host, domain, irq);

export const ATTACH = 1;
export const DETACH = 2;
export const COPY = 3;
export const WRITABLE = 1;
export const REVOKABLE = 2;
export const MORE = 1;
export const PAGE = 4096;

const TABLE = 0x4000_0000;
const ARGUMENTS = 0x1000;
const RING_GFN = 8;
const RING = RING_GFN * PAGE;
const RING_REF = 8;
const DATA_GFN = 16;
const IRQ = 70;

const image = assemble(`(module
  (import "xen" "hypercall" (func $hypercall (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 8)
  (func (export "hypercall") (param i32 i32 i32 i32) (result i32)
    (call $hypercall (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 0) (i32.const 0)))
  ;; Writes two words by turns to $at until the word at 256 is not 0.
  (func (export "flip") (param $at i32) (param $a i32) (param $b i32)
    (loop $again
      (i32.store (local.get $at) (local.get $a))
      (i32.store (local.get $at) (local.get $b))
      (br_if $again (i32.eqz (i32.load (i32.const 256)))))))`);

/** What the engine answered. */
export interface Answer {
  readonly id: number;
  readonly operation: number;
  readonly status: number;
  readonly value: number;
  readonly rest: Uint8Array;
}

/** A guest with an engine. */
export class Driver {
  readonly host: Host;
  readonly domain: Domain;
  readonly engine: Engine;
  #port = 0;
  #interrupt = 0;
  #produced = 0;
  #consumed = 0;

  private constructor(host: Host, domain: Domain) {
    this.host = host;
    this.domain = domain;
    this.engine = createEngine(host, domain, IRQ);
  }

  /** Starts one; its engine is connected. */
  static async start(host: Host, options: { isRingRevokable?: boolean } = {}): Promise<Driver> {
    const isRingRevokable = options.isRingRevokable === true;
    const driver = new Driver(host, await run(host, image, { memoryBytesMax: 2 ** 21 }));
    await driver.#call(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, [
      DOMID_SELF,
      XENMAPSPACE_grant_table,
      0,
      TABLE / PAGE,
    ]);
    driver.grant(RING_REF, RING_GFN, isRingRevokable ? GTF_revokable : 0);
    driver.#write(RING + 4, [1, 0, 1]);
    await driver.#call(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_pirq, [driver.engine.pirq, 0, 0]);
    driver.#interrupt = wordAt(driver.domain, ARGUMENTS + 8);
    await driver.#call(__HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, [DOMID_SELF, 0]);
    driver.#port = wordAt(driver.domain, ARGUMENTS + 4);
    driver.engine.connect({ ringRef: RING_REF, port: driver.#port, isRingRevokable });
    return driver;
  }

  /** Address in the guest of data page number `index`. */
  address(index: number): number {
    return (DATA_GFN + index) * PAGE;
  }

  /** Fills a data page. */
  fill(index: number, value: number): void {
    this.domain.write(this.address(index), new Uint8Array(PAGE).fill(value));
  }

  /** A data page. */
  page(index: number): Uint8Array {
    return this.domain.read(this.address(index), PAGE);
  }

  /** Grants frame `gfn` to the control domain. */
  grant(ref: number, gfn: number, flags = 0): void {
    this.#write(TABLE + ref * 8 + 4, [gfn]);
    this.#write(TABLE + ref * 8, [GTF_permit_access | flags]);
  }

  /** Grants data page `index` by reference 100 + index; returns that. */
  grantPage(index: number, access: { isReadOnly?: boolean; isRevokable?: boolean } = {}): number {
    const flags = (access.isReadOnly === true ? GTF_readonly : 0) | (access.isRevokable === true ? GTF_revokable : 0);
    this.grant(100 + index, DATA_GFN + index, flags);
    return 100 + index;
  }

  /** Whether the control domain uses a page by this reference. */
  isInUse(ref: number): boolean {
    return (wordAt(this.domain, TABLE + ref * 8) & (GTF_reading | GTF_writing)) !== 0;
  }

  /** Takes a page back. */
  async revoke(ref: number): Promise<void> {
    const address = TABLE + ref * 8;
    this.#write(address, [(wordAt(this.domain, address) & ~3) >>> 0]);
    assert.equal(await this.#call(__HYPERVISOR_grant_table_op, GNTTABOP_revoke, [ref, 0]), 0);
    assert.equal(wordAt(this.domain, ARGUMENTS + 4) & 0xffff, 0);
  }

  /** Takes the page of the ring back. */
  revokeRing(): Promise<void> {
    return this.revoke(RING_REF);
  }

  /** Puts a request into the ring; `send` lets the engine see it. Returns the address of its slot. */
  put(operation: number, flags: number, count: number, words: readonly number[] = []): number {
    const at = RING + 64 + (this.#produced % 32) * 32;
    const padded = [...words, 0, 0, 0, 0, 0].slice(0, 5);
    this.#write(at, [this.#produced, operation | (flags << 16), count, ...padded]);
    this.#produced += 1;
    return at;
  }

  /** Publishes the requests, or another index, and rings. */
  async send(produced = this.#produced): Promise<void> {
    this.#write(RING, [produced]);
    await this.#call(__HYPERVISOR_event_channel_op, EVTCHNOP_send, [this.#port]);
  }

  /** Requests that were put into the ring. */
  get produced(): number {
    return this.#produced;
  }

  /** Answers that wait. */
  get answered(): number {
    return wordAt(this.domain, RING + 8) - this.#consumed;
  }

  /** The next answer. */
  async answer(): Promise<Answer> {
    await eventually(() => this.answered > 0);
    const slot = this.domain.read(RING + 64 + (this.#consumed % 32) * 32, 32);
    const view = new DataView(slot.buffer);
    this.#consumed += 1;
    return {
      id: view.getUint32(0, true),
      operation: view.getUint16(4, true),
      status: view.getInt16(6, true),
      value: view.getUint32(8, true),
      rest: slot.subarray(12),
    };
  }

  /** Whether the interrupt has come since the last time; asks for it at the next answer. */
  takeInterrupt(): boolean {
    const { hypervisor } = this.host;
    const slot = hypervisor.domains.slotOf(this.domain.domid);
    this.#write(RING + 12, [this.#consumed + 1]);
    const hasCome = isPending(hypervisor, slot, this.#interrupt);
    clearPending(hypervisor, slot, this.#interrupt);
    return hasCome;
  }

  /** One request and its answer. */
  async ask(operation: number, flags: number, count: number, words: readonly number[] = []): Promise<Answer> {
    this.put(operation, flags, count, words);
    await this.send();
    return this.answer();
  }

  /** Attaches pages; returns their bus address. */
  async attach(refs: readonly number[], flags = 0): Promise<number> {
    const { status, value } = await this.ask(ATTACH, flags, refs.length, refs);
    assert.equal(status, 0);
    return value;
  }

  /** Begins to write two words to `at` by turns; the returned function ends that. */
  flip(at: number, a: number, b: number): () => Promise<void> {
    this.#write(256, [0]);
    const end = this.domain.call("flip", at, a, b);
    return async () => {
      this.#write(256, [1]);
      await end;
    };
  }

  async #call(number: number, operation: number, words: readonly number[]): Promise<number> {
    this.#write(ARGUMENTS, words);
    const isGrants = number === __HYPERVISOR_grant_table_op;
    return Number(await this.domain.call("hypercall", number, operation, ARGUMENTS, isGrants ? 1 : 0));
  }

  #write(address: number, words: readonly number[]): void {
    this.domain.write(address, new Uint8Array(Uint32Array.from(words, (word) => word >>> 0).buffer));
  }
}
