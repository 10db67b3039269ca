/** The hypercall key_op on the control domain's thread: which domain asks, with whose service, and what it may be told. */
import {
  EAGAIN,
  EINTR,
  EIO,
  ENOMEM,
  ENOSPC,
  ENOSYS,
  type ErrorCode,
  XENKEY_join_session,
  XenolithError,
} from "@xenolith/abi";
import type { KeyService } from "@xenolith/keys";
import type { SecretOwner, SecretPool } from "@xenolith/secrets";
import type { HostKeys } from "../host-keys.ts";
import type { HostSecrets } from "../host-secrets.ts";
import type { DomainKeyrings } from "./domain-keyrings.ts";
import type { KeyCall } from "./key-call.ts";
import { serveCall } from "./serve-call.ts";

/** Secret memory for payloads that a domain has under way: one of the largest, and some that wait for a key. */
const TRANSFER_BYTES_MAX = 2 << 20;

/** Why the service may not start that is nobody's fault. A host without secret memory has no keys for guests. */
const REFUSALS: Readonly<Partial<Record<ErrorCode, number>>> = {
  HOST_CLOSED: -EINTR,
  SECRET_UNSUPPORTED: -ENOSYS,
  SECRET_MEMLOCK: -EAGAIN,
  SECRET_MEMORY: -ENOMEM,
  SECRET_CEILING: -ENOSPC,
};

/** What it works with. */
export interface KeyOpParts {
  readonly keys: HostKeys;
  readonly secrets: HostSecrets;
  readonly noteFault: (message: string) => void;
}

/** Serves key_op. */
export class KeyOp {
  readonly #parts: KeyOpParts;
  readonly #transfers = new WeakMap<DomainKeyrings, SecretOwner>();

  constructor(parts: KeyOpParts) {
    this.#parts = parts;
  }

  /** Serves one call: its result, at once or later. The first call of all starts the key service. */
  serve(call: KeyCall): number | Promise<number> {
    const { keys, secrets } = this.#parts;
    const { started } = keys;
    const pool = secrets.opened;
    return started === undefined || pool === undefined ? this.#start(call) : this.#serve(call, started, pool);
  }

  /** The domain in a slot goes: its keyrings, waits and requests end. */
  domainGone(slot: number): void {
    this.#parts.keys.keyrings.end(slot);
  }

  async #start(call: KeyCall): Promise<number> {
    const { keys, secrets, noteFault } = this.#parts;
    try {
      const service = await keys.service();
      const pool = await secrets.pool();
      return call.signal.aborted ? -EINTR : await this.#serve(call, service, pool);
    } catch (error) {
      const refusal = error instanceof XenolithError ? REFUSALS[error.code] : undefined;
      if (refusal !== undefined) return refusal;
      noteFault(`the key service does not start: ${String(error)}`);
      return -EIO;
    }
  }

  #serve(call: KeyCall, service: KeyService, pool: SecretPool): number | Promise<number> {
    const { keys, secrets } = this.#parts;
    const keyrings = keys.keyrings.of(call.slot, service);
    const process = keyrings.threadOf(call.vcpu);
    const owner = this.#transfersOf(keyrings, secrets.ownerOf(pool, call.domid));
    const result = serveCall(call, { service, process, owner });
    if (call.command === XENKEY_join_session && typeof result === "number" && result > 0)
      keyrings.sessionJoined(call.vcpu);
    return result;
  }

  /** Who bears the payloads that a domain has under way; it ends with the domain's own owner. */
  #transfersOf(keyrings: DomainKeyrings, domain: SecretOwner): SecretOwner {
    let owner = this.#transfers.get(keyrings);
    if (owner === undefined) {
      owner = domain.owner("transfers", { bytes: TRANSFER_BYTES_MAX });
      this.#transfers.set(keyrings, owner);
    }
    return owner;
  }
}
