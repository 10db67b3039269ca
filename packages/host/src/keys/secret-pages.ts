/** Secret pages of a domain, for payloads of keys: bytes go between them and secret memory of the host, by no view of either. */
import { EPERM } from "@xenolith/abi";
import type { Hypervisor } from "@xenolith/core";
import { readSecret, writeSecret } from "../secret-copy.ts";
import type { SecretPages } from "./key-call.ts";

/** Those of the domain in a slot. */
export const secretPagesOf = (hypervisor: Hypervisor, slot: number): SecretPages => ({
  read: (address, target) => (readSecret(hypervisor, slot, address, target) === 0 ? 0 : -EPERM),
  write: (address, bytes) => (writeSecret(hypervisor, slot, address, bytes) === 0 ? 0 : -EPERM),
});
