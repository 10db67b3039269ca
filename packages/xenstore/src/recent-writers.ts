import type { Change } from "./watch-dispatch.ts";

const ENTRY_COUNT_MAX = 1024;

interface Entry {
  readonly path: string;
  readonly domid: number;
  readonly generation: number;
}

/** Who made the last changes, so that those who keep making a transaction fail can be told apart. Bounded. */
export class RecentWriters {
  readonly #entries: Entry[] = [];
  #next = 0;

  note(changes: readonly Change[], domid: number, generation: number): void {
    for (const { path } of changes.slice(-ENTRY_COUNT_MAX)) {
      this.#entries[this.#next] = { path, domid, generation };
      this.#next = (this.#next + 1) % ENTRY_COUNT_MAX;
    }
  }

  /** Domains that changed the path, or something above or below it, after `generation`. */
  writersOf(path: string, generation: number): Set<number> {
    const writers = new Set<number>();
    for (const entry of this.#entries) {
      if (entry.generation <= generation) continue;
      if (isWithin(entry.path, path) || isWithin(path, entry.path)) writers.add(entry.domid);
    }
    return writers;
  }
}

const isWithin = (path: string, above: string): boolean =>
  path === above || above === "/" || (path.startsWith(above) && path[above.length] === "/");
