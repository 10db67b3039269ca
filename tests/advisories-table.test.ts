/**
 * docs/advisories.md and the tests agree: a row that says "tested" has a test that names it, in the file that it says;
 * a test that names a row is one that the table calls tested.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";

const root = join(import.meta.dirname, "..", "..");

/** Rows of each section. */
const ROW_COUNTS = [38, 19, 45, 27, 31, 24, 16, 9, 1, 34, 7, 30];
/** Sections whose parts are all built. */
const BUILT_SECTIONS = [1, 2, 3, 4, 5, 10, 11, 12];
/** Tests of the rules of mapping, M1 to M13, which are not the rows M10 to M13. */
const RULES_OF_MAPPING = /grant-map[a-z-]*\.test\.ts$/;
const RULE_OF_MAPPING = /^M1[0-3]: /;

interface Row {
  readonly section: number;
  readonly id: string;
  readonly advisory: string;
  readonly status: string;
}

const readTable = (): Row[] => {
  const rows: Row[] = [];
  let section = 0;
  for (const line of readFileSync(join(root, "docs", "advisories.md"), "utf8").split("\n")) {
    section = Number(/^## (\d+)\./.exec(line)?.[1] ?? section);
    const cells = /^\| ([A-Z]\d\d) \| ([^|]+) \| [^|]+ \| ([^|]+) \|$/.exec(line);
    if (cells !== null) rows.push({ section, id: cells[1]!, advisory: cells[2]!, status: cells[3]! });
  }
  return rows;
};

const testFiles = (): string[] => {
  const directories = readdirSync(join(root, "packages")).map((name) => join("packages", name, "test"));
  return [...directories, "tests"]
    .filter((directory) => existsSync(join(root, directory)))
    .flatMap((directory) => readdirSync(join(root, directory)).map((name) => join(directory, name)))
    .filter((file) => file.endsWith(".test.ts"));
};

const TITLE = /\b(?:it|test|describe)\(\s*(["'`])((?:\\.|(?!\1).)*)\1/gs;

/** Row ids that stand in titles of tests, by file. */
const idsByFile = (known: ReadonlySet<string>): Map<string, Set<string>> => {
  const found = new Map<string, Set<string>>();
  for (const file of testFiles()) {
    const titles = [...readFileSync(join(root, file), "utf8").matchAll(TITLE)].map((match) => match[2]!);
    const ofRows = titles.filter((title) => !(RULES_OF_MAPPING.test(file) && RULE_OF_MAPPING.test(title)));
    const ids = ofRows.flatMap((title) => title.match(/\b[A-Z]\d\d\b/g) ?? []).filter((id) => known.has(id));
    found.set(file, new Set(ids));
  }
  return found;
};

const rows = readTable();
const ids = new Set(rows.map(({ id }) => id));
const tests = idsByFile(ids);

describe("the table of advisories", () => {
  it("has every row once, in its section", () => {
    assert.equal(ids.size, rows.length);
    const counts = ROW_COUNTS.map((_, index) => rows.filter(({ section }) => section === index + 1).length);
    assert.deepEqual(counts, ROW_COUNTS);
    for (const { id, advisory } of rows) assert.ok(advisory.length > 3, id);
  });

  it("says of every row whether it is tested, does not apply, or belongs to what is not built yet", () => {
    for (const { id, status } of rows) {
      assert.match(
        status,
        /^(?:tested: `[^`]+`(?:, `[^`]+`)*|not applicable: .{10,}|with .{4,} \(not built yet\))$/,
        id,
      );
    }
  });

  it("leaves no row open where everything is built", () => {
    const open = rows.filter(({ section, status }) => BUILT_SECTIONS.includes(section) && status.startsWith("with "));
    assert.deepEqual(
      open.map(({ id }) => id),
      [],
    );
  });

  it("names files whose tests carry the row", () => {
    for (const { id, status } of rows.filter((row) => row.status.startsWith("tested"))) {
      for (const [, file] of status.matchAll(/`([^`]+)`/g)) {
        assert.ok(tests.get(file!)?.has(id), `${id}: no test title in ${file} names it`);
      }
    }
  });

  it("calls every row tested that a test names", () => {
    for (const [file, named] of tests) {
      for (const id of named) {
        const status = rows.find((row) => row.id === id)?.status ?? "";
        assert.ok(status.startsWith("tested"), `${file} has a test of ${id}, which is "${status}"`);
      }
    }
  });
});
