/**
 * `xl mem-set` and `xl mem-max`.
 */
import type { ClientFlags } from "../client/choose-place.ts";
import { connect } from "../client/connection.ts";
import { parseSize } from "../quantity.ts";
import { toEach } from "./report.ts";

const AUTOMATIC = "auto";

/** `xl mem-set`: the target that a guest's balloon driver moves to. Fails by itself with INVALID_SIZE. */
export const memSetCommand = (word: string, size: string, flags: ClientFlags): Promise<number> =>
  setMemory(word, "target", size === AUTOMATIC ? null : parseSize(size), flags);

/** `xl mem-max`: what the hypervisor lets it own. Fails by itself with INVALID_SIZE. */
export const memMaxCommand = (word: string, size: string, flags: ClientFlags): Promise<number> =>
  setMemory(word, "max", parseSize(size), flags);

const setMemory = (word: string, what: "target" | "max", bytes: number | null, flags: ClientFlags): Promise<number> => {
  const connection = connect(flags);
  return toEach([word], () => connection.setMemory(word, what, bytes), flags.json);
};
