/**
 * The files behind guests' secret memory, by the handles that the hypervisor knows them by. Of the control domain's
 * thread: nobody else changes what shows secret memory.
 */
import assert from "node:assert/strict";

/** One object's pages. */
export interface SecretFile {
  readonly fd: number;
  /** Whether the kernel itself cannot read it. What it can read must be kept out of swap and core files instead. */
  readonly hidden: boolean;
}

/** See above. */
export class SecretFiles {
  readonly #files = new Map<number, SecretFile>();
  #last = 0;

  /** A handle for a file, which its owner keeps open until `remove`. */
  add(file: SecretFile): number {
    this.#last += 1;
    this.#files.set(this.#last, file);
    return this.#last;
  }

  /** The file of a handle that was given out and not removed. */
  get(handle: number): SecretFile {
    const file = this.#files.get(handle);
    assert(file !== undefined);
    return file;
  }

  /** Forgets a file that is mapped nowhere any more. */
  remove(handle: number): void {
    this.#files.delete(handle);
  }
}
