/**
 * Scripts of keyctl commands with what they print. Serials are numbered in the order in which they are first seen: `<1>`. Lines
 * of standard error begin with "! ", and the last line is the exit code.
 */

/** Runs one command. */
export type RunCommand = (
  words: readonly string[],
  input: string,
) => Promise<{ readonly code: number; readonly out: string; readonly err: string }>;

/** A serial, with the blanks in front of it that fill a column; in hexadecimal as `show -x` has it. */
const SERIAL = /(?:^ +)?\b(0x[0-9a-f]{8}|\d{6,10})\b/gm;

class Serials {
  readonly #numbers = new Map<number, number>();

  /** Puts serials in the place of their names. */
  resolve(word: string): string {
    return word.replaceAll(/<(\d+)>/g, (_, number: string) => {
      const [serial] = [...this.#numbers].find(([, each]) => each === Number(number)) ?? [];
      if (serial === undefined) throw new Error(`<${number}> was not seen yet`);
      return String(serial);
    });
  }

  /** Puts names in the place of serials. */
  name(text: string): string {
    return text.replaceAll(SERIAL, (_, serial: string) => {
      const value = Number(serial);
      const number = this.#numbers.get(value) ?? this.#numbers.size + 1;
      this.#numbers.set(value, number);
      return `<${number}>${serial.startsWith("0x") ? "x" : ""}`;
    });
  }
}

/** The words of a command line: blanks separate them, '' keeps them together; \t and \n stand for themselves. */
const wordsOf = (line: string): string[] =>
  [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) =>
    (quoted ?? plain ?? "").replaceAll(String.raw`\t`, "\t").replaceAll(String.raw`\n`, "\n"),
  );

/** The whole usage is shown once. */
const abridged = (err: string, shown: Set<string>): string => {
  if (!err.startsWith("Format:\n")) return err;
  if (shown.has(err)) return "(the usage)\n";
  shown.add(err);
  return err;
};

const marked = (text: string): string => (text === "" ? "" : `! ${text.replace(/\n$/, "").replaceAll("\n", "\n! ")}\n`);

/** Runs the commands of a script; the result is the script with what they printed now. */
export const runScript = async (script: string, run: RunCommand): Promise<string> => {
  const serials = new Serials();
  const usages = new Set<string>();
  let text = "";
  for (const line of script.split("\n")) {
    if (!line.startsWith("$ ")) continue;
    const [command = "", input = ""] = line.slice(2).split(" << ");
    const words = wordsOf(command).map((word) => serials.resolve(word));
    const { code, out, err } = await run(words, wordsOf(input).join(" "));
    text += `${line}\n${serials.name(out)}${serials.name(marked(abridged(err, usages)))}[${code}]\n`;
  }
  return text;
};
