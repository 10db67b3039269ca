/**
 * The kernel's own key system calls, for comparison. Each thread has credentials of its own, so that changing the user
 * with the bare system call changes nobody but the caller; it must only be used in a process made for it.
 */
import { createRequire } from "node:module";
import path from "node:path";

interface Koffi {
  load(library: string | null): { func(prototype: string): (...values: readonly unknown[]) => number };
  errno(): number;
}

/** Only packages/sys depends on koffi; the tests borrow it from there. */
const borrowed = createRequire(path.join(import.meta.dirname, "../../../sys/package.json"));

const NUMBERS = {
  x64: { addKey: 248, requestKey: 249, keyctl: 250, setresuid: 117, setresgid: 119, setgroups: 116 },
  arm64: { addKey: 217, requestKey: 218, keyctl: 219, setresuid: 147, setresgid: 149, setgroups: 159 },
} as const;

const text = (value: string | null): Buffer | null => (value === null ? null : Buffer.from(`${value}\0`, "latin1"));

/** The system calls, with the results of the library: a number, or a negated error number. */
export class KernelKeys {
  readonly #koffi: Koffi;
  readonly #numbers: (typeof NUMBERS)["x64" | "arm64"];
  readonly #three: (...values: readonly unknown[]) => number;
  readonly #keyctl: (...values: readonly unknown[]) => number;
  readonly #keyctlBytes: (...values: readonly unknown[]) => number;
  readonly #keyctlTexts: (...values: readonly unknown[]) => number;
  readonly #request: (...values: readonly unknown[]) => number;
  readonly #add: (...values: readonly unknown[]) => number;

  constructor() {
    const { arch } = process;
    if (arch !== "x64" && arch !== "arm64") throw new Error(`no system call numbers for ${arch}`);
    this.#numbers = NUMBERS[arch];
    this.#koffi = borrowed("koffi") as Koffi;
    const library = this.#koffi.load(null);
    this.#three = library.func("long syscall(long number, long a, long b, long c)");
    this.#keyctl = library.func("long syscall(long number, long op, long a, long b, long c, long d)");
    this.#keyctlBytes = library.func("long syscall(long number, long op, long a, void *bytes, long size, long d)");
    this.#keyctlTexts = library.func("long syscall(long number, long op, long a, void *first, void *second, long d)");
    this.#request = library.func("long syscall(long number, void *type, void *description, void *callout, long ring)");
    this.#add = library.func(
      "long syscall(long number, void *type, void *description, void *payload, long size, long ring)",
    );
  }

  #result(value: number): number {
    return value === -1 ? -this.#koffi.errno() : value;
  }

  /** keyctl(2) with numbers only. */
  keyctl(op: number, a = 0, b = 0, c = 0, d = 0): number {
    return this.#result(this.#keyctl(this.#numbers.keyctl, op, a, b, c, d));
  }

  /** keyctl(2) whose second argument is memory. */
  keyctlBytes(op: number, a: number, bytes: Uint8Array | null, size: number, d = 0): number {
    return this.#result(this.#keyctlBytes(this.#numbers.keyctl, op, a, bytes, size, d));
  }

  /** keyctl(2) whose second and third arguments are texts. */
  keyctlTexts(op: number, a: number, first: string | null, second: string | null, d = 0): number {
    return this.#result(this.#keyctlTexts(this.#numbers.keyctl, op, a, text(first), text(second), d));
  }

  /** keyctl(2) whose first argument is a text. */
  join(name: string | null): number {
    const call = this.#keyctlNamed();
    return this.#result(call(this.#numbers.keyctl, 1, text(name), 0, 0, 0));
  }

  #named: ((...values: readonly unknown[]) => number) | undefined;
  #keyctlNamed(): (...values: readonly unknown[]) => number {
    this.#named ??= this.#koffi
      .load(null)
      .func("long syscall(long number, long op, void *name, long b, long c, long d)");
    return this.#named;
  }

  /** add_key(2). */
  addKey(type: string, description: string | null, payload: Uint8Array | null, ring: number): number {
    const size = payload?.length ?? 0;
    return this.#result(this.#add(this.#numbers.addKey, text(type), text(description), payload, size, ring));
  }

  /** request_key(2). */
  requestKey(type: string, description: string, callout: string | null, ring: number): number {
    return this.#result(this.#request(this.#numbers.requestKey, text(type), text(description), text(callout), ring));
  }

  /** Makes this thread somebody else; with user 0 kept in reserve, it can be undone. Whoever is not user 0 stays who it is. */
  become(uid: number, gid: number): void {
    if (process.getuid!() === uid && uid !== 0) return;
    const calls = [
      [this.#numbers.setresuid, 0, 0, 0],
      [this.#numbers.setgroups, 0, 0, 0],
      [this.#numbers.setresgid, gid, gid, 0],
      [this.#numbers.setresuid, uid, uid, 0],
    ];
    for (const call of calls) {
      const result = this.#result(this.#three(...call));
      if (result < 0) throw new Error(`system call ${call[0]} to become ${uid}: ${result}`);
    }
  }
}

/** Why nobody else's part can be played; undefined if it can. */
export const whyNotUser0 = (): string | undefined =>
  process.getuid?.() === 0 ? undefined : "not user 0, so that it cannot become others";

/** Why the kernel of this machine cannot be compared with; undefined if it can. */
export const whyNoKernelKeys = (): string | undefined => {
  if (process.platform !== "linux") return "not Linux";
  try {
    const found = new KernelKeys().keyctl(0, -3, 0);
    return found > 0 ? undefined : `keyctl answers ${found}: this kernel has no keyrings, or they are forbidden here`;
  } catch (error) {
    return `the system calls cannot be reached: ${String(error)}`;
  }
};
