/** Every code that a `XenolithError` can carry, and what it means. `docs/errors.md` is generated from this table. */
export const errorCodes = {
  ABORTED: "The caller's AbortSignal fired before the action was complete.",
  CAPABILITY_MISSING: "The kernel, the process limits or this build of Node lack something that the action needs.",
  CHANNEL_BROKEN: "The other end of a channel broke its rules; nothing that it says is believed any more.",
  CHANNEL_CLOSED: "The other end of a channel is gone.",
  CLIENT_LIMIT: "The service has as many connections, readers or requests at once as it may have.",
  CONFIG_INVALID: "A configuration value, option or argument is not of the expected form.",
  CONFLICT: "Somebody else changed the thing since the caller last read it; read it again and decide anew.",
  DAEMON_ANSWER: "What answers at the daemon's socket says nothing that can be understood.",
  DAEMON_UNREACHABLE: "No daemon answers, or it broke off; `xl daemon` starts one.",
  DEFINITION_NOT_FOUND: "The service keeps no definition of this name.",
  DIRECTORY_NOT_FOUND: "A directory that should be given to a guest does not exist or is not a directory.",
  DOMAIN_CRASHED: "The domain was stopped because its guest trapped or broke the rules; the message says which.",
  DOMAIN_EXISTS: "A domain with this id or name exists already.",
  DOMAIN_LIMIT: "The host holds as many domains as it was opened for.",
  DOMAIN_NOT_FOUND: "No domain has this id or name, or the one that had it is gone.",
  DOMAIN_STATE: "The domain is in a state in which the action is not legal.",
  EXPORT_NOT_FOUND: "The guest does not export a function of this name.",
  FILE_NOT_FOUND: "An image or another file that was named cannot be opened.",
  GRANT_LIMIT: "The control domain has as many grant references as it may have.",
  GUEST_ADDRESS: "A range of guest memory that the caller named is not populated, is in use, or reaches past 4 GiB.",
  HOST_CLOSED: "The host was closed; nothing can be asked of it any more.",
  HYPERCALL_FAILED: "The hypervisor refused an operation of the control domain; the message names the error number.",
  IMAGE_CACHE: "The image cache cannot be read or written.",
  IMPORT_UNKNOWN: "The module imports something that no guest interface offers; all such imports are listed.",
  INSPECTOR_ATTACHED: "The image holds atomic instructions, which must not run while a debugger is attached.",
  INTERNAL: "The service failed in a way that is its own fault; its log has the details.",
  INVALID_ARGUMENT: "An argument is not of the type or range that the function documents.",
  INVALID_SIZE: "A size is negative, not a whole number, zero where that makes no sense, or over the limit.",
  KEY_REFUSED: "The key daemon refused an operation; the error names the operation and the error number.",
  MEMORY_EXHAUSTED: "The machine has not enough free frames left.",
  MEMORY_FROZEN: "The domain's memory limit is frozen while it is saved; only who froze it can change it.",
  MEMORY_LIMIT: "The domain would exceed its own max_pages.",
  MODULE_INVALID: "The bytes are not a valid WebAssembly module.",
  MODULE_TOO_LARGE: "The module, or a part of it, exceeds a limit of the loader.",
  MODULE_UNSUPPORTED: "The module is valid but uses a feature that cannot run in a domain.",
  NOT_YET: "The action is planned and does not exist yet.",
  REQUEST_INVALID: "A request to the service is not of the form that its route documents.",
  REQUEST_TOO_LARGE: "A request to the service is larger than its route takes.",
  ROUTE_NOT_FOUND: "The service has no such route, or not for this method.",
  SECRET_CEILING: "The pool of secret memory is as large as it may become, or only its privileged reserve is left.",
  SECRET_IN_USE: "Somebody is using the bytes of this secret; it can be released when that function has returned.",
  SECRET_MEMLOCK: "RLIMIT_MEMLOCK leaves no room for more secret memory; the message has what is used and the limit.",
  SECRET_MEMORY:
    "The kernel has no memory for secrets now, or the process that asked for it was killed for want of it.",
  SECRET_OVERRUN: "Something wrote past the end of a secret; it was wiped, and what lay beside it may be damaged.",
  SECRET_QUOTA: "An owner of secrets, or one above it, has as many bytes, slots or chunks as it may have.",
  SECRET_RELEASED: "The secret was released or revoked, or its owner or pool is closed.",
  SECRET_SEALED: "The secret is sealed: it can be read and released, and not changed.",
  SECRET_UNSUPPORTED: "The kernel has no secret memory, or it is disabled, and the policy is strict.",
  SERVICE_RUNNING: "Another service uses this socket or this state already.",
  SHARE_CLOSED: "The share was closed, or the domain whose memory it was is gone; it cannot be mapped any more.",
  STORE_FAILED: "The service's state cannot be written or read, as when the disk is full; what was acknowledged stays.",
  SYSTEM_CALL: "The operating system refused a call; the message names the call and the error.",
  TIMEOUT: "The action did not complete in the time that the caller allowed.",
  UNAUTHORISED: "The request carries no token, or a wrong one.",
  VCPU_FAILED: "The worker thread of a virtual CPU ended by itself or could not be started.",
  VMA_EXHAUSTED: "The process has no memory mappings left for this; see vm.max_map_count.",
} as const;

/** The code of a `XenolithError`. */
export type ErrorCode = keyof typeof errorCodes;

/**
 * The one error class of the project: the operator, a file or the machine is at fault, not a guest (that gets an error
 * number) and not Xenolith itself (that is an assertion). The message names the value and the limit.
 */
export class XenolithError extends Error {
  override readonly name = "XenolithError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
