/**
 * The rings of a vchan without a hypervisor: both ends over one piece of memory.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { areOrdersPossible, chooseOrders, type VchanMemory, VchanRings } from "../src/vchan-ring.ts";

const view = (length: number): Uint8Array<SharedArrayBuffer> => new Uint8Array(new SharedArrayBuffer(length));

const pair = (leftOrder = 10, rightOrder = 11) => {
  const shared = {
    control: view(4096),
    left: view(2 ** leftOrder),
    right: view(2 ** rightOrder),
    leftOrder,
    rightOrder,
  };
  const guard = view(4096);
  const setEpoch = (value: number): void => {
    new Uint32Array(shared.control.buffer)[6] = value;
    new Uint32Array(guard.buffer)[0] = value;
  };
  setEpoch(7);
  const client: VchanMemory = { ...shared, isServer: false, epoch: { value: 7, word: 6, guard } };
  return { server: new VchanRings({ ...shared, isServer: true }), client: new VchanRings(client), shared, guard };
};

describe("sizes of rings", () => {
  it("are chosen as libxenvchan does", () => {
    assert.deepEqual(chooseOrders(1024, 2048), { left: 10, right: 11 });
    assert.deepEqual(chooseOrders(2048, 1024), { left: 11, right: 10 });
    assert.deepEqual(chooseOrders(2048, 2048), { left: 11, right: 12 });
    assert.deepEqual(chooseOrders(4097, 10), { left: 13, right: 11 });
    assert.deepEqual(chooseOrders(2 ** 20, 2 ** 20), { left: 20, right: 20 });
    assert.equal(chooseOrders(2 ** 20 + 1, 10), undefined);
  });

  it("of a server are checked: 10 to 20, and not twice the same place in the control page", () => {
    assert.ok(areOrdersPossible(10, 11) && areOrdersPossible(12, 12) && areOrdersPossible(20, 10));
    for (const [left, right] of [
      [9, 12],
      [12, 21],
      [10, 10],
      [11, 11],
    ] as const) {
      assert.ok(!areOrdersPossible(left, right));
    }
  });
});

describe("rings", () => {
  it("deliver exactly what was put, in order, whatever the sizes of the pieces", () => {
    const seed = Date.now() | 0;
    console.log(`seed ${seed}`);
    const sizes = fc.array(fc.tuple(fc.boolean(), fc.nat(3000)), { maxLength: 60 });
    fc.assert(
      fc.property(sizes, (steps) => {
        const { server, client } = pair();
        let put = 0;
        let taken = 0;
        for (const [isPut, size] of steps) {
          const count = Math.min(size, isPut ? server.writable : client.readable);
          assert.equal(server.writable, 2048 - (put - taken));
          if (isPut) {
            server.put(Uint8Array.from({ length: count }, (_, index) => (put + index) * 31));
            put += count;
          } else {
            const bytes = new Uint8Array(count);
            assert.ok(client.take(bytes));
            assert.deepEqual(
              bytes,
              Uint8Array.from({ length: count }, (_, index) => (taken + index) * 31),
            );
            taken += count;
          }
        }
      }),
      { seed },
    );
  });

  it("go on when an index wraps round at 2^32", () => {
    const { shared } = pair();
    const words = new Uint32Array(shared.control.buffer);
    words.set([0xffff_fff0, 0xffff_fff0], 0);
    const client = new VchanRings({ ...shared, isServer: false });
    client.put(new Uint8Array(100).fill(5));
    assert.equal(client.writable, 924);
    assert.equal(words[1], 84);
    words[0] = 84;
    assert.equal(client.writable, 1024);
  });

  it("B02, X02: an index that cannot be breaks the channel for good", () => {
    for (const [word, look] of [
      [1, "readable"],
      [2, "writable"],
    ] as const) {
      const { server, shared } = pair();
      const words = new Uint32Array(shared.control.buffer);
      assert.ok(server[look] >= 0);
      words[word] = 100_000;
      assert.equal(server[look], -1);
      words[word] = 0;
      assert.equal(server[look], -1);
      assert.equal(server.fault, "broken");
    }
  });

  it("R3: nothing is delivered when the epoch was gone after the bytes were copied", () => {
    const { server, client, guard } = pair();
    server.put(new Uint8Array(10).fill(1));
    assert.equal(client.readable, 10);
    assert.ok(client.take(new Uint8Array(5)));
    new Uint32Array(guard.buffer)[0] = 0;
    assert.ok(!client.take(new Uint8Array(5)));
    assert.equal(client.fault, "closed");
    assert.equal(client.readable, -1);
    assert.equal(client.peerLive, 0);
  });

  it("R4: indices of a page of zeros do not make a revoked channel a broken one", () => {
    const { server, client, shared } = pair();
    server.put(new Uint8Array(100));
    assert.ok(client.take(new Uint8Array(100)));
    shared.control.fill(0);
    assert.equal(client.readable, -1);
    assert.equal(client.fault, "closed");
  });

  it("a request for an event is taken once", () => {
    const { server, client } = pair();
    assert.ok(!server.takeRequest(1));
    client.request(1);
    assert.ok(!server.takeRequest(2));
    assert.ok(server.takeRequest(1));
    assert.ok(!server.takeRequest(1));
  });
});
