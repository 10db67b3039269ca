import { DOMID_FIRST_RESERVED } from "@xenolith/abi";
import type { Caller, Principal } from "./permissions.ts";
import { defaultQuota, type Quota, type QuotaName } from "./quota.ts";

/** One domain, from its creation to its end, and what it uses. A later domain of the same number is another record. */
export class DomainRecord implements Caller {
  readonly domid: number;
  readonly incarnation: number;
  readonly privileged: boolean;
  target: DomainRecord | undefined;
  /** Has a connection, or had one. */
  introduced = false;
  /** `@releaseDomain` was fired for its end. */
  ended = false;
  /** Feature bits that it is offered; `undefined`: all. */
  features: number | undefined;
  /** Limits of its own, by name. */
  readonly limits = new Map<QuotaName, number>();
  /** Paths of the nodes that it owns. Not kept for the control domain. */
  readonly nodes = new Set<string>();
  nodeBytes = 0;
  watchCount = 0;
  watchBytes = 0;
  transactionCount = 0;
  transactionBytes = 0;

  constructor(domid: number, incarnation: number, privileged: boolean) {
    this.domid = domid;
    this.incarnation = incarnation;
    this.privileged = privileged;
  }

  /** Bytes that the store keeps because of this domain. */
  get memoryBytes(): number {
    return this.nodeBytes + this.watchBytes + this.transactionBytes;
  }
}

/** The domains that the store knows. */
export class DomainTable {
  readonly control = new DomainRecord(0, 0, true);
  #quota: Quota;
  #incarnation = 0;
  readonly #records = new Map<number, DomainRecord>([[0, this.control]]);

  constructor(quota: Partial<Quota> = {}) {
    this.#quota = { ...defaultQuota, ...quota };
  }

  /** The domain that has this number now. */
  find(domid: number): DomainRecord | undefined {
    return this.#records.get(domid);
  }

  /** The same domain as the principal, unless that is of the past. */
  live(principal: Principal): DomainRecord | undefined {
    const record = this.#records.get(principal.domid);
    return record?.incarnation === principal.incarnation ? record : undefined;
  }

  readonly isLive = (principal: Principal): boolean => this.live(principal) !== undefined;

  /** The incarnation of the domain that has this number now; of nobody, if none has. */
  readonly incarnationOf = (domid: number): number => this.#records.get(domid)?.incarnation ?? 0;

  /** The domain of this number, as a new one if there is none. */
  create(domid: number): DomainRecord {
    const known = this.#records.get(domid);
    if (known !== undefined) return known;
    this.#incarnation += 1;
    const record = new DomainRecord(domid, this.#incarnation, false);
    this.#records.set(domid, record);
    return record;
  }

  /** Forgets the domain: what permissions said of it names nobody from now on. */
  remove(record: DomainRecord): void {
    if (this.#records.get(record.domid) === record) this.#records.delete(record.domid);
    for (const other of this.#records.values()) if (other.target === record) other.target = undefined;
  }

  /** The limit of a domain; none for the control domain, whose paths only the protocol bounds. */
  limit(record: DomainRecord, name: QuotaName): number {
    if (record.privileged) return Number.MAX_SAFE_INTEGER;
    return record.limits.get(name) ?? this.#quota[name];
  }

  /** What a domain gets that has no limit of its own. */
  defaultLimit(name: QuotaName): number {
    return this.#quota[name];
  }

  setDefaultLimit(name: QuotaName, value: number): void {
    this.#quota = { ...this.#quota, [name]: value };
  }

  [Symbol.iterator](): Iterator<DomainRecord> {
    return this.#records.values();
  }
}

/** Whether a number can be a domain's. */
export const isDomid = (domid: number): boolean =>
  Number.isInteger(domid) && domid >= 0 && domid < DOMID_FIRST_RESERVED;
