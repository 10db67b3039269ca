/** Secret pages of a domain, for payloads of keys: bytes go between them and secret memory of the host, by no view of either. */
import { EPERM } from "@xenolith/abi";
import type { Hypervisor } from "@xenolith/core";
import type { SecretPages } from "./key-call.ts";

/** Those of the domain in a slot. */
export const secretPagesOf = (_hypervisor: Hypervisor, _slot: number): SecretPages => ({
  read: () => -EPERM,
  write: () => -EPERM,
});
