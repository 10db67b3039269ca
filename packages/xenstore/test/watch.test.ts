import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { addGuest, OK, setUp } from "./kit.ts";

describe("watches", () => {
  it("a new watch gets one event at once, whether or not the node exists", () => {
    const { dom0 } = setUp();
    assert.equal(dom0.watch("/missing", "token"), OK);
    assert.deepEqual(dom0.takeEvents(), ["/missing token"]);
  });

  it("a watch hears of its node and of everything below, and of nothing else", () => {
    const { dom0 } = setUp();
    dom0.watch("/a", "w");
    dom0.takeEvents();
    dom0.write("/a", "1");
    dom0.write("/a/b/c", "1");
    dom0.write("/ab", "1");
    dom0.write("/", "1");
    dom0.read("/a");
    assert.deepEqual(dom0.takeEvents(), ["/a w", "/a/b/c w"]);
  });

  it("removal of an ancestor is told to a watch below, with its own path", () => {
    const { dom0 } = setUp();
    dom0.write("/a/b/c", "1");
    dom0.watch("/a/b/c", "low");
    dom0.watch("/a/b/missing", "missing");
    dom0.watch("/", "top");
    dom0.takeEvents();
    dom0.rm("/a");
    assert.deepEqual(dom0.takeEvents().toSorted(), ["/a top", "/a/b/c low"]);
  });

  it("a watch with a depth hears of so many levels below", () => {
    const { dom0 } = setUp();
    assert.equal(dom0.watch("/a", "d0", "0"), OK);
    assert.equal(dom0.watch("/a", "d1", "1"), OK);
    assert.equal(dom0.watch("/a", "bad", "x"), "!EINVAL");
    dom0.takeEvents();
    dom0.write("/a", "1");
    dom0.write("/a/b/c", "1");
    assert.deepEqual(dom0.takeEvents().toSorted(), ["/a d0", "/a d1", "/a/b d1"]);
  });

  it("the depth is refused to a domain that is not offered it", () => {
    const { server, dom0 } = setUp();
    server.createDomain(7);
    dom0.ask(abi.XS_SET_FEATURE, ["7", "3"]);
    const guest = addGuest(server, dom0, 7);
    assert.equal(guest.watch("data", "t", "1"), "!EINVAL");
    assert.equal(guest.watch("data", "t"), OK);
  });

  it("a watch set with a relative path gets relative paths", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    guest.watch("device", "t");
    dom0.write("/local/domain/7/device/vbd/0", "1");
    assert.deepEqual(guest.takeEvents(), ["device t", "device/vbd/0 t"]);
  });

  it("a watch is known by path and token", () => {
    const { dom0 } = setUp();
    assert.equal(dom0.watch("/a", "1"), OK);
    assert.equal(dom0.watch("/a", "1"), "!EEXIST");
    assert.equal(dom0.watch("/a", "2"), OK);
    assert.equal(dom0.unwatch("/a", "3"), "!ENOENT");
    assert.equal(dom0.unwatch("/b", "1"), "!ENOENT");
    assert.equal(dom0.unwatch("/a", "1"), OK);
    dom0.takeEvents();
    dom0.write("/a", "x");
    assert.deepEqual(dom0.takeEvents(), ["/a 2"]);
  });

  it("RESET_WATCHES ends the watches and transactions of the connection alone", () => {
    const { server, dom0 } = setUp();
    const [one, two] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    one.watch("x", "t");
    two.watch("x", "t");
    const transaction = one.begin();
    assert.equal(one.ask(abi.XS_RESET_WATCHES, [""]), OK);
    assert.equal(one.commit(transaction), "!ENOENT");
    one.write("x", "1");
    two.write("x", "1");
    assert.deepEqual(one.takeEvents(), ["x t"]);
    assert.deepEqual(two.takeEvents(), ["x t", "x t"]);
  });

  it("special paths fire when a domain comes and goes, once for each", () => {
    const { server, dom0 } = setUp();
    dom0.watch("@introduceDomain", "in");
    dom0.watch("@releaseDomain", "out");
    dom0.watch("@releaseDomain", "which", "1");
    dom0.takeEvents();
    addGuest(server, dom0, 7);
    assert.deepEqual(dom0.takeEvents(), ["@introduceDomain in"]);
    server.domainDied(7);
    server.domainDied(7);
    assert.deepEqual(dom0.takeEvents(), ["@releaseDomain out", "@releaseDomain/7 which"]);
    assert.equal(server.releaseDomain(7), true);
    assert.equal(server.releaseDomain(7), false);
    assert.deepEqual(dom0.takeEvents(), []);
  });

  it("special paths are closed to guests until the control domain opens them", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    assert.equal(guest.watch("@releaseDomain", "t"), OK);
    assert.equal(guest.permissions("@releaseDomain"), "!EACCES");
    assert.equal(guest.chmod("@releaseDomain", "n0 r7"), "!EACCES");
    guest.takeEvents();
    addGuest(server, dom0, 8);
    server.releaseDomain(8);
    assert.deepEqual(guest.takeEvents(), []);
    assert.equal(dom0.chmod("@releaseDomain", "n0 r7"), OK);
    assert.equal(dom0.permissions("@releaseDomain"), "n0 r7");
    addGuest(server, dom0, 8);
    server.releaseDomain(8);
    assert.deepEqual(guest.takeEvents(), ["@releaseDomain t"]);
  });

  it("an event comes behind the reply of what caused it before, and replies are in order", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const types: number[] = [];
    const payload = Buffer.from("x\0t\0");
    guest.page.send({ type: abi.XS_WATCH, requestId: 1, transactionId: 0, payload }, guest.pump);
    guest.page.send({ type: abi.XS_WRITE, requestId: 2, transactionId: 0, payload: Buffer.from("x\0v") }, guest.pump);
    guest.page.send({ type: abi.XS_READ, requestId: 3, transactionId: 0, payload: Buffer.from("x\0") }, guest.pump);
    for (const message of guest.messages()) types.push(message.type);
    assert.equal(types[0], abi.XS_WATCH);
    assert.deepEqual(
      types.filter((type) => type !== abi.XS_WATCH_EVENT),
      [abi.XS_WATCH, abi.XS_WRITE, abi.XS_READ],
    );
    assert.equal(types.filter((type) => type === abi.XS_WATCH_EVENT).length, 2);
  });
});
