/**
 * Squeezing guests that have no balloon: what holds nothing but zeros goes back to the host, and the guest cannot tell.
 */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { after, before, it } from "node:test";
import { Host } from "@xenolith/host";
import { memfdResidentBytes } from "@xenolith/sys";
import { compileTest, startGuest } from "./c-domains.ts";

const MIB = 2 ** 20;
const PAGES = 2048;

let host: Host;
let program: Uint8Array;
before(async () => {
  program = await compileTest("c-zero-pages.c");
  host = await Host.open({ memoryBytes: 64 * MIB });
});
after(async () => {
  const findings = host.audit();
  await host.close();
  assert.deepEqual(findings, []);
});

/** Bytes of machine memory that the kernel really keeps. */
const residentBytes = (): number => {
  let sum = 0;
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`).startsWith("/memfd:xenolith-bank")) sum += memfdResidentBytes(Number(fd));
    } catch {
      // Closed since the directory was read.
    }
  }
  return sum;
};

it("drops what is all zero; the guest owns, sees and writes the same as before", async () => {
  const store = await host.xenstore();
  const guest = await startGuest(host, program, String(PAGES), { memoryBytesMax: 32 * MIB });
  await guest.printed(/ready\n/);
  const owned = guest.domain.stats();
  // It may not have gone to sleep yet.
  let dropped: number | undefined;
  const before = residentBytes();
  while (dropped === undefined) dropped = await guest.domain.dropZeroPages();
  assert.ok(dropped >= (PAGES / 2) * 4096, `${dropped} bytes dropped`);
  // Page tables of the file itself are counted too.
  assert.ok(before - residentBytes() >= dropped - MIB);
  assert.deepEqual([guest.domain.stats().pages, guest.domain.stats().vmas], [owned.pages, owned.vmas]);
  for (let round = 1; round <= 3; round += 1) {
    await store.write(`/local/domain/${guest.domain.domid}/data/look`, String(round));
    await guest.printed(new RegExp(`(wrong 0\\n){${round}}`));
    let again: number | undefined;
    while (again === undefined) again = await guest.domain.dropZeroPages();
  }
  assert.equal(guest.text.match(/wrong [1-9]/), null);
  await guest.destroy();
});

it("M12: looking for zero pages is spread over many steps, and others have their turn between them (XSA-150)", async () => {
  const guest = await startGuest(host, program, String(PAGES), { memoryBytesMax: 32 * MIB });
  await guest.printed(/ready\n/);
  let turns = 0;
  let isOver = false;
  const count = (): void => {
    turns += 1;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  let dropped: number | undefined;
  while (dropped === undefined) dropped = await guest.domain.dropZeroPages();
  isOver = true;
  // The library's pages alone lie on three quarters of the address space.
  assert.ok(turns > 200, `${turns} turns`);
  assert.equal(guest.domain.state, "running");
  await guest.destroy();
});

it("what was dropped is not dropped again until it is written", async () => {
  const guest = await startGuest(host, program, "8", { memoryBytesMax: 8 * MIB });
  await guest.printed(/ready\n/);
  let dropped: number | undefined;
  while (dropped === undefined) dropped = await guest.domain.dropZeroPages();
  const again = await guest.domain.dropZeroPages();
  assert.ok(again === undefined || again === 0, `${again} bytes dropped again`);
  await guest.destroy();
});

it("a guest that computes is left alone", async () => {
  const guest = await startGuest(host, program, "spin", { memoryBytesMax: 8 * MIB });
  await guest.printed(/ready\n/);
  assert.equal(await guest.domain.dropZeroPages(), undefined);
  assert.equal(guest.domain.state, "running");
  await guest.destroy();
});
