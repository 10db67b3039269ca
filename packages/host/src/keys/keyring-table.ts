/** The keyrings of the domains that have asked for some, or were given keys. */
import type { Hypervisor } from "@xenolith/core";
import type { KeyService, ProcessIdentity } from "@xenolith/keys";
import { DomainKeyrings } from "./domain-keyrings.ts";

/** The first of 2^31 - 2 user numbers of domains. (2^32 - 1 stands for "unchanged" in system calls.) */
export const DOMAIN_UID_FIRST = 0x8000_0000;
const DOMAIN_UID_COUNT = 0x7fff_fffe;

/** The user number of the domain with this serial of creation. */
export const domainUid = (generation: number): number => DOMAIN_UID_FIRST + (generation % DOMAIN_UID_COUNT);

/** Keyrings by slot and by user. */
export class KeyringTable {
  readonly #hypervisor: Hypervisor;
  readonly #nameOf: (slot: number) => string;
  readonly #bySlot = new Map<number, DomainKeyrings>();
  readonly #byUid = new Map<number, DomainKeyrings>();

  constructor(hypervisor: Hypervisor, nameOf: (slot: number) => string) {
    this.#hypervisor = hypervisor;
    this.#nameOf = nameOf;
  }

  /** Those of the domain in a slot; makes them. */
  of(slot: number, service: KeyService): DomainKeyrings {
    const present = this.#bySlot.get(slot);
    if (present !== undefined) return present;
    const identity = this.identityOf(slot);
    const facts = { domid: this.#hypervisor.domains.domid[slot]!, name: this.#nameOf(slot) };
    const made = new DomainKeyrings(service, identity, facts);
    this.#bySlot.set(slot, made);
    this.#byUid.set(made.uid, made);
    return made;
  }

  /** Those of a user, if it is a domain. */
  ofUser(uid: number): DomainKeyrings | undefined {
    return this.#byUid.get(uid);
  }

  /** The domain in a slot goes: nothing of it stays. */
  end(slot: number): void {
    const keyrings = this.#bySlot.get(slot);
    if (keyrings === undefined) return;
    this.#bySlot.delete(slot);
    this.#byUid.delete(keyrings.uid);
    keyrings.end();
  }

  /** Keyrings of domains that are not there, or not the ones that they were made for: a sentence each. */
  audit(): string[] {
    const { domains } = this.#hypervisor;
    return [...this.#bySlot]
      .filter(([slot, { uid }]) => domains.stateOf(slot) === "free" || domainUid(domains.generation[slot]!) !== uid)
      .map(([slot, { uid }]) => `keys: slot ${slot} has keyrings of user ${uid}, who is not there`);
  }

  /** Who a domain is for the service: a user of its own, without any capability. */
  identityOf(slot: number): ProcessIdentity {
    const { domains } = this.#hypervisor;
    const uid = domainUid(domains.generation[slot]!);
    return { pid: domains.domid[slot]!, uid, gid: uid, sysAdmin: false, setUid: false };
  }
}
