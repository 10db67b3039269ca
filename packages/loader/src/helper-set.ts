import type { Code } from "./assembler.ts";
import { assemble, callIndirect, globalSet, i32Const, nameBytes, unsigned } from "./assembler.ts";
import { functionBody, typeEntry } from "./function-encoding.ts";
import type { ServiceName } from "./services.ts";
import { services } from "./services.ts";
import type { Signature, ValueType } from "./wasm-type.ts";
import { formatSignature } from "./wasm-type.ts";

/** A function that rewritten code calls instead of an instruction. */
export interface Helper extends Signature {
  /** Its name in the name section. */
  readonly name: string;
  /** Locals beyond the parameters. */
  readonly locals: readonly ValueType[];
  readonly body: (link: Linker) => Code;
}

/** What a helper's code may refer to. */
export interface Linker {
  /** Calls a service; its operands lie on the stack. */
  service(name: ServiceName): Code;
  /** Sets the counter of the loop poll. */
  setPollCounter(): Code;
}

/** First free indices of a module: everything appended is numbered from here on. */
export interface FirstFree {
  readonly type: number;
  readonly function: number;
  readonly table: number;
  readonly global: number;
}

/** A helper as part of one module. */
interface AppendedHelper {
  readonly index: number;
  readonly typeIndex: number;
  readonly body: Uint8Array;
  useCount: number;
}

/** The helpers that one module needs, numbered in the order of their first use. */
export class HelperSet implements Linker {
  readonly #firstFree: FirstFree;
  readonly #helpers = new Map<Helper, AppendedHelper>();
  readonly #types = new Map<string, { readonly index: number; readonly bytes: Uint8Array }>();
  readonly #services = new Set<ServiceName>();

  constructor(firstFree: FirstFree) {
    this.#firstFree = firstFree;
  }

  get count(): number {
    return this.#helpers.size;
  }

  /** Services that the helpers call, in slot order. */
  get services(): ServiceName[] {
    return [...this.#services].toSorted((left, right) => services[left].slot - services[right].slot);
  }

  /** Encoded entries for the type section. */
  get types(): Uint8Array[] {
    return [...this.#types.values()].map((type) => type.bytes);
  }

  /** Encoded entries for the function section. */
  get typeIndices(): Uint8Array[] {
    return [...this.#helpers.values()].map((helper) => Uint8Array.from(unsigned(helper.typeIndex)));
  }

  /** Encoded entries for the code section. */
  get bodies(): Uint8Array[] {
    return [...this.#helpers.values()].map((helper) => helper.body);
  }

  /** Encoded entries for the function names. */
  get names(): Uint8Array[] {
    return [...this.#helpers].map(([{ name }, { index }]) => Uint8Array.from([...unsigned(index), ...nameBytes(name)]));
  }

  /** How often each helper is called, by its name, in alphabetical order. */
  get useCounts(): ReadonlyMap<string, number> {
    const counts = new Map([...this.#helpers].map(([{ name }, { useCount }]) => [name, useCount]));
    return new Map([...counts.keys()].toSorted().map((name) => [name, counts.get(name)!]));
  }

  /** The function index of a helper, for one call of it. It is appended at the first. */
  use(helper: Helper): number {
    const known = this.#helpers.get(helper);
    if (known !== undefined) {
      known.useCount++;
      return known.index;
    }
    const index = this.#firstFree.function + this.#helpers.size;
    const body = functionBody(helper.locals, helper.body(this));
    this.#helpers.set(helper, { index, typeIndex: this.#type(helper), body, useCount: 1 });
    return index;
  }

  service(name: ServiceName): Code {
    this.#services.add(name);
    const service = services[name];
    return [i32Const(service.slot), callIndirect(this.#type(service), this.#firstFree.table)];
  }

  setPollCounter(): Code {
    return globalSet(this.#firstFree.global);
  }

  #type(signature: Signature): number {
    const key = formatSignature(signature);
    const known = this.#types.get(key);
    if (known !== undefined) return known.index;
    const index = this.#firstFree.type + this.#types.size;
    this.#types.set(key, { index, bytes: assemble(typeEntry(signature)) });
    return index;
  }
}
