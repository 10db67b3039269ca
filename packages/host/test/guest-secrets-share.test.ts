// Secret objects between guests: offers, consent, what is taken back, and what the policy says about it.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import type { Host } from "../src/index.ts";
import { openSecretHost, PAGE, Puppet } from "./secret-guest.ts";

const { EDQUOT, EEXIST, EINVAL, ENOENT, ENOSPC, EPERM } = abi;
const READ_ONLY = abi.XENSECRET_READONLY;
const GFN = 0x8_0000;
const AT = GFN * PAGE;

/** Runs what needs two guests; the host is closed and sound afterwards. */
const withTwo = async (
  work: (owner: Puppet, user: Puppet, host: Host) => Promise<void>,
  options = {},
): Promise<void> => {
  const host = await openSecretHost(options);
  let findings: string[] = [];
  try {
    await work(await Puppet.start(host), await Puppet.start(host, { label: "tenant" }), host);
    findings = host.audit();
  } finally {
    await host.close();
  }
  assert.deepEqual(findings, []);
};

/** Offers an object, and accepts it; the user's number for it. */
const give = async (owner: Puppet, id: number, user: Puppet, flags = 0): Promise<number> => {
  assert.equal(await owner.share(id, user.domain.domid, flags), 0);
  return user.accept(owner.domain.domid, id);
};

describe("a secret that is offered", () => {
  it("is nothing to the other domain before it accepts, and by nobody else's acceptance", () =>
    withTwo(async (owner, user, host) => {
      const third = await Puppet.start(host);
      const id = await owner.secretAt(GFN, 1);
      const { domid } = owner.domain;
      assert.equal(await user.accept(domid, id), -ENOENT);
      assert.equal(await owner.share(id, user.domain.domid), 0);
      const before = await user.query();
      assert.ok(typeof before === "object" && before.objects === 0);
      assert.equal(await third.accept(domid, id), -ENOENT);
      assert.equal(await user.accept(domid, id + 1), -ENOENT);
      assert.equal(await user.accept(third.domain.domid, id), -ENOENT);
      assert.equal(await user.accept(abi.DOMID_SELF, id), -ENOENT);
      assert.equal(await user.accept(domid, id), 0);
      assert.equal(await user.accept(domid, id), -ENOENT);
      assert.equal(await owner.share(id, user.domain.domid), -EEXIST);
    }));

  it("is for the domain that has the number now, and not for the next one", () =>
    withTwo(async (owner, user, host) => {
      const id = await owner.allocate(1);
      const { domid } = user.domain;
      assert.equal(await owner.share(id, domid), 0);
      await user.domain.destroy();
      // The number comes round again, as if all others had been used.
      host.hypervisor.domains.serial[1] = domid - 1;
      const heir = await Puppet.start(host);
      assert.equal(heir.domain.domid, domid);
      assert.equal(await heir.accept(owner.domain.domid, id), -ENOENT);
      assert.equal(await owner.share(id, domid), 0);
      assert.equal(await heir.accept(owner.domain.domid, id), 0);
    }));

  it("is withdrawn, and the 17th offer at a time is refused", () =>
    withTwo(async (owner, user) => {
      const id = await owner.allocate(1);
      const other = user.domain.domid;
      assert.equal(await owner.share(id, other), 0);
      assert.equal(await owner.revoke(id, other), 0);
      assert.equal(await user.accept(owner.domain.domid, id), -ENOENT);
      for (let count = 0; count < 16; count += 1) assert.equal(await owner.share(id, 1000 + count), 0);
      assert.equal(await owner.share(id, other), -ENOSPC);
      assert.equal(await owner.share(id, 1000), -EEXIST);
      assert.equal(await owner.revoke(id), 0);
      assert.equal(await owner.share(id, other), 0);
      for (const domid of [owner.domain.domid, abi.DOMID_SELF, abi.DOMID_INVALID, 0x7ff0]) {
        assert.equal(await owner.share(id, domid), -EINVAL);
      }
      assert.equal(await owner.share(id, 1, 2), -EINVAL);
    }));
});

describe("a secret that two guests have", () => {
  it("is one memory; its maker alone seals, shares and takes it back", () =>
    withTwo(async (owner, user) => {
      const id = await owner.secretAt(GFN, 2);
      const theirs = await give(owner, id, user);
      assert.equal(await user.map(theirs, GFN, [0, 2]), 0);
      await user.store(AT + PAGE, 5);
      assert.equal(await owner.load(AT + PAGE), 5);
      const refused = [
        await user.seal(theirs),
        await user.share(theirs, owner.domain.domid),
        await user.revoke(theirs),
        await owner.revoke(id, 999),
      ];
      assert.deepEqual(refused, [-ENOENT, -ENOENT, -ENOENT, -ENOENT]);
      assert.equal(await owner.seal(id), 0);
      assert.equal(await user.load(AT + PAGE), 5);
      assert.equal(await user.map(theirs, GFN + 2, [0, 1]), -EPERM);
    }));

  it("for reading only cannot be written by who accepted it", () =>
    withTwo(async (owner, user) => {
      const id = await owner.secretAt(GFN, 1);
      const theirs = await give(owner, id, user, READ_ONLY);
      assert.equal(await user.map(theirs, GFN, [0, 1]), -EPERM);
      assert.equal(await user.map(theirs, GFN, [0, 1], READ_ONLY), 0);
      await owner.store(AT, 6);
      assert.equal(await user.load(AT), 6);
    }));

  it("when it is taken back: zeros for the reader, a page of its own for the writer, charged from the beginning", () =>
    withTwo(async (owner, user) => {
      const id = await owner.secretAt(GFN, 1);
      const { pages } = user.domain.stats();
      const theirs = await give(owner, id, user);
      assert.equal(await user.map(theirs, GFN, [0, 1]), 0);
      assert.equal(await user.map(theirs, GFN + 1, [0, 1], READ_ONLY), 0);
      assert.equal(user.domain.stats().pages, pages + 1);
      await owner.store(AT, 8);
      assert.equal(await owner.revoke(id, user.domain.domid), 0);
      assert.deepEqual([await user.load(AT), await user.load(AT + PAGE)], [0, 0]);
      await user.store(AT, 3);
      assert.deepEqual([await owner.load(AT), await user.load(AT + PAGE)], [8, 0]);
      assert.equal(await user.map(theirs, GFN + 2, [0, 1]), -ENOENT);
      assert.equal(await user.release(theirs), 0);
      // What replaced it stays until it is unmapped.
      assert.equal(await user.load(AT), 3);
      assert.deepEqual([await user.unmap(GFN, 1), await user.unmap(GFN + 1, 1)], [0, 0]);
      assert.equal(user.domain.stats().pages, pages);
      assert.equal(await give(owner, id, user), theirs);
    }));

  it("given up by who accepted it is its maker's as before; given up by its maker it is nobody's", () =>
    withTwo(async (owner, user) => {
      const id = await owner.secretAt(GFN, 1);
      let theirs = await give(owner, id, user);
      assert.equal(await user.map(theirs, GFN, [0, 1]), 0);
      await user.store(AT, 4);
      assert.equal(await user.release(theirs), 0);
      assert.equal(await owner.load(AT), 4);
      theirs = await give(owner, id, user);
      assert.equal(await user.map(theirs, GFN, [0, 1]), 0);
      assert.equal(await owner.release(id), 0);
      assert.equal(await user.load(AT), 0);
      assert.equal(await user.map(theirs, GFN + 1, [0, 1]), -ENOENT);
      assert.deepEqual([await user.unmap(GFN, 1), await user.release(theirs)], [0, 0]);
    }));

  it("of a maker with more than its own quota is refused to who has none for it", () =>
    withTwo(async (owner, _user, host) => {
      const none = await Puppet.start(host, { secretBytesMax: 0 });
      const id = await owner.secretAt(GFN, 2);
      const theirs = await give(owner, id, none);
      assert.equal(theirs, 0);
      assert.equal(await none.map(theirs, GFN, [0, 1], READ_ONLY), -EDQUOT);
    }));
});

describe("policy and quota of secret memory", () => {
  const rule = { operations: ["XENSECRET_accept", "XENSECRET_share"], labels: ["tenant"], require: "NOBODY" } as const;

  it("Z05: a domain that the policy denies it neither accepts nor offers, and the denial is counted", () =>
    withTwo(
      async (owner, user) => {
        const id = await owner.secretAt(GFN, 1);
        assert.equal(await owner.share(id, user.domain.domid), 0);
        const own = await user.allocate(1);
        const { denied } = user.domain.stats();
        assert.equal(await user.accept(owner.domain.domid, id), -EPERM);
        assert.equal(await user.share(own, owner.domain.domid), -EPERM);
        assert.equal(user.domain.stats().denied, denied + 2);
        const figures = await user.query();
        assert.ok(typeof figures === "object" && figures.objects === 1);
      },
      { policy: { rules: [rule] } },
    ));

  it("Z07: all domains together stop at the pool's ceiling, and one that ends makes room", async () => {
    const limits = { policy: "degraded", underPressure: () => false, bytesMax: 4 * 2 ** 20 } as const;
    const host = await openSecretHost({ secrets: limits });
    const guests = [
      await Puppet.start(host, { secretBytesMax: 2 ** 24 }),
      await Puppet.start(host, { secretBytesMax: 2 ** 24 }),
    ] as const;
    const pool = await host.secrets();
    const made = [await guests[0].allocate(256), await guests[1].allocate(128), await guests[1].allocate(256)];
    const { lockedBytes, ceilingBytes } = pool.statistics();
    await guests[0].domain.destroy();
    const again = await guests[1].allocate(256);
    const findings = host.audit();
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual(made, [0, 0, -ENOSPC]);
    assert.ok(lockedBytes <= ceilingBytes);
    assert.equal(again, 1);
  });
});
