/**
 * Domains that come and go at random while their vCPUs add, ask for, read and drop keys, and while builders answer, refuse, fail
 * or never answer. Every payload says whose it is: no domain ever reads one of another.
 */
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import type { SecretOwner } from "@xenolith/secrets";
import { DomainKeys, type KeyReply, type KeyRequest } from "../src/index.ts";
import { type FakeDomain, type KeyHost, onKeyHost, SECRET_AT } from "./key-call-kit.ts";

const STEPS = 4000;
const VCPUS = 4;
const RINGS = [abi.XENKEY_THREAD_KEYRING, abi.XENKEY_PROCESS_KEYRING, abi.XENKEY_SESSION_KEYRING] as const;
const GIVEN = "given";

interface Asked {
  readonly request: KeyRequest;
  readonly resolve: (reply: KeyReply) => void;
  readonly reject: (error: Error) => void;
}

class Campaign {
  readonly #host: KeyHost;
  readonly #vault: SecretOwner;
  readonly #asked: Asked[];
  #state: number;
  readonly #domains = new Map<number, FakeDomain>();
  /** vCPUs that are in a call. */
  readonly #busy = new Set<string>();
  /** Serial numbers that there were, of anybody. */
  readonly #serials: number[] = [7];
  reads = 0;
  kills = 0;

  constructor(host: KeyHost, asked: Asked[], vault: SecretOwner, seed: number) {
    this.#host = host;
    this.#vault = vault;
    this.#asked = asked;
    this.#state = seed;
  }

  #below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }

  #of<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!;
  }

  async step(): Promise<void> {
    const slot = 1 + this.#below(4);
    let domain = this.#domains.get(slot);
    if (domain === undefined) this.#domains.set(slot, (domain = this.#host.domain(slot)));
    const what = this.#below(100);
    if (what < 2) this.#kill(domain);
    else if (what < 6) await this.#give(domain);
    else if (what < 30) this.#build();
    else this.#call(domain, this.#below(VCPUS));
    if (this.#below(4) === 0) await new Promise((resolve) => setImmediate(resolve));
  }

  #kill(domain: FakeDomain): void {
    this.kills += 1;
    this.#host.destroy(domain);
    this.#domains.delete(domain.slot);
    for (let vcpu = 0; vcpu < VCPUS; vcpu += 1) this.#busy.delete(`${domain.slot} ${vcpu}`);
  }

  async #give(domain: FakeDomain): Promise<void> {
    const service = await this.#host.service();
    const keyrings = this.#host.keys.keyrings.of(domain.slot, service);
    const keys = new DomainKeys(() => Promise.resolve({ service, keyrings }));
    const serial = await keys.give({ description: `k${this.#below(4)}`, payload: Buffer.from(GIVEN) });
    if (this.#below(2) === 0) await keys.take(serial);
    else this.#serials.push(serial);
  }

  #build(): void {
    if (this.#asked.length === 0) return;
    const [{ request, resolve, reject }] = this.#asked.splice(this.#below(this.#asked.length), 1) as [Asked];
    const bytes = Buffer.from(`built for ${request.uid}`);
    const how = this.#below(6);
    if (how === 0) resolve(undefined);
    else if (how === 1) resolve({ error: "EKEYREJECTED", seconds: 1 });
    else if (how === 2) reject(new Error("no"));
    else if (how === 3) resolve(this.#vault.keep(bytes));
    else resolve(bytes);
  }

  #call(domain: FakeDomain, vcpu: number): void {
    const name = `${domain.slot} ${vcpu}`;
    if (this.#busy.has(name)) return;
    this.#busy.add(name);
    const uid = this.#host.keys.keyrings.identityOf(domain.slot).uid;
    void this.#operation(domain, vcpu, uid).then((result) => {
      if (this.#domains.get(domain.slot) === domain) this.#busy.delete(name);
      if (typeof result === "number" && result > 2) this.#serials.push(result);
    });
  }

  async #operation(domain: FakeDomain, vcpu: number, uid: number): Promise<number | string> {
    const key = this.#of(this.#serials);
    const ring = this.#below(8) === 0 ? key : this.#of(RINGS);
    const description = `k${this.#below(6)}`;
    switch (this.#below(9)) {
      case 0:
      case 1:
        return await domain.request("user", description, { vcpu, ring: this.#below(2) === 0 ? 0 : ring, callout: "" });
      case 2:
        return await domain.add("user", description, `added by ${uid}`, ring);
      case 3:
      case 4:
      case 5:
        return await this.#read(domain, key, uid);
      case 6:
        return await domain.call(abi.XENKEY_unlink, abi.xen_key_link, { key, ring }, vcpu);
      case 7:
        return await domain.call(this.#of([abi.XENKEY_revoke, abi.XENKEY_invalidate]), abi.xen_key_id, { key }, vcpu);
      default:
        return this.#below(4) === 0
          ? await domain.call(
              abi.XENKEY_join_session,
              abi.xen_key_join_session,
              { name: 0, name_len: 0, flags: 0 },
              vcpu,
            )
          : await domain.call(abi.XENKEY_clear, abi.xen_key_id, { key: ring }, vcpu);
    }
  }

  /** Reads a key, its own or not: what it gets is its own, or was given to it. */
  async #read(domain: FakeDomain, key: number, uid: number): Promise<number | string> {
    const at = SECRET_AT + 4096 * this.#below(64);
    domain.bytes.fill(0, at, at + 64);
    const size = await domain.read(key, at, 64);
    if (typeof size === "string" || size % 4 === 0) return 0;
    const text = Buffer.from(domain.bytes.subarray(at, at + size)).toString();
    assert.ok([GIVEN, `added by ${uid}`, `built for ${uid}`].includes(text), text);
    this.reads += 1;
    return 0;
  }

  async check(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([...(await this.#host.service()).audit(), ...this.#host.keys.audit()], []);
  }
}

describe("domains and their keys, at random", () => {
  const asked: Asked[] = [];
  const seed = randomInt(2 ** 31);
  it(
    `keep to themselves, and leave nothing behind (seed ${seed})`,
    onKeyHost(
      async (host) => {
        const campaign = new Campaign(host, asked, (await host.secrets.pool()).owner("vault"), seed);
        for (let step = 1; step <= STEPS; step += 1) {
          await campaign.step();
          if (step % 100 === 0) await campaign.check();
        }
        assert.ok(campaign.reads > 10 && campaign.kills > 10, `${campaign.reads} reads, ${campaign.kills} kills`);
        for (const slot of [1, 2, 3, 4]) host.keys.keyrings.end(slot);
        for (const { resolve } of asked.splice(0)) resolve(Buffer.from("too late"));
      },
      {
        limits: { maxKeys: 30, maxBytes: 3000 },
        requestKey: (request) =>
          new Promise((resolve, reject) => {
            asked.push({ request, resolve, reject });
          }),
      },
    ),
  );
});
