import * as abi from "@xenolith/abi";
import fc from "fast-check";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encodeMessage, joinStrings } from "../src/wire.ts";
import { addGuest, Guest, OK, setUp } from "./kit.ts";

const layout = abi.xenstore_domain_interface;
const { req_cons, req_prod, rsp_cons, rsp_prod, connection, error, server_features } = layout;

const SEED = Number(process.env["XENSTORE_SEED"] ?? Date.now() % 2 ** 31);

describe("the ring", () => {
  for (const start of [0, 1, 1023, 0x7fff_fffe, 0xffff_fff0]) {
    it(`works from index ${start} on, around its end and around 32 bits`, () => {
      const { server, dom0 } = setUp();
      const guest = addGuest(server, dom0, 7, start);
      const value = "x".repeat(1500);
      for (let turn = 0; turn < 5; turn += 1) {
        assert.equal(guest.write("data", `${turn}${value}`), OK);
        assert.equal(guest.read("data"), `${turn}${value}`);
      }
      assert.equal(guest.page.loadU32(error.offset), 0);
    });
  }

  it("a guest that sent several requests at once is woken once; one that sent more than it may is woken all the same", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const read = { type: abi.XS_READ, requestId: 1, transactionId: 0, payload: joinStrings(["x"]) };
    const eventsFor = (count: number): number => {
      const before = guest.page.notifyCount;
      for (let request = 0; request < count; request += 1) guest.page.put(encodeMessage(read));
      guest.pump();
      assert.equal(guest.messages().length, count);
      return guest.page.notifyCount - before;
    };
    assert.equal(eventsFor(1), 1);
    assert.equal(eventsFor(5), 1);
    assert.ok(eventsFor(40) >= 1);
  });

  it("says what the server can do", () => {
    const { server, dom0 } = setUp();
    assert.equal(addGuest(server, dom0, 7).page.loadU32(server_features.offset), 7);
  });

  it("an index that differs by more than the ring is error 2, and stops this connection alone", () => {
    const { server, dom0 } = setUp();
    const [guest, other] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    guest.watch("x", "t");
    guest.begin();
    guest.page.storeU32(req_prod.offset, guest.page.loadU32(req_cons.offset) + 1025);
    guest.pump();
    assert.equal(guest.page.loadU32(error.offset), abi.XENSTORE_ERROR_RINGIDX);
    assert.equal(server.store.watches.count, 0);
    assert.equal(server.store.openTransactionCount, 0);
    guest.page.storeU32(req_prod.offset, guest.page.loadU32(req_cons.offset));
    guest.page.put(encodeMessage({ type: abi.XS_READ, requestId: 1, transactionId: 0, payload: joinStrings(["x"]) }));
    assert.deepEqual(guest.messages(), []);
    assert.equal(other.write("x", "1"), OK);
    assert.deepEqual(server.audit(), []);
  });

  it("a response index that runs ahead is error 2 too", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    guest.page.storeU32(rsp_cons.offset, guest.page.loadU32(rsp_prod.offset) + 1);
    guest.page.put(encodeMessage({ type: abi.XS_READ, requestId: 1, transactionId: 0, payload: joinStrings(["x"]) }));
    guest.pump();
    assert.equal(guest.page.loadU32(error.offset), abi.XENSTORE_ERROR_RINGIDX);
  });

  it("a payload above 4096 bytes is error 3", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const head = new Uint8Array(16);
    new DataView(head.buffer).setUint32(12, 4097, true);
    guest.page.put(head);
    guest.pump();
    assert.equal(guest.page.loadU32(error.offset), abi.XENSTORE_ERROR_PROTO);
  });

  it("the guest may ask for a new connection, also after an error", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7, 5);
    guest.watch("x", "t");
    for (const broken of [false, true]) {
      if (broken) guest.page.storeU32(req_prod.offset, 9999);
      guest.pump();
      guest.page.storeU32(connection.offset, abi.XENSTORE_RECONNECT);
      const notified = guest.page.notifyCount;
      guest.pump();
      assert.equal(guest.page.loadU32(connection.offset), abi.XENSTORE_CONNECTED);
      assert.equal(guest.page.loadU32(error.offset), abi.XENSTORE_ERROR_NONE);
      assert.ok(guest.page.notifyCount > notified);
      for (const index of [req_cons, req_prod, rsp_cons, rsp_prod]) assert.equal(guest.page.loadU32(index.offset), 0);
      assert.equal(guest.write("x", "1"), OK);
      assert.deepEqual(server.audit(), []);
    }
    assert.equal(server.store.watches.count, 0);
  });

  it("is notified when the server moved an index, and not otherwise", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const before = guest.page.notifyCount;
    guest.pump();
    assert.equal(guest.page.notifyCount, before);
    guest.read("x");
    assert.ok(guest.page.notifyCount > before);
  });

  it("a peer that does not read its replies is not read from, and nobody else waits", () => {
    const { server, dom0 } = setUp();
    const [guest, other] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    guest.write("x", "v".repeat(2000));
    const request = encodeMessage({ type: abi.XS_READ, requestId: 1, transactionId: 0, payload: joinStrings(["x"]) });
    let sent = 0;
    for (let turn = 0; turn < 1000; turn += 1) {
      const room = guest.page.put(request);
      if (room < request.length) break;
      sent += 1;
      guest.pump();
    }
    assert.ok(sent < 100, `${sent} requests taken`);
    assert.equal(other.write("x", "1"), OK);
  });

  it("a guest that rings without end gets no more than its turn", () => {
    let turn: (() => void) | undefined;
    const { server, dom0 } = setUp({ requestsPerTurn: 8, defer: (next) => (turn = next) });
    const [guest, other] = [addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    const request = encodeMessage({ type: abi.XS_READ, requestId: 1, transactionId: 0, payload: joinStrings(["x"]) });
    while (guest.page.put(request) === request.length);
    other.page.put(request);
    server.wake(7);
    server.wake(8);
    turn?.();
    assert.ok(other.page.take().length > 0, "both were served in the first turn");
    assert.ok(guest.page.loadU32(req_prod.offset) !== guest.page.loadU32(req_cons.offset), "the rest waits");
  });

  it(`survives any words and bytes, at any time (seed ${SEED})`, () => {
    const word = fc.constantFrom(req_cons, req_prod, rsp_cons, rsp_prod, server_features, connection, error);
    const value = fc.oneof(fc.nat(2048), fc.integer({ min: -5, max: 5 }), fc.integer(), fc.constant(2 ** 31));
    const step = fc.oneof(
      fc.record({ word, value }),
      fc.record({ at: fc.nat(2047), bytes: fc.uint8Array({ maxLength: 64 }) }),
      fc.record({ type: fc.nat(30), payload: fc.uint8Array({ maxLength: 40 }) }),
      fc.constant({ take: true }),
    );
    const property = fc.property(fc.array(step, { maxLength: 60, size: "max" }), fc.integer(), (steps, start) => {
      const { server, dom0 } = setUp();
      const other = addGuest(server, dom0, 8);
      const guest = new Guest(server, 7, start);
      for (const step of steps) {
        if ("word" in step) guest.page.storeU32(step.word.offset, step.value >>> 0);
        else if ("bytes" in step) guest.page.writeBytes(step.at, step.bytes);
        else if ("type" in step) guest.page.put(encodeMessage({ ...step, requestId: 1, transactionId: 0 }));
        else guest.page.storeU32(rsp_cons.offset, guest.page.loadU32(rsp_prod.offset));
        guest.pump();
      }
      assert.equal(other.write("x", "1"), OK);
      assert.deepEqual(server.audit(), []);
      server.releaseDomain(7);
      assert.deepEqual(server.audit(), []);
    });
    fc.assert(property, { seed: SEED, numRuns: 300 });
  });
});
