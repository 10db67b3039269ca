/**
 * Images as the host boots them: rewritten by the loader (from its cache when possible), compiled once by V8 on the
 * control domain's thread, shared by all domains that run it.
 */
import { readFileSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { url as inspectorUrl } from "node:inspector";
import { setFlagsFromString } from "node:v8";
import { XenolithError } from "@xenolith/abi";
import type { ImageCache } from "@xenolith/loader";
import { type FunctionImport, type Image, type ImageManifest, segmentBytes } from "@xenolith/loader";
import { guestInterface } from "./guest-interface.ts";
import type { PassiveSegments } from "./protocol.ts";

/** Where a module comes from: a file, or its bytes. */
export type ImageSource = string | URL | Uint8Array;

/** An image that is ready to boot. */
export interface BootImage {
  readonly image: Image;
  readonly module: WebAssembly.Module;
  /** The manifest without what vCPU threads do not need. */
  readonly bareManifest: ImageManifest;
  readonly namespaces: readonly string[];
  readonly passive: PassiveSegments | undefined;
  /** Whether domains of it can be paused while they compute. */
  readonly isPreemptible: boolean;
}

/** What makes a difference to an image. */
export interface ImageWishes {
  /** Functions that the calling program offers. */
  readonly offered?: readonly FunctionImport[];
  /** Loops are to look for a pause. */
  readonly preemptible?: boolean;
}

/**
 * Loads, rewrites and compiles a module.
 *
 * @throws XenolithError `FILE_NOT_FOUND`, `INSPECTOR_ATTACHED`, and the loader's `MODULE_*` and `IMPORT_UNKNOWN`.
 */
export const loadImage = async (
  cache: ImageCache,
  source: ImageSource,
  { offered = [], preemptible = false }: ImageWishes = {},
): Promise<BootImage> => {
  const bytes = source instanceof Uint8Array ? source : await readModule(source);
  const image = await cache.load(bytes, { imports: [...guestInterface, ...offered], poll: preemptible });
  const { manifest } = image;
  if (manifest.usesAtomics) requireOptimisingCompiler();
  return {
    image,
    module: await compile(image.module),
    bareManifest: { ...manifest, imports: [], exports: [], segments: [], obstacles: [], replaced: {} },
    namespaces: [...new Set(manifest.imports.map(({ module }) => module))],
    passive: passiveSegments(image),
    isPreemptible: preemptible,
  };
};

/** What is read and compiled at once: waiting for another thread would take longer. */
const SMALL_BYTES = 2 ** 16;

/** Reads a module's bytes. Throws XenolithError `FILE_NOT_FOUND`. */
export const readModule = async (path: string | URL): Promise<Uint8Array> => {
  try {
    const status = statSync(path);
    return status.isFile() && status.size <= SMALL_BYTES ? readFileSync(path) : await readFile(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("FILE_NOT_FOUND", `cannot read image: ${reason}`, { cause });
  }
};

const compile = async (bytes: Uint8Array): Promise<WebAssembly.Module> => {
  try {
    return bytes.length <= SMALL_BYTES ? new WebAssembly.Module(bytes) : await WebAssembly.compile(bytes);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("MODULE_UNSUPPORTED", `the engine does not compile the image: ${reason}`, { cause });
  }
};

const FIRST_V8_WITH_DEOPTIMISATION = 14;

/**
 * V8 14 stops the process when it prepares for deoptimising a function of which nothing was counted, because the baseline
 * compiler was turned off after the start (see below). What it has prepared for must stay possible: so this comes before
 * the first module of ours. Not by turning inlining off: code of the baseline compiler that exists already, also that of
 * modules which are not ours, counts calls, and a new instance has no room for that once inlining is off.
 */
export const turnOffDeoptimisation = (): void => {
  if (Number.parseInt(process.versions.v8, 10) >= FIRST_V8_WITH_DEOPTIMISATION) setFlagsFromString("--no-wasm-deopt");
};

let liftoffIsOff = false;

/**
 * Atomic instructions on absent pages end the process unless TurboFan compiled them, so the baseline compiler is turned
 * off for the whole process before the first such image. A debugger would turn it on again.
 */
const requireOptimisingCompiler = (): void => {
  if (inspectorUrl() !== undefined) {
    throw new XenolithError(
      "INSPECTOR_ATTACHED",
      "the image uses atomic instructions, which a debugger makes unsafe: start without --inspect",
    );
  }
  if (liftoffIsOff) return;
  setFlagsFromString("--no-liftoff");
  liftoffIsOff = true;
};

/** Copies the passive segments into shared memory, if there are any with bytes in them. */
const passiveSegments = (image: Image): PassiveSegments | undefined => {
  const { segments } = image.manifest;
  const isPassive = ({ address }: { address: number | null }): boolean => address === null;
  const sizeBytes = segments.filter(isPassive).reduce((sum, { length }) => sum + length, 0);
  if (sizeBytes === 0) return undefined;
  const bytes = new SharedArrayBuffer(sizeBytes);
  let end = 0;
  const ranges = segments.map((segment) => {
    if (!isPassive(segment)) return { offset: 0, length: 0 };
    const offset = end;
    new Uint8Array(bytes).set(segmentBytes(image, segment), offset);
    end += segment.length;
    return { offset, length: segment.length };
  });
  return { bytes, ranges };
};
