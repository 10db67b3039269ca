export { authorityType } from "./authority.ts";
export type { Authority } from "./authority.ts";
export type { AddRequest } from "./add-operations.ts";
export type { Refusal } from "./build-operations.ts";
export { ManualClock, systemClock } from "./clock.ts";
export type { Clock } from "./clock.ts";
export { errno as keyErrno, errnoName as keyErrorName } from "@xenolith/abi/errno";
export type { ErrnoName as KeyErrorName } from "@xenolith/abi/errno";
export { errorText as keyErrorText } from "./error-text.ts";
export type { ErrorPriority } from "./error-priority.ts";
export { NEVER, POSITIVE, UNINSTANTIATED } from "./key.ts";
export type { Key, KeyIndex } from "./key.ts";
export type { KeyReference } from "./key-reference.ts";
export type { KeyType, Match, Preparsed, TypeContext } from "./key-type.ts";
export { defaultLimits } from "./limits.ts";
export type { KeyLimits } from "./limits.ts";
export { KEY_SPEC } from "./lookup.ts";
export { MemoryPayloadStore } from "./payload-store.ts";
export type { PayloadStore, PayloadTarget } from "./payload-store.ts";
export { SecretPayloadStore } from "./secret-payload-store.ts";
export type { PayloadOwner, PayloadTable } from "./secret-payload-store.ts";
export { Pending, settle } from "./pending.ts";
export type { Answer } from "./pending.ts";
export {
  KEY_ALL,
  KEY_LINK,
  KEY_READ,
  KEY_SEARCH,
  KEY_SETATTR,
  KEY_VIEW,
  KEY_WRITE,
  PERMISSION_BITS,
  permissionMask,
} from "./permission.ts";
export { DEFAULT_RING } from "./process.ts";
export type { Credentials, Process, ProcessIdentity, ProcessIds } from "./process.ts";
export type { Parent } from "./process-operations.ts";
export type { Restriction } from "./restriction.ts";
export { KeyService } from "./service.ts";
export type { KeyServiceOptions, KeyStatistics } from "./service.ts";
export type { KeyText } from "./text.ts";
export type { AuxiliaryRequest, ServiceKeyring, TrustedInterface } from "./trusted-interface.ts";
export { UPCALL_ENVIRONMENT } from "./upcall.ts";
export type { Upcall, UpcallActor } from "./upcall.ts";
export type { UserRecord } from "./user-record.ts";
