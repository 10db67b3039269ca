import { randomBytes } from "node:crypto";
import { CANARY_BYTES } from "./slots.ts";

const WORDS = CANARY_BYTES / 4;

/** What the mark behind a secret of a table says. */
export interface Tag {
  /** Numbers of its owner and of its table. */
  readonly owner: number;
  readonly table: number;
  readonly size: number;
}

/**
 * Marks behind secrets. Where one lies decides its value, so a mark that was copied elsewhere is wrong there. They tell of
 * accidents; who can write secret memory at will can read the marks too.
 */
export class Canary {
  readonly #pattern = Array.from({ length: WORDS }, () => randomBytes(4).readInt32LE());

  write(words: DataView, offset: number): void {
    for (let word = 0; word < WORDS; word += 1) words.setInt32(offset + 4 * word, this.#pattern[word]! ^ offset, true);
  }

  isRight(words: DataView, offset: number): boolean {
    let difference = 0;
    for (let word = 0; word < WORDS; word += 1) {
      difference |= words.getInt32(offset + 4 * word, true) ^ this.#pattern[word]! ^ offset;
    }
    return difference === 0;
  }

  /** A mark that also says whose secret it is, and how long. */
  writeTag(words: DataView, offset: number, { owner, table, size }: Tag): void {
    const pattern = this.#pattern;
    words.setInt32(offset, pattern[0]! ^ offset ^ owner, true);
    words.setInt32(offset + 4, pattern[1]! ^ offset ^ table, true);
    words.setInt32(offset + 8, pattern[2]! ^ offset ^ size, true);
    words.setInt32(offset + 12, pattern[3]! ^ offset ^ owner ^ table ^ size, true);
  }

  /** What a mark says; undefined where there is none. */
  readTag(words: DataView, offset: number): Tag | undefined {
    const pattern = this.#pattern;
    const owner = words.getInt32(offset, true) ^ pattern[0]! ^ offset;
    const table = words.getInt32(offset + 4, true) ^ pattern[1]! ^ offset;
    const size = words.getInt32(offset + 8, true) ^ pattern[2]! ^ offset;
    const sum = words.getInt32(offset + 12, true) ^ pattern[3]! ^ offset;
    // No owner and no table has the number 0, so an ordinary mark is none of these.
    return sum === (owner ^ table ^ size) && owner > 0 && table > 0 ? { owner, table, size } : undefined;
  }
}
