import { constants } from "node:os";
import { XenolithError } from "@xenolith/abi";

/** What was passed to a system call, by name. Only values that help the reader; never contents of memory. */
export type SystemCallArguments = Readonly<Record<string, number | bigint | string>>;

/** A refusal by the kernel: `code` is `SYSTEM_CALL`, and these fields say which call and why. */
export class SystemCallError extends XenolithError {
  /** The positive errno. */
  readonly errno: number;
  /** Its name, such as `ENOMEM`. */
  readonly errnoName: string;
  /** The system call that failed, such as `mmap`. */
  readonly syscall: string;

  constructor(syscall: string, errno: number, args: SystemCallArguments = {}) {
    const name = errnoName(errno);
    super("SYSTEM_CALL", `${syscall}(${describe(args)}) failed: ${name} (errno ${String(errno)})`);
    this.errno = errno;
    this.errnoName = name;
    this.syscall = syscall;
  }
}

/**
 * Passes a result that is not negative through.
 *
 * @throws SystemCallError when the result is a negative errno.
 */
export const check = (result: number, syscall: string, args: SystemCallArguments = {}): number => {
  if (result < 0) throw new SystemCallError(syscall, -result, args);
  return result;
};

/** Linux's name of a positive errno, or `EUNKNOWN`. Where two names have one number, the older one. */
export const errnoName = (errno: number): string => names.get(errno) ?? "EUNKNOWN";

const aliases: ReadonlySet<string> = new Set(["EWOULDBLOCK", "ENOTSUP"]);

const names: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno)
    .filter(([name]) => !aliases.has(name))
    .map(([name, errno]) => [errno, name]),
);

/** Arguments whose values are easier to recognise in hexadecimal. */
const hexadecimal: ReadonlySet<string> = new Set(["address", "flags", "offset"]);

const describe = (args: SystemCallArguments): string =>
  Object.entries(args)
    .map(([name, value]) => {
      if (typeof value === "string") return `${name} ${JSON.stringify(value)}`;
      return hexadecimal.has(name) ? `${name} 0x${value.toString(16)}` : `${name} ${String(value)}`;
    })
    .join(", ");
