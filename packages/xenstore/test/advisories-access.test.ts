/** Advisories about who may see and change what, whom it is charged to, and what is left of a domain. */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { joinStrings } from "../src/wire.ts";
import { addGuest, Guest, OK, setUp } from "./kit.ts";

const SEED = Number(process.env["XENSTORE_SEED"] ?? Date.now() % 2 ** 31);

describe("advisories: permissions", () => {
  it("X05: a watch tells nothing that a read would not (XSA-115)", () => {
    const { server, dom0 } = setUp();
    const [spy, victim] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    for (const path of ["/", "/local", "/local/domain", "/local/domain/8", "/local/domain/8/a/b"])
      spy.watch(path, "spy");
    for (const path of ["@introduceDomain", "@releaseDomain"]) spy.watch(path, "spy");
    assert.equal(spy.takeEvents().length, 7, "the event that each new watch gets");
    victim.write("a/b", "1");
    victim.chmod("a/b", "n8");
    victim.rm("a");
    const transaction = victim.begin();
    victim.write("a/b", "2", transaction);
    victim.commit(transaction);
    addGuest(server, dom0, 9);
    server.releaseDomain(9);
    dom0.rm("/local/domain/8/a");
    assert.deepEqual(spy.takeEvents(), []);
    victim.write("a/b", "1");
    assert.equal(victim.chmod("a/b", "r8"), OK);
    assert.equal(spy.takeEvents().length, 5, "it may read the node from now on");
    victim.chmod("a/b", "n8");
    assert.equal(spy.takeEvents().length, 5, "it could read the node until now");
    victim.write("a/b", "2");
    assert.deepEqual(spy.takeEvents(), []);
  });

  it("X05: with a transaction that shows and hides again, nothing is told (XSA-115)", () => {
    const { server, dom0 } = setUp();
    const [spy, victim] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    victim.write("a", "1");
    spy.watch("/local/domain/8/a", "spy");
    spy.takeEvents();
    const transaction = victim.begin();
    victim.chmod("a", "r8", transaction);
    victim.write("a", "2", transaction);
    victim.chmod("a", "n8", transaction);
    victim.write("gone", "2", transaction);
    victim.rm("gone", transaction);
    assert.equal(victim.commit(transaction), OK);
    assert.deepEqual(spy.takeEvents(), []);
  });

  it("X09: permissions do not pass to the next domain of the same number (XSA-322)", () => {
    const { server, dom0 } = setUp();
    const [first, keeper] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    keeper.write("secret", "1");
    keeper.chmod("secret", "n8 b7");
    dom0.write("/owned", "1");
    dom0.chmod("/owned", "n7");
    dom0.chmod("@releaseDomain", "n0 r7");
    assert.equal(first.read("/local/domain/8/secret"), "1");
    server.releaseDomain(7);
    const next = addGuest(server, dom0, 7);
    next.watch("@releaseDomain", "t");
    next.takeEvents();
    server.domainDied(8);
    assert.deepEqual(next.takeEvents(), []);
    assert.equal(next.read("/local/domain/8/secret"), "!EACCES");
    assert.equal(dom0.read("/owned"), "!ENOENT");
    assert.equal(keeper.permissions("secret"), "n8");
    keeper.mkdir("secret/child");
    assert.equal(keeper.permissions("secret/child"), "n8");
    keeper.chmod("secret", "n8 r7");
    assert.equal(next.read("/local/domain/8/secret"), "1");
  });

  it("X20: a permission for a domain that does not exist names nobody, whoever comes later (XSA-417)", () => {
    const { server, dom0 } = setUp();
    dom0.write("/node", "1");
    assert.equal(dom0.chmod("/node", "n0 b7"), OK);
    const late = addGuest(server, dom0, 7);
    assert.equal(late.read("/node"), "!EACCES");
    assert.equal(dom0.permissions("/node"), "n0");
    dom0.chmod("/node", "n0 b7");
    assert.equal(late.read("/node"), "1");
    server.createDomain(8);
    dom0.chmod("/node", "n0 b8");
    assert.equal(new Guest(server, 8).read("/node"), "1");
  });

  it("X16: a guest cannot give a node and its cost away (XSA-352)", () => {
    const { server, dom0 } = setUp();
    const [giver, victim] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    giver.write("x", "1");
    const before = server.store.domains.find(8)!.nodes.size;
    assert.equal(giver.chmod("x", "n8"), "!EACCES");
    assert.equal(giver.chmod("x", "n0"), "!EACCES");
    const transaction = giver.begin();
    assert.equal(giver.chmod("x", "n8", transaction), "!EACCES");
    assert.equal(giver.commit(transaction), OK);
    assert.equal(server.store.domains.find(8)!.nodes.size, before);
    assert.equal(giver.chmod("x", "n7 b8"), OK);
    assert.equal(victim.chmod("/local/domain/7/x", "n8"), "!EACCES");
    assert.equal(dom0.chmod("/local/domain/7/x", "n8"), OK);
    assert.equal(server.store.domains.find(8)!.nodes.size, before + 1);
  });

  it("X17: the root is a node like any other (XSA-353)", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const all = (): string[] => [
      guest.chmod("/", "b7"),
      guest.rm("/"),
      guest.mkdir("/x"),
      guest.write("/x", "1"),
      guest.write("/", "1"),
      guest.list("/"),
      guest.permissions("/"),
      guest.read("/"),
    ];
    assert.deepEqual(
      all(),
      Array.from({ length: 8 }, () => "!EACCES"),
    );
    dom0.chmod("/", "r0");
    assert.equal(guest.list("/"), "local tool");
    assert.equal(guest.rm("/"), "!EACCES");
    assert.equal(guest.chmod("/", "b7"), "!EACCES");
  });
});

describe("advisories: what belongs to a domain", () => {
  it(`X08: the nodes that are charged are the nodes that are owned, at the limit too (XSA-272) (seed ${SEED})`, () => {
    const path = fc.constantFrom("a", "b", "a/b", "a/b/c", "/s/x", "/s/x/y", "/s/z");
    const step = fc.record({
      who: fc.nat(1),
      op: fc.constantFrom("write", "mkdir", "rm", "chmod"),
      path,
      inside: fc.boolean(),
    });
    const property = fc.property(fc.array(step, { maxLength: 80, size: "max" }), (steps) => {
      const { server, dom0 } = setUp({ quota: { nodes: 5 } });
      const guests = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
      dom0.mkdir("/s");
      dom0.chmod("/s", "n0 b7 b8");
      const open = guests.map((guest) => guest.begin());
      for (const { who, op, path, inside } of steps) {
        const guest = guests[who]!;
        const transaction = inside ? open[who]! : 0;
        if (op === "write") guest.write(path, "1", transaction);
        else if (op === "mkdir") guest.mkdir(path, transaction);
        else if (op === "rm") guest.rm(path, transaction);
        else guest.chmod(path, `b${guest.domid}`, transaction);
        assert.deepEqual(server.audit(), []);
        for (const domid of [7, 8]) assert.ok(server.store.domains.find(domid)!.nodes.size <= 5);
      }
      guests.forEach((guest, index) => guest.commit(open[index]!));
      assert.deepEqual(server.audit(), []);
    });
    fc.assert(property, { seed: SEED, numRuns: 200 });
  });

  it("X07: the end of a domain can come twice and with that of its device model, and is told once (XSA-233)", () => {
    for (const order of [
      [7, 8],
      [8, 7],
    ]) {
      const { server, dom0 } = setUp();
      addGuest(server, dom0, 7);
      addGuest(server, dom0, 8);
      dom0.ask(abi.XS_SET_TARGET, ["8", "7"]);
      dom0.watch("@releaseDomain", "t");
      dom0.takeEvents();
      for (const domid of order) {
        server.domainDied(domid);
        assert.deepEqual(dom0.takeEvents(), ["@releaseDomain t"]);
        assert.equal(server.releaseDomain(domid), true);
        assert.equal(server.releaseDomain(domid), false);
        assert.equal(dom0.ask(abi.XS_RELEASE, [String(domid)]), "!ENOENT");
      }
      assert.deepEqual(dom0.takeEvents(), []);
      assert.deepEqual(server.audit(), []);
    }
  });

  it("X12: a client that misbehaves is shut out and not forgotten (XSA-325)", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    dom0.watch("@releaseDomain", "t");
    dom0.takeEvents();
    guest.page.put(new Uint8Array(1024).fill(0xff));
    guest.pump();
    assert.equal(guest.page.loadU32(abi.xenstore_domain_interface.error.offset), abi.XENSTORE_ERROR_PROTO);
    assert.deepEqual(dom0.takeEvents(), []);
    assert.equal(dom0.ask(abi.XS_IS_DOMAIN_INTRODUCED, ["7"]), "T\0");
    server.domainDied(7);
    assert.deepEqual(dom0.takeEvents(), ["@releaseDomain t"]);
    server.releaseDomain(7);
    assert.equal(dom0.ask(abi.XS_IS_DOMAIN_INTRODUCED, ["7"]), "F\0");
    assert.equal(dom0.list("/local/domain"), "");
  });

  it("X22: nodes of the dead go with them, wherever they are (XSA-419)", () => {
    const { server, dom0 } = setUp();
    const host = addGuest(server, dom0, 8);
    host.mkdir("open");
    host.chmod("open", "b8");
    const before = [...server.store.domains.find(8)!.nodes].length;
    for (let life = 0; life < 1000; life += 1) {
      const guest = addGuest(server, dom0, 7);
      assert.equal(guest.write(`/local/domain/8/open/n${life}/deep`, "1"), OK);
      server.releaseDomain(7);
    }
    assert.equal(host.list("open"), "");
    assert.equal(server.store.domains.find(8)!.nodes.size, before);
    assert.deepEqual(server.audit(), []);
  });

  it("X28: what a dead domain used is not charged to the next of its number (XSA-483)", () => {
    const { server, dom0 } = setUp({ quota: { nodes: 50 } });
    for (let life = 0; life < 3; life += 1) {
      const guest = addGuest(server, dom0, 7);
      for (let index = 1; index < 50; index += 1) assert.equal(guest.mkdir(`n${index}`), OK);
      assert.equal(guest.mkdir("more"), "!ENOSPC");
      for (let index = 0; index < 128; index += 1) assert.equal(guest.watch("x", `t${index}`), OK);
      for (let index = 0; index < 10; index += 1) assert.ok(guest.begin() > 0);
      server.releaseDomain(7);
    }
    assert.equal(server.store.openTransactionCount, 0);
  });

  it("X25: a guest is released and introduced again with requests, watches and transactions open (XSA-425)", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    guest.write("kept", "1");
    for (let turn = 0; turn < 100; turn += 1) {
      guest.watch("x", "t");
      guest.begin();
      guest.page.put(joinStrings(["half a message"]));
      guest.pump();
      assert.equal(dom0.ask(abi.XS_RELEASE, ["7"]), OK);
      assert.equal(server.store.watches.count, 0);
      assert.equal(server.store.openTransactionCount, 0);
      guest.page.startAt(turn);
      guest.page.bytes.fill(0, 0, 2048);
      server.introduceDomain(7, guest.page);
      assert.equal(guest.read("kept"), "1");
    }
    assert.deepEqual(server.audit(), []);
  });
});
