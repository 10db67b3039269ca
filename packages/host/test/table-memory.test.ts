// The memory of a domain's rows in the hypervisor's tables goes back to the host when its slot is free again.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { grantFrame } from "@xenolith/core";
import { baseAddress } from "@xenolith/sys";
import { Puppet, TARGET } from "./grants-guest.ts";
import { assertClean, eventually, openHost, program } from "./support.ts";

const host = await openHost({ warmVcpuCount: 0 });
after(() => host.close());
const { hypervisor } = host;
const MIB = 2 ** 20;
const DOMAIN_COUNT = 24;

/** Resident bytes of the mappings that begin within the table whose memory has `buffer`. */
const residentOf = ({ buffer, byteLength }: { buffer: ArrayBufferLike; byteLength: number }): number => {
  const base = baseAddress({ buffer } as WebAssembly.Memory);
  let sum = 0;
  let isInside = false;
  for (const line of readFileSync("/proc/self/smaps", "latin1").split("\n")) {
    const start = /^([0-9a-f]+)-/.exec(line)?.[1];
    if (start !== undefined) isInside = Number(`0x${start}`) >= base && Number(`0x${start}`) < base + byteLength;
    const size = isInside ? /^Rss:\s+(\d+) kB/.exec(line) : null;
    if (size !== null) sum += Number(size[1]) * 1024;
  }
  return sum;
};

const tables = {
  p2m: { buffer: hypervisor.p2m.entries.buffer, byteLength: hypervisor.p2m.entries.byteLength },
  grants: { buffer: hypervisor.grants.pin.buffer, byteLength: hypervisor.grants.pin.buffer.byteLength },
};
const resident = (): { readonly p2m: number; readonly grants: number } => ({
  p2m: residentOf(tables.p2m),
  grants: residentOf(tables.grants),
});

/** Columns that are written to at each page: all but `mode`. */
const COLUMN_COUNT = 6;
const TABLE_BYTES = COLUMN_COUNT * 4 * 512 * hypervisor.geometry.grantFramesMax;

/** Every page of all its rows has been written to, with what is as good as nothing. */
const touchTables = (slot: number): void => {
  const frames = hypervisor.geometry.grantFramesMax;
  assert.ok(grantFrame(hypervisor, slot, frames - 1) > 0);
  const { grantee, gfn } = hypervisor.grants;
  for (const column of [grantee, gfn]) {
    for (let ref = 0; ref < frames * 512; ref += 512) column[hypervisor.grants.row(slot, ref)] = 1;
  }
};

test("domains with big tables leave no memory behind, however many there were", async () => {
  const image = await host.loadImage(program(""));
  const round = async (): Promise<number> => {
    const domains = await Promise.all(
      Array.from({ length: DOMAIN_COUNT }, () => host.createDomain({ image, memoryBytesMax: 2 * MIB })),
    );
    for (const { domid } of domains) touchTables(hypervisor.domains.slotOf(domid));
    const { grants } = resident();
    await Promise.all(domains.map((domain) => domain.destroy()));
    return grants;
  };
  await round();
  const before = resident();
  for (let count = 0; count < 3; count += 1) {
    const during = await round();
    assert.ok(during - before.grants >= DOMAIN_COUNT * TABLE_BYTES, `${during} bytes, ${before.grants} before`);
    const now = resident();
    assert.ok(now.grants <= before.grants && now.p2m <= before.p2m, JSON.stringify([before, now]));
  }
  assertClean(host);
});

test("a domain whose page another one keeps gives its memory back when that one lets go, without being asked", async () => {
  const round = async (): Promise<number> => {
    const mapper = await Puppet.start(host);
    const granter = await Puppet.start(host);
    const slot = hypervisor.domains.slotOf(granter.domid);
    touchTables(slot);
    granter.grantTo(mapper.domid, 8, 20);
    const { status, handle } = await mapper.mapFrom(granter.domid, 8, TARGET);
    assert.equal(status, 0);
    await granter.domain.destroy();
    assert.equal(hypervisor.domains.stateOf(slot), "dead");
    const { grants } = resident();
    assert.equal(await mapper.unmap(handle, TARGET), 0);
    await eventually(() => hypervisor.domains.stateOf(slot) === "free");
    await mapper.domain.destroy();
    return grants;
  };
  // The pages of handles are everybody's, and stay.
  await round();
  const before = resident();
  assert.ok((await round()) >= before.grants + TABLE_BYTES);
  const now = resident();
  assert.ok(now.grants <= before.grants && now.p2m <= before.p2m, JSON.stringify([before, now]));
  assertClean(host);
});
