import { XenolithError } from "@xenolith/abi";
import type { XenstoreErrorName } from "./refusal.ts";

/** The daemon refused a request of the control domain: `error` is the name that it answered, `path` what it was asked of. */
export class XenstoreError extends XenolithError {
  readonly error: XenstoreErrorName;
  readonly path: string;

  constructor(request: { readonly action: string; readonly path: string; readonly error: XenstoreErrorName }) {
    super("HYPERCALL_FAILED", `xenstore: ${request.action} ${request.path}: ${request.error}`);
    this.error = request.error;
    this.path = request.path;
  }
}

/** Whether the daemon refused with this name. */
export const isXenstoreError = (error: unknown, name: XenstoreErrorName): error is XenstoreError =>
  error instanceof XenstoreError && error.error === name;
