/**
 * How payloads cross between a guest and the key service without ever standing in ordinary memory of this process: from a
 * guest's page into secret memory of the host, and from a slot of secret memory into a guest's page.
 */
import { EDQUOT, EFAULT, EINTR, ENOMEM, EPERM } from "@xenolith/abi";
import type { PayloadTarget } from "@xenolith/keys";
import type { Secret, SecretOwner } from "@xenolith/secrets";
import type { KeyCall } from "./key-call.ts";

/** Where a guest wants to have bytes. */
export interface GuestBuffer {
  readonly address: number;
  readonly length: number;
  /** Whether it may be in ordinary memory: otherwise it is in secret pages or nothing is written. */
  readonly mayBeOrdinary: boolean;
}

/**
 * Takes a payload into a guest's buffer. What became of that is in `result`: an operation that had to wait may come to its
 * payload when the guest has changed its pages, or is gone.
 */
export class GuestTarget implements PayloadTarget {
  readonly length: number;
  /** 0, or why the payload did not arrive. */
  result = 0;
  readonly #call: KeyCall;
  readonly #buffer: GuestBuffer;

  constructor(call: KeyCall, buffer: GuestBuffer) {
    this.length = buffer.length;
    this.#call = call;
    this.#buffer = buffer;
  }

  set(bytes: Uint8Array): void {
    const { memory, secretPages, signal } = this.#call;
    const { address, mayBeOrdinary } = this.#buffer;
    if (signal.aborted) {
      this.result = -EINTR;
      return;
    }
    this.result = secretPages.write(address, bytes);
    if (this.result === -EPERM && mayBeOrdinary) this.result = memory.copyToGuest(address, bytes);
  }
}

/** A payload that a guest gives. */
export interface GivenPayload {
  readonly address: number;
  readonly length: number;
  readonly isSecret: boolean;
}

/**
 * Copies a payload of a guest into secret memory: the secret, which the caller releases, null for an empty one, or -EFAULT,
 * -EPERM (not in secret pages), -EDQUOT (the owner's quota), -ENOMEM.
 */
export const takePayload = (call: KeyCall, owner: SecretOwner, given: GivenPayload): Secret | null | number => {
  const { address, length, isSecret } = given;
  if (length === 0) return null;
  const secret = owner.tryAllocate(length);
  if ("code" in secret) return secret.code === "SECRET_QUOTA" ? -EDQUOT : -ENOMEM;
  const result = secret.withBytes((bytes) =>
    isSecret ? call.secretPages.read(address, bytes) : call.memory.copyFromGuest(address, bytes),
  );
  if (result === 0) return secret;
  secret.release();
  return isSecret ? result : -EFAULT;
};
