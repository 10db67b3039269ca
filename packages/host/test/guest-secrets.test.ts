// secret_op, by guests that say each call themselves, on real secret memory.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { freeFrameCount, P2M_HOLE } from "@xenolith/core";
import { lockedBytes, openDescriptorCount } from "@xenolith/sys";
import { isSecretRange, readSecret, writeSecret } from "../src/secret-copy.ts";
import { openSecretHost, PAGE, Puppet, withoutSecretMemory } from "./secret-guest.ts";

const { EDQUOT, EEXIST, EFAULT, EINVAL, ENOENT, ENOSYS, EPERM } = abi;
const READ_ONLY = abi.XENSECRET_READONLY;
/** Far from all memory of the guest's. */
const GFN = 0x8_0000;
const AT = GFN * PAGE;

const isHole = ({ host, slot }: Puppet, gfn: number): boolean => host.hypervisor.p2m.get(slot, gfn) === P2M_HOLE;

/** Code of what is thrown. */
const codeOf = (act: () => unknown): string => {
  try {
    act();
    return "none";
  } catch (error) {
    return error instanceof abi.XenolithError ? error.code : String(error);
  }
};

describe("secret memory in a guest", () => {
  it("is mapped, written and read by it, and costs it none of its memory", async () => {
    const host = await openSecretHost();
    const guest = await Puppet.start(host);
    const free = freeFrameCount(host.hypervisor);
    const id = await guest.secretAt(GFN, 3);
    await guest.store(AT + 2 * PAGE + 5, 77);
    const seen = [await guest.load(AT), await guest.load(AT + 2 * PAGE + 5)];
    const figures = await guest.query(id);
    const left = freeFrameCount(host.hypervisor);
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual([id, seen, left], [0, [0, 77], free]);
    const hidden = withoutSecretMemory === false ? abi.XENSECRET_IS_HIDDEN : 0;
    const flags = hidden | abi.XENSECRET_IS_OWNED;
    assert.deepEqual(figures, { flags, pages: 3, objects: 1, used: 3 * PAGE, mapped: 3 * PAGE, max: 65_536 });
  });

  it("shows one object at two places, a part of it, and for reading only", async () => {
    const host = await openSecretHost();
    const guest = await Puppet.start(host);
    const id = await guest.secretAt(GFN, 4);
    const results = [await guest.map(id, GFN + 4, [2, 1]), await guest.map(id, GFN + 5, [3, 1], READ_ONLY)];
    await guest.store(AT + 2 * PAGE, 1);
    await guest.store(AT + 3 * PAGE, 2);
    const seen = [await guest.load(AT + 4 * PAGE), await guest.load(AT + 5 * PAGE)];
    const findings = host.audit();
    const trapped = await guest.store(AT + 5 * PAGE, 3).then(
      () => "stored",
      () => "trapped",
    );
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual([results, seen, trapped], [[0, 0], [1, 2], "trapped"]);
  });

  it("is gone where it was unmapped, keeps its contents, and is gone altogether when it is released", async () => {
    const host = await openSecretHost();
    const guest = await Puppet.start(host);
    const before = { descriptors: openDescriptorCount() };
    const id = await guest.secretAt(GFN, 2);
    await guest.store(AT + PAGE, 9);
    const wrong = [await guest.unmap(GFN, 1), await guest.unmap(GFN + 1, 1), await guest.unmap(GFN, 3)];
    const unmapped = await guest.unmap(GFN, 2);
    const holes = [isHole(guest, GFN), isHole(guest, GFN + 1)];
    await guest.map(id, GFN + 8, [1, 1]);
    const kept = await guest.load(AT + 8 * PAGE);
    const released = await guest.release(id);
    const after = [await guest.release(id), await guest.map(id, GFN, [0, 1]), await guest.query(id)];
    const hole = isHole(guest, GFN + 8);
    const quota = await guest.query();
    const descriptors = openDescriptorCount();
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual(wrong, [-EINVAL, -EINVAL, -EINVAL]);
    assert.deepEqual([unmapped, holes, kept, released, hole], [0, [true, true], 9, 0, true]);
    assert.deepEqual(after, [-ENOENT, -ENOENT, -ENOENT]);
    assert.deepEqual(quota, { flags: 0, pages: 0, objects: 0, used: 0, mapped: 0, max: 65_536 });
    // The pool's first chunk stays.
    assert.equal(descriptors - before.descriptors, 1);
  });

  it("that is sealed is read as before and never written again", async () => {
    const host = await openSecretHost();
    const guest = await Puppet.start(host);
    const id = await guest.secretAt(GFN, 1);
    await guest.store(AT, 5);
    const results = [await guest.seal(id), await guest.seal(id), await guest.map(id, GFN + 1, [0, 1])];
    const read = [await guest.load(AT), await guest.map(id, GFN + 1, [0, 1], READ_ONLY), await guest.load(AT + PAGE)];
    const figures = await guest.query(id);
    const findings = host.audit();
    const trapped = await guest.store(AT, 6).then(
      () => "stored",
      () => "trapped",
    );
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual([results, read, trapped], [[0, 0, -EPERM], [5, 0, 5], "trapped"]);
    assert.ok(typeof figures === "object" && (figures.flags & abi.XENSECRET_IS_SEALED) !== 0);
  });

  it("can be written and read by the control domain, where the guest could, and nowhere else", async () => {
    const host = await openSecretHost();
    const guest = await Puppet.start(host);
    const { hypervisor } = host;
    const { slot } = guest;
    const id = await guest.secretAt(GFN, 2);
    await guest.map(id, GFN + 2, [0, 1], READ_ONLY);
    const bytes = Uint8Array.from({ length: 100 }, (_, index) => index);
    const across = AT + PAGE - 50;
    const target = new Uint8Array(100);
    const good = [writeSecret(hypervisor, slot, across, bytes), readSecret(hypervisor, slot, across, target)];
    const seen = [await guest.load(across), await guest.load(across + 99)];
    const refused = [
      writeSecret(hypervisor, slot, AT + 2 * PAGE, bytes),
      writeSecret(hypervisor, slot, AT + 2 * PAGE - 1, bytes),
      readSecret(hypervisor, slot, AT + 3 * PAGE - 99, target),
      readSecret(hypervisor, slot, AT - 1, target),
      readSecret(hypervisor, slot, 0, target),
      writeSecret(hypervisor, slot, 0, bytes),
      writeSecret(hypervisor, slot, 2 ** 32 - 1, bytes),
      writeSecret(hypervisor, slot, -5, bytes),
    ];
    const codes = [
      codeOf(() => guest.domain.read(AT, 1)),
      codeOf(() => guest.domain.read(AT - 1, 2)),
      codeOf(() => guest.domain.write(AT, bytes)),
      codeOf(() => host.shareFrom(guest.domain, AT, PAGE)),
    ];
    const empty = writeSecret(hypervisor, slot, AT, new Uint8Array(0));
    const all = { address: AT, lengthBytes: 3 * PAGE };
    const ranges = [
      isSecretRange(hypervisor, slot, all, false),
      isSecretRange(hypervisor, slot, all, true),
      isSecretRange(hypervisor, slot, { ...all, lengthBytes: 2 * PAGE }, true),
      isSecretRange(hypervisor, slot, { ...all, lengthBytes: 3 * PAGE + 1 }, false),
    ];
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual([good, seen, empty], [[0, 0], [0, 99], 0]);
    assert.deepEqual(codes, Array(4).fill("GUEST_ADDRESS"));
    assert.deepEqual(ranges, [true, false, true, false]);
    assert.deepEqual(target, bytes);
    assert.deepEqual(refused, Array(8).fill(-EFAULT));
  });
});

describe("secret memory, wanted wrongly", () => {
  it("over RAM, rings and other mappings, beyond ends, and with flags and commands that are none", async () => {
    const host = await openSecretHost();
    const guest = await Puppet.start(host);
    const id = await guest.secretAt(GFN, 4);
    const share = host.share(2 * PAGE);
    const shared = share.mapInto(guest.domain, { access: "read-write" }) / PAGE;
    const refusals: readonly (readonly [number, number, readonly [number, number], number])[] = [
      [-EEXIST, 0, [0, 1], 0],
      [-EEXIST, GFN - 1, [0, 2], 0],
      [-EEXIST, GFN + 3, [0, 1], 0],
      [-EEXIST, shared, [0, 1], 0],
      [-EEXIST, shared + 1, [0, 1], READ_ONLY],
      [-EINVAL, 0xf_ffff, [0, 2], 0],
      [-EINVAL, 0x10_0000, [0, 1], 0],
      [-EINVAL, 0xffff_ffff, [0, 1], 0],
      [-EINVAL, GFN + 8, [0, 0], 0],
      [-EINVAL, GFN + 8, [0, 5], 0],
      [-EINVAL, GFN + 8, [4, 1], 0],
      [-EINVAL, GFN + 8, [0xffff_ffff, 2], 0],
      [-EINVAL, GFN + 8, [0, 1], 2],
    ];
    const answers: number[] = [];
    for (const [, gfn, part, flags] of refusals) answers.push(await guest.map(id, gfn, part, flags));
    const others = [
      await guest.map(7, GFN + 8, [0, 1]),
      await guest.allocate(0),
      await guest.allocate(4096),
      await guest.allocate(0xffff_ffff),
      await guest.op(abi.XENSECRET_allocate, 1, 1, 0),
      await guest.op(9),
      await guest.hyper(abi.__HYPERVISOR_secret_op, abi.XENSECRET_map, 0xffff_fff0),
      await guest.hyper(abi.__HYPERVISOR_secret_op, abi.XENSECRET_allocate, AT),
      await guest.hyper(abi.__HYPERVISOR_secret_op, abi.XENSECRET_query, AT - 8),
    ];
    const figures = await guest.query();
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual(
      answers,
      refusals.map(([errno]) => errno),
    );
    assert.deepEqual(others, [-ENOENT, -EINVAL, -EINVAL, -EINVAL, -EINVAL, -ENOSYS, -EFAULT, -EFAULT, -EFAULT]);
    assert.ok(typeof figures === "object" && figures.objects === 1 && figures.mapped === 4 * PAGE);
  });

  it("its memory still grows, up to where a secret stands", async () => {
    const host = await openSecretHost();
    const guest = await Puppet.start(host);
    // Its memory ends at 128 KiB; the secret stands 64 KiB behind that.
    await guest.secretAt(48, 1);
    const grown = [await guest.domain.call("grow", 1), await guest.domain.call("grow", 1)];
    await guest.store(48 * PAGE - 1, 1);
    await guest.store(48 * PAGE, 2);
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual(grown, [2, -1]);
  });

  it("more than the quota: objects, bytes, mappings; and what it has stays", async () => {
    const host = await openSecretHost();
    const guest = await Puppet.start(host, { secretBytesMax: 4 * PAGE });
    const none = await Puppet.start(host, { secretBytesMax: 0 });
    const id = await guest.secretAt(GFN, 3);
    const answers = [
      await guest.allocate(5),
      await guest.allocate(2),
      await guest.map(id, GFN + 8, [0, 2]),
      await guest.map(id, GFN + 8, [0, 1]),
      await guest.map(id, GFN + 9, [0, 1]),
      await guest.allocate(1),
      await guest.allocate(1),
    ];
    const nothing = [await none.allocate(1), await none.query()];
    const figures = await guest.query();
    await guest.release(id);
    const again = await guest.allocate(3);
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual(answers, [-EDQUOT, -EDQUOT, -EDQUOT, 0, -EDQUOT, 1, -EDQUOT]);
    assert.deepEqual(nothing, [-EDQUOT, { flags: 0, pages: 0, objects: 0, used: 0, mapped: 0, max: 0 }]);
    assert.deepEqual(figures, { flags: 0, pages: 0, objects: 2, used: 4 * PAGE, mapped: 4 * PAGE, max: 4 * PAGE });
    assert.equal(again, 0);
  });

  it("64 objects are all, and one domain's quota is not another's", async () => {
    const host = await openSecretHost();
    const guest = await Puppet.start(host, { secretBytesMax: 2 ** 20 });
    const other = await Puppet.start(host);
    const ids: number[] = [];
    for (let count = 0; count < 65; count += 1) ids.push(await guest.allocate(1));
    const theirs = await other.allocate(1);
    await guest.release(10);
    const reused = await guest.allocate(1);
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual(ids, [...Array(64).keys(), -EDQUOT]);
    assert.deepEqual([theirs, reused], [0, 10]);
  });
});

describe("secret memory that many want at once", () => {
  it("is made for one in each turn of the event loop", async () => {
    const host = await openSecretHost();
    const slots = [await Puppet.start(host), await Puppet.start(host)].map(({ slot }) => slot);
    let turn = 0;
    const turns: number[] = [];
    const count = (): void => {
      turn += 1;
      if (turns.length < 12) setImmediate(count);
    };
    setImmediate(count);
    const wishes = slots.flatMap((slot) => Array.from({ length: 6 }, () => host.guestSecrets.allocate(slot, 1)));
    const ids = await Promise.all(
      wishes.map(async (wish) => {
        const id = await wish;
        turns.push(turn);
        return id;
      }),
    );
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual(ids, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
    assert.equal(new Set(turns).size, 12, turns.join());
  });
});

describe("secret memory of domains that end", () => {
  it("is wiped, unlocked and given back, with mappings, shares and calls in progress", async () => {
    const host = await openSecretHost();
    const pool = await host.secrets();
    const before = { locked: lockedBytes(), descriptors: openDescriptorCount(), pool: pool.statistics().lockedBytes };
    for (let round = 0; round < 3; round += 1) {
      const guest = await Puppet.start(host);
      const other = await Puppet.start(host);
      const id = await guest.secretAt(GFN, 4);
      await guest.share(id, other.domain.domid);
      const theirs = await other.accept(guest.domain.domid, id);
      assert.equal(await other.map(theirs, GFN, [0, 4]), 0);
      const dying = guest.allocate(2).catch(() => "gone");
      await guest.domain.destroy();
      await dying;
      const seen = [await other.load(AT), await other.query(theirs)];
      const findings = host.audit();
      await other.domain.destroy();
      assert.deepEqual(findings, []);
      const flags = (withoutSecretMemory === false ? abi.XENSECRET_IS_HIDDEN : 0) | abi.XENSECRET_IS_SHARED;
      const figures = { pages: 4, objects: 1, used: 0, mapped: 0, max: 65_536 };
      assert.deepEqual(seen, [0, { flags: flags | abi.XENSECRET_IS_REVOKED, ...figures }]);
    }
    const { regionBytes, mappedBytes, lockedBytes: locked, slots } = pool.statistics();
    const now = { locked: lockedBytes(), descriptors: openDescriptorCount(), pool: locked };
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual([regionBytes, mappedBytes, slots], [0, 0, 0]);
    assert.deepEqual(now, before);
  });
});
