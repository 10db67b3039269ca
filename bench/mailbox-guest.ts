/** Guests in C that do one thing after the other as they are told: see guests/mailbox.h. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import type { Domain, DomainOptions, Host } from "@xenolith/host";

type Compile = (sources: Record<string, string | Uint8Array>) => Promise<Uint8Array>;

const SEQUENCE = 0;
const DONE = 4;
const COMMAND = 8;
const FAILED = 36;
const RESULTS = 40;
const RESULT_COUNT = 4;
/** Between two looks at whether a guest is done, each of which takes a lock of the guest's: most rounds are shorter. */
const LOOK_MS = 2;

const read = (name: string): Uint8Array => readFileSync(new URL(`../guests/${name}`, import.meta.url));

/** Compiles `guests/NAME`. Before the first guest that uses atomics runs: V8 compiles more slowly afterwards. */
export const compileMailboxGuest = async (name: string): Promise<Uint8Array<ArrayBuffer>> => {
  const { compileGuest } = (await import(new URL("../../guest/xencc.mjs", import.meta.url).href)) as {
    compileGuest: Compile;
  };
  return new Uint8Array(await compileGuest({ [name]: read(name), "mailbox.h": read("mailbox.h") }));
};

const wordsOf = (values: readonly number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);

/** One such guest. */
export class MailboxGuest {
  readonly domain: Domain;
  readonly #address: number;
  #sequence = 0;

  private constructor(domain: Domain, address: number) {
    this.domain = domain;
    this.#address = address;
  }

  static async start(host: Host, options: DomainOptions): Promise<MailboxGuest> {
    const domain = await host.createDomain(options);
    await domain.start();
    let text = "";
    for await (const piece of domain.console) {
      text += piece;
      if (text.includes("\n")) break;
    }
    return new MailboxGuest(domain, Number(/^mailbox (\d+)\n/.exec(text)?.[1]));
  }

  get domid(): number {
    return this.domain.domid;
  }

  /** Has `command` done, and returns its answers. */
  async perform(command: number, ...values: readonly number[]): Promise<readonly number[]> {
    const { domain } = this;
    this.#sequence += 1;
    domain.write(this.#address + COMMAND, wordsOf([command, ...values]));
    domain.write(this.#address + SEQUENCE, wordsOf([this.#sequence]));
    while (this.#word(DONE) !== this.#sequence) await setTimeout(LOOK_MS);
    assert.equal(this.#word(FAILED), 0, `command ${command} failed in line ${this.#word(FAILED)}`);
    const results = new BigUint64Array(domain.read(this.#address + RESULTS, RESULT_COUNT * 8).slice().buffer);
    return [...results].map(Number);
  }

  #word(offset: number): number {
    return new DataView(this.domain.read(this.#address + offset, 4).slice().buffer).getUint32(0, true);
  }
}
