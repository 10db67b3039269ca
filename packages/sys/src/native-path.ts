import { constants } from "node:os";
import { NativeBuffer } from "./libc.ts";

const { EINVAL, ENAMETOOLONG, ENOENT, EXDEV } = constants.errno;

/** A path as bytes, as Linux has it, or as a string that is encoded as UTF-8. Untrusted: it may hold anything. */
export type PathText = string | Uint8Array;

/** Linux's PATH_MAX, which counts the NUL at the end. */
const PATH_BYTES_MAX = 4096;
const SLASH = 0x2f;
const DOT = 0x2e;

const encoder = new TextEncoder();

/**
 * A path in memory that C functions can read, NUL-terminated. One object is used again and again, so that a path
 * operation allocates nothing.
 *
 *     a / b c \0 n a m e / / \0
 *     ^parent    ^name   ^ trailing slashes are cut off, and remembered
 */
export class NativePath {
  readonly #buffer = new NativeBuffer(PATH_BYTES_MAX);
  #lengthBytes = 0;
  #nameStart = 0;

  /** Whether the path that was split ended in a slash, so that its last component must be a directory. */
  trailingSlash = false;

  /** Where the whole path begins; after {@link split} this is the path of the parent. */
  get address(): number {
    return this.#buffer.address;
  }

  /** Where the last component begins, after {@link split}. */
  get nameAddress(): number {
    return this.#buffer.address + this.#nameStart;
  }

  /** Whether there is a parent part before the last component, after {@link split}. */
  get hasParent(): boolean {
    return this.#nameStart > 0;
  }

  /** Takes a path over. `ENOENT`: empty; `ENAMETOOLONG`: over 4095 bytes; `EINVAL`: holds a NUL. */
  assign(path: PathText): number {
    const { bytes } = this.#buffer;
    if (path.length === 0) return -ENOENT;
    if (path.length >= PATH_BYTES_MAX) return -ENAMETOOLONG;
    if (typeof path === "string") {
      const { read, written } = encoder.encodeInto(path, bytes);
      if (read < path.length || written >= PATH_BYTES_MAX) return -ENAMETOOLONG;
      this.#lengthBytes = written;
    } else {
      bytes.set(path);
      this.#lengthBytes = path.length;
    }
    bytes[this.#lengthBytes] = 0;
    return bytes.indexOf(0) < this.#lengthBytes ? -EINVAL : 0;
  }

  /**
   * Divides the path at its last component, without slashes around it.
   * `EXDEV`: the path is absolute; `EINVAL`: the last component is `..`, which names no entry of its parent.
   */
  split(): number {
    const { bytes } = this.#buffer;
    if (bytes[0] === SLASH) return -EXDEV;
    let end = this.#lengthBytes;
    while (bytes[end - 1] === SLASH) end--;
    this.trailingSlash = end < this.#lengthBytes;
    bytes[end] = 0;

    const slash = bytes.lastIndexOf(SLASH, end - 1);
    this.#nameStart = slash + 1;
    if (slash >= 0) bytes[slash] = 0;
    const name = bytes.subarray(this.#nameStart, end);
    const onlyDots = name.every((byte) => byte === DOT);
    // `.` is a directory whether or not a slash says so.
    if (onlyDots && name.length === 1) this.trailingSlash = false;
    return onlyDots && name.length === 2 ? -EINVAL : 0;
  }
}
