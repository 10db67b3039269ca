/**
 * What somebody meant who wrote a key that does not exist.
 */
import { CONFIG_KEYS } from "./keys.ts";

/** Keys that other tools have for the same thing. */
const SYNONYMS: Readonly<Record<string, string>> = {
  arguments: "args",
  argv: "args",
  command_line: "cmdline",
  cpu_weight: "weight",
  cpus: "vcpus",
  dir: "directories",
  env: "environment",
  image: "kernel",
  max_memory: "maxmem",
  maxvcpus: "vcpus",
  mem: "memory",
  min_memory: "memory_min",
  mounts: "directories",
  secrets: "keys",
  volumes: "directories",
};

/** Keys of xl.cfg that have no counterpart, and why. */
const FOREIGN: Readonly<Record<string, string>> = {
  bootloader: "there is nothing to load but kernel",
  builder: "the kind of a guest follows from what its module exports",
  disk: "a guest has files: use directories",
  on_soft_reset: "there is no soft reset yet",
  pci: "there are no PCI devices",
  ramdisk: "a guest has files: use directories",
  type: "the kind of a guest follows from what its module exports",
  uuid: "a domain is known by its name and domid",
  vfb: "there is no screen",
  vif: "there is no network interface",
};

/** What to say behind the name of an unknown key. */
export const adviceFor = (key: string): string => {
  const lower = key.toLowerCase().replaceAll("-", "_");
  if (Object.hasOwn(FOREIGN, lower)) return `xl.cfg's ${lower} is not used here: ${FOREIGN[lower]}`;
  const meant = Object.hasOwn(SYNONYMS, lower) ? SYNONYMS[lower] : nearest(lower, Object.keys(CONFIG_KEYS));
  return meant === undefined ? `known keys are ${Object.keys(CONFIG_KEYS).join(", ")}` : `did you mean ${meant}?`;
};

/** The word that is fewest typing mistakes away, if that is at most a third of its letters (at least one). */
export const nearest = (word: string, choices: readonly string[]): string | undefined => {
  const ranked = choices
    .map((choice) => ({ choice, distance: typingDistance(word, choice) }))
    .filter(({ choice, distance }) => distance <= Math.max(1, Math.floor(choice.length / 3)));
  return ranked.toSorted((a, b) => a.distance - b.distance)[0]?.choice;
};

const WORD_LENGTH_MAX = 64;

/** Letters left out, added, wrong or swapped with the next one, between two words. */
const typingDistance = (a: string, b: string): number => {
  if (a.length > WORD_LENGTH_MAX) return Infinity;
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const next = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const wrong = last[column - 1]! + (a[row - 1] === b[column - 1] ? 0 : 1);
      let least = Math.min(wrong, last[column]! + 1, next[column - 1]! + 1);
      const isSwapped = column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (isSwapped && row > 1) least = Math.min(least, before[column - 2]! + 1);
      next.push(least);
    }
    before = last;
    last = next;
  }
  return last[b.length]!;
};
