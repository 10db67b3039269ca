/** Arguments of key_op that no friend would give. */
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { keyCommands } from "../src/keys/commands.ts";
import { type FakeDomain, onKeyHost, ORDINARY_END, type Placed, SECRET_AT, SECRET_END } from "./key-call-kit.ts";

const SESSION = abi.XENKEY_SESSION_KEYRING;
/** Where there is nothing, or half of what is said. */
const NOWHERE: readonly number[] = [
  ORDINARY_END,
  ORDINARY_END - 1,
  SECRET_AT,
  SECRET_END - 1,
  0xffff_ffff,
  0x8000_0000,
];

const FAR = [0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as const;

const number = (result: number | string): number => {
  assert.ok(typeof result === "number", `refused with ${result}`);
  return result;
};

describe("a guest that says wrong lengths", () => {
  const lengths = (
    what: string,
    max: number,
    call: (guest: FakeDomain, length: number) => Promise<number | string>,
    atMost: string | number,
  ): void => {
    it(
      `of ${what}: ${max} is the most`,
      onKeyHost(
        async (host) => {
          const guest = host.domain(1);
          guest.bytes.fill(0x61, 0x1_0000, ORDINARY_END);
          const result = await call(guest, max);
          if (typeof atMost === "string") assert.equal(result, atMost);
          else number(result);
          for (const length of [max + 1, ...FAR.filter((far) => far > max)])
            assert.equal(await call(guest, length), "EINVAL", String(length));
          assert.deepEqual((await host.service()).audit(), []);
        },
        { limits: { maxBytes: 2 ** 21 } },
      ),
    );
  };
  const many = (length: number): Placed => ({ address: 0x1_0000, length });

  lengths(
    "a type",
    abi.XENKEY_TYPE_MAX,
    (guest, n) => guest.addPlaced([many(n), guest.text(1, "d"), guest.text(2, "p")], 0, SESSION),
    "ENODEV",
  );
  lengths(
    "a description",
    abi.XENKEY_DESCRIPTION_MAX,
    (guest, n) => guest.addPlaced([guest.text(0, "user"), many(n), guest.text(2, "p")], 0, SESSION),
    1,
  );
  lengths(
    "a payload of type user",
    abi.XENKEY_USER_PAYLOAD_MAX,
    (guest, n) => guest.addPlaced([guest.text(0, "user"), guest.text(1, "d"), many(n)], 0, SESSION),
    1,
  );
  lengths(
    "a payload of type big_key",
    abi.XENKEY_PAYLOAD_MAX,
    (guest, n) => guest.addPlaced([guest.text(0, "big_key"), guest.text(1, "d"), many(n)], 0, SESSION),
    1,
  );
  lengths(
    "an update",
    abi.XENKEY_UPDATE_MAX,
    async (guest, n) => {
      const key = number(await guest.add("user", "updated", "x", SESSION));
      const update = { key, payload: 0x1_0000, payload_len: n, flags: 0 };
      return await guest.call(abi.XENKEY_update, abi.xen_key_update, update);
    },
    0,
  );
  lengths(
    "a callout",
    abi.XENKEY_CALLOUT_MAX,
    (guest, n) => {
      const [t, d] = [guest.text(0, "user"), guest.text(1, "asked")];
      return guest.call(abi.XENKEY_request, abi.xen_key_request, {
        type: t.address,
        type_len: t.length,
        description: d.address,
        description_len: d.length,
        callout: 0x1_0000,
        callout_len: n,
        flags: abi.XENKEYF_callout,
        ring: 0,
      });
    },
    "ENOENT",
  );
  lengths(
    "a session's name",
    abi.XENKEY_DESCRIPTION_MAX,
    (guest, n) =>
      guest.call(abi.XENKEY_join_session, abi.xen_key_join_session, {
        name: 0x1_0000,
        name_len: n,
        flags: abi.XENKEYF_named,
      }),
    1,
  );
});

describe("a guest that says wrong places", () => {
  it(
    "of structs and texts is told so, and nothing is changed",
    onKeyHost(async (host) => {
      const guest = host.domain(1);
      number(await guest.add("user", "there", "x", SESSION));
      const service = await host.service();
      const before = service.statistics();
      for (const address of NOWHERE) {
        for (const command of Object.keys(keyCommands).map(Number))
          assert.equal(await guest.raw(command, address), "EFAULT", `command ${command} at ${address}`);
        const [t, d, p] = [guest.text(0, "user"), guest.text(1, "new"), guest.text(2, "payload")];
        const wrong = { address, length: 4 };
        assert.equal(await guest.addPlaced([wrong, d, p], 0, SESSION), "EFAULT");
        assert.equal(await guest.addPlaced([t, wrong, p], 0, SESSION), "EFAULT");
        assert.equal(await guest.addPlaced([t, d, wrong], 0, SESSION), "EFAULT");
        const secret = address === SECRET_AT ? number : (result: number | string) => assert.equal(result, "EPERM");
        secret(await guest.addPlaced([t, { ...d, length: 2 }, wrong], abi.XENKEYF_secret_payload, SESSION));
      }
      // What is not there is of no matter where nothing is read.
      const [t, d] = [guest.text(0, "keyring"), guest.text(1, "ring")];
      number(await guest.addPlaced([t, d, { address: 0xffff_ffff, length: 0 }], 0, SESSION));
      assert.deepEqual(service.audit(), []);
      assert.equal(service.statistics().keys, before.keys + 2);
    }),
  );

  it(
    "of NULs has them refused wherever a text stands",
    onKeyHost(async (host) => {
      const guest = host.domain(1);
      assert.equal(await guest.add("us\0er", "d", "x", SESSION), "EINVAL");
      assert.equal(await guest.add("user", "d\0", "x", SESSION), "EINVAL");
      assert.equal(await guest.add("user", "\0", "x", SESSION), "EINVAL");
      assert.equal(await guest.request("user", "d", { callout: "\0" }), "EINVAL");
      const name = guest.text(0, "a\0b");
      const join = { name: name.address, name_len: name.length, flags: abi.XENKEYF_named };
      assert.equal(await guest.call(abi.XENKEY_join_session, abi.xen_key_join_session, join), "EINVAL");
      // In a payload they are bytes as others are.
      const key = number(await guest.add("user", "d", "\0\0\0", SESSION));
      assert.equal(await guest.read(key, SECRET_AT, 3), 3);
    }),
  );

  it(
    "of ids that name nothing is told so by every command",
    onKeyHost(async (host) => {
      const guest = host.domain(1);
      const key = number(await guest.add("user", "mine", "x", SESSION));
      const allowed = ["ENOKEY", "EINVAL", "ENOTDIR", "ENOENT"];
      for (const id of [0, -6, -7, -8, -9, -0x8000_0000, 1, 2, 0x7fff_ffff]) {
        for (const [command, row] of Object.entries(keyCommands)) {
          if (row.ids === undefined) continue;
          const [t, d, p] = [guest.text(0, "user"), guest.text(1, "no"), guest.text(2, "x")];
          const places = { type: t.address, type_len: 4, description: d.address, description_len: 2 };
          const known: Record<string, number> = { ...places, payload: p.address, payload_len: 1, key: id, ring: id };
          const members = Object.fromEntries(Object.entries(known).filter(([name]) => Reflect.has(row.struct, name)));
          const result = await guest.call(Number(command), row.struct as typeof abi.xen_key_add, members);
          const isDefault = Number(command) === abi.XENKEY_request && id === 0;
          assert.ok(isDefault || allowed.includes(String(result)), `command ${command} of ${id}: ${result}`);
        }
      }
      assert.equal(await guest.read(key, SECRET_AT, 1), 1);
    }),
  );

  it(
    "at random, with other domains' keys in reach, changes nothing of theirs",
    onKeyHost(
      async (host) => {
        const seed = randomInt(2 ** 31);
        let state = seed;
        const below = (limit: number): number => {
          state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
          return Math.floor((state / 2 ** 32) * limit);
        };
        const [owner, guest] = [host.domain(1), host.domain(2)];
        const key = number(await owner.add("user", "db:orders", "secret", SESSION));
        const ring = number(
          await owner.call(abi.XENKEY_get_keyring_id, abi.xen_key_get_keyring_id, { ring: SESSION, flags: 1 }),
        );
        const words = [
          0,
          1,
          4,
          31,
          32,
          64,
          4095,
          4096,
          0x1000,
          0x1_0000,
          0x7fff_ffff,
          0xffff_ffff,
          SECRET_AT,
          key,
          ring,
        ];
        const view = new DataView(guest.bytes.buffer);
        for (let at = 0x1000; at < 0x2000; at += 1) guest.bytes[at] = below(4) === 0 ? 0 : 0x61 + below(26);
        for (let round = 0; round < 3000; round += 1) {
          for (let at = 0; at < 40; at += 4) {
            const word = below(3) === 0 ? 0xffff_fff8 + below(8) : words[below(words.length)]!;
            view.setUint32(at, word, true);
          }
          if (below(2) === 0) guest.bytes.set(Buffer.from("user"), 0x1000);
          const result = await guest.raw(below(16), 0, below(3));
          assert.ok(result !== "EIO", `seed ${seed}, round ${round}`);
        }
        assert.deepEqual((await host.service()).audit(), [], `seed ${seed}`);
        assert.equal(await owner.read(key, SECRET_AT, 64), 6, `seed ${seed}`);
        assert.equal(Buffer.from(owner.bytes.subarray(SECRET_AT, SECRET_AT + 6)).toString(), "secret");
        assert.match(String(await owner.describe(key)), /;3f010000;db:orders$/, `seed ${seed}`);
      },
      { requestKey: () => Buffer.from("built") },
    ),
  );
});
