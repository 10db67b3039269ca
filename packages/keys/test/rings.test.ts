/** Keyrings that processes and users have, and what becomes of them. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { KEY_SEARCH, KEY_SPEC, permissionMask } from "../src/index.ts";
import { bytes, describeText, errorOf, linksIn, ok, onBench, OPEN, procLine, SESSION } from "./kit.ts";

describe("numbers that name keyrings", () => {
  it(
    "0, the group's and those below the last one: EINVAL; unknown serials: ENOKEY",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      for (const id of [0, KEY_SPEC.group, -9, -(2 ** 31)]) {
        assert.equal(errorOf(service.getKeyringId(process, id, true)), "EINVAL");
      }
      for (const id of [1, 2, 2 ** 31 - 1]) assert.equal(errorOf(service.getKeyringId(process, id, true)), "ENOKEY");
      for (const id of [KEY_SPEC.authority, KEY_SPEC.requestor]) {
        assert.equal(errorOf(service.getKeyringId(process, id, true)), "ENOKEY");
      }
    }),
  );

  it(
    "of the thread and the process are there when they are asked for with create",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      for (const [id, name] of [
        [KEY_SPEC.thread, "_tid"],
        [KEY_SPEC.process, "_pid"],
      ] as const) {
        assert.equal(errorOf(service.getKeyringId(process, id, false)), "ENOKEY");
        const ring = ok(service.getKeyringId(process, id, true));
        assert.equal(ok(service.getKeyringId(process, id, false)), ring);
        assert.equal(describeText(service, process, ring), `keyring;1000;1000;3f010000;${name}`);
      }
    }),
  );

  it(
    "of the session: the user's one is installed, and replaced by an own one when something is added",
    onBench((bench) => {
      const { service } = bench;
      const process = service.attach({ pid: 5, uid: 1000, gid: 1000 });
      const user = ok(service.getKeyringId(process, SESSION, false));
      assert.equal(describeText(service, process, user), "keyring;1000;65534;1f3f0000;_uid_ses.1000");
      assert.equal(ok(service.getKeyringId(process, KEY_SPEC.userSession, false)), user);
      ok(service.addKey(process, "user", "k", bytes("v"), SESSION));
      const own = ok(service.getKeyringId(process, SESSION, false));
      assert.equal(describeText(service, process, own), "keyring;1000;1000;3f030000;_ses");
    }),
  );

  it(
    "of the user: a key that is added there from another session cannot be read",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const key = ok(service.addKey(process, "user", "k", bytes("v"), KEY_SPEC.user));
      assert.equal(errorOf(service.read(process, key)), "EACCES");
      ok(service.link(process, KEY_SPEC.user, SESSION));
      assert.equal(ok(service.read(process, key)), 1);
    }),
  );
});

describe("sessions by name", () => {
  it(
    "are joined only by whom they grant Search without possession",
    onBench((bench) => {
      const { service } = bench;
      const first = bench.process();
      const ring = ok(service.joinSession(first, "work"));
      assert.equal(describeText(service, first, ring), "keyring;1000;1000;3f130000;work");
      const second = bench.process();
      assert.notEqual(ok(service.joinSession(second, "work")), ring);
      ok(service.setPermissions(first, ring, OPEN));
      const third = bench.process();
      assert.equal(ok(service.joinSession(third, "work")), ring);
      assert.equal(ok(service.joinSession(third, "work")), 0);
      ok(service.revoke(first, ring));
      assert.notEqual(ok(service.joinSession(bench.process(), "work")), ring);
    }),
  );

  it(
    "may be any keyring of that name, the oldest first",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const outer = ok(service.addKey(process, "keyring", "outer", null, SESSION));
      const older = ok(service.addKey(process, "keyring", "name", null, SESSION));
      const younger = ok(service.addKey(process, "keyring", "name", null, outer));
      for (const ring of [younger, older]) ok(service.setPermissions(process, ring, OPEN));
      assert.equal(ok(service.joinSession(bench.process(), "name")), older);
    }),
  );
});

describe("processes", () => {
  it(
    "give a child the session, not their own keyrings; exec drops those; a thread shares the process's",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const [thread, own, session] = [-1, -2, -3].map((id) => ok(service.getKeyringId(process, id, true)));
      const child = service.fork(process, { pid: 6 });
      assert.equal(errorOf(service.getKeyringId(child, -1, false)), "ENOKEY");
      assert.equal(errorOf(service.getKeyringId(child, -2, false)), "ENOKEY");
      assert.equal(ok(service.getKeyringId(child, -3, false)), session);
      const sibling = service.newThread(process, { pid: 7 });
      assert.notEqual(ok(service.getKeyringId(sibling, -1, false)), thread);
      assert.equal(ok(service.getKeyringId(sibling, -2, false)), own);
      service.exec(process);
      assert.equal(errorOf(service.getKeyringId(process, -1, false)), "ENOKEY");
      assert.equal(ok(service.getKeyringId(sibling, -2, false)), own, "the thread has it still");
      ok(service.addKey(process, "user", "k", bytes("v"), -2));
      service.exit(process);
      service.exit(process);
      assert.equal(ok(service.getKeyringId(child, -3, false)), session);
    }),
  );

  it(
    "that change their user change the owner of the thread keyring",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const thread = ok(service.getKeyringId(process, -1, true));
      service.setIds(process, { uid: 1000, euid: 1001, gid: 1000, egid: 1001, fsgid: 7 });
      assert.match(procLine(service, process, thread)!, / 1001 +7 keyring/);
      assert.equal(describeText(service, process, thread), "keyring;1001;7;3f010000;_tid");
    }),
  );
});

describe("persistent keyrings", () => {
  it(
    "live on for their time after the last use, and belong to their user",
    onBench((bench) => {
      const { service, clock } = bench;
      const process = bench.process();
      const ring = ok(service.getPersistent(process, -1, SESSION));
      assert.equal(describeText(service, process, ring), "keyring;1000;65534;1f030000;_persistent.1000");
      ok(service.addKey(process, "user", "k", bytes("v"), ring));
      ok(service.unlink(process, ring, SESSION));
      clock.advance(200_000);
      assert.equal(ok(service.getPersistent(process, 1000, SESSION)), ring);
      assert.match(procLine(service, process, ring)!, / 3d /);
      assert.equal(errorOf(service.getPersistent(process, 1001, SESSION)), "EPERM");
      ok(service.getPersistent(bench.process(0), 1001, SESSION));
      ok(service.unlink(process, ring, SESSION));
      clock.advance(259_200 + 300);
      const next = ok(service.getPersistent(process, -1, SESSION));
      assert.notEqual(next, ring);
      assert.deepEqual(linksIn(service, process, next), []);
    }),
  );
});

describe("keyrings of whoever runs the service", () => {
  it(
    "are kept, and cleared or invalidated by an administrator, as they were made",
    onBench((bench) => {
      const { service } = bench;
      const root = bench.process(0);
      const plain = bench.process();
      const wanted = { description: ".cache", permissions: permissionMask({ possessor: KEY_SEARCH, user: 0x3b }) };
      const cache = service.trusted.createKeyring({ ...wanted, adminCanClear: true, adminCanInvalidate: true });
      const kept = service.trusted.createKeyring({ ...wanted, permissions: 0x3f3f_3f3f, keep: true });
      assert.ok(typeof cache !== "number" && typeof kept !== "number");
      assert.equal(errorOf(service.clear(plain, cache.serial)), "EACCES");
      ok(service.clear(root, cache.serial));
      for (const answer of [
        service.revoke(root, kept.serial),
        service.invalidate(root, kept.serial),
        service.clear(root, kept.serial),
        service.setTimeout(root, kept.serial, 5),
      ]) {
        assert.equal(errorOf(answer), "EPERM");
      }
      assert.equal(errorOf(service.invalidate(plain, cache.serial)), "EACCES");
      ok(service.invalidate(root, cache.serial));
      cache.release();
      kept.release();
    }),
  );
});
