/** A request within a request, with real programs: what happens, event by event, as a Linux kernel was seen to do it. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";
import { findingsOf, startTestDaemon, type TestDaemon, xkeyctl } from "./daemon-kit.ts";

const hex = (serial: string): string => Number(serial).toString(16);
const lines = (text: string): string[] => text.trimEnd().split("\n");

/** What the programs wrote down: name=value. */
const notesOf = ({ directory }: TestDaemon): ReadonlyMap<string, string> =>
  new Map(
    lines(readFileSync(path.join(directory, "notes"), "latin1")).map((line): [string, string] => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );

/** Prepares rules for xo:nest:…, whose helper asks for xo:dump:inner, and the requester's script. */
const prepare = (test: TestDaemon, destination: string): string => {
  const note = `note() { echo "$1=$2" >> ${test.directory}/notes; }`;
  const outer = test.script(
    "outer",
    `#!/bin/sh
${note}
note outer.argv "$*"
note outer.target "$(keyctl rdescribe $1)"
note outer.callout "$(keyctl print @a)"
note outer.authority "$(keyctl rdescribe @a)"
note outer.session "$(keyctl rdescribe @s)"
note outer.session.id "$(keyctl id @s)"
note outer.keys "$(keyctl --keys | grep key:$(printf %x $1) | tr -s ' ' | cut -d ' ' -f 8-)"
W=$(keyctl request2 user xo:dump:inner inner-ci ${destination})
note inner.serial "$W"
note inner.read "$(keyctl print $W)"
note outer.instantiate "$(keyctl instantiate $1 outer 0 2>&1; echo $?)"
note outer.again "$(keyctl instantiate $1 twice 0 2>&1; echo $?)"
`,
  );
  const inner = test.script(
    "inner",
    `#!/bin/sh
${note}
note inner.argv "$*"
note inner.callout "$(keyctl print @a)"
note inner.session "$(keyctl rdescribe @s)"
note inner.keys "$(keyctl --keys | grep key:$(printf %x $1) | tr -s ' ' | cut -d ' ' -f 8-)"
note inner.callerkey "$(keyctl print $(keyctl request user callerkey))"
note inner.instantiate "$(keyctl instantiate $1 inner 0 2>&1; echo $?)"
`,
  );
  test.rules(
    `create user xo:nest:* * ${outer} %k %o %u %g %T %P %S %c\ncreate user xo:dump:* * ${inner} %k %o %u %g %T %P %S %c\n`,
  );
  return test.script(
    "requester",
    `#!/bin/sh
${note}
note ring "$(keyctl id @s)"
note callerkey "$(keyctl add user callerkey secret @s)"
U=$(sh -c 'echo $$ > ${test.directory}/pid; exec keyctl request2 user xo:nest:a ci')
note serial "$U"
note content "$(keyctl print $U)"
note list "$(keyctl rlist @s)"
note inner.afterwards "$(keyctl describe $(sed -n 's/^inner.serial=//p' ${test.directory}/notes) 2>&1)"
`,
  );
};

const run = async (
  destination: string,
): Promise<{ notes: ReadonlyMap<string, string>; pid: string; findings: readonly string[] }> => {
  await using test = await startTestDaemon();
  const requester = prepare(test, destination);
  const ended = await test.run(process.execPath, [xkeyctl, "session", "-", requester]);
  const notes = notesOf(test);
  const pid = readFileSync(path.join(test.directory, "pid"), "latin1").trim();
  const findings = await findingsOf(test);
  await test.daemon.close();
  assert.equal(ended.code, 0, ended.err);
  return { notes, pid, findings };
};

describe("a helper that asks for another key", { skip: process.getuid!() !== 0 && "helpers are user 0" }, () => {
  it("acts for the first requester, and what it asked for goes with it", async () => {
    const { notes, pid, findings } = await run("");
    const [ring, callerKey, outer, inner] = ["ring", "callerkey", "serial", "inner.serial"].map((name) =>
      notes.get(name)!,
    );
    const outerSession = notes.get("outer.session.id");
    // The requester asks: a key is made, an authority over it, and a helper started that is told of the requester.
    assert.equal(notes.get("outer.argv"), `${outer} create 0 0 0 0 ${ring} ci`);
    assert.equal(notes.get("outer.target"), "user;0;0;3f010000;xo:nest:a");
    assert.equal(notes.get("outer.callout"), "ci");
    assert.equal(notes.get("outer.authority"), `.request_key_auth;0;0;1b010000;${hex(outer!)}`);
    assert.equal(notes.get("outer.session"), `keyring;0;0;3f030000;_req.${outer}`);
    assert.equal(notes.get("outer.keys"), `.request_ key:${hex(outer!)} pid:${pid} ci:2`);
    // The helper asks in turn: the second one is told of the first one's keyring, and of the first requester.
    assert.equal(notes.get("inner.argv"), `${inner} create 0 0 0 0 ${outerSession} inner-ci`);
    assert.equal(notes.get("inner.callout"), "inner-ci");
    assert.equal(notes.get("inner.session"), `keyring;0;0;3f030000;_req.${inner}`);
    assert.equal(notes.get("inner.keys"), `.request_ key:${hex(inner!)} pid:${pid} ci:8`);
    // It finds what the first requester has, and builds its key.
    assert.equal(notes.get("inner.callerkey"), "secret");
    assert.equal(notes.get("inner.instantiate"), "0");
    assert.equal(notes.get("inner.read"), "inner");
    // The first helper builds its own, once.
    assert.equal(notes.get("outer.instantiate"), "0");
    assert.equal(notes.get("outer.again"), "keyctl_instantiate: Device or resource busy");
    // The requester has one key more; that of the helper is gone with the helper's keyring.
    assert.equal(notes.get("content"), "outer");
    assert.deepEqual(notes.get("list")?.split(" ").toSorted(), [callerKey!, outer!].toSorted());
    assert.equal(notes.get("inner.afterwards"), "keyctl_describe_alloc: Required key not available");
    assert.deepEqual(findings, []);
  });

  it("has its key linked in the requester's keyring if it says so, where it survives", async () => {
    const { notes, findings } = await run("-8");
    const kept = ["callerkey", "serial", "inner.serial"].map((name) => notes.get(name)!);
    assert.deepEqual(notes.get("list")?.split(" ").toSorted(), kept.toSorted());
    assert.match(notes.get("inner.afterwards")!, /user: xo:dump:inner$/);
    assert.deepEqual(findings, []);
  });
});
