import { XenolithError } from "@xenolith/abi";

/** The bytes break the binary format at `offset` (bytes from the start of the module). */
export function invalid(offset: number, what: string): never {
  throw new XenolithError("MODULE_INVALID", `${what} at offset ${offset}`);
}

/** The module is well-formed but uses something that cannot run in a domain. */
export function unsupported(what: string, offset?: number): never {
  const where = offset === undefined ? "" : ` (offset ${offset})`;
  throw new XenolithError("MODULE_UNSUPPORTED", `${what}${where}`);
}

/** Some count or size of the module is over a limit of the loader. */
export function tooLarge(what: string, value: number, limit: number): never {
  throw new XenolithError("MODULE_TOO_LARGE", `${what} is ${value}, the limit is ${limit}`);
}

/** The host would call the function exported as `name` with another type. */
export function refuseEntry(name: string, found: string, expected: string): never {
  throw new XenolithError("MODULE_UNSUPPORTED", `export ${name} is a function ${found}, it must be ${expected}`);
}
