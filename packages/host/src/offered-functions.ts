/**
 * Functions that the calling program offers to one domain's guest as imports of its own choice. They run on the control
 * domain's thread, while the vCPU that called sleeps outside its gate.
 */
import { XenolithError } from "@xenolith/abi";
import type { FunctionImport, Signature, ValueType } from "@xenolith/loader";
import { convert } from "./guest-value.ts";
import type { GuestValue } from "./protocol.ts";

/** One function. Its types are i32, i64, f32 and f64; at most one result. */
export interface OfferedFunction extends Signature {
  /** Gets the guest's arguments (i64 as bigint); returns the result, or a promise of it. A failure crashes the domain. */
  readonly call: (...values: GuestValue[]) => GuestValue | undefined | Promise<GuestValue | undefined>;
}

/** Functions by namespace and name, as the module imports them. */
export type OfferedImports = Readonly<Record<string, Readonly<Record<string, OfferedFunction>>>>;

/** An offered function with its name. */
export type OfferedEntry = FunctionImport & Pick<OfferedFunction, "call">;

/** Namespaces that are Xenolith's own. */
const RESERVED = /^(?:xen|xenolith\..*|wasi|wasi_unstable|wasi_snapshot_preview1)$/;
const PASSABLE: readonly ValueType[] = ["i32", "i64", "f32", "f64"];

/**
 * The offered functions as a list; its order numbers them.
 *
 * @throws XenolithError `INVALID_ARGUMENT` for a reserved namespace or a type that cannot pass.
 */
export const listOffered = (imports: OfferedImports = {}): readonly OfferedEntry[] =>
  Object.entries(imports).flatMap(([module, functions]) => {
    if (RESERVED.test(module))
      throw new XenolithError("INVALID_ARGUMENT", `namespace ${JSON.stringify(module)} is reserved`);
    return Object.entries(functions).map(([name, { params, results, call }]) => {
      const isPassable = results.length <= 1 && [...params, ...results].every((type) => PASSABLE.includes(type));
      if (!isPassable) {
        throw new XenolithError(
          "INVALID_ARGUMENT",
          `function ${module}.${name}: types are i32, i64, f32, f64, and at most one result`,
        );
      }
      return { module, name, params, results, call };
    });
  });

/** The signatures alone: what vCPU threads are told. */
export const signaturesOf = (entries: readonly OfferedEntry[]): readonly FunctionImport[] =>
  entries.map(({ module, name, params, results }) => ({ module, name, params, results }));

/** Calls an offered function for a guest; rejects when it fails or gives a value of another type. */
export const answer = async (entry: OfferedEntry, values: readonly GuestValue[]): Promise<GuestValue | undefined> => {
  const value = await entry.call(...values);
  const type = entry.results[0];
  if (type === undefined) return undefined;
  const what = `result of ${entry.module}.${entry.name}`;
  if (value === undefined)
    throw new XenolithError("INVALID_ARGUMENT", `${what} is missing, it must be of type ${type}`);
  return convert(what, type, value);
};
