import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { addGuest, OK, setUp } from "./kit.ts";

describe("quotas", () => {
  it("a guest owns at most 1000 nodes, its home among them", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    for (let index = 1; index < 1000; index += 1) assert.equal(guest.mkdir(`n${index}`), OK);
    assert.equal(guest.mkdir("one-more"), "!ENOSPC");
    assert.equal(guest.write("n1", "still"), OK);
    assert.equal(guest.rm("n1"), OK);
    assert.equal(guest.mkdir("one-more"), OK);
  });

  it("a write that would make too many nodes on its way makes none", () => {
    const { server, dom0 } = setUp({ quota: { nodes: 3 } });
    const guest = addGuest(server, dom0, 7);
    assert.equal(guest.write("a/b/c", "1"), "!ENOSPC");
    assert.equal(dom0.list("/local/domain/7"), "");
    assert.equal(guest.write("a/b", "1"), OK);
  });

  it("a value has at most 2048 bytes, a list at most 5 entries; the control domain is not bound by that", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    assert.equal(guest.write("a", "x".repeat(2049)), "!ENOSPC");
    assert.equal(guest.write("a", "x".repeat(2048)), OK);
    assert.equal(guest.chmod("a", "n7 r1 r2 r3 r4 r5"), "!ENOSPC");
    assert.equal(guest.chmod("a", "n7 r1 r2 r3 r4"), OK);
    assert.equal(dom0.write("/a", "x".repeat(4000)), OK);
    assert.equal(dom0.chmod("/a", "n0 r1 r2 r3 r4 r5 r6"), OK);
  });

  it("a guest sets at most 128 watches, and gets their room back", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    for (let index = 0; index < 128; index += 1) assert.equal(guest.watch("x", `t${index}`), OK);
    assert.equal(guest.watch("x", "more"), "!ENOSPC");
    assert.equal(guest.unwatch("x", "t5"), OK);
    assert.equal(guest.watch("x", "more"), OK);
  });

  it("all that a guest makes the store keep is bounded together", () => {
    const { server, dom0 } = setUp({ quota: { memory: 20_000 } });
    const guest = addGuest(server, dom0, 7);
    for (let index = 0; index < 20; index += 1) guest.write(`n${index}`, "x".repeat(2000));
    assert.ok(server.store.domains.find(7)!.memoryBytes <= 20_000);
    assert.equal(guest.write("last", "x".repeat(2000)), "!ENOSPC");
    const transaction = guest.begin();
    assert.equal(guest.write("in-transaction", "x".repeat(2000), transaction), "!ENOSPC");
    guest.rm("n0");
    assert.equal(guest.write("last", "x".repeat(1000)), OK);
    assert.deepEqual(server.audit(), []);
  });

  it("a limit of one domain's own goes before the default", () => {
    const { server, dom0 } = setUp();
    const [guest, other] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    dom0.ask(abi.XS_SET_QUOTA, ["7", "node-size", "10"]);
    assert.equal(guest.write("a", "x".repeat(11)), "!ENOSPC");
    assert.equal(other.write("a", "x".repeat(11)), OK);
  });

  it("the operator hears once that a domain passed its soft limit", () => {
    const heard: number[] = [];
    const { server, dom0 } = setUp({
      quota: { "memory-soft": 3000 },
      onMemoryWarning: (domid) => heard.push(domid),
    });
    const guest = addGuest(server, dom0, 7);
    guest.write("a", "x".repeat(1000));
    assert.deepEqual(heard, []);
    for (const name of ["b", "c", "d"]) guest.write(name, "x".repeat(2000));
    assert.deepEqual(heard, [7]);
  });

  it("nodes that the control domain makes in a guest's home are the guest's, and are not refused", () => {
    const { server, dom0 } = setUp({ quota: { nodes: 2 } });
    const guest = addGuest(server, dom0, 7);
    for (let index = 0; index < 5; index += 1) assert.equal(dom0.mkdir(`/local/domain/7/n${index}`), OK);
    assert.equal(guest.mkdir("more"), "!ENOSPC");
    assert.equal(guest.write("n0", "1"), OK);
    assert.deepEqual(server.audit(), []);
  });
});
