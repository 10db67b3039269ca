import assert from "node:assert/strict";
import { test } from "node:test";
import { ByteRing, RING_BYTES, RING_FOOTPRINT_BYTES } from "../src/byte-ring.ts";

const createPair = (): readonly [ByteRing, ByteRing] => {
  const buffer = new SharedArrayBuffer(RING_FOOTPRINT_BYTES);
  return [new ByteRing(buffer, 0), new ByteRing(buffer, 0)];
};

test("bytes come out of a ring in the order in which they went in, over many turns of it", () => {
  const [writer, reader] = createPair();
  let written = 0;
  let read = 0;
  for (let round = 0; round < 200; round += 1) {
    const chunk = Uint8Array.from({ length: 1 + ((round * 7919) % 5000) }, () => written++ & 255);
    assert.equal(writer.write(chunk), chunk.length);
    const out = new Uint8Array(chunk.length);
    assert.equal(reader.read(out), chunk.length);
    for (const byte of out) assert.equal(byte, read++ & 255);
  }
  assert.ok(written > 4 * RING_BYTES);
});

test("a full ring takes no more, an empty one gives nothing", () => {
  const [writer, reader] = createPair();
  assert.equal(reader.read(new Uint8Array(10)), 0);
  assert.equal(writer.write(new Uint8Array(RING_BYTES + 1)), RING_BYTES);
  assert.equal(writer.write(Uint8Array.of(1)), 0);
  assert.equal(reader.read(new Uint8Array(1)), 1);
  assert.equal(writer.write(Uint8Array.of(1, 2)), 1);
  assert.equal(writer.writableBytes, 0);
});

test("a waiter is announced once, the end of the stream stays", () => {
  const [writer, reader] = createPair();
  assert.equal(reader.takeWaiter(), false);
  writer.announceWait();
  assert.equal(reader.takeWaiter(), true);
  assert.equal(reader.takeWaiter(), false);
  assert.equal(writer.closed, false);
  reader.close();
  assert.equal(writer.closed, true);
});

test("the lock of a thread that died is freed, the lock of another is not (W28)", () => {
  const [ring, other] = createPair();
  ring.lock(7);
  other.recover(8);
  other.recover(7);
  other.lock(8);
  other.unlock();
});
