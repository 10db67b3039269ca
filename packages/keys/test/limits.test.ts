/** What there is not enough of. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { keyErrno, MemoryPayloadStore, type PayloadStore } from "../src/index.ts";
import { bytes, describeText, errorOf, ok, onBench, readText, SESSION } from "./kit.ts";

describe("limits", () => {
  it(
    "of another user hold for what is given to it",
    onBench(
      (bench) => {
        const { service } = bench;
        const root = bench.process(0);
        const key = ok(service.addKey(root, "user", "k", new Uint8Array(50), SESSION));
        assert.equal(errorOf(service.chown(root, key, 1000, -1)), "EDQUOT");
        assert.equal(describeText(service, root, key), "user;0;0;3f010000;k");
        ok(service.update(root, key, new Uint8Array(38)));
        ok(service.chown(root, key, 1000, -1));
        assert.match(service.procKeyUsers(), /^ 1000: +1 1\/1 1\/1 40\/40$/m);
        const second = ok(service.addKey(root, "user", "l", bytes("v"), SESSION));
        assert.equal(errorOf(service.chown(root, second, 1000, -1)), "EDQUOT");
        assert.equal(errorOf(service.update(root, key, new Uint8Array(39))), "EDQUOT");
      },
      { limits: { maxKeys: 1, maxBytes: 40 } },
    ),
  );

  it("of the memory for payloads are an error like any other", () => {
    const payloads = new MemoryPayloadStore();
    let isFull = false;
    const store: PayloadStore = {
      put: (payload) => (isFull ? -keyErrno.ENOMEM : payloads.put(payload)),
      give: (handle) => (isFull ? -keyErrno.ENOMEM : handle),
      forgetUser: () => undefined,
      copyTo: (handle, length, target) => payloads.copyTo(handle, length, target),
      release: (handle) => payloads.release(handle),
      get count() {
        return payloads.count;
      },
    };
    return onBench(
      (bench) => {
        const { service } = bench;
        const process = bench.process();
        const key = ok(service.addKey(process, "user", "k", bytes("old"), SESSION));
        isFull = true;
        const before = service.procKeyUsers();
        assert.equal(errorOf(service.addKey(process, "user", "l", bytes("v"), SESSION)), "ENOMEM");
        assert.equal(errorOf(service.addKey(process, "big_key", "l", bytes("v"), SESSION)), "ENOMEM");
        assert.equal(errorOf(service.update(process, key, bytes("new"))), "ENOMEM");
        assert.equal(readText(service, process, key), "old");
        const root = service.attach({ pid: 2, uid: 0, gid: 0 });
        ok(service.setPermissions(process, key, 0x3f3f3f3f));
        assert.equal(errorOf(service.chown(root, key, 1234, -1)), "ENOMEM");
        assert.equal(service.procKeyUsers(), before);
      },
      { payloads: store },
    )();
  });

  it(
    "hold through a million additions, of which each replaces or updates another",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const payload = bytes("v");
      for (let index = 0; index < 1_000_000; index += 1) {
        service.addKey(
          process,
          index % 3 === 0 ? "keyring" : "user",
          `k${index % 7}`,
          index % 3 === 0 ? null : payload,
          SESSION,
        );
      }
      assert.deepEqual(service.statistics(), { keys: 15, users: 2, processes: 1, payloads: 7, waits: 0 });
    }),
  );
});
