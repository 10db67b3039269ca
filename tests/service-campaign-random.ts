/**
 * What the service campaign draws: configurations, sizes and words, good and bad.
 */

import { createRandom } from "./campaign-random.ts";

const MIB = 2 ** 20;

/** Files of the guests. */
export interface CampaignImages {
  /** The C guest of the balloon's tests. */
  readonly balloon: string;
  /** The guest that makes random hypercalls. */
  readonly hostile: string;
}

/** Draws of one seed. */
export class Draw {
  readonly random: () => number;
  readonly #images: CampaignImages;

  constructor(seed: number, images: CampaignImages) {
    this.random = createRandom(seed);
    this.#images = images;
  }

  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  pick<T>(list: readonly T[]): T | undefined {
    return list[this.below(list.length)];
  }

  /** A target or a limit: mostly what a guest can reach, sometimes what nobody can. */
  bytes(): unknown {
    const bad = [0, -1, -4096, 1.5, 1, 4095, 2 ** 40, 2 ** 53, 1e300, null, "64", [], {}, true];
    return this.chance(0.2) ? this.pick(bad) : (1 + this.below(24)) * MIB + (this.chance(0.2) ? this.below(4096) : 0);
  }

  /** A guest that stays until it is told to go: it balloons, or ignores its target. */
  steady(name: string): Record<string, unknown> {
    const memory = 2 + this.below(10);
    const commands = ["loop", "sleep", "deaf", "liar", `take ${this.below(512)}`, `alternate ${this.below(256)}`];
    return {
      name,
      kernel: this.#images.balloon,
      cmdline: this.pick(commands)!,
      memory,
      memory_min: 1 + this.below(memory),
      ...(this.chance(0.5) ? { maxmem: memory + this.below(16) } : {}),
      ...(this.chance(0.5) ? { weight: 1 + this.below(1000) } : {}),
      ...(this.chance(0.3) ? { squeeze: "zero-pages" } : {}),
      ...(this.chance(0.3) ? { device_model_memory: `${4 * this.below(64)}K` } : {}),
      ...(this.chance(0.2) ? { vcpus: 1 + this.below(2) } : {}),
    };
  }

  /** Any guest: also those that end by themselves, crash in a loop, or attack. */
  any(name: string, others: readonly string[]): Record<string, unknown> {
    const config = this.steady(name);
    const actions = ["destroy", "restart", "rename-restart", "preserve"];
    for (const key of ["on_poweroff", "on_reboot", "on_crash"]) if (this.chance(0.5)) config[key] = this.pick(actions);
    if (this.chance(0.3)) config["cmdline"] = `end ${this.below(500)} ${this.pick([0, 1, 3])}`;
    else if (this.chance(0.1)) config["cmdline"] = "touch";
    else if (this.chance(0.15))
      Object.assign(config, { kernel: this.#images.hostile, cmdline: `${this.below(2 ** 30)} 1` });
    if (this.chance(0.3) && others.length > 0) config["device_model_for"] = this.pick(others);
    if (this.chance(0.05))
      Object.assign(config, this.pick([{ memroy: 1 }, { memory: -1 }, { memory_min: 1e9 }, { vcpus: 99 }]));
    return config;
  }
}
