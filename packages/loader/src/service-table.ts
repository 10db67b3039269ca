import { assemble, nameBytes, unsigned } from "./assembler.ts";
import type { Code } from "./assembler.ts";
import type { Image } from "./manifest.ts";
import { MODULE_HEADER, SectionId } from "./module-shape.ts";
import { encodeSection } from "./prefix.ts";
import type { ServiceName } from "./services.ts";
import { SERVICE_TABLE_EXPORT, services } from "./services.ts";
import { typeEntry } from "./function-encoding.ts";

/** What the host implements for rewritten code. Numbers arrive signed; addresses need `>>> 0`. See `services`. */
export interface ServiceFunctions {
  memory_size(): number;
  memory_grow(deltaPages: number): number;
  atomic_wait32(address: number, expected: number, timeoutNs: bigint): number;
  atomic_wait64(address: number, expected: bigint, timeoutNs: bigint): number;
  atomic_notify(address: number, count: number): number;
  memory_init(segment: number, destination: number, source: number, length: number): number;
  data_drop(segment: number): void;
  poll(): number;
}

const NAMESPACE = "host";

/**
 * Puts the services that an image needs into the table that its instance exports. Must be done before anything in the
 * instance is called. A function table takes only functions that WebAssembly exports, so they pass through a module of
 * a few hundred bytes that imports and exports them with their exact types.
 */
export function bindServices(
  { manifest }: Pick<Image, "manifest">,
  exports: WebAssembly.Exports,
  functions: ServiceFunctions,
): void {
  const names = manifest.services;
  if (names.length === 0) return;
  const table = exports[SERVICE_TABLE_EXPORT];
  if (!(table instanceof WebAssembly.Table)) throw new TypeError(`instance does not export ${SERVICE_TABLE_EXPORT}`);
  const typed = withExactTypes(names, functions);
  for (const name of names) table.set(services[name].slot, typed[name]);
}

/** The given functions as functions of WebAssembly with the types of the services. */
function withExactTypes(names: readonly ServiceName[], functions: ServiceFunctions): WebAssembly.Exports {
  const module = new WebAssembly.Module(typingModule(names));
  const offered: WebAssembly.ModuleImports = Object.create(null);
  for (const name of names) offered[name] = functions[name].bind(functions);
  const imports: WebAssembly.Imports = Object.create(null);
  imports[NAMESPACE] = offered;
  return new WebAssembly.Instance(module, imports).exports;
}

/** A module that imports each service and exports it under the same name. */
function typingModule(names: readonly ServiceName[]): Uint8Array {
  const list = (id: number, entries: readonly Code[]): Uint8Array[] =>
    encodeSection(id, [assemble([unsigned(entries.length), entries])]);
  const name = (text: string): Code => [...nameBytes(text)];
  const parts = [
    MODULE_HEADER,
    ...list(
      SectionId.type,
      names.map((service) => typeEntry(services[service])),
    ),
    ...list(
      SectionId.import,
      names.map((service, index) => [name(NAMESPACE), name(service), 0, unsigned(index)]),
    ),
    ...list(
      SectionId.export,
      names.map((service, index) => [name(service), 0, unsigned(index)]),
    ),
  ];
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}
