/**
 * Guests in C on a real host: compiled beforehand, started with a command line, and listened to while they run.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import type { BootImage, Domain, DomainOptions, Host } from "@xenolith/host";

const root = path.join(import.meta.dirname, "../..");
// From the compiled test's place the module is one folder further away than the compiler thinks.
const { compileGuest } = (await import(path.join(root, "guest/xencc.mjs"))) as typeof import("../guest/xencc.mjs");
const MIB = 2 ** 20;

const read = (name: string): Buffer => readFileSync(path.join(root, name));

/** Compiles `tests/NAME` with the header of these tests, or `guest/examples/NAME`. */
export const compileTest = (name: string): Promise<Uint8Array> =>
  compileGuest({ [name]: read(`tests/${name}`), "c-check.h": read("tests/c-check.h") });
export const compileExample = (name: string): Promise<Uint8Array> =>
  compileGuest({ [name]: read(`guest/examples/${name}`) });

/** Compiles `tests/NAME` as a WASI command. */
export const compileWasi = (name: string): Promise<Uint8Array> =>
  compileGuest({ [name]: read(`tests/${name}`) }, { wasi: true });

/** Compiles the source of a reactor. */
export const compileReactor = (name: string, source: string): Promise<Uint8Array> =>
  compileGuest({ [name]: source }, { wasi: true, flags: ["-mexec-model=reactor"] });

/** A running guest and what it has printed so far. */
export class Guest {
  readonly domain: Domain;
  #text = "";
  #ended = false;
  #waiting: (() => void)[] = [];

  constructor(domain: Domain) {
    this.domain = domain;
    void this.#listen();
  }

  get text(): string {
    return this.#text;
  }

  /** Waits until `pattern` has been printed. Rejects when the guest is destroyed before. */
  async printed(pattern: RegExp): Promise<RegExpMatchArray> {
    for (;;) {
      const match = this.#text.match(pattern);
      if (match !== null) return match;
      assert.ok(!this.#ended, `domain ${this.domain.domid} ended without printing ${pattern}: ${this.#text}`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Waits for the guest's end, destroys the domain; returns the reason and everything printed. */
  async end(): Promise<{ reason: string; text: string }> {
    const { reason } = await this.domain.exited;
    await this.destroy();
    return { reason, text: this.#text };
  }

  async destroy(): Promise<void> {
    await this.domain.destroy();
    while (!this.#ended) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  async #listen(): Promise<void> {
    for await (const piece of this.domain.console) {
      this.#text += piece;
      this.#wake();
    }
    this.#ended = true;
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** Creates a guest that does not run yet. */
export const createGuest = async (
  host: Host,
  image: DomainOptions["image"] | BootImage,
  commandLine: string,
  options: Partial<DomainOptions> = {},
): Promise<Guest> => new Guest(await host.createDomain({ image, commandLine, memoryBytesMax: 16 * MIB, ...options }));

/** Starts a guest. */
export const startGuest = async (
  host: Host,
  image: DomainOptions["image"] | BootImage,
  commandLine: string,
  options: Partial<DomainOptions> = {},
): Promise<Guest> => {
  const guest = await createGuest(host, image, commandLine, options);
  await guest.domain.start();
  return guest;
};

/** The guest printed `count` lines "ok ..." and none that says otherwise. */
export const assertChecks = ({ reason, text }: { reason: string; text: string }, count: number): void => {
  assert.ok(!text.includes("FAILED"), text);
  assert.equal(reason, "poweroff", text);
  assert.equal(text.split("\n").filter((line) => line.startsWith("ok ")).length, count, text);
};
