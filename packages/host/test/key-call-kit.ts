/** key_op without guests: domains whose memory is an array, on a real key service with real secret memory. */
import assert from "node:assert/strict";
import { EFAULT, EPERM, errnoName, type Layout } from "@xenolith/abi";
import * as abi from "@xenolith/abi";
import type { Hypervisor } from "@xenolith/core";
import type { KeyService } from "@xenolith/keys";
import { HostKeys, type HostKeysOptions } from "../src/host-keys.ts";
import { HostSecrets, type HostSecretsOptions } from "../src/host-secrets.ts";
import { KeyOp } from "../src/keys/key-op.ts";
import type { KeyCall } from "../src/keys/key-call.ts";

/** Memory of a fake domain: a megabyte and a half of ordinary memory, and as much that is secret. */
export const ORDINARY_END = 0x18_0000;
/** Where the secret part begins, and ends. */
export const SECRET_AT = 0x20_0000;
export const SECRET_END = 0x38_0000;
const STRUCT_AT = 0;
const TEXT_AT = [0x1000, 0x3000, 0x5000] as const;

const NO_TEXT = { address: 0, length: 0 };

/** A text of a call, where it stands. */
export interface Placed {
  readonly address: number;
  readonly length: number;
}

type AnyStruct = Layout<unknown> & { readonly sizeBytes: number };

/** A domain of the tests. */
export class FakeDomain {
  readonly slot: number;
  readonly bytes = new Uint8Array(SECRET_END);
  readonly #abort = new AbortController();
  readonly #op: KeyOp;

  constructor(op: KeyOp, slot: number) {
    this.#op = op;
    this.slot = slot;
  }

  /** Writes the struct and makes the call: the result, or the name of the error. */
  async call(
    command: number,
    struct: AnyStruct,
    members: Readonly<Record<string, number>>,
    vcpu = 0,
  ): Promise<number | string> {
    const view = new DataView(this.bytes.buffer);
    for (const [name, value] of Object.entries(members)) {
      const field: unknown = Reflect.get(struct, name);
      assert.ok(typeof field === "object" && field !== null && "set" in field && typeof field.set === "function", name);
      field.set(view, STRUCT_AT, value);
    }
    return await this.raw(command, STRUCT_AT, vcpu);
  }

  /** Makes a call on whatever is in memory. */
  async raw(command: number, argument: number, vcpu = 0): Promise<number | string> {
    const call: KeyCall = {
      slot: this.slot,
      domid: this.slot,
      vcpu,
      command,
      argument,
      memory: {
        copyFromGuest: (address, target) => this.#from(address, target, 0, ORDINARY_END, -EFAULT),
        copyToGuest: (address, source) => this.#to(address, source, 0, ORDINARY_END, -EFAULT),
      },
      secretPages: {
        read: (address, target) => this.#from(address, target, SECRET_AT, SECRET_END, -EPERM),
        write: (address, source) => this.#to(address, source, SECRET_AT, SECRET_END, -EPERM),
      },
      signal: this.#abort.signal,
    };
    const result = await this.#op.serve(call);
    return result < 0 ? (errnoName(result) ?? result) : result;
  }

  /** Puts a text into memory. */
  text(index: 0 | 1 | 2, text: string | Uint8Array): Placed {
    const bytes = typeof text === "string" ? Buffer.from(text, "latin1") : text;
    this.bytes.set(bytes, TEXT_AT[index]);
    return { address: TEXT_AT[index], length: bytes.length };
  }

  async add(type: string, description: string, payload: string | Uint8Array, ring: number): Promise<number | string> {
    const [t, d, p] = [this.text(0, type), this.text(1, description), this.text(2, payload)];
    return await this.addPlaced([t, d, p], 0, ring);
  }

  async addPlaced([t, d, p]: readonly [Placed, Placed, Placed], flags: number, ring: number): Promise<number | string> {
    return await this.call(abi.XENKEY_add, abi.xen_key_add, {
      type: t.address,
      type_len: t.length,
      description: d.address,
      description_len: d.length,
      payload: p.address,
      payload_len: p.length,
      flags,
      ring,
    });
  }

  async request(
    type: string,
    description: string,
    { callout, ring = 0, vcpu = 0 }: { readonly callout?: string; readonly ring?: number; readonly vcpu?: number } = {},
  ): Promise<number | string> {
    const [t, d] = [this.text(0, type), this.text(1, description)];
    const c = callout === undefined ? NO_TEXT : this.text(2, callout);
    const flags = callout === undefined ? 0 : abi.XENKEYF_callout;
    return await this.call(
      abi.XENKEY_request,
      abi.xen_key_request,
      {
        type: t.address,
        type_len: t.length,
        description: d.address,
        description_len: d.length,
        callout: c.address,
        callout_len: c.length,
        flags,
        ring,
      },
      vcpu,
    );
  }

  async read(key: number, buffer: number, length: number, flags = 0): Promise<number | string> {
    return await this.call(abi.XENKEY_read, abi.xen_key_read, { key, buffer, length, flags });
  }

  /** What a key says of itself, or the error. */
  async describe(key: number): Promise<string | number> {
    const size = await this.call(abi.XENKEY_describe, abi.xen_key_describe, { key, buffer: 0x8000, length: 0x2000 });
    return typeof size === "string" ? size : Buffer.from(this.bytes.subarray(0x8000, 0x8000 + size - 1)).toString();
  }

  /** It is destroyed: as the host does it. */
  die(): void {
    this.#abort.abort();
    this.#op.domainGone(this.slot);
  }

  #from(address: number, target: Uint8Array, start: number, end: number, error: number): number {
    if (address < start || address + target.length > end) return error;
    target.set(this.bytes.subarray(address, address + target.length));
    return 0;
  }

  #to(address: number, source: Uint8Array, start: number, end: number, error: number): number {
    if (address < start || address + source.length > end) return error;
    this.bytes.set(source, address);
    return 0;
  }
}

/** A host with nothing but keys. */
export class KeyHost {
  readonly faults: string[] = [];
  readonly secrets: HostSecrets;
  readonly keys: HostKeys;
  readonly op: KeyOp;
  readonly #domains: FakeDomain[] = [];
  readonly #generations = Uint32Array.from([1, 11, 12, 13, 14]);

  constructor(options: HostKeysOptions = {}, secrets: HostSecretsOptions = {}) {
    const noteFault = (fault: string): void => void this.faults.push(fault);
    const domains = {
      domid: Uint16Array.from([0, 1, 2, 3, 4]),
      generation: this.#generations,
      stateOf: () => "running",
    };
    const hypervisor = { domains, geometry: { domainCountMax: 5 } } as unknown as Hypervisor;
    this.secrets = new HostSecrets({ policy: "degraded", underPressure: () => false, ...secrets }, noteFault);
    const nameOf = (slot: number): string => `guest${slot}`;
    this.keys = new HostKeys({ hypervisor, secrets: this.secrets, nameOf }, options);
    this.op = new KeyOp({ keys: this.keys, secrets: this.secrets, noteFault });
  }

  /** Destroys a domain, in the host's order; the next one in its slot is another. */
  destroy(domain: FakeDomain): void {
    domain.die();
    this.secrets.release(domain.slot);
    this.#domains.splice(this.#domains.indexOf(domain), 1);
    this.#generations[domain.slot]! += 10;
  }

  domain(slot: number): FakeDomain {
    const domain = new FakeDomain(this.op, slot);
    this.#domains.push(domain);
    return domain;
  }

  async service(): Promise<KeyService> {
    return await this.keys.service();
  }

  /** Ends everything, in the host's order: nothing may be left, and nothing may have gone wrong. */
  async finish(): Promise<void> {
    const service = await this.service();
    const pool = await this.secrets.pool();
    for (const domain of this.#domains) domain.die();
    // Requests that were under way are settled in turns of the event loop.
    for (let turn = 0; turn < 100 && service.statistics().waits > 0; turn += 1)
      await new Promise((resolve) => setImmediate(resolve));
    const findings = service.audit();
    const users = service.procKeyUsers();
    const { waits, payloads } = service.statistics();
    const { slots } = pool.statistics();
    await this.keys.close();
    await this.secrets.close();
    assert.deepEqual(findings, []);
    assert.deepEqual({ waits, payloads, slots }, { waits: 0, payloads: 0, slots: 0 });
    assert.doesNotMatch(users, /^ *214748\d{4}:/m, "a domain's user is left");
    assert.deepEqual(this.faults, []);
  }
}

/** Runs a test on a host of its own, and finishes that. */
export const onKeyHost =
  (test: (host: KeyHost) => Promise<void>, options: HostKeysOptions = {}, secrets: HostSecretsOptions = {}) =>
  async (): Promise<void> => {
    const host = new KeyHost(options, secrets);
    try {
      await host.service();
      await test(host);
    } catch (error) {
      await host.keys.close();
      await host.secrets.close();
      throw error;
    }
    await host.finish();
  };
