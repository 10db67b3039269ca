/**
 * The service's log: lines of JSON for whoever collects logs, and the latest ones in memory for `xl dmesg`.
 */
import { pino, type DestinationStream, type Logger } from "pino";
import type { DmesgLine } from "./api-types.ts";

/** Lines kept for `xl dmesg`. */
export const LINES_KEPT_MAX = 1000;
const TEXT_LENGTH_MAX = 2000;

/** How much is logged. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

/** One service's log. */
export class ServiceLog {
  readonly #logger: Logger;
  readonly #lines: DmesgLine[] = [];

  constructor(level: LogLevel, destination?: DestinationStream) {
    this.#logger = pino(
      { level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime },
      destination ?? pino.destination({ dest: 1, sync: true }),
    );
  }

  /** Logs a message with what it is about. */
  write(level: DmesgLine["level"], text: string, facts: Readonly<Record<string, unknown>> = {}): void {
    const short = text.slice(0, TEXT_LENGTH_MAX);
    this.#logger[level](facts, short);
    this.#lines.push({ timeMs: Date.now(), level, text: short });
    if (this.#lines.length > LINES_KEPT_MAX) this.#lines.shift();
  }

  /** Logs a failure of our own. */
  fault(text: string, error: unknown): void {
    this.write("error", `${text}: ${error instanceof Error ? error.message : String(error)}`, { err: error });
  }

  /** A line for each request; not kept for dmesg. */
  request(facts: Readonly<Record<string, unknown>>): void {
    this.#logger.debug(facts, "request");
  }

  /** The latest lines, oldest first. */
  lines(): readonly DmesgLine[] {
    return [...this.#lines];
  }
}
