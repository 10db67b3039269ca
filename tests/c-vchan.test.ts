/**
 * vchan in the C library: both ends in one guest, then two guests and all the ways in which a channel ends.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Host } from "@xenolith/host";
import { assertChecks, compileTest, type Guest, startGuest } from "./c-domains.ts";

let host: Host;
let bothEnds: Uint8Array;
let peer: Uint8Array;
before(async () => {
  // Both before the first guest with atomics makes V8 compile everything with its slow compiler.
  bothEnds = await compileTest("c-vchan.c");
  peer = await compileTest("c-vchan-peer.c");
  host = await Host.open();
});
after(async () => {
  assert.deepEqual(host.audit(), []);
  await host.close();
});

const PLAIN = 0;
const REVOKABLE = 1;

/** A server and its client, connected by the first channel. */
const startPair = async (mode: number, channels: number): Promise<{ server: Guest; client: Guest }> => {
  // Ids are counted: the client's is the next but one.
  const probe = await startGuest(host, peer, "client 0 0 0");
  const { domid } = probe.domain;
  await probe.end();
  const server = await startGuest(host, peer, `server ${domid + 2} ${mode} ${channels}`);
  const [, status, ref, port] = await server.printed(/first (-?\d+) (\d+) (\d+)\n/);
  assert.equal(status, "0");
  const client = await startGuest(host, peer, `client ${server.domain.domid} ${ref} ${port}`);
  assert.equal(client.domain.domid, domid + 2);
  return { server, client };
};

const assertUsed = async ({ server, client }: { server: Guest; client: Guest }, channels: number): Promise<void> => {
  const used = await client.end();
  const served = await server.end();
  assert.match(used.text, new RegExp(`used ${channels} channels, \\d+ words, 0 wrong\n$`));
  assert.match(served.text, /served 0\n$/);
  assert.ok(!(used.text + served.text).includes("FAILED"), used.text + served.text);
};

describe("both ends of a vchan", () => {
  it("agree about sizes, streams, packets, ends, hostile indices and revocation", async () => {
    const guest = await startGuest(host, bothEnds, "");
    assertChecks(await guest.end(), 123);
  });
});

describe("a vchan between two guests", () => {
  it("delivers everything before it is closed", async () => {
    await assertUsed(await startPair(PLAIN, 40), 40);
  });

  it("delivers a prefix, and nothing stale, when the server revokes it under load", async () => {
    await assertUsed(await startPair(REVOKABLE, 100), 100);
  });

  for (const [name, mode] of [
    ["plain", PLAIN],
    ["revokable", REVOKABLE],
  ] as const) {
    it(`ends for the client when the server is destroyed (${name})`, async () => {
      const { server, client } = await startPair(mode, 0);
      await client.printed(/flowing/);
      await server.destroy();
      const { reason, text } = await client.end();
      assert.equal(reason, "poweroff");
      assert.match(text, /used 1 channels, \d+ words, 0 wrong\n$/);
      assert.ok(!text.includes("FAILED"), text);
    });

    it(`ends for the server when the client is destroyed (${name})`, async () => {
      const { server, client } = await startPair(mode, 0);
      await client.printed(/flowing/);
      await client.destroy();
      const { reason, text } = await server.end();
      assert.equal(reason, "poweroff");
      assert.match(text, /served 0\n$/);
    });
  }
});
