import { createHash, timingSafeEqual } from "node:crypto";

import type { Image, ImageManifest } from "./manifest.ts";
import { LOADER_FORMAT } from "./manifest.ts";

/*
 * A cached image in one file, numbers little-endian:
 *
 *      0  "XENOIMG1"
 *      8  u32 size of the manifest, u32 size of the module, u32 size of the data, in bytes
 *     20  zero
 *     32  SHA-256 of everything else in the file
 *     64  manifest (JSON), module, data
 */
const MAGIC = "XENOIMG1";
const HEADER_BYTES = 64;
const CHECKSUM_AT = 32;
const LENGTHS_AT = 8;

/** The bytes of a file for an image, in pieces to be written one behind the other. */
export function encodeImage({ manifest, module, data }: Image): Uint8Array[] {
  const parts = [new TextEncoder().encode(JSON.stringify(manifest)), module, data];
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  header.set(new TextEncoder().encode(MAGIC));
  for (const [index, part] of parts.entries()) view.setUint32(LENGTHS_AT + 4 * index, part.length, true);
  header.set(checksum(header.subarray(0, CHECKSUM_AT), parts), CHECKSUM_AT);
  return [header, ...parts];
}

/** The image in a file's bytes; undefined if they are not exactly what `encodeImage` made, for whatever reason. */
export function decodeImage(file: Uint8Array): Image | undefined {
  const header = file.subarray(0, HEADER_BYTES);
  if (header.length < HEADER_BYTES) return undefined;
  if (new TextDecoder().decode(header.subarray(0, MAGIC.length)) !== MAGIC) return undefined;
  const view = new DataView(header.buffer, header.byteOffset, HEADER_BYTES);
  const parts: Uint8Array[] = [];
  let position = HEADER_BYTES;
  for (const index of [0, 1, 2]) {
    const sizeBytes = view.getUint32(LENGTHS_AT + 4 * index, true);
    parts.push(file.subarray(position, position + sizeBytes));
    position += sizeBytes;
  }
  if (file.length !== position) return undefined;
  const isIntact = timingSafeEqual(checksum(header.subarray(0, CHECKSUM_AT), parts), header.subarray(CHECKSUM_AT));
  return isIntact ? decode(parts) : undefined;
}

function decode([text, module, data]: readonly Uint8Array[]): Image | undefined {
  const manifest: unknown = JSON.parse(new TextDecoder().decode(text));
  return isManifest(manifest) ? { manifest, module: module!, data: data! } : undefined;
}

/** The checksum proved that we wrote it; the format says that this version of us did. */
function isManifest(value: unknown): value is ImageManifest {
  return typeof value === "object" && value !== null && "format" in value && value.format === LOADER_FORMAT;
}

function checksum(start: Uint8Array, parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash("sha256").update(start);
  for (const part of parts) hash.update(part);
  return hash.digest();
}
