/** The kernel's own key operations from Node, through the FFI that everything else uses: the floor of the key service. */
import { createRequire } from "node:module";
import path from "node:path";

type Call = (...values: readonly unknown[]) => number;

/** Only packages/sys depends on koffi; the bench borrows it from there. */
const borrowed = createRequire(path.join(import.meta.dirname, "../../packages/sys/package.json"));

const NUMBERS = { x64: [248, 249, 250], arm64: [217, 218, 219] } as const;
const SESSION = -3;
const USER = Buffer.from("user\0");
const KEYRING = Buffer.from("keyring\0");

/** Operations on keys of the kernel, in a session keyring of this thread's own. */
export class BareKeys {
  readonly #add: Call;
  readonly #numbers: Call;
  readonly #bytes: Call;
  readonly #texts: Call;
  readonly #request: Call;
  readonly #addKey: number;
  readonly #requestKey: number;
  readonly #keyctl: number;

  constructor() {
    const library = (borrowed("koffi") as { load(name: null): { func(prototype: string): Call } }).load(null);
    this.#add = library.func(
      "long syscall(long n, void *type, void *description, void *payload, long size, long ring)",
    );
    this.#numbers = library.func("long syscall(long n, long op, long a, long b, long c, long d)");
    this.#bytes = library.func("long syscall(long n, long op, long a, void *bytes, long size, long d)");
    this.#texts = library.func("long syscall(long n, long op, long a, void *type, void *description, long d)");
    this.#request = library.func("long syscall(long n, void *type, void *description, void *callout, long ring)");
    [this.#addKey, this.#requestKey, this.#keyctl] = NUMBERS[process.arch === "arm64" ? "arm64" : "x64"];
    if (this.#numbers(this.#keyctl, 1, 0, 0, 0, 0) < 0) {
      process.stderr.write("THE FLOOR IS WRONG: this kernel has no keyrings, and only refuses\n");
    }
  }

  /** A keyring in the session. */
  createRing(name: string): number {
    return this.#add(this.#addKey, KEYRING, Buffer.from(`${name}\0`), null, 0, SESSION);
  }

  /** Adds a key, or updates the one of that name; the description ends with a NUL. */
  add(description: Uint8Array, payload: Uint8Array, ring: number): number {
    return this.#add(this.#addKey, USER, description, payload, payload.length, ring);
  }

  /** Reads a payload. */
  read(id: number, target: Uint8Array): number {
    return this.#bytes(this.#keyctl, 11, id, target, target.length, 0);
  }

  /** Searches a keyring for a key; the description ends with a NUL. */
  search(ring: number, description: Uint8Array): number {
    return this.#texts(this.#keyctl, 10, ring, USER, description, 0);
  }

  /** Has a key built in the session, unless it is there; both texts end with a NUL. */
  request(description: Uint8Array, callout: Uint8Array): number {
    return this.#request(this.#requestKey, USER, description, callout, SESSION);
  }

  /** Describes a key. */
  describe(id: number, target: Uint8Array): number {
    return this.#bytes(this.#keyctl, 6, id, target, target.length, 0);
  }

  /** Links a key and takes the link away again. */
  linkAndUnlink(id: number, ring: number): number {
    return this.#numbers(this.#keyctl, 8, id, ring, 0, 0) + this.#numbers(this.#keyctl, 9, id, ring, 0, 0);
  }
}
