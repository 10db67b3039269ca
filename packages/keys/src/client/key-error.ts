import { XenolithError } from "@xenolith/abi/error";
import { keyErrorName, keyErrorText } from "../errno.ts";

/** The daemon refused an operation. It names the operation and the error, never a description or a payload. */
export class KeyError extends XenolithError {
  /** Error number of Linux, positive. */
  readonly errno: number;
  /** "ENOKEY", "EACCES", …; undefined for numbers that only helpers answer with. */
  readonly errorName: string | undefined;

  constructor(operation: string, result: number) {
    super("KEY_REFUSED", `${operation}: ${keyErrorText(result)}`);
    this.errno = Math.abs(result);
    this.errorName = keyErrorName(result);
  }
}
