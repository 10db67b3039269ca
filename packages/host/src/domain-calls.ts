/**
 * Calls of a reactor's exports by the control domain. They run on vCPU 0, one after the other.
 */
import { XenolithError } from "@xenolith/abi";
import type { ImageExport, ImageManifest, ValueType } from "@xenolith/loader";
import { convert } from "./guest-value.ts";
import type { CallCommand, GuestValue, Report } from "./protocol.ts";

/** What a call gives: nothing, one value, or all values of a function with several results. */
export type CallResult = GuestValue | readonly GuestValue[] | undefined;

interface PendingCall {
  readonly name: string;
  resolve(result: CallResult): void;
  reject(error: XenolithError): void;
}

/** Calls in progress of one domain. */
export class DomainCalls {
  readonly #manifest: ImageManifest;
  readonly #post: (command: CallCommand) => void;
  readonly #pending = new Map<number, PendingCall>();
  #lastId = 0;

  constructor(manifest: ImageManifest, post: (command: CallCommand) => void) {
    this.#manifest = manifest;
    this.#post = post;
  }

  /** Calls whose results are still to come. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** Whether there is a function of this name to call. */
  has(name: string): boolean {
    return this.#find(name) !== undefined;
  }

  /**
   * Calls `name`. Rejects with `EXPORT_NOT_FOUND`, `INVALID_ARGUMENT`, and with whatever `end` is told.
   */
  call(name: string, values: readonly GuestValue[]): Promise<CallResult> {
    const { signature } = this.#exportNamed(name);
    const converted = convertAll(name, signature?.params ?? [], values);
    const unsupported = signature?.results.find((type) => !isPassable(type));
    if (unsupported !== undefined) {
      throw new XenolithError(
        "INVALID_ARGUMENT",
        `export ${JSON.stringify(name)} returns a ${unsupported}, which cannot leave the domain`,
      );
    }
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { name, resolve, reject });
      this.#post({ type: "call", id, name, values: converted });
    });
  }

  /** A vCPU reported the end of a call. */
  settle(report: Extract<Report, { type: "returned" | "refused" }>): void {
    const call = this.#pending.get(report.id);
    this.#pending.delete(report.id);
    if (report.type === "refused") call?.reject(new XenolithError("EXPORT_NOT_FOUND", report.message));
    else call?.resolve(report.values.length > 1 ? report.values : report.values[0]);
  }

  /** No call in progress will return. */
  end(error: (name: string) => XenolithError): void {
    const calls = [...this.#pending.values()];
    this.#pending.clear();
    for (const call of calls) call.reject(error(call.name));
  }

  #exportNamed(name: string): ImageExport {
    const found = this.#find(name);
    if (found === undefined) {
      throw new XenolithError("EXPORT_NOT_FOUND", `the guest exports no function ${JSON.stringify(name)}`);
    }
    return found;
  }

  #find(name: string): ImageExport | undefined {
    return this.#manifest.exports.find((entry) => entry.kind === "function" && entry.name === name);
  }
}

const isPassable = (type: ValueType): boolean => type === "i32" || type === "i64" || type === "f32" || type === "f64";

const convertAll = (name: string, types: readonly ValueType[], values: readonly GuestValue[]): GuestValue[] => {
  if (types.length !== values.length) {
    throw new XenolithError(
      "INVALID_ARGUMENT",
      `export ${JSON.stringify(name)} takes ${types.length} arguments, not ${values.length}`,
    );
  }
  return types.map((type, index) =>
    convert(`argument ${index} of export ${JSON.stringify(name)}`, type, values[index]!),
  );
};
