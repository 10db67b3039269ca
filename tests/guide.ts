/**
 * Runs a page of the documentation as its reader would: writes the files that it shows, runs the commands that it gives, in order, and
 * compares what they print with what the page says.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");

/** A block of a page: the lines of code, in what language, and the file that the paragraph before it names. */
interface Block {
  readonly language: string;
  readonly text: string;
  readonly file: string | undefined;
}

/** The blocks of a page. The last name of a file in the paragraph before a block is the block's file. */
export const readBlocks = (page: string): Block[] => {
  const blocks: Block[] = [];
  for (const [, before = "", language = "", text = ""] of page.matchAll(/([^\n]*)\n\n```(\w*)\n([^]*?)```/g)) {
    const file = [...before.matchAll(/`([\w-]+\.(?:c|ts))`/g)].at(-1)?.[1];
    blocks.push({ language, text, file });
  }
  return blocks;
};

/** Compiles TypeScript with the compiler's own checks, for every version of Node. */
const compile = async (directory: string, file: string): Promise<void> => {
  const compiler = path.join(root, "node_modules/typescript/bin/tsc");
  const options = ["--ignoreConfig", "--strict", "--target", "es2023", "--module", "nodenext", "--types", "node"];
  try {
    await run(process.execPath, [compiler, ...options, file], { cwd: directory });
  } catch (cause) {
    throw new Error(`${file} does not compile: ${String((cause as { stdout?: string }).stdout)}`, { cause });
  }
};

/** Runs one line of a shell block; returns what it prints. */
const runLine = async (directory: string, line: string): Promise<string> => {
  const [, input, rest = line] = /^echo (\S+) \| (.*)$/.exec(line) ?? [];
  const [program, script = "", ...words] = rest.split(" ");
  if (program === "npx" && script === "tsc") {
    for (const word of words) if (word.endsWith(".ts")) await compile(directory, word);
    return "";
  }
  assert.equal(program, "node", `the test cannot run: ${line}`);
  if (script === "guest/xencc.mjs") {
    return (await run(process.execPath, [path.join(root, script), ...words], { cwd: directory })).stdout;
  }
  assert.match(script, /^[\w-]+\.ts$/, `the test cannot run: ${line}`);
  await compile(directory, script);
  const running = run(process.execPath, [script.replace(/ts$/, "js"), ...words], { cwd: directory });
  if (input !== undefined) running.child.stdin?.end(`${input}\n`);
  return (await running).stdout;
};

/** Follows the page at `name` of the repository; returns the names of the files that were written. */
export const followGuide = async (name: string): Promise<string[]> => {
  // Below the repository, where the programs find its packages.
  const directory = mkdtempSync(path.join(import.meta.dirname, "guide-"));
  const files = new Set<string>();
  let printed = "";
  try {
    for (const { language, text, file } of readBlocks(readFileSync(path.join(root, name), "utf8"))) {
      if (language === "sh") {
        printed = "";
        for (const line of text.trim().split("\n")) printed += await runLine(directory, line);
      } else if (language === "") {
        assert.equal(printed, text);
      } else {
        assert.ok(file !== undefined, `no file is named for: ${text}`);
        files.add(file);
        appendFileSync(path.join(directory, file), text);
      }
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  return [...files];
};
