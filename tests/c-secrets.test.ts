/**
 * Secret memory in the C library, in whole guests: one alone, two with a secret between them, as root and as a user
 * without privileges, and where the kernel has no secret memory.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Host } from "@xenolith/host";
import { assertChecks, compileTest, compileWasi, startGuest } from "./c-domains.ts";

let host: Host;
let alone: Uint8Array;
let peer: Uint8Array;
let wasi: Uint8Array;
before(async () => {
  alone = await compileTest("c-secrets.c");
  peer = await compileTest("c-secrets-peer.c");
  wasi = await compileWasi("c-secrets-wasi.c");
  host = await Host.open({ secrets: { policy: "degraded" } });
});
after(async () => {
  assert.deepEqual(host.audit(), []);
  await host.close();
});

describe("secrets of the guest library", () => {
  it("are made, mapped, sealed, refused to everybody else and given up as the interface says", async () => {
    const guest = await startGuest(host, alone, "");
    assertChecks(await guest.end(), 53);
    const { slots, mappedBytes, regionBytes } = (await host.secrets()).statistics();
    assert.deepEqual([slots, mappedBytes, regionBytes], [0, 0, 0]);
  });

  it("are used by WASI programs, and by no function of WASI", async () => {
    const stdio = { stdin: "pipe", stdout: "pipe" } as const;
    const domain = await host.createDomain({ image: wasi, memoryBytesMax: 2 ** 24, stdio });
    await domain.start();
    domain.stdin.end();
    const [text, { code }] = await Promise.all([domain.stdout.text(), domain.exited]);
    await domain.destroy();
    assert.ok(!text.includes("FAILED"), text);
    assert.deepEqual([code, text.match(/^ok /gm)?.length], [0, 10], text);
  });

  it("are shared by two guests with the consent of both, taken back while in use, and end with their owner", async () => {
    // The second guest's id: they are counted.
    const probe = await startGuest(host, alone, "");
    const { domid } = probe.domain;
    await probe.end();
    const user = await startGuest(host, peer, `2 ${domid + 2}`);
    await user.printed(/waiting\n/);
    const owner = await startGuest(host, peer, `1 ${user.domain.domid}`);
    assert.equal(owner.domain.domid, domid + 2);
    const [owned, used] = await Promise.all([owner.end(), user.end()]);
    assertChecks(owned, 10);
    assertChecks(used, 22);
    const { slots, mappedBytes, regionBytes } = (await host.secrets()).statistics();
    assert.deepEqual([slots, mappedBytes, regionBytes], [0, 0, 0]);
  });
});
