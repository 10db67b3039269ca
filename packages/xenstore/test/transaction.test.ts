import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { addGuest, OK, setUp } from "./kit.ts";

describe("transactions", () => {
  it("a transaction sees the tree as it was at the start, and its own changes", () => {
    const { dom0 } = setUp();
    dom0.write("/a", "1");
    const transaction = dom0.begin();
    dom0.write("/a", "2");
    dom0.write("/b", "2");
    assert.equal(dom0.read("/a", transaction), "1");
    assert.equal(dom0.read("/b", transaction), "!ENOENT");
    dom0.write("/c", "mine", transaction);
    assert.equal(dom0.read("/c", transaction), "mine");
    assert.equal(dom0.read("/c"), "!ENOENT");
  });

  it("a commit shows everything at once, an abort nothing", () => {
    const { dom0 } = setUp();
    const [kept, dropped] = [dom0.begin(), dom0.begin()];
    dom0.write("/kept/x", "1", kept);
    dom0.write("/dropped/x", "1", dropped);
    assert.equal(dom0.commit(kept), OK);
    assert.equal(dom0.abort(dropped), OK);
    assert.equal(dom0.read("/kept/x"), "1");
    assert.equal(dom0.read("/dropped"), "!ENOENT");
    assert.equal(dom0.commit(kept), "!ENOENT");
  });

  const conflicts: [title: string, inside: (t: T) => void, outside: (t: T) => void, conflict: boolean][] = [
    ["a node that it read was written", (t) => t.in.read("/a/b"), (t) => t.out.write("/a/b", "2"), true],
    ["a node that it wrote was written", (t) => t.in.write("/a/b", "3"), (t) => t.out.write("/a/b", "2"), true],
    ["a node that it read got other permissions", (t) => t.in.read("/a/b"), (t) => t.out.chmod("/a/b"), true],
    ["a node that it found missing was made", (t) => t.in.read("/a/x"), (t) => t.out.write("/a/x", "2"), true],
    ["a node that it read was removed", (t) => t.in.read("/a/b"), (t) => t.out.rm("/a/b"), true],
    ["a list that it read grew", (t) => t.in.list("/a"), (t) => t.out.write("/a/new", "2"), true],
    ["what it removed changed far below", (t) => t.in.rm("/a"), (t) => t.out.write("/a/b/c/d", "2"), true],
    ["a node beside one that it made was made", (t) => t.in.write("/a/x", "1"), (t) => t.out.write("/a/y", "2"), false],
    ["a value below a list that it read changed", (t) => t.in.list("/a"), (t) => t.out.write("/a/b", "2"), false],
    ["an ancestor of what it made was removed", (t) => t.in.write("/a/b/x", "1"), (t) => t.out.rm("/a"), true],
    ["something else changed", (t) => t.in.write("/a/b", "1"), (t) => t.out.write("/e", "2"), false],
  ];
  for (const [title, inside, outside, conflict] of conflicts) {
    it(`commit ${conflict ? "fails with EAGAIN" : "succeeds"} when ${title}`, () => {
      const { dom0 } = setUp();
      dom0.write("/a/b/c", "1");
      const transaction = dom0.begin();
      inside(access(dom0, transaction));
      outside(access(dom0, transaction));
      assert.equal(dom0.commit(transaction), conflict ? "!EAGAIN" : OK);
    });
  }

  it("a node removed and made again in a transaction has only its new children", () => {
    const { dom0 } = setUp();
    dom0.write("/a/old", "1");
    const transaction = dom0.begin();
    dom0.rm("/a", transaction);
    dom0.write("/a/new", "2", transaction);
    dom0.write("/other", "3");
    assert.equal(dom0.commit(transaction), OK);
    assert.equal(dom0.list("/a"), "new");
  });

  it("watches hear of a commit and not of an abort, once for each node", () => {
    const { dom0 } = setUp();
    dom0.watch("/a", "w");
    dom0.takeEvents();
    const [kept, dropped] = [dom0.begin(), dom0.begin()];
    dom0.write("/a/x", "1", kept);
    dom0.write("/a/x", "2", kept);
    dom0.write("/a/y", "1", dropped);
    assert.deepEqual(dom0.takeEvents(), []);
    dom0.abort(dropped);
    dom0.commit(kept);
    assert.deepEqual(dom0.takeEvents(), ["/a/x w"]);
  });

  it("a transaction is opened outside any other, and ended with T or F", () => {
    const { dom0 } = setUp();
    const transaction = dom0.begin();
    assert.equal(dom0.ask(abi.XS_TRANSACTION_START, [""], transaction), "!EBUSY");
    assert.equal(dom0.ask(abi.XS_TRANSACTION_END, ["X"], transaction), "!EINVAL");
    assert.equal(dom0.ask(abi.XS_TRANSACTION_END, ["T"]), "!ENOENT");
    assert.equal(dom0.commit(transaction), OK);
  });

  it("a domain has at most ten open transactions", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const ids = Array.from({ length: 10 }, () => guest.begin());
    assert.equal(guest.ask(abi.XS_TRANSACTION_START, [""]), "!ENOSPC");
    assert.equal(guest.abort(ids[3]!), OK);
    assert.ok(guest.begin() > 0);
  });

  it("a transaction of a guest touches at most 1024 nodes", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const transaction = guest.begin();
    for (let index = 0; index < 1024; index += 1) assert.equal(guest.read(`x${index}`, transaction), "!ENOENT");
    assert.equal(guest.read("one-more", transaction), "!ENOSPC");
    assert.equal(guest.read("x5", transaction), "!ENOENT");
  });
});

interface T {
  readonly in: {
    read(path: string): void;
    write(path: string, value: string): void;
    list(path: string): void;
    rm(path: string): void;
  };
  readonly out: { write(path: string, value: string): void; chmod(path: string): void; rm(path: string): void };
}

const access = (dom0: ReturnType<typeof setUp>["dom0"], transaction: number): T => ({
  in: {
    read: (path) => dom0.read(path, transaction),
    write: (path, value) => assert.equal(dom0.write(path, value, transaction), OK),
    list: (path) => dom0.list(path, transaction),
    rm: (path) => assert.equal(dom0.rm(path, transaction), OK),
  },
  out: {
    write: (path, value) => assert.equal(dom0.write(path, value), OK),
    chmod: (path) => assert.equal(dom0.chmod(path, "r0"), OK),
    rm: (path) => assert.equal(dom0.rm(path), OK),
  },
});
