/**
 * `xl top`: what domains use, again and again.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { XenolithError } from "@xenolith/abi/error";
import type { ClientFlags } from "../client/choose-place.ts";
import { connect } from "../client/connection.ts";
import { formatTop, type TopLook } from "../client/format.ts";
import { formatSize, parseDuration } from "../quantity.ts";
import { paint, printable } from "../terminal.ts";
import { asking, print } from "./report.ts";

/** Options of `xl top`. */
export interface TopFlags extends ClientFlags {
  readonly batch?: boolean;
  readonly delay?: string;
  readonly iterations?: string;
}

const DELAY_MS_DEFAULT = 3000;
const HOME_AND_CLEAR = "\u001b[H\u001b[J";

/** `xl top`, until Ctrl-C or for so many looks. Fails by itself with INVALID_ARGUMENT. */
export const topCommand = async (flags: TopFlags): Promise<number> => {
  const delayMs = flags.delay === undefined ? DELAY_MS_DEFAULT : parseDuration(flags.delay);
  const isLive = process.stdout.isTTY && flags.batch !== true && flags.json !== true;
  const countMax = flags.iterations === undefined ? Infinity : parseCount(flags.iterations);
  return asking(async () => {
    const connection = connect(flags);
    let before: TopLook["domains"] | undefined;
    let lookedAt = performance.now();
    for (let count = 1; ; count += 1) {
      const [host, domains] = await Promise.all([connection.host(), connection.domains()]);
      const now = performance.now();
      const look = { domains, memoryBytes: host.memoryBytes, seconds: (now - lookedAt) / 1000 };
      const text = formatTop(before === undefined ? look : { ...look, before });
      const used = formatSize(host.memoryBytes - host.memoryFreeBytes);
      const head = `${domains.length} domains, memory ${used} used of ${formatSize(host.memoryBytes)}`;
      if (flags.json === true) print(JSON.stringify({ host, domains }));
      else print(`${isLive ? HOME_AND_CLEAR : ""}${paint("bold", head)}\n${printable(text)}`);
      if (count >= countMax) return 0;
      [before, lookedAt] = [domains, now];
      await sleep(delayMs);
    }
  });
};

const parseCount = (text: string): number => {
  const count = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (count >= 1) return count;
  throw new XenolithError("INVALID_ARGUMENT", `iterations is "${text}", it must be a whole number from 1`);
};
