import { randomBytes } from "node:crypto";
import { CANARY_BYTES } from "./slots.ts";

const WORDS = CANARY_BYTES / 4;

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
}
