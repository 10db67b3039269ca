/** docs/xl.md knows the commands that there are, and no others. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, describe, it } from "node:test";
import * as terminal from "../src/terminal.ts";
import { Workbench } from "./xl-harness.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());
const page = readFileSync(path.join(import.meta.dirname, "../../../../docs/xl.md"), "utf8");

/** Rows of the table below a heading, each as its first cell; rows about options are others. */
const firstCells = (heading: string): string[] => {
  const section = page.split(`## ${heading}\n`)[1]!.split("\n## ")[0]!;
  return [...section.matchAll(/^\| `?(\w[\w-]*)`? \|/gm)]
    .map(([, cell]) => cell!)
    .filter((cell) => !/^(command|code|option)$/.test(cell));
};

const commandsIn = (help: string): string[] =>
  [...help.matchAll(/^ {2}([a-z][\w-]*) /gm)].map(([, name]) => name!).filter((name) => name !== "help");

describe("the page about xl", () => {
  it("has a row for each command of xl --help, and for no other", async () => {
    const { stdout } = await bench.xl(["--help"]);
    assert.ok(commandsIn(stdout).length > 20);
    assert.deepEqual(firstCells("Commands").toSorted(), commandsIn(stdout).toSorted());
  });
  it("has a row for each exit code", () => {
    const codes = Object.entries(terminal).flatMap(([name, code]) =>
      name.startsWith("EXIT_") && name !== "EXIT_SIGNAL_BASE" ? [String(code)] : [],
    );
    assert.ok(codes.length >= 5);
    const rows = firstCells("Exit codes");
    for (const code of codes) assert.ok(rows.includes(code), code);
  });
  it("and the help of each command has its exit codes or examples", async () => {
    for (const command of commandsIn((await bench.xl(["--help"])).stdout)) {
      const { code, stdout } = await bench.xl([command, "--help"]);
      assert.equal(code, 0, command);
      assert.match(stdout, /Examples:|Commands:|--json/, command);
    }
  });
});
