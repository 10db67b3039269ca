/**
 * Grants in the C library, in whole guests.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Host } from "@xenolith/host";
import { assertChecks, compileExample, compileTest, startGuest } from "./c-domains.ts";

let host: Host;
let selfMapper: Uint8Array;
let sharer: Uint8Array;
let mapper: Uint8Array;
before(async () => {
  // All of them before the first guest with atomics makes V8 compile everything with its slow compiler.
  selfMapper = await compileTest("c-grants.c");
  sharer = await compileExample("grants-share.c");
  mapper = await compileExample("grants-map.c");
  host = await Host.open();
});
after(async () => {
  assert.deepEqual(host.audit(), []);
  await host.close();
});

describe("grants of the guest library", () => {
  it("are given, mapped, copied, revoked and ended as the interface says", async () => {
    const guest = await startGuest(host, selfMapper, "");
    assertChecks(await guest.end(), 70);
  });

  it("share a page between two guests, and take it back while it is in use", async () => {
    // The second guest's id: they are counted.
    const probe = await startGuest(host, mapper, "0 0");
    const { domid } = probe.domain;
    await probe.end();
    const granter = await startGuest(host, sharer, `${domid + 2}`);
    const [, ref] = await granter.printed(/^(\d+)\n/);
    const user = await startGuest(host, mapper, `${granter.domain.domid} ${ref}`);
    assert.equal(user.domain.domid, domid + 2);
    const used = await user.end();
    assert.equal(used.text, "the other domain says 42\nnow I see my own 7\n");
    const shared = await granter.end();
    assert.equal(shared.text, `${ref}\nthe answer is 23\ntaken back: 0\nstill 0 here\n`);
    assert.deepEqual([used.reason, shared.reason], ["poweroff", "poweroff"]);
  });
});
