/** `xkey-helper`: helpers that build keys, for rules of request-key.conf(5). */
import { writeSync } from "node:fs";
import { type Built, buildKey, failed, readRequesterKey, type Work } from "./helper.ts";
import { readSecretFile, readVariable, runForSecret } from "./local-helpers.ts";

const STDERR = 2;

const help = `Usage: xkey-helper KIND KEY DESCRIPTION [options], as in a rule
  create user db:* * /usr/bin/xkey-helper http %k %d --url https://vault/v1/{name} --token user:vault-token

  http         --url URL with {name}, --token TYPE:DESCRIPTION, [--header NAME], [--field PATH]
  file         --directory DIR or --directory-key TYPE:DESCRIPTION
  environment  --file FILE or --file-key TYPE:DESCRIPTION
  command      [--input-key TYPE:DESCRIPTION] -- PROGRAM ARGUMENT…, where {name} stands for the name

{name} is what stands behind the first colon of the description. Keys named by TYPE:DESCRIPTION are looked up in the
keyrings of whoever asked, with exactly their rights.
`;

const kinds: Readonly<Record<string, (work: Work) => Promise<Built>>> = {
  http: async (work) => (await import("./http-helper.ts")).fetchSecret(work),
  file: readSecretFile,
  environment: readVariable,
  command: runForSecret,
};

interface Words {
  readonly options: Readonly<Record<string, string>>;
  readonly rest: readonly string[];
}

const parse = (words: readonly string[]): Words => {
  const options: Record<string, string> = {};
  let at = 0;
  for (; at < words.length && words[at] !== "--"; at += 2) {
    const [name = "", value] = words.slice(at, at + 2);
    if (!name.startsWith("--") || value === undefined) throw failed(`${name}: not an option with a value`);
    options[name.slice(2)] = value;
  }
  return { options, rest: words.slice(at + 1) };
};

/** Runs a command line; returns the exit code. Never throws: the key is refused, and the reason goes to standard error. */
export const main = async (words: readonly string[]): Promise<number> => {
  const [kind = "", key = "", description = "", ...rest] = words;
  const make = Object.hasOwn(kinds, kind) ? kinds[kind] : undefined;
  if (make === undefined || !/^\d+$/.test(key)) {
    writeSync(STDERR, help);
    return 2;
  }
  try {
    return await buildKey(Number(key), async (keys) => {
      const name = description.slice(description.indexOf(":") + 1);
      return await make({ name, ...parse(rest), requesterKey: (spec) => readRequesterKey(keys, spec) });
    });
  } catch (error) {
    writeSync(STDERR, `xkey-helper: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
};
