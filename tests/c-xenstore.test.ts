/**
 * The xenstore client of the C library against the host's store: nodes, permissions, watches, transactions, the two ends
 * of a device, and vchan by way of the store.
 */
import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { Host } from "@xenolith/host";
import { createDevice } from "@xenolith/xenstore";
import { assertChecks, compileExample, compileTest, createGuest, startGuest } from "./c-domains.ts";

let host: Host;
let program: Uint8Array;
let server: Uint8Array;
let client: Uint8Array;
before(async () => {
  // All of them before the first guest with atomics makes V8 compile everything with its slow compiler.
  program = await compileTest("c-xenstore.c");
  server = await compileExample("vchan-server.c");
  client = await compileExample("vchan-client.c");
  host = await Host.open();
});
after(async () => {
  assert.deepEqual(host.audit(), []);
  await host.close();
});

/** The domid that the next domain gets: they are counted. */
const nextDomid = async (): Promise<number> => {
  await using probe = await host.createDomain({ image: program, memoryBytesMax: 2 ** 24 });
  return probe.domid + 1;
};

it("a guest reads, writes, watches and changes the store in transactions", async () => {
  const guest = await startGuest(host, program, "store");
  assertChecks(await guest.end(), 35);
});

it("the two ends of a device go through their states together, and shut down", async () => {
  const frontId = await nextDomid();
  const front = await createGuest(host, program, "front");
  const back = await createGuest(host, program, `back ${frontId}`);
  assert.equal(front.domain.domid, frontId);
  await createDevice(await host.xenstore(), {
    type: "test",
    id: 0,
    frontDomid: frontId,
    backDomid: back.domain.domid,
  });
  await back.domain.start();
  await front.domain.start();
  assertChecks(await front.end(), 7);
  assertChecks(await back.end(), 3);
});

it("two guests meet in the store and talk through a vchan", async () => {
  const speakerId = await nextDomid();
  const speaker = await createGuest(host, client, `${speakerId + 1}`);
  const echo = await startGuest(host, server, `${speaker.domain.domid}`);
  assert.equal(echo.domain.domid, speakerId + 1);
  await speaker.domain.start();
  const said = await speaker.end();
  assert.equal(said.text, "echo: hello from the other domain\n");
  const heard = await echo.end();
  assert.equal(heard.text, `waiting for domain ${speakerId}\nthe client is gone\n`);
});
