/** What the program does with the keys of one of its domains. */
import type { KeyService } from "@xenolith/keys";
import { type DomainKeyrings, GIVEN_PERMISSIONS, refusal } from "./domain-keyrings.ts";
import { type KeyPayload, usePayload } from "./key-builder.ts";

/** A key that a domain is given. */
export interface GivenKey {
  /** "user" by default. */
  readonly type?: string;
  readonly description: string;
  /** Bytes are wiped, a secret is released, when the key has it. */
  readonly payload: KeyPayload;
  /** Seconds from now after which it is expired; for ever by default. */
  readonly seconds?: number;
}

/**
 * Keys that a domain is given by the program: it finds them with request_key, reads them into its secret pages, and can
 * neither change nor pass them on. They are charged to the program's user, not to the domain.
 */
export class DomainKeys {
  readonly #open: () => Promise<{ readonly service: KeyService; readonly keyrings: DomainKeyrings }>;

  constructor(open: () => Promise<{ readonly service: KeyService; readonly keyrings: DomainKeyrings }>) {
    this.#open = open;
  }

  /** The domain's user number: what its own keys belong to, and what builders of keys are told. */
  async uid(): Promise<number> {
    return (await this.#open()).keyrings.uid;
  }

  /** Serial number of the keyring of what it was given. @throws XenolithError `KEY_REFUSED`, `DOMAIN_STATE`. */
  async keyring(): Promise<number> {
    return (await this.#open()).keyrings.given();
  }

  /**
   * Gives it a key, or a new payload for one that it was given: the serial number.
   *
   * @throws XenolithError `KEY_REFUSED`: the message names the error number; `DOMAIN_STATE`, `HOST_CLOSED`; as
   * `SecretPool.open`.
   */
  async give({ type = "user", description, payload, seconds = 0 }: GivenKey): Promise<number> {
    const { service, keyrings } = await this.#open();
    const ring = keyrings.given();
    const giver = service.attach({ pid: process.pid, uid: 0, gid: 0 });
    try {
      const answer = usePayload(payload, (bytes) =>
        service.trusted.addKey(giver, { type, description, payload: bytes, ring }, GIVEN_PERMISSIONS),
      );
      const serial = done(`give the key ${description}`, answer);
      if (seconds > 0) done(`limit the key ${description}`, service.setTimeout(giver, serial, seconds));
      return serial;
    } finally {
      service.exit(giver);
    }
  }

  /**
   * Gives it a key that there is, with the permissions that the key has for who possesses it. With one whose permissions
   * nobody has narrowed it may do everything: change it, and link it where `take` does not reach. View, search and read
   * (0x0b000000) make it like one of `give`.
   *
   * @throws XenolithError `KEY_REFUSED`, and as `give`.
   */
  async link(serial: number): Promise<void> {
    const { service, keyrings } = await this.#open();
    done(`give key ${serial}`, service.trusted.link(serial, keyrings.given()));
  }

  /**
   * Takes back a key that it was given: from now on it is as if it were not there. What the domain has read it has.
   *
   * @throws XenolithError `KEY_REFUSED`.
   */
  async take(serial: number): Promise<void> {
    const { service, keyrings } = await this.#open();
    done(`take key ${serial}`, service.trusted.unlink(serial, keyrings.given()));
  }
}

/** Nothing of a domain's given keyring is ever under construction, so that no operation on it waits. */
const done = (what: string, answer: unknown): number => {
  if (typeof answer !== "number") throw refusal(what, -11);
  if (answer < 0) throw refusal(what, answer);
  return answer;
};
