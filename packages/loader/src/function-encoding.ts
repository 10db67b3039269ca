import type { Code } from "./assembler.ts";
import { assemble, end, unsigned } from "./assembler.ts";
import type { Signature, ValueType } from "./wasm-type.ts";
import { typeCode } from "./wasm-type.ts";

/** A function type as it stands in the type section. */
export function typeEntry({ params, results }: Signature): Code {
  return [0x60, unsigned(params.length), params.map(typeCode), unsigned(results.length), results.map(typeCode)];
}

/** A function body with its size: locals beyond the parameters, code, end. */
export function functionBody(locals: readonly ValueType[], code: Code): Uint8Array {
  const declarations = locals.map((type) => [1, typeCode(type)]);
  const content = assemble([unsigned(locals.length), declarations, code, end]);
  return Uint8Array.from([...unsigned(content.length), ...content]);
}
