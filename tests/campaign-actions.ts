/**
 * What the parts of a random campaign do and how it ends: a refusal is counted, anything else that is thrown is a finding.
 */

/** Where a part of a campaign reports, and which of its failures are refusals, under what name. */
export interface ActionReport {
  readonly findings: string[];
  /** What was done and refused, by name. */
  readonly counts: Record<string, number>;
  /** What a refusal is counted as, behind the action's name; undefined: it is none. */
  readonly refusal: (error: unknown) => string | undefined;
}

/** Actions of one part of a campaign, some of which are not over. */
export class CampaignActions {
  readonly #report: ActionReport;
  readonly #pending = new Set<Promise<void>>();

  constructor(report: ActionReport) {
    this.#report = report;
  }

  /** Does it, and looks at how it ends, now or later. */
  do(name: string, action: () => unknown): void {
    const note = (error: unknown): void => {
      const refusal = this.#report.refusal(error);
      if (refusal === undefined) this.find(name, error);
      else this.count(`${name} ${refusal}`);
    };
    this.count(name);
    try {
      const result = action();
      if (!(result instanceof Promise)) return;
      const settled = result.catch(note).then(() => void this.#pending.delete(settled));
      this.#pending.add(settled);
    } catch (error) {
      note(error);
    }
  }

  /** Something that must not happen. */
  find(name: string, error: unknown): void {
    this.#report.findings.push(`${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }

  /** Something that may. */
  count(name: string): void {
    const { counts } = this.#report;
    counts[name] = (counts[name] ?? 0) + 1;
  }

  /** Settles when all that was begun is over. */
  async settled(): Promise<void> {
    await Promise.all(this.#pending);
  }
}
