import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { type FakeDomain, KeyHost, onKeyHost, ORDINARY_END, SECRET_AT, SECRET_END } from "./key-call-kit.ts";

const PROCESS = abi.XENKEY_PROCESS_KEYRING;
const SESSION = abi.XENKEY_SESSION_KEYRING;
const THREAD = abi.XENKEY_THREAD_KEYRING;
const ORDINARY = abi.XENKEYF_ordinary_memory;

const number = (result: number | string): number => {
  assert.ok(typeof result === "number", `refused with ${result}`);
  return result;
};

describe("key_op", () => {
  it(
    "adds, finds, describes, updates and reads a key, in secret pages",
    onKeyHost(async (host) => {
      const guest = host.domain(1);
      const key = number(await guest.add("user", "db:orders", "first", SESSION));
      assert.match(String(await guest.describe(key)), /^user;2147483659;2147483659;3f010000;db:orders$/);
      assert.equal(await guest.request("user", "db:orders"), key);
      assert.equal(await guest.read(key, SECRET_AT, 64), 5);
      assert.equal(Buffer.from(guest.bytes.subarray(SECRET_AT, SECRET_AT + 6)).toString(), "first\0");
      const payload = guest.text(2, "second one");
      const update = { key, payload: payload.address, payload_len: payload.length, flags: 0 };
      assert.equal(await guest.call(abi.XENKEY_update, abi.xen_key_update, update), 0);
      assert.equal(await guest.read(key, SECRET_AT, 10), 10);
      // Out of secret pages, too.
      guest.bytes.set(Buffer.from("third"), SECRET_AT + 100);
      const secret = { key, payload: SECRET_AT + 100, payload_len: 5, flags: abi.XENKEYF_secret_payload };
      assert.equal(await guest.call(abi.XENKEY_update, abi.xen_key_update, secret), 0);
      assert.equal(await guest.read(key, 0x9000, 64, ORDINARY), 5);
      assert.equal(Buffer.from(guest.bytes.subarray(0x9000, 0x9005)).toString(), "third");
      assert.equal(await guest.call(abi.XENKEY_revoke, abi.xen_key_id, { key }), 0);
      assert.equal(await guest.read(key, SECRET_AT, 64), "EKEYREVOKED");
    }),
  );

  it(
    "reads into secret pages only, unless it is told otherwise",
    onKeyHost(async (host) => {
      const guest = host.domain(1);
      const key = number(await guest.add("user", "a", "12345", SESSION));
      const before = guest.bytes.slice();
      assert.equal(await guest.read(key, 0x9000, 5), "EPERM");
      assert.equal(await guest.read(key, SECRET_AT - 1, 5), "EPERM");
      assert.equal(await guest.read(key, SECRET_END - 4, 5), "EPERM");
      assert.equal(await guest.read(key, 0xffff_fffe, 5), "EPERM");
      assert.equal(await guest.read(key, ORDINARY_END - 4, 5, ORDINARY), "EFAULT");
      // Too short: the size, and nothing is touched.
      assert.equal(await guest.read(key, 0xffff_fffe, 4), 5);
      assert.equal(await guest.read(key, SECRET_AT, 0), 5);
      assert.deepEqual(guest.bytes.subarray(64), before.subarray(64));
      assert.equal(await guest.read(key, SECRET_END - 5, 5), 5);
      assert.equal(await guest.read(key, SECRET_AT, 5, 2), "EINVAL");
      assert.equal(await guest.read(key, SECRET_AT, 5, 0x8000_0001), "EINVAL");
    }),
  );

  it(
    "gives vCPUs a thread keyring each, and the domain the others",
    onKeyHost(async (host) => {
      const guest = host.domain(1);
      const ringOf = async (ring: number, vcpu: number, flags: number = abi.XENKEYF_create): Promise<number | string> =>
        await guest.call(abi.XENKEY_get_keyring_id, abi.xen_key_get_keyring_id, { ring, flags }, vcpu);
      assert.equal(await ringOf(THREAD, 0, 0), "ENOKEY");
      const threads = [number(await ringOf(THREAD, 0)), number(await ringOf(THREAD, 1))];
      assert.equal(new Set(threads).size, 2);
      for (const ring of [PROCESS, SESSION, abi.XENKEY_USER_KEYRING, abi.XENKEY_USER_SESSION_KEYRING])
        assert.equal(await ringOf(ring, 0), await ringOf(ring, 7), String(ring));
      // One vCPU joins another session: the domain has.
      const name = guest.text(0, "work");
      const join = { name: name.address, name_len: name.length, flags: abi.XENKEYF_named };
      const joined = number(await guest.call(abi.XENKEY_join_session, abi.xen_key_join_session, join, 3));
      for (const vcpu of [0, 1, 3, 9]) assert.equal(await ringOf(SESSION, vcpu, 0), joined);
      const nameless = { name: 0, name_len: 0xffff_ffff, flags: 0 };
      const fresh = number(await guest.call(abi.XENKEY_join_session, abi.xen_key_join_session, nameless, 1));
      assert.equal(await ringOf(SESSION, 0, 0), fresh);
      assert.notEqual(fresh, joined);
    }),
  );

  it(
    "links, unlinks, searches, clears, invalidates and times out",
    onKeyHost(async (host) => {
      const guest = host.domain(1);
      const key = number(await guest.add("user", "one", "1", SESSION));
      const link = { key, ring: PROCESS };
      assert.equal(await guest.call(abi.XENKEY_link, abi.xen_key_link, link), 0);
      assert.equal(await guest.call(abi.XENKEY_unlink, abi.xen_key_link, { key, ring: SESSION }), 0);
      assert.equal(await guest.call(abi.XENKEY_unlink, abi.xen_key_link, { key, ring: SESSION }), "ENOENT");
      const [t, d] = [guest.text(0, "user"), guest.text(1, "one")];
      const search = { type: t.address, type_len: t.length, description: d.address, description_len: d.length };
      const searched = async (ring: number, destination: number): Promise<number | string> =>
        await guest.call(abi.XENKEY_search, abi.xen_key_search, { ...search, ring, destination });
      assert.equal(await searched(SESSION, 0), "ENOKEY");
      assert.equal(await searched(PROCESS, SESSION), key);
      assert.equal(await searched(SESSION, 0), key);
      const timeout = { key, seconds: 1000 };
      assert.equal(await guest.call(abi.XENKEY_set_timeout, abi.xen_key_set_timeout, timeout), 0);
      assert.equal(await guest.call(abi.XENKEY_clear, abi.xen_key_id, { key: SESSION }), 0);
      assert.equal(await searched(SESSION, 0), "ENOKEY");
      assert.equal(await guest.call(abi.XENKEY_invalidate, abi.xen_key_id, { key }), 0);
      assert.equal(await guest.read(key, SECRET_AT, 1), "ENOKEY");
    }),
  );

  it(
    "bounds the secret memory of a domain's keys, of which a big one counts for 16 bytes",
    onKeyHost(async (host) => {
      const [greedy, other] = [host.domain(1), host.domain(2)];
      const add = async (domain: FakeDomain, name: string): Promise<number | string> => {
        const texts = [domain.text(0, "big_key"), domain.text(1, name)] as const;
        return await domain.addPlaced([...texts, { address: 0x1_0000, length: abi.XENKEY_PAYLOAD_MAX }], 0, SESSION);
      };
      let count = 0;
      while (typeof (await add(greedy, `big ${count}`)) === "number") count += 1;
      assert.ok(count >= 1 && count <= 4, String(count));
      assert.equal(await add(greedy, "another"), "EDQUOT");
      number(await add(other, "its own"));
    }),
  );

  it(
    "keeps the keys of one domain from another, whatever it tries",
    onKeyHost(async (host) => {
      const [owner, other] = [host.domain(1), host.domain(2)];
      const key = number(await owner.add("user", "db:orders", "secret", SESSION));
      const ids = await Promise.all(
        [PROCESS, SESSION, THREAD, -4, -5].map(
          async (ring) => await owner.call(abi.XENKEY_get_keyring_id, abi.xen_key_get_keyring_id, { ring, flags: 1 }),
        ),
      );
      const mine = number(await other.add("user", "db:orders", "mine", SESSION));
      assert.equal(await other.request("user", "db:orders"), mine);
      for (const id of [key, ...ids.map(number)]) {
        const none = await other.describe(0x7fff_fff0);
        assert.equal(none, "ENOKEY");
        assert.equal(await other.describe(id), none, "a key that is there is told from one that is not");
        assert.equal(await other.read(id, SECRET_AT, 64), "ENOKEY");
        assert.equal(await other.request("user", "x", { callout: "", ring: id }), "ENOKEY");
        assert.equal(await other.add("user", "x", "x", id), "ENOKEY");
        for (const command of [abi.XENKEY_revoke, abi.XENKEY_invalidate, abi.XENKEY_clear])
          assert.equal(await other.call(command, abi.xen_key_id, { key: id }), "ENOKEY");
        for (const command of [abi.XENKEY_link, abi.XENKEY_unlink]) {
          assert.equal(await other.call(command, abi.xen_key_link, { key: id, ring: SESSION }), "ENOKEY");
          assert.equal(await other.call(command, abi.xen_key_link, { key: mine, ring: id }), "ENOKEY");
        }
        const update = { key: id, payload: 0x1000, payload_len: 1, flags: 0 };
        assert.equal(await other.call(abi.XENKEY_update, abi.xen_key_update, update), "ENOKEY");
        const timeout = { key: id, seconds: 1 };
        assert.equal(await other.call(abi.XENKEY_set_timeout, abi.xen_key_set_timeout, timeout), "ENOKEY");
        const keyring = { ring: id, flags: 0 };
        assert.equal(await other.call(abi.XENKEY_get_keyring_id, abi.xen_key_get_keyring_id, keyring), "ENOKEY");
      }
      // Nothing has happened to it.
      assert.equal(await owner.read(key, SECRET_AT, 64), 6);
      assert.equal(Buffer.from(owner.bytes.subarray(SECRET_AT, SECRET_AT + 6)).toString(), "secret");
    }),
  );

  it(
    "lets no domain join what another has named",
    onKeyHost(async (host) => {
      const [owner, other] = [host.domain(1), host.domain(2)];
      const joined = await Promise.all(
        [owner, other].map(async (domain) => {
          const name = domain.text(0, "shared");
          const join = { name: name.address, name_len: name.length, flags: abi.XENKEYF_named };
          return number(await domain.call(abi.XENKEY_join_session, abi.xen_key_join_session, join));
        }),
      );
      assert.notEqual(joined[0], joined[1]);
      const key = number(await owner.add("user", "in a named session", "1", SESSION));
      assert.equal(await other.request("user", "in a named session"), "ENOKEY");
      assert.equal(await other.describe(key), "ENOKEY");
    }),
  );

  it(
    "bounds what a domain has, and another's quota is its own",
    onKeyHost(
      async (host) => {
        const [greedy, other] = [host.domain(1), host.domain(2)];
        let count = 0;
        for (;;) {
          const result = await greedy.add("user", `key ${count}`, "x", SESSION);
          if (result === "EDQUOT") break;
          number(result);
          count += 1;
        }
        assert.ok(count > 0 && count <= 20, String(count));
        assert.equal(await greedy.request("user", "asked", { callout: "" }), "EDQUOT");
        const key = number(await other.add("user", "key", "x", SESSION));
        assert.equal(await other.read(key, SECRET_AT, 1), 1);
        assert.equal(await greedy.call(abi.XENKEY_clear, abi.xen_key_id, { key: SESSION }), 0);
        number(await greedy.add("user", "again", "x", SESSION));
      },
      { limits: { maxKeys: 20, maxBytes: 4000 } },
    ),
  );

  it("is refused where the host has no secret memory, and a fault of the host where the service fails otherwise", async () => {
    const call = { slot: 1, domid: 1, vcpu: 0, command: 0, argument: 0, signal: new AbortController().signal };
    const memory = { copyFromGuest: () => 0, copyToGuest: () => 0 };
    const secretPages = { read: () => 0, write: () => 0 };
    for (const [code, answer, faults] of [
      ["SECRET_UNSUPPORTED", -abi.ENOSYS, 0],
      ["HOST_CLOSED", -abi.EINTR, 0],
      ["SECRET_MEMLOCK", -abi.EAGAIN, 0],
      ["SECRET_MEMORY", -abi.ENOMEM, 0],
      ["SECRET_CEILING", -abi.ENOSPC, 0],
      ["INVALID_ARGUMENT", -abi.EIO, 1],
    ] as const) {
      const host = new KeyHost();
      host.keys.service = () => Promise.reject(new abi.XenolithError(code, "no"));
      assert.equal(await host.op.serve({ ...call, memory, secretPages }), answer);
      assert.equal(host.faults.length, faults);
    }
  });
});
