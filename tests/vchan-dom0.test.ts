/**
 * Channels between the control domain and guests in C: each in either role, plain and revokable.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Host, type Vchan } from "@xenolith/host";
import { compileExample, compileTest, startGuest } from "./c-domains.ts";

const STREAM_WORDS = 200_000;

let host: Host;
let peer: Uint8Array;
let echo: Uint8Array;
let greeter: Uint8Array;
before(async () => {
  peer = await compileTest("c-vchan-dom0.c");
  echo = await compileExample("vchan-server.c");
  greeter = await compileExample("vchan-client.c");
  host = await Host.open();
});
after(async () => {
  const findings = host.audit();
  await host.close();
  assert.deepEqual(findings, []);
});

/** Words that count up from `first`. */
const counting = (first: number, count: number): Uint8Array =>
  new Uint8Array(Uint32Array.from({ length: count }, (_, index) => first + index).buffer);

/** Writes counting words until all are written or the channel says that it is closed. */
const stream = async (channel: Vchan, count: number): Promise<void> => {
  for (let first = 0; first < count; first += 1000) await channel.send(counting(first, Math.min(1000, count - first)));
};

/** Reads to the end; returns the bytes, which must be those of words that count up from 0. */
const drain = async (channel: Vchan): Promise<number> => {
  let total = 0;
  let rest = new Uint8Array(0);
  let next = 0;
  for await (const piece of channel) {
    total += piece.length;
    const joined = new Uint8Array(rest.length + piece.length);
    joined.set(rest);
    joined.set(piece, rest.length);
    const words = new Uint32Array(joined.buffer, 0, joined.length >>> 2);
    for (const word of words) {
      assert.equal(word, next);
      next += 1;
    }
    rest = joined.slice(words.length * 4);
  }
  return total;
};

const readReport = /read (\d+) words, (\d+) wrong, status (-?\d+)\n/;

describe("a channel that the control domain serves", () => {
  it("is found by a guest through the xenstore, and carries packets both ways", async () => {
    const guest = await startGuest(host, greeter, "0");
    await using channel = await host.vchans.serve(guest.domain.domid, "/local/domain/0/data/vchan");
    await channel.opened();
    assert.equal(channel.state, "open");
    const packet = await channel.receivePacket(28);
    assert.equal(new TextDecoder().decode(packet), "hello from the other domain\0");
    await channel.sendPacket(packet!);
    const { text } = await guest.end();
    assert.match(text, /echo: hello from the other domain\n/);
    assert.equal(channel.state, "closed");
    assert.equal(await channel.receive(), undefined);
    await assert.rejects(channel.send(new Uint8Array(1)), { code: "CHANNEL_CLOSED" });
  });

  it("delivers all of a stream that is longer than its ring", async () => {
    const guest = await startGuest(host, peer, "read /local/domain/0/data/stream");
    const channel = await host.vchans.serve(guest.domain.domid, "/local/domain/0/data/stream", { rightBytes: 10_000 });
    await stream(channel, STREAM_WORDS);
    await channel.close();
    const { text } = await guest.end();
    assert.deepEqual(text.match(readReport)?.slice(1, 3), [String(STREAM_WORDS), "0"]);
  });

  it("is revoked under load: the guest has read a prefix, and lives", async () => {
    const guest = await startGuest(host, peer, "read /local/domain/0/data/stream");
    const path = "/local/domain/0/data/stream";
    const channel = await host.vchans.serve(guest.domain.domid, path, { revokable: true });
    await stream(channel, STREAM_WORDS / 2);
    channel.revoke();
    assert.equal(channel.state, "closed");
    const { reason, text } = await guest.end();
    assert.equal(reason, "poweroff");
    const [, words, wrong, status] = text.match(readReport)!;
    assert.deepEqual([wrong, status], ["0", "-107"]);
    assert.ok(Number(words) <= STREAM_WORDS / 2);
    await channel.close();
  });

  it("is closed when its guest is destroyed", async () => {
    const guest = await startGuest(host, peer, "read /local/domain/0/data/stream");
    await using channel = await host.vchans.serve(guest.domain.domid, "/local/domain/0/data/stream");
    await guest.printed(/connected/);
    const waiting = channel.receive();
    await guest.destroy();
    assert.equal(await waiting, undefined);
    assert.equal(channel.state, "closed");
  });

  it("still holds what its guest had sent before it was destroyed", async () => {
    const guest = await startGuest(host, greeter, "0");
    await using channel = await host.vchans.serve(guest.domain.domid, "/local/domain/0/data/vchan");
    await channel.opened();
    while (channel.readableBytes < 28) await nextTurn();
    await guest.destroy();
    assert.equal((await channel.receivePacket(28))?.length, 28);
    assert.equal(await channel.receive(), undefined);
  });

  it("refuses sizes that no ring can have, and domains that are not there", async () => {
    await assert.rejects(host.vchans.serve(1, "/x", { leftBytes: 2 ** 20 + 1 }), { code: "INVALID_SIZE" });
    await assert.rejects(host.vchans.serve(1, "/x", { rightBytes: 0 }), { code: "INVALID_SIZE" });
    await assert.rejects(host.vchans.serve(12_345, "/x"), { code: "DOMAIN_NOT_FOUND" });
  });
});

describe("a channel that a guest serves", () => {
  it("echoes what the control domain sends", async () => {
    const guest = await startGuest(host, echo, "0");
    const channel = await host.vchans.connect(guest.domain.domid, `/local/domain/${guest.domain.domid}/data/vchan`);
    const sent = counting(7, 5000);
    const sending = channel.send(sent);
    const received: number[] = [];
    while (received.length < sent.length) received.push(...(await channel.receive())!);
    await sending;
    assert.deepEqual(new Uint8Array(received), sent);
    await channel.close();
    const { text } = await guest.end();
    assert.match(text, /the client is gone\n/);
  });

  for (const mode of ["write", "revoke"] as const) {
    it(`ends in order when the guest has finished (${mode})`, async () => {
      const guest = await startGuest(host, peer, `${mode} ${STREAM_WORDS}`);
      const { domid } = guest.domain;
      await using channel = await host.vchans.connect(domid, `/local/domain/${domid}/data/stream`);
      assert.equal(channel.isRevokable, mode === "revoke");
      const total = await drain(channel);
      if (mode === "write") assert.equal(total, STREAM_WORDS * 4);
      else assert.ok(total <= STREAM_WORDS * 4);
      const { text } = await guest.end();
      assert.match(text, /wrote, status 0\n/);
    });
  }

  it("is not waited for longer than the caller wants", async () => {
    const waiting = host.vchans.connect(0, "/local/domain/0/data/nothing", { timeoutMs: 20 });
    await assert.rejects(waiting, { code: "TIMEOUT" });
  });

  it("is refused when what it offers cannot be", async () => {
    const xenstore = await host.xenstore();
    await xenstore.write("/local/domain/0/data/bad/ring-ref", "0");
    await xenstore.write("/local/domain/0/data/bad/event-channel", "x");
    await assert.rejects(host.vchans.connect(0, "/local/domain/0/data/bad"), { code: "CHANNEL_BROKEN" });
  });
});
