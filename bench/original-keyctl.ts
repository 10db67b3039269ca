/** keyctl(1) of keyutils, where the machine has it: what a one-shot command costs without Node. */
import { accessSync, closeSync, constants, openSync, readSync } from "node:fs";
import path from "node:path";

const ELF = "\u007fELF";

/** A program, and not a script: xkeyctl answers to the name keyctl, too. */
const isProgram = (file: string): boolean => {
  let descriptor: number | undefined;
  try {
    accessSync(file, constants.X_OK);
    descriptor = openSync(file, "r");
    const start = Buffer.alloc(ELF.length);
    readSync(descriptor, start);
    return start.toString("latin1") === ELF;
  } catch {
    return false;
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
};

/** The file that KEYCTL names, or the first keyctl of PATH; without one says so. */
export const originalKeyctl = (): string | undefined => {
  const { KEYCTL, PATH = "" } = process.env;
  const files = KEYCTL === undefined ? PATH.split(":").map((directory) => path.join(directory, "keyctl")) : [KEYCTL];
  const found = files.find(isProgram);
  if (found === undefined) {
    const where = KEYCTL === undefined ? "on PATH; KEYCTL=/path/of/keyctl names one" : `at ${KEYCTL}`;
    process.stderr.write(`xkeyctl IS NOT COMPARED WITH keyctl, only with the start of Node: there is none ${where}\n`);
  }
  return found;
};
