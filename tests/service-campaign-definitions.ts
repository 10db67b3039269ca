/**
 * What a campaign knows of the definitions that must outlive the daemon: each is what was acknowledged last, or, while a
 * change is not answered, one of two things.
 */
import { isDeepStrictEqual } from "node:util";
import type { DefinitionView } from "@xenolith/toolstack";
import { Unanswered } from "./service-daemon.ts";

/** A configuration; undefined: there is none. */
export type Config = Readonly<Record<string, unknown>> | undefined;

/** The definitions of one administrator. */
export class ExpectedDefinitions {
  readonly #possible = new Map<string, readonly Config[]>();

  /** Names that surely have a definition. */
  names(): readonly string[] {
    return [...this.#possible].filter(([, possible]) => !possible.includes(undefined)).map(([name]) => name);
  }

  /** What a name stands for, if that is certain. */
  get(name: string): Config {
    const possible = this.#possible.get(name) ?? [undefined];
    return possible.length === 1 ? possible[0] : undefined;
  }

  /** Makes a change to names: acknowledged, it holds; refused, it does not; unanswered, either. */
  async change(after: ReadonlyMap<string, Config>, make: () => Promise<boolean>): Promise<void> {
    const before = new Map([...after.keys()].map((name) => [name, this.#possible.get(name) ?? [undefined]]));
    let isMade: boolean | undefined;
    try {
      isMade = await make();
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error;
    }
    for (const [name, config] of after) {
      if (isMade === false) continue;
      this.#possible.set(name, isMade === true ? [config] : [...before.get(name)!, config]);
    }
  }

  /** Compares with what there is after a restart, which settles what was uncertain. Returns what was lost. */
  settle(found: readonly DefinitionView[]): readonly string[] {
    const actual = new Map(found.map(({ name, config }) => [name, { ...config }]));
    const lost: string[] = [];
    for (const [name, possible] of this.#possible) {
      const config = actual.get(name);
      if (!possible.some((each) => isDeepStrictEqual(each, config)))
        lost.push(`definition ${name} is ${JSON.stringify(config)}, acknowledged was ${JSON.stringify(possible)}`);
      this.#possible.set(name, [config]);
    }
    return lost;
  }

  /** Those that are certain and start by themselves. */
  autostarting(): readonly string[] {
    return this.names().filter((name) => this.get(name)?.["autostart"] === true);
  }
}
