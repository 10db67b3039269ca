import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { configFiles, loadConfig, parseConfig, problemsOf } from "../src/request-key/config.ts";
import { type Facts, selectRule, swallowed } from "../src/request-key/select.ts";

const ruleAt = (text: string, facts: Facts): number | undefined => selectRule(parseConfig(text, "f"), facts)?.line;

describe("a pattern", () => {
  const specification = `
    pattern   text        documented  keyutils-1.6.3
    abc       abc         0           0
    abc       abd         -           -
    *         ""          0           0
    *         abc         3           3
    ab*       abc         1           1
    *bc       abc         1           -
    a*c       abbbc       3           -
    a*c       ac          0           -
    a*c       abbba       -           3
    ab*bc     abc         -           -
    a*b*      a-b*        1           -
    a*b*      a-b-        -           -
    ""        ""          0           0
  `;
  for (const row of specification.trim().split("\n").slice(1)) {
    const [pattern = "", text = "", documented, old] = row
      .trim()
      .split(/ +/)
      .map((word) => (word === '""' ? "" : word));
    it(`'${pattern}' against '${text}' swallows ${documented}, in keyutils 1.6.3 ${old}`, () => {
      assert.equal(String(swallowed(pattern, text) ?? "-"), documented);
      assert.equal(String(swallowed(pattern, text, "keyutils-1.6.3") ?? "-"), old);
    });
  }
});

describe("of several rules", () => {
  it("the one whose stars swallow least is chosen, the operation counting most", () => {
    const text = "create user * * /b/1\ncreate user a* * /b/2\ncreate user abc * /b/3\n* user abc x /b/4\n";
    assert.equal(ruleAt(text, ["create", "user", "abc", "x"]), 3);
    assert.equal(ruleAt(text, ["create", "user", "abd", "x"]), 2);
    assert.equal(ruleAt(text, ["create", "user", "b", ""]), 1);
    assert.equal(ruleAt(text, ["negate", "user", "abc", "x"]), 4);
    assert.equal(ruleAt(text, ["negate", "user", "abc", "y"]), undefined);
  });

  it("the first of equals is chosen", () => {
    assert.equal(ruleAt("create user a* * /b/1\ncreate user *a * /b/2\n", ["create", "user", "aa", ""]), 1);
  });

  it("an empty callout is matched by a star, not by a text", () => {
    assert.equal(ruleAt("create user a x /b/1\ncreate user a * /b/2\n", ["create", "user", "a", ""]), 2);
  });

  it("a malformed one whose fields match is met before a broader one", () => {
    assert.equal(ruleAt("create user * * /b/1\ncreate user db:*\n", ["create", "user", "db:x", ""]), 2);
    assert.equal(ruleAt("create user * * /b/1\ncreate user db:*\n", ["create", "user", "other", ""]), 1);
  });
});

describe("malformed lines", () => {
  const longLine = `create user a * /bin/x ${"y".repeat(4100)}`;
  const manyWords = `create user a * /bin/x ${"y ".repeat(255)}`;
  const specification: readonly (readonly [line: string, problem: string])[] = [
    ["create", "Syntax error: a type is missing"],
    ["create user", "Syntax error: a description is missing"],
    ["create user a", "Syntax error: a callout is missing"],
    ["create user a *", "Syntax error: a program is missing"],
    ["create user a * keyctl", "Syntax error: program 'keyctl' has no '/'"],
    ["create user a * |cat", "Syntax error: program 'cat' has no '/'"],
    ["create user a * /bin/x %", "Missing macro name: '%'"],
    ["create user a * /bin/x %z", "Unsupported macro: '%z'"],
    ["create user a * /bin/x %{user}", "Keysub macro lacks ':': '%{user}'"],
    ["create user a * /bin/x %{user:a", "Unterminated keysub macro: '%{user:a'"],
    ["create user a * /bin/x %{user:a}b", "Keysub macro has trailing rubbish: '%{user:a}b'"],
    ["create user a * /bin/x %{:a}", "Keysub type empty: '%{:a}'"],
    ["create user a * /bin/x %{user:}", "Keysub description empty: '%{user:}'"],
    ["create user a * /bin/x\0", "Syntax error: a NUL"],
    [longLine, "Line too long: 4123 bytes, over 4095"],
    [manyWords, "Too many arguments: 255, over 254"],
  ];
  for (const [line, problem] of specification) {
    it(`${problem.slice(0, 60)}: with file, line and reason`, () => {
      const rules = parseConfig(`# first\n${line}\ncreate user b * /bin/y %k %%x %kk x%k\n`, "some.conf");
      assert.deepEqual(problemsOf(rules), [`some.conf:2: ${problem}`]);
      assert.equal(rules.at(-1)?.problem, undefined);
    });
  }

  it("are not: comments, blank lines and lines that begin with a blank", () => {
    assert.deepEqual(parseConfig("# create\n\n create\n\tcreate\n", "f"), []);
  });
});

describe("the files of rules", () => {
  it("are read in the order of their names, then the one beside the directory; others are passed over", () => {
    const root = mkdtempSync(path.join(tmpdir(), "rules-"));
    const directory = path.join(root, "d");
    const file = path.join(root, "c.conf");
    mkdirSync(path.join(directory, "sub.conf"), { recursive: true });
    for (const name of ["20.conf", "10.conf", "B.conf", "a.conf", ".hidden.conf", "30.txt"]) {
      writeFileSync(path.join(directory, name), `create user ${name} * /bin/x\n`);
    }
    writeFileSync(file, "create user last * /bin/x");
    const names = configFiles({ file, directory }).map((each) => path.basename(each));
    const patterns = loadConfig({ file, directory }).map(({ patterns: [, , description] }) => description);
    rmSync(root, { recursive: true });
    assert.deepEqual(names, ["10.conf", "20.conf", "B.conf", "a.conf", "c.conf"]);
    assert.deepEqual(patterns, ["10.conf", "20.conf", "B.conf", "a.conf", "last"]);
  });

  it("may be missing", () => {
    assert.deepEqual(loadConfig({ file: "/nonexistent/f", directory: "/nonexistent/d" }), []);
  });
});

describe("what request-key of keyutils 1.6.3 got wrong", () => {
  it("a star in the middle of a pattern matches", () => {
    assert.equal(ruleAt("create user db:*:rw * /b/1\n", ["create", "user", "db:orders:rw", ""]), 1);
  });

  it("the last line counts whole without a newline behind it", () => {
    const [rule] = parseConfig("create user a * /bin/x last", "f");
    assert.deepEqual(rule?.command?.arguments, [{ kind: "text", text: "last" }]);
  });
});
