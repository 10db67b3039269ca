import { XenolithError } from "@xenolith/abi";

/** Why there is no secret memory for somebody now. Each is a code of `XenolithError`. */
export type RefusalCode =
  | "INVALID_SIZE"
  | "SECRET_CEILING"
  | "SECRET_MEMLOCK"
  | "SECRET_MEMORY"
  | "SECRET_QUOTA"
  | "SECRET_UNSUPPORTED";

/** A request for secret memory that was not granted: a value, which `tryAllocate` returns instead of throwing. */
export class SecretRefusal {
  readonly code: RefusalCode;
  /** What was asked for and which limit stands against it. */
  readonly message: string;

  constructor(code: RefusalCode, message: string) {
    this.code = code;
    this.message = message;
  }

  /** The same as an error that can be thrown. */
  toError(): XenolithError {
    return new XenolithError(this.code, this.message);
  }
}

/** Passes what is no refusal through. For this package. */
export const granted = <T extends object>(result: T | SecretRefusal): T => {
  if (result instanceof SecretRefusal) throw result.toError();
  return result;
};
