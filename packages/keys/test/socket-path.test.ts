/** Where a daemon listens and its clients look, when nobody says so. */
import assert from "node:assert/strict";
import { chmodSync, chownSync, existsSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { defaultKeySocket, prepareDirectory, socketOf, SYSTEM_SOCKET } from "../src/client/socket-path.ts";

const RUNNER = process.getuid!();
/** Somebody other than user 0, whoever runs the tests. */
const UID = RUNNER === 0 ? 4711 : RUNNER;

describe("the socket of a user's daemon", { skip: existsSync(SYSTEM_SOCKET) && "this machine has a daemon" }, () => {
  const { TMPDIR } = process.env;
  let base: string;
  let directory: string;
  let own: string;
  beforeEach(() => {
    base = mkdtempSync(path.join(tmpdir(), "socket-path-"));
    process.env["TMPDIR"] = base;
    directory = path.join(base, `xenolith-${UID}`);
    own = path.join(directory, "keys.sock");
  });
  afterEach(() => {
    if (TMPDIR === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = TMPDIR;
    rmSync(base, { recursive: true });
  });

  it("is where the variable says, then in the runtime directory, then among the temporary files", () => {
    assert.equal(defaultKeySocket({ XKEYD_SOCKET: "/a/b", XDG_RUNTIME_DIR: "/run/user/5" }, UID), "/a/b");
    assert.equal(defaultKeySocket({ XDG_RUNTIME_DIR: "/run/user/5" }, UID), "/run/user/5/xenolith/keys.sock");
    for (const environment of [{}, { XDG_RUNTIME_DIR: "" }]) assert.equal(socketOf(UID, environment), own);
  });

  it("is the machine's for user 0, who serves everybody", () => {
    assert.equal(socketOf(0, { XDG_RUNTIME_DIR: "/run/user/0" }), SYSTEM_SOCKET);
    assert.equal(defaultKeySocket({ XDG_RUNTIME_DIR: "/run/user/0" }, 0), SYSTEM_SOCKET);
  });

  it("among the temporary files is believed in only where nobody else can have put it", () => {
    assert.equal(defaultKeySocket({}, UID), SYSTEM_SOCKET, "a directory that anybody could still make");
    mkdirSync(directory, { mode: 0o700 });
    chownSync(directory, UID, process.getgid!());
    assert.equal(defaultKeySocket({}, UID), own);
    chmodSync(directory, 0o777);
    assert.throws(() => defaultKeySocket({}, UID), { code: "CONFIG_INVALID" });
    rmSync(directory, { recursive: true });
    const elsewhere = path.join(base, "elsewhere");
    mkdirSync(elsewhere, { mode: 0o700 });
    symlinkSync(elsewhere, directory);
    assert.throws(() => defaultKeySocket({}, UID), { code: "CONFIG_INVALID" });
  });

  it("gets a directory that only its user may enter; another one is left as it is", () => {
    const mine = path.join(base, `xenolith-${RUNNER}`);
    prepareDirectory(path.join(mine, "keys.sock"), RUNNER);
    assert.equal(lstatSync(mine).mode & 0o777, 0o700);
    prepareDirectory(path.join(mine, "keys.sock"), RUNNER);
    chmodSync(mine, 0o770);
    assert.throws(() => prepareDirectory(path.join(mine, "keys.sock"), RUNNER), { code: "CONFIG_INVALID" });
    prepareDirectory(path.join(base, "other", "keys.sock"), RUNNER);
    assert.ok(!existsSync(path.join(base, "other")));
  });
});
