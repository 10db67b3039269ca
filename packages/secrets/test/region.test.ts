import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import {
  addressOf,
  closeDescriptor,
  createMemfd,
  lockedBytes,
  mappingsIn,
  openDescriptorCount,
  PROT_NONE,
  PROT_READ,
  PROT_READ_WRITE,
  reserveAnywhere,
  unmap,
  viewMemory,
} from "@xenolith/sys";
import { openPool, refused, runChild } from "./pools.ts";

const MARKER = Buffer.from("5e1a-marker-of-a-region");
const protectionAt = (address: number): number | undefined => mappingsIn(address, address + 1)[0]?.protection;

describe("a region", () => {
  it("has whole pages and a file of its own, which count in its owner and the pool", () => {
    using pool = openPool();
    const owner = pool.owner("tests", { bytes: 12_288, slots: 2 });
    const before = { files: openDescriptorCount(), locked: lockedBytes() };
    const region = owner.allocateRegion(8192);
    region.copyFrom(MARKER, 8192 - MARKER.length);
    assert.equal(openDescriptorCount() - before.files, 1);
    assert.equal(lockedBytes() - before.locked, 8192);
    assert.ok(region.withBytes((bytes) => Buffer.from(bytes.subarray(-MARKER.length)).equals(MARKER)));
    refused(() => owner.allocateRegion(8192), "SECRET_QUOTA");
    const { regionBytes, usedBytes, owners } = pool.statistics();
    assert.deepEqual([regionBytes, usedBytes, owners[0]?.chunks], [8192, 8192, 0]);
    region.release();
    refused(() => region.release(), "SECRET_RELEASED");
    assert.equal(pool.statistics().usedBytes, 0);
    assert.deepEqual([openDescriptorCount(), lockedBytes()], [before.files, before.locked]);
  });

  it("of a size that is no multiple of a page, or above the ceiling, is refused", () => {
    using pool = openPool({ bytesMax: 4 * 2 ** 20, reserveShare: 0 });
    const owner = pool.owner("tests");
    for (const size of [0, -4096, 100, 4097, Number.NaN, 2 ** 40]) {
      refused(() => owner.allocateRegion(size), "INVALID_SIZE");
    }
    refused(() => owner.allocateRegion(2 ** 21 + 4096), "SECRET_CEILING", /for a region/);
    owner.allocateRegion(2 ** 21).release();
    assert.equal(inspect(owner.allocateRegion(4096)), "SecretRegion {}");
  });

  it("leaves the reserve to the privileged", () => {
    using pool = openPool({ bytesMax: 4 * 2 ** 20, reserveShare: 0.5 });
    pool.owner("guest").allocate(4080);
    refused(() => pool.owner("other").allocateRegion(2 ** 21), "SECRET_CEILING");
    pool.owner("root", { privileged: true }).allocateRegion(2 ** 21);
  });

  it("is shared with another process by descriptor, which sees what is written and what is wiped", () => {
    using pool = openPool();
    const region = pool.owner("tests").allocateRegion(4096);
    region.copyFrom(MARKER);
    const descriptor = region.share();
    const { output, errors } = runChild(
      `
      using pool = open({ policy: "degraded" });
      const owner = pool.owner("child", { slots: 1 });
      const region = owner.adoptRegion(3);
      console.log(region.withBytes((bytes) => createHash("sha256").update(bytes).digest("hex")), region.size);
      region.copyFrom(Buffer.from("answer"), 4000);`,
      { files: [descriptor] },
    );
    closeDescriptor(descriptor);
    const page = Buffer.alloc(4096);
    MARKER.copy(page);
    assert.equal(output, `${createHash("sha256").update(page).digest("hex")} 4096`, errors);
    assert.ok(region.withBytes((bytes) => Buffer.from(bytes.subarray(4000, 4006)).equals(Buffer.from("answer"))));
  });

  it("is adopted by descriptor within the quota, and nothing else is", () => {
    using pool = openPool();
    const region = pool.owner("tests").allocateRegion(4096);
    region.copyFrom(MARKER);
    const owner = pool.owner("adopter", { bytes: 4096 });
    const descriptor = region.share();
    const other = owner.adoptRegion(descriptor);
    refused(() => owner.adoptRegion(descriptor), "SECRET_QUOTA");
    closeDescriptor(descriptor);
    assert.ok(other.withBytes((bytes) => Buffer.from(bytes.subarray(0, MARKER.length)).equals(MARKER)));
    region.revoke();
    assert.ok(
      other.withBytes((bytes) => bytes.every((byte) => byte === 0)),
      "revoked: wiped for everybody",
    );
    const plain = createMemfd({ name: "plain", sizeBytes: 4096 });
    if (pool.hidden) refused(() => owner.adoptRegion(plain), "INVALID_ARGUMENT", /no secret memory/);
    closeDescriptor(plain);
    for (const bad of [-1, 0.5, Number.NaN]) refused(() => owner.adoptRegion(bad), "INVALID_ARGUMENT");
  });

  it("is taken out of this process's view and brought back, which is counted", () => {
    using pool = openPool();
    const region = pool.owner("tests").allocateRegion(4096);
    region.copyFrom(MARKER);
    const address = region.withBytes((bytes) => addressOf(bytes));
    assert.equal(protectionAt(address), PROT_READ_WRITE);
    region.removeFromView();
    assert.equal(protectionAt(address), PROT_NONE);
    refused(() => region.withBytes(() => 0), "SECRET_RELEASED", /removed from this process's view/);
    refused(() => region.copyTo(Buffer.alloc(4096)), "SECRET_RELEASED");
    region.restoreView();
    region.restoreView();
    assert.equal(region.viewings, 2);
    assert.ok(region.withBytes((bytes) => Buffer.from(bytes.subarray(0, MARKER.length)).equals(MARKER)));
    region.removeFromView();
    const descriptor = region.share();
    region.release();
    const other = pool.owner("adopter").adoptRegion(descriptor);
    closeDescriptor(descriptor);
    assert.ok(
      other.withBytes((bytes) => bytes.every((byte) => byte === 0)),
      "wiped without being in view",
    );
  });

  it("is mapped at other places, read-only unless asked for, and gone from there when it ends", () => {
    using pool = openPool();
    const region = pool.owner("tests").allocateRegion(4096);
    region.copyFrom(MARKER);
    const place = reserveAnywhere(3 * 4096);
    region.mapAt(place);
    region.mapAt(place + 8192, { writable: true });
    assert.deepEqual([protectionAt(place), protectionAt(place + 8192)], [PROT_READ, PROT_READ_WRITE]);
    assert.equal(new Uint8Array(viewMemory(place, 4096))[0], MARKER[0]);
    region.seal();
    assert.equal(protectionAt(place + 8192), PROT_READ);
    refused(() => region.mapAt(place + 4096, { writable: true }), "SECRET_SEALED");
    refused(() => region.unmapFrom(place + 4096), "INVALID_ARGUMENT");
    region.unmapFrom(place);
    assert.equal(protectionAt(place), PROT_NONE);
    region.revoke();
    assert.equal(protectionAt(place + 8192), PROT_NONE);
    unmap(place, 3 * 4096);
  });

  it("when it is sealed refuses writes, ends a process that stores all the same, and is still wiped at its end", () => {
    using pool = openPool();
    const region = pool.owner("tests").allocateRegion(4096);
    region.copyFrom(MARKER);
    const descriptor = region.share();
    region.seal();
    region.seal();
    refused(() => region.copyFrom(MARKER), "SECRET_SEALED");
    region.removeFromView();
    region.restoreView();
    assert.equal(
      region.withBytes((bytes) => protectionAt(addressOf(bytes))),
      PROT_READ,
    );
    region.release();
    const other = pool.owner("adopter").adoptRegion(descriptor);
    closeDescriptor(descriptor);
    assert.ok(other.withBytes((bytes) => bytes.every((byte) => byte === 0)));
    const { output, signal } = runChild(`
      using pool = open({ policy: "degraded" });
      const region = pool.owner("child").allocateRegion(4096);
      region.withBytes((bytes) => { bytes[0] = 1; });
      region.seal();
      console.log("sealed");
      region.withBytes((bytes) => { bytes[0] = 2; });
      console.log("written");`);
    assert.deepEqual([output, signal], ["sealed", "SIGSEGV"]);
  });

  it("that is sealed for ever cannot be unmapped, and is empty when it is released", (t) => {
    using pool = openPool();
    const region = pool.owner("tests").allocateRegion(4096);
    region.copyFrom(MARKER);
    const { address, isUnchangeable } = region.sealForever();
    const view = new Uint8Array(viewMemory(address, 4096));
    assert.equal(view[0], MARKER[0]);
    if (!isUnchangeable) {
      region.release();
      t.skip("this kernel has no mseal");
      return;
    }
    assert.equal(unmap(address, 4096), -1);
    region.release();
    assert.ok(view.every((byte) => byte === 0));
  });
});
