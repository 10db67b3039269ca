/** Published bugs of key retention as rules: who gets at what, and what callers may say. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { KEY_LINK, KEY_SEARCH, type KeyService, permissionMask, type Process, settle } from "../src/index.ts";
import { assumeAndBuild, bytes, errorLater, errorOf, linksIn, ok, onBench, OPEN, readText, SESSION } from "./kit.ts";

/** Keyrings within keyrings, `count` of them; the last one. */
const chain = (service: KeyService, process: Process, count: number): number => {
  let ring: number = SESSION;
  for (let level = 1; level <= count; level += 1)
    ring = ok(service.addKey(process, "keyring", `l${level}`, null, ring));
  return ring;
};

describe("advisories of keys: access", () => {
  it(
    "K08: a text is taken as it is when the operation begins",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const description = bytes("before");
      const payload = bytes("payload");
      const key = ok(service.addKey(process, "user", description, payload, SESSION));
      description.fill(0x78);
      payload.fill(0x78);
      assert.equal(ok(service.search(process, SESSION, "user", "before", 0)), key);
      assert.equal(readText(service, process, key), "payload");
    }),
  );

  it(
    "K09: whatever takes a keyring refuses another key with ENOTDIR",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const key = ok(service.addKey(process, "user", "k", bytes("v"), SESSION));
      const ring = ok(service.addKey(process, "keyring", "r", null, SESSION));
      for (const answer of [
        service.addKey(process, "user", "x", bytes("v"), key),
        service.addKey(process, "keyring", "x", null, key),
        service.link(process, ring, key),
        service.unlink(process, ring, key),
        service.search(process, key, "user", "k", 0),
        service.search(process, SESSION, "user", "k", key),
        service.clear(process, key),
        service.move(process, ring, SESSION, key, 0),
        service.move(process, ring, key, SESSION, 0),
        service.restrict(process, key, null, null),
        service.getPersistent(process, -1, key),
      ]) {
        assert.equal(errorOf(answer), "ENOTDIR");
      }
      ok(service.link(process, key, ring));
    }),
  );

  it(
    "K10: a parent that has no keyring, is gone, or is somebody else's",
    onBench((bench) => {
      const { service } = bench;
      const child = bench.process();
      const session = ok(service.getKeyringId(child, SESSION, false));
      ok(service.setPermissions(child, session, OPEN));
      const give = (parent: Process | undefined, threads = 1): string | number =>
        errorOf(service.sessionToParent(child, parent === undefined ? undefined : { process: parent, threads }));
      assert.equal(give(undefined), "EPERM");
      const own = service.attach({ pid: 50, uid: 1000, gid: 1000 });
      assert.equal(give(service.attach({ pid: 1, uid: 1000, gid: 1000 })), "EPERM");
      assert.equal(give(service.attach({ pid: 51, uid: 1001, gid: 1000 })), "EPERM");
      assert.equal(give(service.attach({ pid: 52, uid: 1000, euid: 0, gid: 1000 })), "EPERM");
      assert.equal(give(own, 2), "EPERM");
      assert.equal(own.session, undefined);
      assert.equal(give(own), 0);
      assert.equal(ok(service.getKeyringId(own, SESSION, false)), session);
      assert.equal(give(own), 0, "it has it already");
    }),
  );

  it(
    "K11: fork, exec, threads and new users keep every restriction, and give no capability",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const session = ok(service.getKeyringId(process, SESSION, false));
      ok(service.restrict(process, SESSION, null, null));
      const child = service.fork(process, { pid: 60 });
      const thread = service.newThread(process, { pid: 61 });
      service.exec(child);
      const receiver = service.attach({ pid: 62, uid: 1000, gid: 1000 });
      ok(service.sessionToParent(child, { process: receiver, threads: 1 }));
      for (const each of [child, thread, receiver]) {
        assert.equal(ok(service.getKeyringId(each, SESSION, false)), session);
        assert.equal(errorOf(service.addKey(each, "user", "k", bytes("v"), SESSION)), "EPERM");
        assert.deepEqual([each.sysAdmin, each.setUid], [false, false]);
      }
      service.exit(child);
      assert.throws(() => service.getKeyringId(child, SESSION, false), { code: "INVALID_ARGUMENT" });
    }),
  );

  it(
    "K12: types of authority cannot be named, and what one user prepared is not given to another",
    onBench(async (bench) => {
      const { service } = bench;
      const mallory = bench.process(1001);
      const target = ok(service.addKey(mallory, "user", "dns:x", bytes("forged"), SESSION));
      ok(service.setPermissions(mallory, target, 0x3f3f_3f3f));
      for (const type of [".request_key_auth", ".dead", "."]) {
        assert.equal(errorOf(service.addKey(mallory, type, target.toString(16), bytes("x"), SESSION)), "EPERM");
        assert.equal(errorOf(service.requestKey(mallory, type, target.toString(16), "c", 0)), "EPERM");
        assert.equal(errorOf(service.search(mallory, SESSION, type, target.toString(16), 0)), "EPERM");
      }
      assert.equal(errorOf(service.assumeAuthority(mallory, target)), "ENOKEY");
      assert.equal(errorOf(service.instantiate(mallory, target, bytes("x"), 0)), "EPERM");
      const asker = bench.process(1000);
      bench.helper = async (upcall) => await assumeAndBuild(service, upcall, "true");
      const key = ok(await settle(service.requestKey(asker, "user", "dns:x", "c", 0)));
      assert.notEqual(key, target);
      assert.equal(readText(service, asker, key), "true");
      assert.equal(bench.upcalls[0]?.argv[2], "1000", "the service itself knows who asks");
    }),
  );

  it(
    "K17: a refusal whose link fails answers why, and the key is refused all the same",
    onBench(async (bench) => {
      const { service } = bench;
      const asker = bench.process();
      const results: (string | number)[] = [];
      for (const kind of ["key", "foreign", "gone", "restricted"]) {
        bench.helper = ({ helper, target }) => {
          ok(service.assumeAuthority(helper, target));
          const ring = ok(
            service.addKey(
              helper,
              kind === "key" ? "user" : "keyring",
              "r",
              kind === "key" ? bytes("v") : null,
              SESSION,
            ),
          );
          if (kind === "foreign") ok(service.setPermissions(helper, ring, permissionMask({ possessor: KEY_SEARCH })));
          if (kind === "gone") ok(service.unlink(helper, ring, SESSION));
          if (kind === "restricted") ok(service.restrict(helper, ring, null, null));
          results.push(errorOf(service.reject(helper, target, { seconds: 9, error: 5, ring })));
          return 0;
        };
        results.push(await errorLater(service.requestKey(asker, "user", kind, "c", 0)));
      }
      assert.deepEqual(results, ["ENOTDIR", "EIO", "EACCES", "ENOKEY", "ENOKEY", "ENOKEY", "EPERM", "ENOKEY"]);
    }),
  );

  it(
    "K20: names with a dot are the service's own",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process(0);
      assert.equal(errorOf(service.joinSession(process, ".builtin_trusted_keys")), "EPERM");
      assert.equal(errorOf(service.addKey(process, "keyring", ".x", null, SESSION)), "EPERM");
      assert.equal(errorOf(service.requestKey(process, ".x", "y", null, 0)), "EPERM");
      ok(service.addKey(process, "user", ".x", bytes("v"), SESSION));
    }),
  );

  it(
    "K21: types that callers cannot name, and names that no type can have",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const cases: readonly (readonly [string, string, string])[] = [
        ["dead", "ENODEV", "ENOKEY"],
        [".dead", "EPERM", "EPERM"],
        ["", "EINVAL", "EINVAL"],
        ["x".repeat(31), "ENODEV", "ENOKEY"],
        ["x".repeat(32), "EINVAL", "EINVAL"],
      ];
      for (const [type, added, requested] of cases) {
        assert.equal(errorOf(service.addKey(process, type, "d", bytes("v"), SESSION)), added, type);
        assert.equal(errorOf(service.requestKey(process, type, "d", null, 0)), requested, type);
      }
      assert.equal(errorOf(service.addKey(process, "keyring", null, null, SESSION)), "EINVAL");
    }),
  );

  it(
    "K23: payloads of no bytes, of the largest size, and of one byte more",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process(0);
      const cases: readonly (readonly [string, number | null, string | number])[] = [
        ["user", null, "EINVAL"],
        ["user", 0, "EINVAL"],
        ["user", 1, 0],
        ["user", 32_767, 0],
        ["user", 32_768, "EINVAL"],
        ["logon", 32_767, 0],
        ["logon", 32_768, "EINVAL"],
        ["big_key", 32_768, 0],
        ["big_key", 2 ** 20 - 1, 0],
        ["big_key", 2 ** 20, "EINVAL"],
        ["keyring", 1, "EINVAL"],
      ];
      for (const [type, size, expected] of cases) {
        const payload = size === null ? null : new Uint8Array(size);
        const result = errorOf(service.addKey(process, type, "a:b", payload, SESSION));
        assert.equal(typeof result === "number" ? 0 : result, expected, `${type} ${size}`);
      }
      const key = ok(service.addKey(process, "user", "u", bytes("v"), SESSION));
      assert.equal(errorOf(service.update(process, key, null)), "EINVAL");
      ok(service.update(process, key, new Uint8Array(4096)));
      assert.equal(errorOf(service.update(process, key, new Uint8Array(4097))), "EINVAL");
    }),
  );

  it(
    "K24: a destination needs Write, also one that nobody named",
    onBench(async (bench) => {
      const { service } = bench;
      const process = bench.process();
      const session = ok(service.getKeyringId(process, SESSION, false));
      ok(service.setPermissions(process, session, permissionMask({ possessor: KEY_SEARCH | KEY_LINK | 0x22 })));
      for (const destination of [0, SESSION]) {
        assert.equal(await errorLater(service.requestKey(process, "user", "k", "c", destination)), "EACCES");
      }
      assert.deepEqual(linksIn(service, process, SESSION), []);
      assert.equal(bench.upcalls.length, 0);
    }),
  );

  it(
    "K25: the keyrings of a user are those that the service made for it",
    onBench((bench) => {
      const { service } = bench;
      const mallory = bench.process(1001);
      const forged = ["_uid.1000", "_uid_ses.1000", "_persistent.1000"].map((name) =>
        ok(service.addKey(mallory, "keyring", name, null, SESSION)),
      );
      for (const ring of forged) ok(service.setPermissions(mallory, ring, 0x3f3f_3f3f));
      ok(service.joinSession(mallory, "_uid_ses.1000"));
      const victim = service.attach({ pid: 70, uid: 1000, gid: 1000 });
      const user = ok(service.getKeyringId(victim, -4, false));
      const session = ok(service.getKeyringId(victim, SESSION, false));
      const persistent = ok(service.getPersistent(victim, -1, -4));
      for (const ring of [user, session, persistent]) assert.ok(!forged.includes(ring));
      assert.deepEqual(linksIn(service, victim, SESSION), [user]);
    }),
  );

  it(
    "K28: a search ends at the depth of six, circles cannot be made, and every hop needs Search",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const sixth = chain(service, process, 6);
      ok(service.addKey(process, "user", "deep", bytes("v"), sixth));
      const found = ok(service.search(process, SESSION, "user", "deep", 0));
      const seventh = ok(service.addKey(process, "keyring", "l7", null, sixth));
      const eighth = ok(service.addKey(process, "keyring", "l8", null, seventh));
      assert.equal(
        errorOf(service.addKey(process, "user", "deeper", bytes("v"), eighth)),
        "EACCES",
        "it is not possessed",
      );
      const first = ok(service.search(process, SESSION, "keyring", "l1", 0));
      assert.equal(errorOf(service.link(process, first, first)), "EDEADLK");
      assert.equal(errorOf(service.link(process, first, sixth)), "EDEADLK");
      const session = ok(service.getKeyringId(process, SESSION, false));
      const other = ok(service.addKey(process, "keyring", "other", null, SESSION));
      assert.equal(errorOf(service.link(process, session, other)), "EDEADLK");
      const third = ok(service.search(process, SESSION, "keyring", "l3", 0));
      ok(service.setPermissions(process, third, permissionMask({ possessor: 0x37 })));
      assert.equal(errorOf(service.search(process, SESSION, "user", "deep", 0)), "ENOKEY");
      assert.equal(errorOf(service.read(process, found)), "EACCES");
    }),
  );

  it(
    "K28: keyrings that lead to each other on very many ways are searched in bounded time",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process(0);
      // Eight keyrings on each of six levels: a quarter of a million ways, and as many dead ends.
      let above = [ok(service.getKeyringId(process, SESSION, false))];
      for (let level = 0; level < 6; level += 1) {
        const rings = Array.from({ length: 16 }, (_, index) =>
          ok(service.addKey(process, "keyring", `${level}.${index}`, null, above[0]!)),
        );
        for (const ring of above.slice(1)) for (const each of rings) ok(service.link(process, each, ring));
        above = rings;
      }
      const key = ok(service.addKey(process, "user", "last", bytes("v"), above.at(-1)!));
      assert.equal(ok(service.search(process, SESSION, "user", "last", 0)), key);
      assert.equal(errorOf(service.search(process, SESSION, "user", "none", 0)), "ENOKEY");
      assert.equal(readText(service, process, key), "v");
      const foreign = bench.process(0);
      assert.equal(errorOf(service.read(foreign, key)), "EACCES");
    }),
  );

  it(
    "K32: a read fills what there is room for, or nothing, and says how much there is",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      for (const name of ["a", "b", "c"]) ok(service.addKey(process, "user", name, bytes("v"), SESSION));
      for (const [size, expected] of [
        [0, 12],
        [3, "EINVAL"],
        [4, 12],
        [8, 12],
        [11, "EINVAL"],
        [12, 12],
        [16, 12],
      ] as const) {
        const room = Buffer.alloc(size + 8, 0xee);
        assert.equal(errorOf(service.read(process, SESSION, room.subarray(0, size))), expected);
        const touched = size >= 12 ? 12 : 0;
        assert.ok(
          room.subarray(touched).every((byte) => byte === 0xee),
          `${size}`,
        );
        assert.notEqual(
          room.subarray(0, 12).every((byte) => byte === 0xee),
          touched > 0,
        );
      }
    }),
  );
});
