/** Advisories about sizes, paths, queues and transactions. */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encodeMessage, joinStrings } from "../src/wire.ts";
import { addGuest, OK, setUp } from "./kit.ts";

const { req_cons, req_prod, error } = abi.xenstore_domain_interface;

describe("advisories: the wire", () => {
  for (const distance of [0, 1, 1023, 1024, 1025, 2 ** 31, 2 ** 32 - 1]) {
    it(`X01: ${distance} bytes ahead is ${distance <= 1024 ? "legal" : "the end of the connection"} (XSA-38)`, () => {
      const { server, dom0 } = setUp();
      const [guest, other] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
      guest.page.bytes.fill(0, 0, 1024);
      guest.page.storeU32(req_prod.offset, (guest.page.loadU32(req_cons.offset) + distance) >>> 0);
      guest.pump();
      guest.page.take();
      guest.pump();
      assert.equal(guest.page.loadU32(error.offset), distance <= 1024 ? 0 : abi.XENSTORE_ERROR_RINGIDX);
      assert.equal(other.write("x", "1"), OK);
    });
  }

  it("X01: both indices are read once for each use, so that flipping them gains nothing (XSA-38)", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const load = guest.page.loadU32.bind(guest.page);
    let flips = 0;
    guest.page.loadU32 = (offset) => {
      if (offset !== req_prod.offset) return load(offset);
      flips += 1;
      return flips % 2 === 0 ? (load(offset) + 2 ** 31) >>> 0 : load(offset);
    };
    guest.page.put(encodeMessage({ type: abi.XS_READ, requestId: 1, transactionId: 0, payload: joinStrings(["x"]) }));
    guest.pump();
    assert.equal(load(error.offset), abi.XENSTORE_ERROR_RINGIDX);
    assert.deepEqual(server.audit(), []);
  });

  it("X04: a directory that does not fit is E2BIG, and the next request is answered (XSA-72)", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    for (let index = 0; index < 500; index += 1) guest.mkdir(`big/name-${index}`);
    assert.equal(guest.list("big"), "!E2BIG");
    assert.ok(guest.ask(abi.XS_DIRECTORY_PART, ["big", "0"]).includes("name-0\0"));
    assert.equal(guest.read("big"), "");
  });

  it("X11: a token that would not fit into an event is refused (XSA-324)", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    assert.equal(guest.watch("x", "t".repeat(1023)), "!E2BIG");
    assert.equal(guest.watch("x", "t".repeat(1022)), OK);
    const long = `x/${"y/".repeat(1000)}z`;
    assert.equal(guest.write(long, "1"), "!ENOSPC");
    assert.equal(dom0.write(`/local/domain/7/${long}`, "1"), OK);
    assert.equal(guest.takeEvents().length, 2);
  });

  for (const length of [2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 4097]) {
    it(`X23: a length of ${length} ends the connection, and the daemon rests (XSA-420)`, () => {
      const { server, dom0 } = setUp();
      const [guest, other] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
      const head = new Uint8Array(16);
      new DataView(head.buffer).setUint32(12, length, true);
      guest.page.put(head);
      guest.pump();
      assert.equal(guest.page.loadU32(error.offset), abi.XENSTORE_ERROR_PROTO);
      assert.equal(other.write("x", "1"), OK);
    });
  }

  it("X27: every path that is not one is refused with a name, whatever is asked of it (XSA-481)", () => {
    const { dom0, server } = setUp();
    const guest = addGuest(server, dom0, 7);
    const wrong = [
      "/local/domain/",
      "//",
      "/a//b",
      "@x",
      "/a/",
      "",
      "a b",
      "/a\u00e9",
      "/.",
      "/a/../b",
      "x".repeat(3073),
    ];
    const types = [abi.XS_READ, abi.XS_DIRECTORY, abi.XS_MKDIR, abi.XS_RM, abi.XS_GET_PERMS];
    for (const peer of [dom0, guest]) {
      for (const path of wrong) {
        for (const type of types) assert.equal(peer.ask(type, [path]), "!EINVAL", `${type} ${path}`);
        assert.equal(peer.write(path, "1"), "!EINVAL");
        assert.equal(peer.watch(path, "t"), "!EINVAL");
        assert.equal(peer.unwatch(path, "t"), "!EINVAL");
        assert.equal(peer.chmod(path, "r0"), "!EINVAL");
        assert.equal(peer.ask(abi.XS_DIRECTORY_PART, [path, "0"]), "!EINVAL");
      }
      for (const type of types) assert.equal(peer.ask(type, Buffer.from("/no-terminator")), "!EINVAL");
    }
    assert.equal(dom0.read("/"), "");
  });

  it("X10: limits hold for the canonical path, so whoever made a node can name it (XSA-323)", () => {
    for (const domid of [7, 12345]) {
      const { server, dom0 } = setUp();
      const guest = addGuest(server, dom0, domid);
      const home = `/local/domain/${domid}`;
      for (const [length, fits] of [
        [2047, true],
        [2048, true],
        [2049, false],
      ] as const) {
        const name = "x".repeat(length);
        assert.equal(guest.mkdir(name), fits ? OK : "!EINVAL");
        assert.equal(guest.mkdir(`${home}/${name}`), fits ? OK : "!EINVAL");
        if (fits) assert.equal(dom0.rm(`${home}/${name}`), OK);
      }
      assert.equal(dom0.list(home), "");
    }
  });

  it("X21: the deepest path is made, listed, counted and removed without recursion (XSA-418)", () => {
    const { dom0, server } = setUp();
    const path = "/d".repeat(1536);
    assert.equal(dom0.write(path, "1"), OK);
    dom0.watch(path, "t");
    assert.deepEqual(server.audit(), []);
    const transaction = dom0.begin();
    assert.equal(dom0.rm("/d", transaction), OK);
    assert.equal(dom0.commit(transaction), OK);
    assert.deepEqual(dom0.takeEvents().length, 2);
    dom0.write(path, "1");
    assert.equal(dom0.rm("/d"), OK);
    assert.equal(dom0.unwatch(path, "t"), OK);
    assert.equal(server.store.watches.placeCount, 0);
  });
});

describe("advisories: queues", () => {
  it("X13: a guest that reads nothing makes the daemon keep a bounded amount (XSA-326)", () => {
    const { server, dom0 } = setUp();
    const [deaf, other] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    for (let index = 0; index < 128; index += 1) deaf.watch("big", `t${index}`);
    for (let index = 0; index < 900; index += 1) deaf.mkdir(`big/n${index}`);
    deaf.takeEvents();
    for (let turn = 0; turn < 20; turn += 1) {
      for (let index = 0; index < 900; index += 1) dom0.write(`/local/domain/7/big/n${index}`, String(turn));
    }
    const connection = connectionOf(server, 7);
    assert.ok(connection.output.eventCount <= 128 * 64, `${connection.output.eventCount} events wait`);
    assert.ok(connection.output.eventBytes <= 300 * 1024, `${connection.output.eventBytes} bytes of events wait`);
    assert.equal(other.write("x", "1"), OK);
    const heard = new Set(deaf.takeEvents().map((event) => event.split(" ")[1]));
    assert.equal(heard.size, 128, "each watch still hears that something changed");
    assert.equal(deaf.write("x", "1"), OK);
  });

  it("X13: transactions of a guest keep no more than its memory and a fixed part of what others replace (XSA-326)", () => {
    const { server, dom0 } = setUp();
    const [guest, other] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    const transactions = Array.from({ length: 10 }, () => guest.begin());
    for (const transaction of transactions) {
      for (let index = 0; index < 300; index += 1) guest.write(`n${index}`, "x".repeat(2000), transaction);
    }
    assert.ok(server.store.domains.find(7)!.memoryBytes <= 2_621_440 + 4096);
    for (let turn = 0; turn < 6000; turn += 1) other.write("n", "x".repeat(2000));
    assert.equal(server.store.openTransactionCount, 0, "none holds on to the old tree");
    assert.equal(guest.read("x", transactions[0]), "!EAGAIN");
    assert.equal(guest.commit(transactions[0]!), "!EAGAIN");
    for (const transaction of transactions.slice(1)) assert.equal(guest.abort(transaction), OK);
    assert.deepEqual(server.audit(), []);
  });

  it("X14: watches that are reset leave neither places nor events (XSA-330)", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    for (let turn = 0; turn < 100; turn += 1) {
      for (let index = 0; index < 128; index += 1) assert.equal(guest.watch(`a/b${index}/c`, "t"), OK);
      assert.equal(guest.ask(abi.XS_RESET_WATCHES, [""]), OK);
      assert.equal(server.store.watches.placeCount, 0);
    }
    guest.takeEvents();
    guest.write("a/b1/c", "1");
    assert.deepEqual(guest.takeEvents(), []);
    assert.deepEqual(server.audit(), []);
  });

  it("X18: each change is told once, by its path, whatever was changed before (XSA-354)", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    for (let index = 0; index < 900; index += 1) guest.mkdir(`data/n${index}`);
    dom0.watch("/local/domain/7/data", "t");
    dom0.takeEvents();
    for (let turn = 0; turn < 100; turn += 1) {
      guest.write("data/n5", String(turn));
      assert.deepEqual(dom0.takeEvents(), ["/local/domain/7/data/n5 t"]);
    }
  });
});

describe("advisories: transactions", () => {
  it("X06: nobody keeps another's transaction from ending (XSA-206)", () => {
    const { server, dom0 } = setUp();
    const [hostile, honest] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    hostile.mkdir("shared");
    hostile.chmod("shared", "b7");
    for (const peer of [dom0, honest]) {
      let attempts = 0;
      for (let outcome = ""; outcome !== OK; attempts += 1) {
        assert.ok(attempts < 10, "ends after a few attempts");
        const transaction = peer.begin();
        peer.read("/local/domain/7/shared", transaction);
        const payload = Buffer.from(`shared\0${attempts}`);
        hostile.page.put(encodeMessage({ type: abi.XS_WRITE, requestId: 9, transactionId: 0, payload }));
        hostile.pump();
        peer.write("/local/domain/7/shared", "mine", transaction);
        outcome = peer.commit(transaction);
      }
      hostile.messages();
      assert.ok(attempts > 3, "the writer did get in the way");
    }
    assert.equal(hostile.write("shared", "1"), OK, "and is served again");
  });

  it("X06: the protection cannot be used to keep a guest from being served (XSA-206)", () => {
    let nowMs = 0;
    const { server, dom0 } = setUp({ now: () => nowMs });
    const [victim, hostile] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    victim.mkdir("shared");
    victim.chmod("shared", "r7");
    for (let turn = 0; turn < 3; turn += 1) {
      const transaction = hostile.begin();
      hostile.read("/local/domain/7/shared", transaction);
      assert.equal(victim.write("shared", "1"), OK);
      assert.equal(hostile.commit(transaction), "!EAGAIN");
    }
    hostile.begin();
    const payload = Buffer.from("shared\0mine");
    victim.page.put(encodeMessage({ type: abi.XS_WRITE, requestId: 9, transactionId: 0, payload }));
    assert.deepEqual(victim.messages(), [], "it waits");
    nowMs = 10;
    assert.equal(victim.messages().length, 1, "and not for long");
    hostile.begin();
    assert.equal(victim.write("shared", "2"), OK, "nor again at once");
  });

  it("X19: a creation that failed leaves nothing, inside a transaction and outside (XSA-414, XSA-415, XSA-416)", () => {
    for (let nodes = 1; nodes < 6; nodes += 1) {
      const { server, dom0 } = setUp({ quota: { nodes } });
      const guest = addGuest(server, dom0, 7);
      const answer = nodes < 5 ? "!ENOSPC" : OK;
      const transaction = guest.begin();
      assert.equal(guest.write("a/b/c/d", "1", transaction), answer);
      assert.equal(guest.list("/local/domain/7", transaction), nodes < 5 ? "" : "a");
      assert.equal(guest.commit(transaction), OK);
      guest.rm("a");
      assert.equal(guest.write("a/b/c/d", "1"), answer);
      assert.equal(dom0.list("/local/domain/7"), nodes < 5 ? "" : "a");
      assert.deepEqual(server.audit(), []);
    }
  });

  it("X24: a commit is all or nothing, counters included (XSA-421)", () => {
    const { server, dom0 } = setUp({ quota: { nodes: 4 } });
    const guest = addGuest(server, dom0, 7);
    const both = guest.begin();
    guest.mkdir("n", both);
    guest.rm("n", both);
    assert.equal(guest.commit(both), OK);
    assert.equal(guest.list("/local/domain/7"), "");
    const late = guest.begin();
    for (const name of ["a", "b", "c"]) assert.equal(guest.mkdir(name, late), OK);
    dom0.mkdir("/s");
    dom0.chmod("/s", "n0 b7");
    assert.equal(guest.mkdir("/s/x"), OK);
    assert.equal(guest.commit(late), "!ENOSPC");
    assert.equal(guest.list("/local/domain/7"), "");
    assert.deepEqual(server.audit(), []);
  });

  it("X26: two transactions that remove the same nodes end without a count below nothing (XSA-440)", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    for (let index = 0; index < 50; index += 1) guest.mkdir(`n${index}`);
    const [one, two] = [guest.begin(), guest.begin()];
    for (let index = 0; index < 50; index += 1) {
      guest.rm(`n${index}`, one);
      guest.rm(`n${index}`, two);
    }
    assert.equal(guest.commit(one), OK);
    assert.equal(guest.commit(two), "!EAGAIN");
    assert.equal(server.store.domains.find(7)!.nodes.size, 1);
    assert.deepEqual(server.audit(), []);
  });

  it("X29: a connection is cleaned up in the middle of a transaction, in any way (XSA-484)", () => {
    const { server, dom0 } = setUp();
    const ways = ["reset", "garbage", "disconnect", "release", "reconnect"] as const;
    for (const way of ways) {
      const guest = addGuest(server, dom0, 7);
      const transaction = guest.begin();
      guest.write("x", "1", transaction);
      if (way === "reset") {
        assert.equal(guest.ask(abi.XS_RESET_WATCHES, [""], transaction), OK);
        assert.equal(guest.commit(transaction), "!ENOENT");
      } else if (way === "garbage") guest.page.put(new Uint8Array(64).fill(0xff));
      else if (way === "disconnect") server.disconnectDomain(7);
      else if (way === "release") dom0.ask(abi.XS_RELEASE, ["7"]);
      else guest.page.storeU32(abi.xenstore_domain_interface.connection.offset, abi.XENSTORE_RECONNECT);
      guest.pump();
      assert.equal(server.store.openTransactionCount, 0, way);
      assert.deepEqual(server.audit(), [], way);
      server.releaseDomain(7);
      assert.equal(dom0.read("/local/domain/7/x"), "!ENOENT");
    }
  });
});

type Server = ReturnType<typeof setUp>["server"];

const connectionOf = (server: Server, domid: number) => {
  const found = server.connectionOf(domid);
  assert.ok(found !== undefined);
  return found;
};
