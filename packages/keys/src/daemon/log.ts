/** What may stand in a line of the log: never a payload; descriptions only if the operator asked for them. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** How important a line is. */
export type LogLevel = "error" | "warning" | "info" | "debug";

/** Least important level first. */
const LEVELS: readonly LogLevel[] = ["debug", "info", "warning", "error"];

/** Whether a word is the name of a level. */
export const isLogLevel = (word: string): word is LogLevel => LEVELS.some((level) => level === word);

/** Lines of JSON, one for each event. */
export class Log {
  readonly #least: number;
  readonly #write: (line: string) => void;
  /** Whether descriptions of keys may be logged. */
  readonly descriptions: boolean;

  constructor(options: {
    readonly level: LogLevel;
    readonly descriptions: boolean;
    readonly write: (line: string) => void;
  }) {
    this.#least = LEVELS.indexOf(options.level);
    this.#write = options.write;
    this.descriptions = options.descriptions;
  }

  /** Writes one event, if its level is wanted. */
  event(level: LogLevel, event: string, fields: LogFields = {}): void {
    if (LEVELS.indexOf(level) < this.#least) return;
    this.#write(`${JSON.stringify({ time: new Date().toISOString(), level, event, ...fields })}\n`);
  }
}
