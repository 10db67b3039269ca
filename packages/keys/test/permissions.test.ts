/** Who may do what with a key. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Answer, KeyService, Process } from "../src/index.ts";
import { bytes, describeText, errorOf, ok, onBench, OPEN, SESSION } from "./kit.ts";

const done = (result: string | number): string => (typeof result === "number" ? "done" : result);

describe("permissions", () => {
  const rights = { view: 1, read: 2, write: 4, search: 8, link: 16, setattr: 32 } as const;
  type Right = keyof typeof rights;
  type Act = (service: KeyService, process: Process, key: number, ring: number) => Answer;
  const needs: readonly (readonly [string, Right, Act])[] = [
    ["describe", "view", (service, process, key) => service.describe(process, key)],
    ["get its label", "view", (service, process, key) => service.getSecurity(process, key)],
    ["update", "write", (service, process, key) => service.update(process, key, bytes("x"))],
    ["ask for its id", "search", (service, process, key) => service.getKeyringId(process, key, false)],
    ["link", "link", (service, process, key, ring) => service.link(process, key, ring)],
    ["set its permissions", "setattr", (service, process, key) => service.setPermissions(process, key, OPEN)],
    ["set its time", "setattr", (service, process, key) => service.setTimeout(process, key, 9)],
    ["give it away", "setattr", (service, process, key) => service.chown(process, key, -1, 1000)],
    ["invalidate", "search", (service, process, key) => service.invalidate(process, key)],
  ];
  for (const [what, right, act] of needs) {
    it(
      `to ${what}: ${right} is enough, and everything else is not`,
      onBench((bench) => {
        const { service } = bench;
        const owner = bench.process();
        const other = bench.process();
        const ring = ok(service.getKeyringId(other, SESSION, false));
        for (const isEnough of [false, true]) {
          const key = ok(service.addKey(owner, "user", "k", bytes("v"), SESSION));
          const mask = isEnough ? rights[right] : 0x3f & ~rights[right];
          // The other process has the same user and does not possess the key.
          ok(service.setPermissions(owner, key, mask << 16));
          const result = errorOf(act(service, other, key, ring));
          const refusal = what === "get its label" ? "ENOKEY" : "EACCES";
          assert.equal(done(result), isEnough ? "done" : refusal);
          service.clear(other, SESSION);
          ok(service.clear(owner, SESSION));
        }
      }),
    );
  }

  it(
    "belong to exactly one class: an owner without rights does not have those of all others",
    onBench((bench) => {
      const { service } = bench;
      const owner = bench.process();
      const member = bench.process(1001, { groups: [5, 1000] });
      const other = bench.process(1002);
      const key = ok(service.addKey(owner, "user", "k", bytes("v"), SESSION));
      const tries = (mask: number): string[] => {
        ok(service.setPermissions(owner, key, 0x2800_0000 | mask));
        const stranger = service.attach({ pid: 1, uid: 1000, gid: 1 });
        const results = [stranger, member, other].map((process) => done(errorOf(service.describe(process, key))));
        service.exit(stranger);
        return results;
      };
      assert.deepEqual(tries(0x0001_0000), ["done", "EACCES", "EACCES"]);
      assert.deepEqual(tries(0x0000_0100), ["EACCES", "done", "EACCES"]);
      assert.deepEqual(tries(0x0000_0001), ["EACCES", "done", "done"]);
      assert.deepEqual(tries(0x0000_0201), ["EACCES", "EACCES", "done"]);
    }),
  );

  it(
    "are not overridden by user 0, who only gives away and changes what SETATTR lets it reach",
    onBench((bench) => {
      const { service } = bench;
      const owner = bench.process();
      const root = bench.process(0);
      const key = ok(service.addKey(owner, "user", "k", bytes("v"), SESSION));
      assert.equal(errorOf(service.describe(root, key)), "EACCES");
      assert.equal(errorOf(service.setPermissions(root, key, OPEN)), "EACCES");
      ok(service.setPermissions(owner, key, 0x3f3f_0020));
      const other = bench.process(1002);
      assert.equal(errorOf(service.setPermissions(other, key, OPEN)), "EACCES");
      assert.equal(errorOf(service.chown(other, key, 1002, -1)), "EACCES");
      assert.equal(errorOf(service.chown(other, key, -1, 7)), "EACCES");
      ok(service.chown(other, key, -1, 1002));
      ok(service.chown(root, key, 1002, 9));
      ok(service.setPermissions(root, key, 0x3f3f_0021));
      assert.equal(describeText(service, root, key), "user;1002;9;3f3f0021;k");
    }),
  );

  it(
    "masks with other bits, and ids that nobody can have: EINVAL; nothing to change: 0 for any key",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      for (const mask of [0x4000_0000, 0x8000_0000, 0x40, -1]) {
        assert.equal(errorOf(service.setPermissions(process, SESSION, mask)), "EINVAL");
      }
      for (const id of [-2, 2 ** 32 - 1, 1.5]) assert.equal(errorOf(service.chown(process, SESSION, id, -1)), "EINVAL");
      assert.equal(errorOf(service.chown(process, 12_345, -1, -1)), 0);
    }),
  );
});
