/**
 * Failures as answers: a status that proxies and libraries understand, the code, the message, and what would mend it.
 */
import { type ErrorCode, XenolithError } from "@xenolith/abi";
import type { ApiFailure } from "./api-types.ts";

/** Statuses that the API answers failures with. */
export type FailureStatus = 400 | 401 | 404 | 409 | 412 | 413 | 500 | 501 | 503 | 504 | 507;

const statuses: Readonly<Partial<Record<ErrorCode, FailureStatus>>> = {
  ABORTED: 503,
  CLIENT_LIMIT: 503,
  CONFLICT: 412,
  DEFINITION_NOT_FOUND: 404,
  DOMAIN_CRASHED: 409,
  DOMAIN_EXISTS: 409,
  DOMAIN_LIMIT: 507,
  DOMAIN_NOT_FOUND: 404,
  DOMAIN_STATE: 409,
  HOST_CLOSED: 503,
  HYPERCALL_FAILED: 500,
  INTERNAL: 500,
  MEMORY_EXHAUSTED: 507,
  MEMORY_FROZEN: 409,
  MEMORY_LIMIT: 409,
  NOT_YET: 501,
  REQUEST_TOO_LARGE: 413,
  ROUTE_NOT_FOUND: 404,
  STORE_FAILED: 507,
  SYSTEM_CALL: 500,
  TIMEOUT: 504,
  UNAUTHORISED: 401,
  VCPU_FAILED: 500,
  VMA_EXHAUSTED: 507,
};

const remedies: Readonly<Partial<Record<ErrorCode, string>>> = {
  CLIENT_LIMIT: "try again later, or end a reader that is not needed",
  CONFLICT: "read it again and decide anew",
  DEFINITION_NOT_FOUND: "GET /v1/definitions lists those that there are",
  DOMAIN_EXISTS: "choose another name, or destroy the one that has it",
  DOMAIN_LIMIT: "destroy a domain",
  DOMAIN_NOT_FOUND: "GET /v1/domains lists those that there are",
  FILE_NOT_FOUND: "the path must exist on the machine of the service, and its user must be allowed to read it",
  INTERNAL: "the service's log has the details",
  MEMORY_EXHAUSTED: "shrink or destroy a domain, or ask for less memory",
  MEMORY_FROZEN: "wait until the save is over",
  REQUEST_INVALID: "GET /openapi.json describes every request",
  ROUTE_NOT_FOUND: "GET /openapi.json lists the routes",
  STORE_FAILED: "make room on the disk of the state directory; nothing that was acknowledged is lost",
  TIMEOUT: "a guest that computes without hypercalls is paused at its next one; preemptible = true pauses it anywhere",
  UNAUTHORISED: "send the token: Authorization: Bearer TOKEN",
  VMA_EXHAUSTED: "raise vm.max_map_count",
};

/** The answer to a request that failed with `error`. What is none of our errors is `INTERNAL`, and says nothing of us. */
export const failureOf = (error: unknown): { readonly status: FailureStatus; readonly body: ApiFailure } => {
  if (!(error instanceof XenolithError)) return answer("INTERNAL", "the service failed to answer this request");
  return answer(error.code, error.message);
};

/** Whether the failure is one that our own log should hold. */
export const isOurFault = (error: unknown): boolean => !(error instanceof XenolithError) || error.code === "INTERNAL";

const answer = (code: ErrorCode, message: string): ReturnType<typeof failureOf> => ({
  status: statuses[code] ?? 400,
  body: { code, message, remedy: remedies[code] ?? "" },
});
