import fc from "fast-check";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encodeMessage, MESSAGE_BYTES_MAX, type Message, MessageReader, splitStrings } from "../src/wire.ts";
import { ChunkQueue } from "../src/chunk-queue.ts";
import { cellsOf, insertName, listBytes, type NameTree, removeName, sliceNames } from "../src/name-tree.ts";

const SEED = Number(process.env["XENSTORE_SEED"] ?? Date.now() % 2 ** 31);
const runs = { seed: SEED, numRuns: 300 };
const u32 = fc.nat(0xffff_ffff);

const readAll = (bytes: Uint8Array, cuts: readonly number[]): { messages: Message[]; reader: MessageReader } => {
  const reader = new MessageReader();
  const queue = new ChunkQueue();
  const messages: Message[] = [];
  let at = 0;
  const drain = (): void => {
    for (let room = reader.room; room.length > 0; room = reader.room) {
      const count = queue.read(room);
      if (count === 0) return;
      reader.advance(count);
      const message = reader.take();
      if (message !== undefined) messages.push(message);
    }
  };
  for (const cut of cuts) {
    queue.push(bytes.subarray(at, at + cut));
    at += cut;
    drain();
  }
  queue.push(bytes.subarray(at));
  drain();
  return { messages, reader };
};

describe("messages", () => {
  it(`come out as they went in, however the stream is cut (seed ${SEED})`, () => {
    const message = fc.record({
      type: u32,
      requestId: u32,
      transactionId: u32,
      payload: fc.uint8Array({ maxLength: 4096 }),
    });
    const property = fc.property(fc.array(message, { maxLength: 5 }), fc.array(fc.nat(50)), (sent, cuts) => {
      const bytes = new Uint8Array(Buffer.concat(sent.map(encodeMessage)));
      const { messages, reader } = readAll(bytes, cuts);
      assert.deepEqual(
        messages,
        sent.map((message) => ({ ...message })),
      );
      assert.equal(reader.partial, false);
    });
    fc.assert(property, runs);
  });

  it(`any bytes are messages within the limit, or break the stream for good (seed ${SEED})`, () => {
    const property = fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(fc.nat(50)), (bytes, cuts) => {
      const { messages, reader } = readAll(bytes, cuts);
      const used = messages.reduce((sum, { payload }) => sum + 16 + payload.length, 0);
      assert.ok(used <= bytes.length);
      if (reader.broken) assert.equal(reader.room.length, 0);
      else assert.ok(reader.room.length <= MESSAGE_BYTES_MAX);
    });
    fc.assert(property, runs);
  });

  it("strings have a terminator each", () => {
    assert.deepEqual(splitStrings(Buffer.from("a\0\0b\0")), ["a", "", "b"]);
    assert.deepEqual(splitStrings(new Uint8Array(0)), []);
    assert.equal(splitStrings(Buffer.from("a\0b")), undefined);
  });
});

describe("the map of names", () => {
  it(`holds what was put in and not taken out, in order, and stays balanced (seed ${SEED})`, () => {
    const name = fc.stringMatching(/^[a-z]{1,2}$/);
    const property = fc.property(fc.array(fc.tuple(fc.boolean(), name), { size: "max", maxLength: 200 }), (steps) => {
      let tree: NameTree<number> = undefined;
      const model = new Map<string, number>();
      for (const [index, [insert, name]] of steps.entries()) {
        tree = insert ? insertName(tree, name, index) : removeName(tree, name);
        if (insert) model.set(name, index);
        else model.delete(name);
      }
      const names = [...model.keys()].toSorted();
      const cells = [...cellsOf(tree)];
      assert.deepEqual(
        cells.map((cell) => [cell.name, cell.value]),
        names.map((name) => [name, model.get(name)]),
      );
      for (const { left, right } of cells) assert.ok(Math.abs((left?.height ?? 0) - (right?.height ?? 0)) <= 1);
      const bytes = names.join("").length + names.length;
      assert.equal(listBytes(tree), bytes);
      let offset = 0;
      for (const [index, name] of names.entries()) {
        assert.deepEqual(sliceNames(tree, offset, 1e6), { names: names.slice(index), last: true });
        assert.deepEqual(sliceNames(tree, offset, name.length + 1), {
          names: [name],
          last: index === names.length - 1,
        });
        offset += name.length + 1;
      }
      assert.deepEqual(sliceNames(tree, offset, 100), { names: [], last: true });
    });
    fc.assert(property, runs);
  });
});
