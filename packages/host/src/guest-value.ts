/**
 * Values that cross between JavaScript and a guest.
 */
import { XenolithError } from "@xenolith/abi";
import type { ValueType } from "@xenolith/loader";
import type { GuestValue } from "./protocol.ts";

/**
 * `value` as the engine wants it for `type`. Integers of both signs are accepted for i32 and i64; nothing is rounded or
 * cut off silently.
 *
 * @throws XenolithError `INVALID_ARGUMENT`, naming `what`.
 */
export const convert = (what: string, type: ValueType, value: GuestValue): GuestValue => {
  const refuse = (): never => {
    throw new XenolithError("INVALID_ARGUMENT", `${what} is ${String(value)}, it must be of type ${type}`);
  };
  switch (type) {
    case "i32": {
      const number = Number(value);
      return Number.isInteger(number) && number >= -(2 ** 31) && number < 2 ** 32 ? number | 0 : refuse();
    }
    case "i64": {
      if (typeof value === "number" && !Number.isSafeInteger(value)) return refuse();
      const big = BigInt(value);
      return big >= -(2n ** 63n) && big < 2n ** 64n ? BigInt.asIntN(64, big) : refuse();
    }
    case "f32":
    case "f64":
      return typeof value === "number" ? value : refuse();
    default:
      return refuse();
  }
};
