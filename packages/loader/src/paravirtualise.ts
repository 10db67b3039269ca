import { XenolithError } from "@xenolith/abi";

import { nameBytes, unsigned } from "./assembler.ts";
import { ByteReader } from "./byte-reader.ts";
import { ByteWriter } from "./byte-writer.ts";
import type { CodeFindings } from "./code-rewriter.ts";
import { CodeRewriter } from "./code-rewriter.ts";
import { HelperSet } from "./helper-set.ts";
import { checkImports } from "./import-check.ts";
import type { Limits } from "./limits.ts";
import { defaultLimits } from "./limits.ts";
import { describeImage } from "./manifest-builder.ts";
import type { FunctionImport, Image } from "./manifest.ts";
import { RESERVED_PREFIX } from "./manifest.ts";
import type { Section } from "./module-shape.ts";
import { ModuleShape, SectionId } from "./module-shape.ts";
import { NAME_SECTION, extendNames, functionNames } from "./name-section.ts";
import { encodePrefix, encodeSection } from "./prefix.ts";
import { invalid, tooLarge, unsupported } from "./refusal.ts";
import { HEADER_BYTES, checkHeader, readSections } from "./section-reader.ts";
import { stateExports } from "./state-exports.ts";

/** How a module is turned into an image. */
export interface ImageOptions {
  /** Limits that differ from `defaultLimits`. */
  readonly limits?: Partial<Limits>;
  /** True to let loops call the hypervisor now and then, so that a computing guest can be paused. Off by default. */
  readonly poll?: boolean;
}

/** Options of `paravirtualise`. */
export interface ParavirtualiseOptions extends ImageOptions {
  /** Every function that the host offers. An import that is not among them, or has another signature, is refused. */
  readonly imports: readonly FunctionImport[];
}

/**
 * Turns a module into a bootable image, in one pass over its bytes.
 *
 * Fails with MODULE_INVALID (naming the offset), MODULE_UNSUPPORTED (naming the feature), MODULE_TOO_LARGE (naming value
 * and limit), or IMPORT_UNKNOWN (listing all imports that the host does not offer).
 */
export function paravirtualise(bytes: Uint8Array, options: ParavirtualiseOptions): Image {
  const image = rewriteModule(bytes, options);
  checkImports(image.manifest, options.imports);
  return image;
}

/** As `paravirtualise`, whatever the module imports. The cache keeps such images and checks the imports at each use. */
export function rewriteModule(bytes: Uint8Array, options: ImageOptions = {}): Image {
  return new Rewriting(bytes, options).run();
}

/** Sections behind the code that do not go into an image. */
const stripped: ReadonlySet<number> = new Set([SectionId.data, SectionId.dataCount]);
/** Custom sections that describe positions in the code, which rewriting moves. */
const positional = /^(\.debug_.*|reloc\..*|metadata\.code\..*|linking|sourceMappingURL|external_debug_info)$/;

/** One module on its way to an image. */
class Rewriting {
  readonly #bytes: Uint8Array;
  readonly #shape: ModuleShape;
  readonly #limits: Limits;
  readonly #isPolled: boolean;
  readonly #before: Section[] = [];
  readonly #behind: Section[] = [];
  readonly #dropped: string[] = [];
  #hasNames = false;
  #code: Uint8Array | null = null;
  #helpers = new HelperSet({ type: 0, function: 0, table: 0, global: 0 });
  #findings: CodeFindings = { features: 0, usesAtomics: false, dropsElements: false };

  constructor(bytes: Uint8Array, options: ImageOptions) {
    this.#bytes = bytes;
    this.#shape = new ModuleShape(bytes);
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#isPolled = options.poll === true;
  }

  run(): Image {
    checkHeader(this.#bytes, this.#limits);
    for (const section of readSections(this.#shape, this.#limits)) {
      if (section.id === SectionId.code) this.#rewriteCode(section);
      else (this.#code === null ? this.#before : this.#behind).push(section);
    }
    checkStart(this.#shape);
    checkValid(this.#bytes);
    return this.#assemble();
  }

  #rewriteCode(section: Section): void {
    const shape = this.#shape;
    this.#helpers = new HelperSet({
      type: shape.typeOffsets.length,
      function: shape.functionTypes.length,
      table: shape.tables.length,
      global: shape.globals.length,
    });
    const sizeBytes = section.end - section.start;
    const out = new ByteWriter(Math.ceil(sizeBytes * 1.02) + 4_096, this.#limits.outputSizeBytes);
    const options = { limits: this.#limits, pollGlobal: this.#isPolled ? shape.globals.length : null };
    const rewriter = new CodeRewriter(
      new ByteReader(this.#bytes, section.start, section.end),
      out,
      this.#helpers,
      options,
    );
    rewriter.rewrite(section.count);
    this.#findings = rewriter;
    this.#code = out.view();
  }

  #assemble(): Image {
    const shape = this.#shape;
    checkReservedNames(shape);
    const state = stateExports(shape);
    const [helpers, isPolled, limits] = [this.#helpers, this.#isPolled && this.#code !== null, this.#limits];
    const appended = { shape, helpers, state, isPolled, limits };
    const module = concatenate(
      [
        this.#bytes.subarray(0, HEADER_BYTES),
        ...encodePrefix(this.#before, appended, (section) => this.#encodeCustom(section)),
        ...this.#encodeCode(),
        ...this.#encodeBehind(),
      ],
      limits.outputSizeBytes,
    );
    const [findings, dropped] = [this.#findings, this.#dropped];
    return describeImage({ shape, state, findings, helpers, module, isPolled, dropped });
  }

  #encodeCode(): Uint8Array[] {
    const section = this.#shape.section(SectionId.code);
    if (section === undefined || this.#code === null) return [];
    const count = Uint8Array.from(unsigned(section.count + this.#helpers.count));
    return encodeSection(SectionId.code, [count, this.#code, ...this.#helpers.bodies]);
  }

  #encodeBehind(): Uint8Array[] {
    const parts: Uint8Array[] = [];
    for (const section of this.#behind) {
      if (!stripped.has(section.id)) parts.push(...this.#encodeCustom(section));
    }
    if (this.#hasNames || this.#helpers.count === 0) return parts;
    const names = functionNames(this.#helpers.names);
    return [...parts, ...encodeSection(SectionId.custom, [nameBytes(NAME_SECTION), ...names])];
  }

  #encodeCustom(section: Section): Uint8Array[] {
    const { name, start, end } = section;
    if (positional.test(name)) {
      this.#dropped.push(name);
      return [];
    }
    const isNames = name === NAME_SECTION;
    // Engines read one name section: a second one is not looked at here either.
    if (isNames && this.#hasNames) return [];
    if (isNames) this.#hasNames = true;
    const content = isNames
      ? extendNames(this.#bytes, start, end, this.#helpers.names)
      : [this.#bytes.subarray(start, end)];
    return encodeSection(SectionId.custom, [nameBytes(name), ...content]);
  }
}

function checkStart(shape: ModuleShape): void {
  if (shape.startFunction === null) return;
  const { params, results } = shape.signatureOf(shape.startFunction);
  if (params.length + results.length > 0)
    invalid(shape.section(SectionId.start)!.start, "start function takes or returns values");
}

function checkReservedNames(shape: ModuleShape): void {
  const taken = shape.exports.find(({ name }) => name.startsWith(RESERVED_PREFIX));
  if (taken !== undefined) {
    unsupported(
      `export ${JSON.stringify(taken.name)}: names that begin with ${RESERVED_PREFIX} are the loader's; was this module rewritten before?`,
    );
  }
}

/** Lets the engine check everything else, so that rewriting never makes an invalid module valid. */
function checkValid(bytes: Uint8Array): void {
  if (WebAssembly.validate(bytes)) return;
  try {
    new WebAssembly.Module(bytes);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.replace(/^WebAssembly\.Module\(\): /, "") : String(cause);
    throw new XenolithError("MODULE_INVALID", `module is not valid: ${reason}`, { cause });
  }
}

function concatenate(parts: readonly Uint8Array[], limitBytes: number): Uint8Array {
  const sizeBytes = parts.reduce((sum, part) => sum + part.length, 0);
  if (sizeBytes > limitBytes) tooLarge("size of the rewritten module in bytes", sizeBytes, limitBytes);
  const whole = new Uint8Array(sizeBytes);
  let position = 0;
  for (const part of parts) {
    whole.set(part, position);
    position += part.length;
  }
  return whole;
}
