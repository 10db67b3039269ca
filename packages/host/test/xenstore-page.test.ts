import assert from "node:assert/strict";
import { it } from "node:test";
import { xenstore_domain_interface as layout } from "@xenolith/abi";
import { DirectMap } from "@xenolith/core";
import { RingFrame } from "../src/ring-frame.ts";
import { XenstorePage } from "../src/xenstore-page.ts";

/** A page, and its words as the guest writes them. */
const create = (): { page: XenstorePage; guest: DataView; released: () => number } => {
  const bank = new SharedArrayBuffer(4096);
  let releases = 0;
  const frame = new RingFrame(new DirectMap([bank]), 0, () => (releases += 1));
  return { page: new XenstorePage(frame, () => {}), guest: new DataView(bank), released: () => releases };
};

it("an event brings work when the guest sent or took bytes, once for each", () => {
  const { page, guest } = create();
  assert.equal(page.takeWork(), false);
  guest.setUint32(layout.req_prod.offset, 20, true);
  assert.deepEqual([page.hasRequest, page.takeWork(), page.takeWork()], [true, true, false]);
  page.readBytes(layout.req.offset, new Uint8Array(20));
  page.storeU32(layout.req_cons.offset, 20);
  page.writeBytes(layout.rsp.offset, new Uint8Array(16));
  page.storeU32(layout.rsp_prod.offset, 16);
  assert.equal(page.takeWork(), false);
  guest.setUint32(layout.rsp_cons.offset, 8, true);
  assert.deepEqual([page.takeWork(), page.takeWork()], [true, false]);
  guest.setUint32(layout.rsp_cons.offset, 16, true);
  assert.deepEqual([page.takeWork(), page.takeWork()], [true, false]);
  guest.setUint32(layout.req_prod.offset, 21, true);
  assert.deepEqual([page.takeWork(), page.takeWork()], [true, false]);
});

it("indices that go to and fro, or cannot be, bring none", () => {
  const { page, guest } = create();
  guest.setUint32(layout.req_prod.offset, 500, true);
  assert.equal(page.takeWork(), true);
  page.readBytes(layout.req.offset, new Uint8Array(100));
  page.storeU32(layout.req_cons.offset, 100);
  page.writeBytes(layout.rsp.offset, new Uint8Array(1000));
  page.storeU32(layout.rsp_prod.offset, 1000);
  guest.setUint32(layout.rsp_cons.offset, 1000, true);
  assert.equal(page.takeWork(), true);
  for (let turn = 0; turn < 1000; turn += 1) {
    guest.setUint32(layout.req_prod.offset, [100, 500, 0xffff_ffff, 99, 300, 1500][turn % 6]!, true);
    guest.setUint32(layout.rsp_cons.offset, [0, 1000, 0x8000_0000, 1001, 500][turn % 5]!, true);
    assert.equal(page.takeWork(), false);
  }
});

it("a ring that begins anywhere brings no work of its own", () => {
  const { page, guest } = create();
  for (const word of [layout.req_cons, layout.req_prod, layout.rsp_cons, layout.rsp_prod]) {
    guest.setUint32(word.offset, 0xffff_fff0, true);
  }
  assert.equal(page.hasRequest, false);
  assert.deepEqual(
    [page.loadU32(layout.req_cons.offset), page.loadU32(layout.rsp_prod.offset)],
    [0xffff_fff0, 0xffff_fff0],
  );
  assert.equal(page.takeWork(), false);
  guest.setUint32(layout.req_prod.offset, 4, true);
  assert.deepEqual([page.takeWork(), page.takeWork()], [true, false]);
});

it("after its end a page reads as zeros, takes nothing, and was let go of once", () => {
  const { page, guest, released } = create();
  guest.setUint32(layout.req_prod.offset, 5, true);
  page.close();
  page.close();
  page.storeU32(layout.req_cons.offset, 7);
  page.writeBytes(0, Uint8Array.of(1));
  const bytes = Uint8Array.of(9, 9);
  page.readBytes(0, bytes);
  assert.deepEqual([page.loadU32(layout.req_prod.offset), [...bytes], guest.getUint8(0)], [0, [0, 0], 0]);
  assert.equal(released(), 1);
});
