import { type Key, KEY_UNDER_CONSTRUCTION } from "./key.ts";
import { Wait } from "./pending.ts";
import type { Process } from "./process.ts";

/** The construction that a process works for: that of the key that it was started for, or may instantiate. */
const worksFor = (process: Process, targetOf: (authority: Key) => Key | undefined): readonly Key[] => {
  const assumed = process.authority === undefined ? undefined : targetOf(process.authority);
  return [assumed, process.helps]
    .filter((key) => key !== undefined)
    .filter((key) => (key.flags & KEY_UNDER_CONSTRUCTION) !== 0);
};

/** Who waits for which key under construction, and whether that can ever end. */
export class WaitList {
  readonly #waits = new Map<Key, Set<Wait>>();
  /** Constructions that wait for others, through the processes that work for them: how often. */
  readonly #edges = new Map<Key, Map<Key, number>>();
  readonly #targetOf: (authority: Key) => Key | undefined;

  constructor(targetOf: (authority: Key) => Key | undefined) {
    this.#targetOf = targetOf;
  }

  /** Waits under way. */
  get size(): number {
    let size = 0;
    for (const waits of this.#waits.values()) size += waits.size;
    return size;
  }

  /** A wait of a process for a key; it must be given to `end` afterwards. */
  begin(process: Process, key: Key): Wait {
    const wait = new Wait(worksFor(process, this.#targetOf));
    let waits = this.#waits.get(key);
    if (waits === undefined) this.#waits.set(key, (waits = new Set()));
    waits.add(wait);
    for (const builder of wait.builders) this.#addEdge(builder, key, 1);
    return wait;
  }

  /** The wait is over, however it ended. */
  end(wait: Wait, key: Key): void {
    const waits = this.#waits.get(key);
    waits?.delete(wait);
    if (waits?.size === 0) this.#waits.delete(key);
    for (const builder of wait.builders) this.#addEdge(builder, key, -1);
  }

  /** The key is built: all who wait for it go on. */
  built(key: Key): void {
    for (const wait of this.#waits.get(key) ?? []) wait.built();
  }

  /** Ends all waits. */
  interruptAll(): void {
    for (const waits of this.#waits.values()) for (const wait of waits) wait.interrupt();
  }

  /** Whether the key can only be built after this process went on: it, or one that its construction waits for, is its own task. */
  wouldNeverEnd(process: Process, key: Key): boolean {
    const builders = worksFor(process, this.#targetOf);
    if (builders.length === 0) return false;
    const reached = new Set([key]);
    for (const each of reached) {
      if (builders.includes(each)) return true;
      for (const next of this.#edges.get(each)?.keys() ?? []) reached.add(next);
    }
    return false;
  }

  #addEdge(from: Key, to: Key, change: number): void {
    let edges = this.#edges.get(from);
    if (edges === undefined) this.#edges.set(from, (edges = new Map<Key, number>()));
    const count = (edges.get(to) ?? 0) + change;
    if (count > 0) edges.set(to, count);
    else edges.delete(to);
    if (edges.size === 0) this.#edges.delete(from);
  }
}
