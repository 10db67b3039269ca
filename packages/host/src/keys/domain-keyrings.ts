/**
 * A domain as the key service sees it: a user of its own, with a process and a session keyring for the domain, a thread
 * keyring for each vCPU that asks for one, and a keyring of what the control domain has given it.
 *
 *     thread (vCPU) -> process (domain) -> session (domain)      the order in which a request searches them
 *                        `- given: owned by the control domain; the domain can use what is in it and change nothing
 *
 * All of it ends with the domain. The user's number is never given again (host-keys.ts).
 */
import { errnoName, XenolithError } from "@xenolith/abi";
import type { KeyReference, KeyService, Process, ProcessIdentity } from "@xenolith/keys";

/** What the control domain knows about a domain, and no guest can choose. */
export interface DomainFacts {
  readonly domid: number;
  readonly name: string;
}

// keyctl(2): the numbers of rights, and of keyrings.
const VIEW = 0x01;
const READ = 0x02;
const SEARCH = 0x08;
const ALL = 0x3f;
const PROCESS_KEYRING = -2;

/** What a domain may do with what it was given, as the possessor; the control domain, as the owner, may do everything. */
export const GIVEN_PERMISSIONS = ((VIEW | READ | SEARCH) << 24) | (ALL << 16);

/** The records of one domain. */
export class DomainKeyrings {
  readonly facts: DomainFacts;
  /** Its user number. */
  readonly uid: number;
  readonly #service: KeyService;
  readonly #identity: ProcessIdentity;
  readonly #leader: Process;
  /** By vCPU. */
  readonly #threads = new Map<number, Process>();
  readonly #ended = new AbortController();
  #given: KeyReference | undefined;

  constructor(service: KeyService, identity: ProcessIdentity, facts: DomainFacts) {
    this.facts = facts;
    this.uid = identity.uid;
    this.#service = service;
    this.#identity = identity;
    this.#leader = service.attach(identity);
    // There from the beginning, so that every vCPU has the same ones.
    service.getKeyringId(this.#leader, PROCESS_KEYRING, true);
    service.joinSession(this.#leader, null);
  }

  /** Fires when the domain goes. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /** The record of a vCPU. */
  threadOf(vcpu: number): Process {
    let thread = this.#threads.get(vcpu);
    if (thread === undefined) {
      thread = this.#service.newThread(this.#leader, { pid: this.#identity.pid });
      this.#threads.set(vcpu, thread);
    }
    return thread;
  }

  /** A vCPU has joined another session: so has the domain. */
  sessionJoined(vcpu: number): void {
    if (this.signal.aborted) return;
    const joined = this.threadOf(vcpu);
    for (const other of [this.#leader, ...this.#threads.values()]) this.#service.trusted.shareSession(joined, other);
  }

  /** Serial number of the keyring of what the domain was given; makes it. Throws XenolithError `KEY_REFUSED`. */
  given(): number {
    this.#given ??= this.#makeGiven();
    // A domain may have removed the link from its process keyring.
    const result = this.#service.trusted.link(this.#given.serial, this.#leader.process?.serial ?? 0);
    if (result < 0) throw refusal("link the keyring of what a domain is given", result);
    return this.#given.serial;
  }

  /** The domain is gone: its waits and helpers end, its keyrings and quota are free. */
  end(): void {
    if (this.signal.aborted) return;
    this.#ended.abort();
    for (const process of [...this.#threads.values(), this.#leader]) this.#service.exit(process);
    this.#given?.release();
    this.#service.trusted.forgetUser(this.uid);
  }

  #makeGiven(): KeyReference {
    const description = `.domain:${this.facts.domid}`;
    const made = this.#service.trusted.createKeyring({ description, permissions: GIVEN_PERMISSIONS });
    if (typeof made === "number") throw refusal("make the keyring of what a domain is given", made);
    return made;
  }
}

/** What a refused operation of the control domain is thrown as. */
export const refusal = (what: string, result: number): XenolithError =>
  new XenolithError("KEY_REFUSED", `${what}: ${errnoName(result) ?? `error ${-result}`}`);
