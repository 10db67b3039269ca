import { errorText } from "../error-text.ts";

/** Exit code of a refused operation, or data that cannot be used. */
export const EXIT_REFUSED = 1;
/** Exit code of a command line that cannot be understood. */
export const EXIT_USAGE = 2;

/** Why a command ends early. Its texts are byte strings, as all texts of this program. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly exitCode: number;
  /** The operation that was refused, and its error number; none for mistakes on the command line. */
  readonly call: string | undefined;
  readonly errno: number | undefined;

  constructor(exitCode: number, text: string, refused?: { readonly call: string; readonly errno: number }) {
    super(text);
    this.exitCode = exitCode;
    this.call = refused?.call;
    this.errno = refused?.errno;
  }
}

/** A refusal by the daemon, as perror(3) prints it. */
export const refusedBy = (call: string, result: number): Refusal =>
  new Refusal(EXIT_REFUSED, `${call}: ${errorText(result)}`, { call, errno: Math.abs(result) });

/** A mistake on the command line. */
export const mistake = (text: string): Refusal => new Refusal(EXIT_USAGE, text);

/** The command line has the wrong number of arguments: the whole usage is printed. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}
