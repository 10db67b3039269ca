/** Certificates and restrictions, here and in the kernel of this machine, in a session keyring of this process's own. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { keyErrorName } from "../src/index.ts";
import { makeCertificate } from "./certificates.ts";
import { KernelKeys, whyNoKernelKeys, whyNotUser0 } from "./kernel-keys.ts";
import { type Bench, onBench, SESSION } from "./kit.ts";

const isRsa = true;

/** Both sides, with the same names for their keys. */
class Sides {
  readonly #kernel = new KernelKeys();
  readonly #mine = new Map<string, number>([["@s", SESSION]]);
  readonly #kernels = new Map<string, number>([["@s", SESSION]]);
  readonly #bench: Bench;
  readonly #process;

  constructor(bench: Bench) {
    this.#bench = bench;
    this.#process = bench.process(0);
    assert.ok(this.#kernel.join(null) > 0);
  }

  /** Fails unless both answered with the same error, or both with none. */
  #same(what: string, mine: unknown, kernels: number): number {
    assert.ok(typeof mine === "number");
    // A signature that another key made does not even decrypt to a padding: to the kernel that is an invalid argument.
    const isForged = what.startsWith("add forged") && kernels === -22 && mine === -129;
    if (isForged) return mine;
    const word = (result: number): string => (result < 0 ? (keyErrorName(result) ?? String(result)) : "done");
    assert.equal(word(mine), word(kernels), `${what}: mine, then the kernel's`);
    return mine;
  }

  add(name: string, type: string, description: string | null, payload: Uint8Array | null, ring: string): number {
    const { service } = this.#bench;
    const mine = service.addKey(this.#process, type, description, payload, this.#mine.get(ring)!);
    const kernels = this.#kernel.addKey(type, description, payload, this.#kernels.get(ring)!);
    if (Number(mine) > 0) {
      this.#mine.set(name, Number(mine));
      this.#kernels.set(name, kernels);
    }
    return this.#same(`add ${name} to ${ring}`, mine, kernels);
  }

  restrict(
    ring: string,
    type: string | null,
    restriction: (serial: (name: string) => number) => string | null,
  ): number {
    const texts = [this.#mine, this.#kernels].map((serials) => restriction((name) => serials.get(name)!));
    const mine = this.#bench.service.restrict(this.#process, this.#mine.get(ring)!, type, texts[0]!);
    const kernels = this.#kernel.keyctlTexts(29, this.#kernels.get(ring)!, type, texts[1]!);
    return this.#same(`restrict ${ring} to ${texts[0]}`, mine, kernels);
  }

  search(description: string): number {
    const mine = this.#bench.service.search(this.#process, SESSION, "asymmetric", description, 0);
    return this.#same(`search ${description}`, mine, this.#kernel.keyctlTexts(10, SESSION, "asymmetric", description));
  }

  /** What the lists say of a key, without serial and count of references. */
  lines(name: string): readonly (string | undefined)[] {
    const lists = [
      [this.#bench.service.procKeys(this.#process), this.#mine],
      [readFileSync("/proc/keys", "latin1"), this.#kernels],
    ] as const;
    return lists.map(([list, serials]) =>
      list
        .split("\n")
        .find((line) => line.startsWith(serials.get(name)!.toString(16).padStart(8, "0")))
        ?.replace(/^\w+ (\S+) +\d+/, "$1"),
    );
  }
}

/** Why certificates cannot be compared: the kernel has the type only if it was built so. */
const whyNot = (): string | undefined => {
  const reason = whyNotUser0() ?? whyNoKernelKeys();
  if (reason !== undefined) return reason;
  const kernel = new KernelKeys();
  kernel.join(null);
  const result = kernel.addKey("asymmetric", null, makeCertificate({ name: "probe", isRsa }).der, SESSION);
  return result > 0 ? undefined : `this kernel does not take certificates: ${result}`;
};

describe("certificates here and in the kernel", () => {
  const reason = whyNot();
  if (reason !== undefined) console.error(`CERTIFICATES NOT COMPARED WITH THE KERNEL: ${reason}`);

  it(
    "have the same names and lists, and keyrings restricted to them take and refuse the same",
    { skip: reason },
    onBench(
      (bench) => {
        const sides = new Sides(bench);
        const root = makeCertificate({ name: "Acme Works/root", isRsa });
        const middle = makeCertificate({ name: "middle", issuer: root, isRsa });
        const leaf = makeCertificate({ name: "leaf", issuer: middle, isRsa });
        const stranger = makeCertificate({ name: "stranger", isRsa });
        const repeats = makeCertificate({ name: "Acme Works/Acme Works of old", isRsa });
        const forger = { ...stranger, name: root.name, identifier: root.identifier };
        const forged = makeCertificate({ name: "forged", issuer: forger, isRsa });
        const certificates = { root, middle, leaf, stranger, repeats, forged };

        for (const [name, { der }] of Object.entries(certificates)) {
          if (name === "forged" || sides.add(name, "asymmetric", null, der, "@s") < 0) continue;
          const [mine, kernels] = sides.lines(name);
          assert.equal(mine, kernels);
        }
        const rings: readonly (readonly [string, (serial: (name: string) => number) => string])[] = [
          ["to root", (serial) => `key_or_keyring:${serial("root")}`],
          ["to root and what it took", (serial) => `key_or_keyring:${serial("root")}:chain`],
          ["to a keyring", (serial) => `key_or_keyring:${serial("anchors")}`],
          ["to what it took", () => "key_or_keyring:0:chain"],
          ["to the kernel's own", () => "builtin_trusted"],
        ];
        sides.add("anchors", "keyring", "anchors", null, "@s");
        sides.add("anchor", "asymmetric", null, root.der, "anchors");
        for (const [ring, restriction] of rings) {
          sides.add(ring, "keyring", ring, null, "@s");
          sides.restrict(ring, "asymmetric", restriction);
          for (const name of ["leaf", "middle", "leaf", "root", "stranger", "forged"] as const) {
            sides.add(`${name} ${ring}`, "asymmetric", null, certificates[name].der, ring);
          }
          sides.add("other", "user", "other", Buffer.from("v"), ring);
          sides.restrict(ring, null, () => null);
        }
        sides.add("free", "keyring", "free", null, "@s");
        for (const text of [
          "",
          "x",
          "key_or_keyring:0",
          "key_or_keyring:1",
          "key_or_keyring:-3",
          "key_or_keyring:010",
        ]) {
          sides.restrict("free", "asymmetric", () => text);
        }
        for (const text of [
          "key_or_keyring:",
          "key_or_keyring:08",
          "key_or_keyring:1:",
          "key_or_keyring:99999999999",
        ]) {
          sides.restrict("free", "asymmetric", () => text);
        }
        const id = root.identifier.toString("hex");
        for (const selector of [`id:${id}`, `id:${id.slice(-6)}`, `ex:${id}`, `ex:${id.slice(-6)}`, id])
          sides.search(selector);
        for (const selector of ["id:", "ex:", "id:xyz", "id:abc", "", "stranger"]) sides.search(selector);
        for (const bytes of [
          new Uint8Array(0),
          Uint8Array.of(0x30, 0),
          root.der.subarray(1),
          root.der.subarray(0, 300),
        ]) {
          sides.add("damaged", "asymmetric", "damaged", bytes, "@s");
        }
      },
      { errorPriority: "linux-6" },
    ),
  );
});
