/**
 * Definitions of domains: checked when they come in, stored as they were written, checked again when they are used,
 * because a directory may be gone meanwhile and a later version may refuse what this one took.
 */
import path from "node:path";
import { XenolithError } from "@xenolith/abi";
import { type ConfigDocument, configOf, type DomainConfig } from "../config/index.ts";
import { requireRevision } from "./guest.ts";
import type { Definition, Store } from "./store.ts";

/** Definitions that are kept at once. */
export const DEFINITION_COUNT_MAX = 4096;

type Table = Readonly<Record<string, unknown>>;

/** A definition with its configuration filled in. */
export interface CheckedDefinition {
  readonly definition: Definition;
  readonly config: DomainConfig;
}

/** The definitions of one service. */
export class Definitions {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /** All, by name. */
  list(): readonly Definition[] {
    return this.#store.definitions();
  }

  /** The definition of this name. Throws XenolithError `DEFINITION_NOT_FOUND`. */
  get(name: string): Definition {
    const found = this.#store.get(name);
    if (found === undefined) throw new XenolithError("DEFINITION_NOT_FOUND", `no definition is called "${name}"`);
    return found;
  }

  /** Whether there is one of this name. */
  has(name: string): boolean {
    return this.#store.get(name) !== undefined;
  }

  /** The definition of this name, checked. Throws XenolithError `DEFINITION_NOT_FOUND`, `CONFIG_INVALID`. */
  checked(name: string): CheckedDefinition {
    const definition = this.get(name);
    return { definition, config: checkConfig(definition.config) };
  }

  /**
   * Keeps a definition, in place of one of the same name. A lasting one does not become transient again.
   *
   * @throws XenolithError `CONFIG_INVALID`, `CONFLICT`, `STORE_FAILED`, `INVALID_ARGUMENT`: too many.
   */
  put(
    config: Table,
    options: { readonly isTransient: boolean; readonly expected?: string | undefined },
  ): CheckedDefinition {
    const checked = checkConfig(config);
    const { name } = checked;
    const before = this.#store.get(name);
    requireRevision(`definition ${name}`, String(before?.revision ?? 0), options.expected);
    if (before === undefined && this.list().length >= DEFINITION_COUNT_MAX)
      throw new XenolithError("INVALID_ARGUMENT", `there are ${DEFINITION_COUNT_MAX} definitions, which is the limit`);
    const isTransient = options.isTransient && !checked.autostart && before?.isTransient !== false;
    const definition: Definition = { name, revision: (before?.revision ?? 0) + 1, isTransient, config };
    this.#store.change({ put: definition });
    return { definition, config: checked };
  }

  /**
   * Replaces some keys; null takes a key away.
   *
   * @throws XenolithError as `put`, `DEFINITION_NOT_FOUND`.
   */
  update(name: string, keys: Table, expected?: string): CheckedDefinition {
    const before = this.get(name);
    requireRevision(`definition ${name}`, String(before.revision), expected);
    const merged = { ...before.config, ...keys };
    const config = Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null));
    if (config["name"] !== name)
      throw new XenolithError("CONFIG_INVALID", `the name of definition ${name} changes by renaming, not by an update`);
    return this.put(config, { isTransient: before.isTransient });
  }

  /** Gives a definition another name. Throws XenolithError `DEFINITION_NOT_FOUND`, `CONFIG_INVALID`, `STORE_FAILED`. */
  rename(from: string, to: string): void {
    const before = this.get(from);
    const config = { ...before.config, name: to };
    checkConfig(config);
    this.#store.change({ remove: from, put: { ...before, name: to, revision: before.revision + 1, config } });
  }

  /** Forgets a definition. Throws XenolithError `DEFINITION_NOT_FOUND`, `CONFLICT`, `STORE_FAILED`. */
  remove(name: string, expected?: string): void {
    requireRevision(`definition ${name}`, String(this.get(name).revision), expected);
    this.#store.change({ remove: name });
  }

  /**
   * Takes back the `put` that made `made`: what was there before is there again, unless somebody has changed the definition
   * since. Throws XenolithError `STORE_FAILED`.
   */
  restore(made: Definition, before: Definition | undefined): void {
    // Not by its revision: that begins anew with a definition that was removed and came again.
    if (this.#store.get(made.name) !== made) return;
    const revision = made.revision + 1;
    this.#store.change(before === undefined ? { remove: made.name } : { put: { ...before, revision } });
  }

  /** Forgets it if it was to go with its domain. Throws XenolithError `STORE_FAILED`. */
  dropTransient(name: string): void {
    if (this.#store.get(name)?.isTransient === true) this.#store.change({ remove: name });
  }
}

/**
 * Checks a configuration that came over the API: relative paths have no meaning here.
 *
 * @throws XenolithError `CONFIG_INVALID`.
 */
export const checkConfig = (config: Table): DomainConfig => {
  const checked = configOf(config, { label: "config", directory: "/" });
  const { kernel, directories = [], keys = {} } = config as Partial<ConfigDocument>;
  for (const each of [kernel!, ...directories, ...Object.values(keys)]) {
    if (!path.isAbsolute(each)) throw new XenolithError("CONFIG_INVALID", `config: "${each}" is not an absolute path`);
  }
  return checked;
};
