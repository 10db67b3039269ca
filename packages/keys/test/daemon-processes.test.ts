/** Keyrings of threads, processes and sessions, with real shells and programs of other users. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Ended, findingsOf, startTestDaemon, type TestDaemon, xkeyctl } from "./daemon-kit.ts";

const NOBODY = 65_534;
const SOMEBODY = 12_345;

const lines = ({ out, err, code }: Ended): string[] => {
  assert.equal(code, 0, err);
  return out.trimEnd().split("\n");
};

const shell = (test: TestDaemon, script: string, uid?: number): Promise<Ended> =>
  test.run("/bin/sh", ["-c", script], uid === undefined ? {} : { uid });

const inSession = (test: TestDaemon, script: string): Promise<Ended> =>
  test.run(process.execPath, [xkeyctl, "session", "-", "/bin/sh", "-c", script]);

describe("a shell", () => {
  it("in a session of its own: its commands and their children share the keyring, and it goes with them", async () => {
    await using test = await startTestDaemon();
    const ended = await inSession(
      test,
      "keyctl add user a b @s >/dev/null; keyctl print %user:a; (sh -c 'keyctl print %user:a'); keyctl id @s",
    );
    const [own, child, ring] = lines(ended);
    const outside = await shell(test, `keyctl print ${ring}; keyctl request user a`);
    const findings = await findingsOf(test);
    await test.daemon.close();
    assert.match(ended.err, new RegExp(`^Joined session keyring: ${ring}$`, "m"));
    assert.deepEqual([own, child], ["b", "b"]);
    assert.match(outside.err, /Required key not available\nrequest_key: Required key not available/);
    assert.deepEqual(findings, []);
  });

  it("that runs new_session has another session keyring from then on", async () => {
    await using test = await startTestDaemon();
    const [before, made, after, named] = lines(
      await inSession(
        test,
        "keyctl id @s; keyctl new_session; keyctl id @s; keyctl new_session mine >/dev/null; keyctl rdescribe @s",
      ),
    );
    await test.daemon.close();
    assert.notEqual(made, before);
    assert.equal(made, after);
    assert.match(named!, /;mine$/);
  });

  it("without a session that runs new_session is given one", async () => {
    await using test = await startTestDaemon();
    const [before, made, after] = lines(await shell(test, "keyctl rdescribe @s; keyctl new_session; keyctl id @s"));
    await test.daemon.close();
    assert.match(before!, /;_uid_ses\.\d+$/);
    assert.equal(made, after);
  });

  it("whose child is an orphan by the time of its first contact: it is known by its session leader", async () => {
    await using test = await startTestDaemon();
    const file = `${test.directory}/orphan`;
    const orphan = `(sh -c "sleep 0.3; keyctl id @s > ${file}" &)`;
    const wait = `until [ -s ${file} ]; do sleep 0.05; done; cat ${file}`;
    const script = `exec setsid -w sh -c 'keyctl new_session >/dev/null; keyctl id @s; ${orphan}; ${wait}'`;
    const [own, known] = lines(await shell(test, script));
    await test.daemon.close();
    assert.equal(known, own);
  });

  it("that ends with the daemon's answer under way leaves nothing behind", async () => {
    await using test = await startTestDaemon();
    await inSession(test, "keyctl add user a b @s; keyctl add user a b @p; keyctl add user a b @t; kill -9 $$");
    const deadline = Date.now() + 20_000;
    while (test.daemon.registry.size > 0 && Date.now() < deadline) {
      test.daemon.registry.sweep();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const { processes } = test.daemon.service.statistics();
    const findings = await findingsOf(test);
    await test.daemon.close();
    assert.equal(processes, 0);
    assert.deepEqual(findings, []);
  });
});

describe("thread and process keyrings", () => {
  it("belong to one process: what a command adds there is gone with it", async () => {
    await using test = await startTestDaemon();
    const ended = await shell(
      test,
      "keyctl add user a b @p; keyctl request user a; keyctl add user a b @t; keyctl id @p",
    );
    await test.daemon.close();
    assert.match(ended.out, /^\d+\n\d+\n$/);
    assert.equal(
      ended.err,
      "request_key: Required key not available\nkeyctl_get_keyring_ID: Required key not available\n",
    );
  });
});

describe("users", { skip: process.getuid!() !== 0 && "only user 0 can become others" }, () => {
  it("are who the kernel says: keys of one cannot be used by another", async () => {
    await using test = await startTestDaemon();
    const [serial, text] = lines(await shell(test, "keyctl add user mine secret @u; keyctl describe @u", NOBODY));
    const foreign = await shell(
      test,
      `keyctl print ${serial}; keyctl describe ${serial}; keyctl revoke ${serial}; keyctl get_persistent @s ${NOBODY}`,
      SOMEBODY,
    );
    const users = lines(await shell(test, "keyctl --key-users"));
    const findings = await findingsOf(test);
    await test.daemon.close();
    assert.match(text!, new RegExp(` ${NOBODY} 65534 keyring: _uid\\.${NOBODY}$`));
    assert.equal(
      foreign.err,
      "keyctl_read_alloc: Permission denied\nkeyctl_describe_alloc: Permission denied\nkeyctl_revoke: Permission denied\nkeyctl_get_persistent: Operation not permitted\n",
    );
    assert.ok(users.some((line) => line.startsWith(`${NOBODY}: `)));
    assert.deepEqual(findings, []);
  });

  it("have quotas: the last key that fits is taken, the next is not", async () => {
    await using test = await startTestDaemon(["--limit", "maxkeys=5"]);
    const ended = await shell(test, "for n in 1 2 3 4; do keyctl add user k$n x @u; done", NOBODY);
    await test.daemon.close();
    assert.equal(ended.out.trimEnd().split("\n").length, 3);
    assert.equal(ended.err, "add_key: Disk quota exceeded\n");
  });

  it("other than 0 cannot change limits", async () => {
    await using test = await startTestDaemon();
    const client = `import { KeyConnection } from "${new URL("../src/client/index.js", import.meta.url).href}";
      const keys = await KeyConnection.connect("${test.socket}");
      console.log(await keys.result("limit", ["maxkeys"]), await keys.result("setLimit", ["maxkeys", 7]), await keys.result("limit", ["maxkeys"]), await keys.result("setLimit", ["nosuch", 7]));
      await keys.close();`;
    const words = ["--input-type=module", "-e", client];
    const other = await test.run(process.execPath, words, { uid: NOBODY });
    const root = await test.run(process.execPath, words);
    await test.daemon.close();
    assert.equal(other.out, "200 -13 200 -13\n");
    assert.equal(root.out, "200 0 7 -22\n");
  });
});
