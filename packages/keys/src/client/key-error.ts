import { XenolithError } from "@xenolith/abi/error";
import { errnoName } from "@xenolith/abi/errno";
import { errorText } from "../error-text.ts";

/** The daemon refused an operation. It names the operation and the error, never a description or a payload. */
export class KeyError extends XenolithError {
  /** Error number of Linux, positive. */
  readonly errno: number;
  /** "ENOKEY", "EACCES", …; undefined for a number without a name, which only a helper can answer with. */
  readonly errorName: string | undefined;

  constructor(operation: string, result: number) {
    super("KEY_REFUSED", `${operation}: ${errorText(result)}`);
    this.errno = Math.abs(result);
    this.errorName = errnoName(result);
  }
}
