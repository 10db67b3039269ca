/**
 * One key_op of a guest as the control domain's thread sees it, and what is read of it: the struct, once, and what the
 * struct points at, once. Everything is checked on the copies.
 */
import { EFAULT, EINVAL } from "@xenolith/abi";

/** A guest's own memory. The core's GuestMemory is one. */
export interface KeyCallMemory {
  /** Fills the target: 0, or -EFAULT. */
  copyFromGuest(address: number, target: Uint8Array): number;
  /** Writes the bytes: 0, or -EFAULT. */
  copyToGuest(address: number, bytes: Uint8Array): number;
}

/** A guest's secret pages, which nothing in this process has a view of. */
export interface SecretPages {
  /** Fills the target from secret pages: 0, or -EPERM: they are none, or not all. */
  read(address: number, target: Uint8Array): number;
  /** Writes bytes into secret pages: 0, or -EPERM: they are none, or not all, or read-only. */
  write(address: number, bytes: Uint8Array): number;
}

/** A call. */
export interface KeyCall {
  readonly slot: number;
  readonly domid: number;
  readonly vcpu: number;
  readonly command: number;
  /** Address of the command's struct. */
  readonly argument: number;
  readonly memory: KeyCallMemory;
  readonly secretPages: SecretPages;
  /** Fires when the domain goes: nothing of it may be touched any more. */
  readonly signal: AbortSignal;
}

/** Largest struct of key_op, in bytes. */
const STRUCT_BYTES_MAX = 64;

/** One member of a struct. */
export interface Field {
  get(view: DataView, at: number): number;
}

/** A text in a guest's memory: where it stands, how long it says it is and may be. */
export interface TextField {
  readonly address: Field;
  readonly length: Field;
  readonly min: number;
  readonly max: number;
  /** The flag without which there is none. */
  readonly flag?: number;
}

/** The struct of a call, as it was read. */
export class KeyArguments {
  readonly #view = new DataView(new ArrayBuffer(STRUCT_BYTES_MAX));
  readonly #memory: KeyCallMemory;

  constructor(memory: KeyCallMemory) {
    this.#memory = memory;
  }

  /** Reads the struct: 0, or -EFAULT. */
  fetch(address: number, sizeBytes: number): number {
    return this.#memory.copyFromGuest(address, new Uint8Array(this.#view.buffer, 0, sizeBytes));
  }

  /** A member of the struct. */
  get(field: Field): number {
    return field.get(this.#view, 0);
  }

  /** Reads a text: -EINVAL for a length out of its bounds, -EFAULT; null if its flag is not set. */
  text({ address, length, min, max, flag = 0 }: TextField, flags: number): Uint8Array | null | number {
    if ((flags & flag) !== flag) return null;
    const size = this.get(length);
    if (size < min || size > max) return -EINVAL;
    const bytes = new Uint8Array(size);
    // What an empty text points at does not matter.
    return size > 0 && this.#memory.copyFromGuest(this.get(address), bytes) !== 0 ? -EFAULT : bytes;
  }
}
