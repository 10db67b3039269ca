import { createHash, timingSafeEqual } from "node:crypto";
import type { FileHandle } from "node:fs/promises";

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

/** Reads an image back; undefined if the file is not exactly what `encodeImage` made, for whatever reason. */
export async function readImage(file: FileHandle): Promise<Image | undefined> {
  const header = new Uint8Array(HEADER_BYTES);
  if (!(await readFully(file, header, 0))) return undefined;
  if (new TextDecoder().decode(header.subarray(0, MAGIC.length)) !== MAGIC) return undefined;
  const view = new DataView(header.buffer);
  const sizes = [0, 1, 2].map((index) => view.getUint32(LENGTHS_AT + 4 * index, true));
  const expected = sizes.reduce((sum, sizeBytes) => sum + sizeBytes, HEADER_BYTES);
  if ((await file.stat()).size !== expected) return undefined;
  const parts: Uint8Array[] = [];
  let position = HEADER_BYTES;
  for (const sizeBytes of sizes) {
    const part = new Uint8Array(sizeBytes);
    if (!(await readFully(file, part, position))) return undefined;
    parts.push(part);
    position += sizeBytes;
  }
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

async function readFully(file: FileHandle, into: Uint8Array, position: number): Promise<boolean> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) return false;
    done += bytesRead;
  }
  return true;
}
