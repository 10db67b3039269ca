import { assemble, end as endOpcode, globalGet, globalSet, i32Const, op, when } from "./assembler.ts";
import type { ByteReader } from "./byte-reader.ts";
import type { ByteWriter } from "./byte-writer.ts";
import { ATOMIC_LAST, AtomicGroup, atomicHelpers, atomicNotify, atomicWait32, atomicWait64 } from "./helper-atomic.ts";
import { memoryCopy } from "./helper-copy.ts";
import { memoryFill } from "./helper-fill.ts";
import { dataDrop, memoryGrow, memoryInit, memorySize, poll } from "./helper-service.ts";
import type { Helper, HelperSet } from "./helper-set.ts";
import { EXPLICIT_MEMORY, ImmediateReader } from "./immediate-reader.ts";
import type { Limits } from "./limits.ts";
import { Immediate, Opcode, featureBits, immediates, proposalOf } from "./opcodes.ts";
import { invalid, tooLarge, unsupported } from "./refusal.ts";
import { RELAXED_SIMD_FIRST, RELAXED_SIMD_LAST, SimdImmediate, simdImmediates } from "./simd.ts";
import { readType } from "./wasm-type.ts";

/** Counts down and opens the branch for zero. */
const pollCheck = (global: number): Uint8Array =>
  assemble([globalGet(global), i32Const(1), op.i32Sub, globalSet(global), globalGet(global), op.i32Eqz, when]);

/** What the rewriting of the code section found out. */
export interface CodeFindings {
  /** Bits of `featureBits`. */
  readonly features: number;
  /** True when an atomic instruction other than the fence remains or was replaced by a helper that holds some. */
  readonly usesAtomics: boolean;
  /** True for `elem.drop`, whose effect lies in the engine alone. */
  readonly dropsElements: boolean;
}

export interface CodeRewriterOptions {
  readonly limits: Limits;
  /** Index of the counter global if loops are to be polled. */
  readonly pollGlobal: number | null;
}

/**
 * Copies function bodies from a code section into `out` and replaces the affected instructions on the way. Bodies
 * without any are copied byte for byte, in runs as long as possible; a body with some gets a size field of five bytes.
 *
 * The operands and the results of an instruction stay on the stack where they were: what replaces it is always some
 * constants (its immediates) and a call.
 */
export class CodeRewriter implements CodeFindings {
  features = 0;
  usesAtomics = false;
  dropsElements = false;

  readonly #bytes: Uint8Array;
  readonly #reader: ByteReader;
  readonly #immediate: ImmediateReader;
  readonly #out: ByteWriter;
  readonly #helpers: HelperSet;
  readonly #limits: Limits;
  readonly #pollCheck: Uint8Array | null;
  /** Everything of the input before this offset is in `out`. */
  #copied: number;
  /** Where the size field of the current body begins in the input. */
  #bodyStart = 0;
  /** Where its content begins in the input, behind the size field. */
  #contentStart = 0;
  /** Where its reserved size field lies in `out`, or -1 while nothing of this body is affected. */
  #sizeAt = -1;

  constructor(reader: ByteReader, out: ByteWriter, helpers: HelperSet, options: CodeRewriterOptions) {
    this.#bytes = reader.bytes;
    this.#reader = reader;
    this.#immediate = new ImmediateReader(reader.bytes, reader.end);
    this.#out = out;
    this.#helpers = helpers;
    this.#limits = options.limits;
    this.#pollCheck = options.pollGlobal === null ? null : pollCheck(options.pollGlobal);
    this.#copied = reader.position;
  }

  /** Rewrites `bodyCount` bodies, from the reader's position to its end. */
  rewrite(bodyCount: number): void {
    const reader = this.#reader;
    for (let index = 0; index < bodyCount; index++) {
      this.#bodyStart = reader.position;
      const sizeBytes = reader.u32("function body size");
      this.#contentStart = reader.position;
      reader.skip(sizeBytes, "function body");
      const end = reader.position;
      const stop = this.#instructions(this.#locals(this.#contentStart, end), end);
      if (stop !== end) invalid(end, "function body ends inside an instruction");
      this.#finishBody(end, sizeBytes);
    }
    if (!reader.atEnd) invalid(reader.position, "code section has bytes after its last function");
    this.#out.copy(this.#bytes, this.#copied, reader.end);
  }

  #finishBody(end: number, sizeBytes: number): void {
    let newSizeBytes = sizeBytes;
    if (this.#sizeAt >= 0) {
      this.#out.copy(this.#bytes, this.#copied, end);
      this.#copied = end;
      newSizeBytes = this.#out.length - this.#sizeAt - 5;
      this.#out.patchU32(this.#sizeAt, newSizeBytes);
      this.#sizeAt = -1;
    }
    const limit = this.#limits.bodySizeBytes;
    if (newSizeBytes > limit)
      tooLarge(`size in bytes of the function body at offset ${this.#bodyStart}`, newSizeBytes, limit);
  }

  /** Steps over the declarations of locals. */
  #locals(start: number, end: number): number {
    const reader = this.#reader;
    reader.position = start;
    let left = reader.u32("local declaration count");
    let localCount = 0;
    for (; left > 0; left--) {
      localCount += reader.u32("local count");
      if (localCount > this.#limits.localCount) {
        tooLarge(`local count of the function body at offset ${this.#bodyStart}`, localCount, this.#limits.localCount);
      }
      readType(reader, "local type");
    }
    const stop = reader.position;
    if (stop > end) invalid(end, "function body ends inside its locals");
    reader.position = end;
    return stop;
  }

  /** Steps over instructions from `start`; returns where it stopped, which is past `end` if the last one crosses it. */
  #instructions(start: number, end: number): number {
    const bytes = this.#bytes;
    let position = start;
    while (position < end) {
      const opcode = bytes[position++]!;
      switch (immediates[opcode]) {
        case Immediate.none:
          break;
        case Immediate.memory:
          if (bytes[position]! >= EXPLICIT_MEMORY) position = this.#immediate.alignment(position);
          else position++;
          while (bytes[position++]! >= 0x80);
          break;
        case Immediate.pair:
          while (bytes[position++]! >= 0x80);
          while (bytes[position++]! >= 0x80);
          break;
        case Immediate.block:
          position = this.#immediate.blockType(position);
          break;
        case Immediate.double:
          position += 8;
          break;
        case Immediate.special:
          position = this.#special(opcode, position, end);
          break;
        default:
          while (bytes[position++]! >= 0x80);
      }
    }
    return position;
  }

  /** An instruction that is rare, rewritten, reported or refused. `position` is behind the opcode. */
  #special(opcode: number, position: number, end: number): number {
    if (opcode >= Opcode.signExtendFirst && opcode <= Opcode.signExtendLast) {
      this.features |= featureBits["sign-extension"];
      return position;
    }
    switch (opcode) {
      case Opcode.f32Const:
        return position + 4;
      case Opcode.loop:
        return this.#loop(position);
      case Opcode.branchTable:
        return this.#immediate.branchTable(position, end);
      case Opcode.memorySize:
        return this.#memoryIndexOnly(memorySize, position - 1, position);
      case Opcode.memoryGrow:
        return this.#memoryIndexOnly(memoryGrow, position - 1, position);
      case Opcode.prefixMisc:
        return this.#misc(position - 1, position);
      case Opcode.prefixSimd:
        return this.#simd(position);
      case Opcode.prefixAtomic:
        return this.#atomic(position - 1, position);
      default:
        return this.#ofFeature(opcode, position, end);
    }
  }

  #ofFeature(opcode: number, position: number, end: number): number {
    switch (opcode) {
      case Opcode.tableGet:
      case Opcode.tableSet:
      case Opcode.refFunc:
        this.features |= featureBits["reference-types"];
        return this.#immediate.number(position);
      case Opcode.refIsNull:
        this.features |= featureBits["reference-types"];
        return position;
      case Opcode.refNull:
        this.features |= featureBits["reference-types"];
        return this.#immediate.type(position);
      case Opcode.selectTyped:
        this.features |= featureBits["reference-types"];
        return this.#immediate.types(position, end);
      case Opcode.returnCall:
        this.features |= featureBits["tail-calls"];
        this.#insertPoll(position - 1);
        return this.#immediate.number(position);
      case Opcode.returnCallIndirect:
        this.features |= featureBits["tail-calls"];
        this.#insertPoll(position - 1);
        return this.#immediate.number(this.#immediate.number(position));
      default:
        return this.#exception(opcode, position, end);
    }
  }

  #exception(opcode: number, position: number, end: number): number {
    switch (opcode) {
      case Opcode.throwTag:
        this.features |= featureBits.exceptions;
        return this.#immediate.number(position);
      case Opcode.throwRef:
        this.features |= featureBits.exceptions;
        return position;
      case Opcode.tryTable:
        this.features |= featureBits.exceptions;
        return this.#immediate.catches(this.#immediate.blockType(position), end);
      case Opcode.legacyTry:
        this.features |= featureBits["legacy-exceptions"];
        return this.#immediate.blockType(position);
      case Opcode.legacyCatch:
      case Opcode.rethrow:
      case Opcode.delegate:
        this.features |= featureBits["legacy-exceptions"];
        return this.#immediate.number(position);
      case Opcode.catchAll:
        this.features |= featureBits["legacy-exceptions"];
        return position;
      default:
        return unsupported(
          `instruction 0x${opcode.toString(16)}: ${proposalOf(opcode)} is not supported`,
          position - 1,
        );
    }
  }

  #simd(position: number): number {
    const opcode = this.#immediate.read(position);
    const at = this.#immediate.after;
    this.features |= featureBits.simd;
    if (opcode >= RELAXED_SIMD_FIRST && opcode <= RELAXED_SIMD_LAST) {
      this.features |= featureBits["relaxed-simd"];
      return at;
    }
    switch (simdImmediates[opcode]) {
      case SimdImmediate.none:
        return at;
      case SimdImmediate.memory:
        return this.#immediate.memoryAccess(at);
      case SimdImmediate.memoryAndLane:
        return this.#immediate.memoryAccess(at) + 1;
      case SimdImmediate.lane:
        return at + 1;
      case SimdImmediate.sixteenBytes:
        return at + 16;
      default:
        return unsupported(`vector instruction 0xfd 0x${opcode.toString(16)} is not supported`, position - 1);
    }
  }

  #misc(start: number, position: number): number {
    const opcode = this.#immediate.read(position);
    const at = this.#immediate.after;
    if (opcode <= 7) {
      this.features |= featureBits["saturating-float-to-int"];
      return at;
    }
    if (opcode <= 11) return this.#bulkMemory(opcode, start, at);
    if (opcode > 17) unsupported(`instruction 0xfc 0x${opcode.toString(16)} is not supported`, start);
    if (opcode === 13) this.dropsElements = true;
    this.features |= opcode < 15 ? featureBits["bulk-memory"] : featureBits["reference-types"];
    const hasTwoIndices = opcode === 12 || opcode === 14;
    return hasTwoIndices ? this.#immediate.number(this.#immediate.number(at)) : this.#immediate.number(at);
  }

  #bulkMemory(opcode: number, start: number, position: number): number {
    this.features |= featureBits["bulk-memory"];
    if (opcode === 10) return this.#memoryIndexOnly(memoryCopy, start, this.#immediate.memoryIndex(position));
    if (opcode === 11) return this.#memoryIndexOnly(memoryFill, start, position);
    const segment = this.#immediate.read(position);
    const after = opcode === 8 ? this.#immediate.memoryIndex(this.#immediate.after) : this.#immediate.after;
    this.#replace(opcode === 8 ? memoryInit : dataDrop, start, after, segment);
    return after;
  }

  #memoryIndexOnly(helper: Helper, start: number, position: number): number {
    const after = this.#immediate.memoryIndex(position);
    this.#replace(helper, start, after);
    return after;
  }

  #atomic(start: number, position: number): number {
    const opcode = this.#immediate.read(position);
    const at = this.#immediate.after;
    this.features |= featureBits.threads;
    if (opcode === 0x03) return at + 1;
    const isWaitOrNotify = opcode <= 0x02;
    if (!isWaitOrNotify && (opcode < AtomicGroup.load || opcode > ATOMIC_LAST)) {
      unsupported(`atomic instruction 0xfe 0x${opcode.toString(16)} is not supported`, start);
    }
    const helper = isWaitOrNotify ? [atomicNotify, atomicWait32, atomicWait64][opcode] : atomicHelpers.get(opcode);
    this.usesAtomics ||= !isWaitOrNotify;
    if (helper === undefined) return this.#immediate.memoryAccess(at);
    const offset = this.#immediate.read(this.#immediate.alignment(at));
    const after = this.#immediate.after;
    this.#replace(helper, start, after, offset);
    return after;
  }

  #loop(position: number): number {
    const after = this.#immediate.blockType(position);
    this.#insertPoll(after);
    return after;
  }

  /** Counts down, and calls the helper at zero, before the instruction at `position`. */
  #insertPoll(position: number): void {
    if (this.#pollCheck === null) return;
    this.#startReplacement(position);
    this.#out.append(this.#pollCheck);
    this.#call(poll);
    this.#out.byte(endOpcode);
  }

  /** Puts a call of `helper` in the place of `[start, after)`, preceded by a constant if there is one. */
  #replace(helper: Helper, start: number, after: number, constant?: number): void {
    this.#startReplacement(start);
    if (constant !== undefined) this.#constant(constant);
    this.#call(helper);
    this.#copied = after;
  }

  #startReplacement(start: number): void {
    if (this.#sizeAt < 0) {
      this.#out.copy(this.#bytes, this.#copied, this.#bodyStart);
      this.#sizeAt = this.#out.reserveU32();
      this.#copied = this.#contentStart;
    }
    this.#out.copy(this.#bytes, this.#copied, start);
    this.#copied = start;
  }

  #constant(value: number): void {
    const out = this.#out;
    out.byte(0x41);
    out.i32(value | 0);
  }

  #call(helper: Helper): void {
    this.#out.byte(0x10);
    this.#out.u32(this.#helpers.use(helper));
  }
}
