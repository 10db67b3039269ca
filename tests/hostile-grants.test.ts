/**
 * Guests that misuse grants on a real host, where the kernel's limits matter: whoever spends mappings, handles and frames
 * spends its own; what it maps over what carries it hurts itself alone; and what was granted to it can always be taken
 * back. After each of them the auditor compares everything with /proc/self/maps.
 */
import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import {
  __HYPERVISOR_grant_table_op,
  __HYPERVISOR_memory_op,
  DOMID_SELF,
  GNTMAP_host_map,
  GNTMAP_readonly,
  GNTST_bad_gntref,
  GNTST_bad_page,
  GNTST_general_error,
  GNTST_no_space,
  GNTST_okay,
  GNTTABOP_map_grant_ref,
  GNTTABOP_map_revokable,
  GNTTABOP_revoke,
  GNTTABOP_unmap_grant_ref,
  GTF_permit_access,
  GTF_reading,
  GTF_writing,
  XENMAPSPACE_grant_table,
  XENMEM_add_to_physmap,
  XENMEM_decrease_reservation,
  XENMEM_populate_physmap,
} from "@xenolith/abi";
import { freeFrameCount } from "@xenolith/core";
import type { Domain, DomainOptions } from "@xenolith/host";
import { assemble, assertClean, openHost, run, wordAt } from "./advisory-guests.ts";

const host = await openHost();
after(() => host.close());

const PAGE = 4096;
const TABLE = 0x4000_0000;
const TARGET = 0x5000_0000;
const ARGUMENTS = 0x1000;
/** A page of its own that it grants. */
const OWN_GFN = 4;
const PROVIDED = 0xffff_ffff;

const image = assemble(`(module
  (import "xen" "hypercall" (func $hypercall (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "hypercall") (param i32 i32 i32 i32) (result i32)
    (call $hypercall (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 0) (i32.const 0)))
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store (local.get 0) (local.get 1))))`);

interface Wish {
  readonly granter: number;
  readonly ref: number;
  readonly address: number;
  readonly readOnly?: boolean;
  readonly lgfn?: number;
}

/** A guest that makes the calls it is told to. */
class Hostile {
  readonly domain: Domain;

  private constructor(domain: Domain) {
    this.domain = domain;
  }

  static async start(options: Omit<DomainOptions, "image"> = {}): Promise<Hostile> {
    const hostile = new Hostile(await run(host, image, { memoryBytesMax: 4 * 2 ** 20, ...options }));
    const added = await hostile.call(
      [__HYPERVISOR_memory_op, XENMEM_add_to_physmap],
      [DOMID_SELF, XENMAPSPACE_grant_table, 0, TABLE / PAGE],
    );
    assert.equal(added, 0);
    return hostile;
  }

  get domid(): number {
    return this.domain.domid;
  }

  async call([number = 0, command = 0]: readonly number[], words: readonly number[]): Promise<number> {
    this.domain.write(ARGUMENTS, new Uint8Array(Uint32Array.from(words, (word) => word >>> 0).buffer));
    return Number(await this.domain.call("hypercall", number, command, ARGUMENTS, 1));
  }

  /** Maps one reference; returns the status and the handle. */
  async map({ granter, ref, address, readOnly, lgfn }: Wish): Promise<{ status: number; handle: number }> {
    const flags = GNTMAP_host_map | (readOnly === true ? GNTMAP_readonly : 0);
    const command = lgfn === undefined ? GNTTABOP_map_grant_ref : GNTTABOP_map_revokable;
    const words = [address, 0, flags, ref, granter, 0, 0, 0, lgfn ?? 0];
    await this.call([__HYPERVISOR_grant_table_op, command], words);
    return { status: this.#status(18), handle: wordAt(this.domain, ARGUMENTS + 20) };
  }

  async unmap(handle: number, address: number): Promise<number> {
    await this.call([__HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref], [address, 0, 0, 0, handle, 0]);
    return this.#status(20);
  }

  async revoke(ref: number): Promise<number> {
    await this.call([__HYPERVISOR_grant_table_op, GNTTABOP_revoke], [ref, 0]);
    return this.#status(4);
  }

  grant(ref: number, domid: number, gfn: number, flags = GTF_permit_access): void {
    this.domain.write(TABLE + ref * 8, new Uint8Array(Uint32Array.of((domid << 16) | flags, gfn).buffer));
  }

  flags(ref: number): number {
    return wordAt(this.domain, TABLE + ref * 8) & 0xffff;
  }

  #status(offset: number): number {
    return new DataView(this.domain.read(ARGUMENTS + offset, 2).buffer).getInt16(0, true);
  }
}

/** A guest and a page of its own that it grants to `other` as reference 8; its first word is 77. */
const granterFor = async (other: Hostile): Promise<Hostile> => {
  const granter = await Hostile.start();
  granter.grant(8, other.domid, OWN_GFN);
  granter.domain.write(OWN_GFN * PAGE, Uint8Array.of(77));
  return granter;
};

/** A third party whose mapping has to go on as if nothing were. */
const bystanders = async (): Promise<{ check: () => Promise<void> }> => {
  const mapper = await Hostile.start();
  const granter = await granterFor(mapper);
  const wish = { granter: granter.domid, ref: 8, address: TARGET };
  assert.equal((await mapper.map(wish)).status, GNTST_okay);
  return {
    check: async () => {
      assert.equal(await mapper.domain.call("load", TARGET), 77);
      const second = await mapper.map({ ...wish, address: TARGET + 2 * PAGE });
      assert.equal(second.status, GNTST_okay);
      assert.equal(await mapper.unmap(second.handle, TARGET + 2 * PAGE), GNTST_okay);
      await Promise.all([mapper.domain.destroy(), granter.domain.destroy()]);
      assertClean(host);
    },
  };
};

describe("a guest that spends what it has", () => {
  for (const [name, lgfn] of [
    ["plain", undefined],
    ["revokable", PROVIDED],
  ] as const) {
    it(`maps every second page until its budget of mappings is spent (${name}): no_space, and others go on`, async () => {
      const others = await bystanders();
      const frames = freeFrameCount(host.hypervisor);
      const vmas = host.info().vmas;
      const mapper = await Hostile.start({ vmaBudget: 120 });
      const pages = host.grants.share(mapper.domid, { pages: 200, revokable: lgfn !== undefined });
      pages.bytes.fill(0x55);
      const handles: number[] = [];
      let status = GNTST_okay;
      for (const [index, ref] of pages.refs.entries()) {
        const address = TARGET + 2 * index * PAGE;
        const mapped = await mapper.map({ granter: 0, ref, address, ...(lgfn === undefined ? {} : { lgfn }) });
        status = mapped.status;
        if (status !== GNTST_okay) break;
        handles.push(mapped.handle);
      }
      assert.equal(status, GNTST_no_space);
      assert.ok(handles.length > 20 && handles.length < 120, `${handles.length} were mapped`);
      assertClean(host);
      if (lgfn !== undefined) {
        // At the limit: taking back needs no mapping more.
        pages.revoke();
        assertClean(host);
        for (const index of handles.keys())
          assert.equal(await mapper.domain.call("load", TARGET + 2 * index * PAGE), 0);
      }
      for (const [index, handle] of handles.entries()) {
        assert.equal(await mapper.unmap(handle, TARGET + 2 * index * PAGE), GNTST_okay);
      }
      assertClean(host);
      assert.equal(
        (
          await mapper.map({
            granter: 0,
            ref: pages.refs[0]!,
            address: TARGET,
            ...(lgfn === undefined ? {} : { lgfn }),
          })
        ).status,
        lgfn === undefined ? GNTST_okay : GNTST_general_error,
      );
      await mapper.domain.destroy();
      await pages.end();
      assert.equal(freeFrameCount(host.hypervisor), frames);
      assert.ok(host.info().vmas <= vmas);
      await others.check();
    });
  }

  it("that dies at the limit of its mappings gives all of them back, and the granter its pages", async () => {
    const mapper = await Hostile.start({ vmaBudget: 100 });
    const granter = await granterFor(mapper);
    let status = GNTST_okay;
    for (let index = 0; status === GNTST_okay; index += 1) {
      ({ status } = await mapper.map({ granter: granter.domid, ref: 8, address: TARGET + 2 * index * PAGE }));
    }
    assert.equal(status, GNTST_no_space);
    assert.equal(granter.flags(8) & (GTF_reading | GTF_writing), GTF_reading | GTF_writing);
    await mapper.domain.destroy();
    assert.equal(granter.flags(8) & (GTF_reading | GTF_writing), 0);
    await granter.domain.destroy();
    assertClean(host);
  });

  it("that gives up or populates what is granted to it changes nothing for the granter; populating ends it", async () => {
    const mapper = await Hostile.start();
    const granter = await granterFor(mapper);
    assert.equal((await mapper.map({ granter: granter.domid, ref: 8, address: TARGET })).status, GNTST_okay);
    const list = ARGUMENTS + 64;
    const reserve = (command: number, gfn: number): Promise<number> => {
      mapper.domain.write(list, new Uint8Array(Uint32Array.of(gfn).buffer));
      return mapper.call([__HYPERVISOR_memory_op, command], [list, 1, 0, 0, DOMID_SELF]);
    };
    const before = granter.domain.stats().pages;
    assert.equal(await reserve(XENMEM_decrease_reservation, TARGET / PAGE), 0);
    assert.equal(await reserve(XENMEM_populate_physmap, TARGET / PAGE + 1), 1, "beside it there is room");
    assert.equal(await mapper.domain.call("load", TARGET), 77);
    await assert.rejects(reserve(XENMEM_populate_physmap, TARGET / PAGE), { code: "DOMAIN_CRASHED" });
    assert.equal(await granter.domain.call("load", OWN_GFN * PAGE), 77);
    await mapper.domain.destroy();
    assert.equal(granter.flags(8) & (GTF_reading | GTF_writing), 0);
    assert.equal(granter.domain.stats().pages, before);
    await granter.domain.destroy();
    assertClean(host);
  });

  it("exhausts its frames: a writable mapping that can be revoked needs one of them, a read-only one none", async () => {
    const others = await bystanders();
    const mapper = await Hostile.start({ memoryBytesMax: 2 ** 20 });
    const pages = host.grants.share(mapper.domid, { pages: 400, revokable: true });
    let status = GNTST_okay;
    let index = 0;
    for (; status === GNTST_okay; index += 1) {
      ({ status } = await mapper.map({
        granter: 0,
        ref: pages.refs[index]!,
        address: TARGET + index * PAGE,
        lgfn: PROVIDED,
      }));
    }
    assert.equal(status, GNTST_no_space);
    const wish = { granter: 0, ref: pages.refs[index]!, address: TARGET + index * PAGE, lgfn: PROVIDED };
    assert.equal((await mapper.map({ ...wish, readOnly: true })).status, GNTST_okay);
    assertClean(host);
    await mapper.domain.destroy();
    await pages.end();
    await others.check();
  });
});

describe("a guest that grants", () => {
  it("frames that it does not own, or only mapped, gives nothing: bad_page", async () => {
    const mapper = await Hostile.start();
    const granter = await Hostile.start();
    mapper.grant(8, granter.domid, OWN_GFN);
    assert.equal((await granter.map({ granter: mapper.domid, ref: 8, address: TARGET })).status, GNTST_okay);
    const share = host.share(PAGE);
    const shared = share.mapInto(granter.domain, { access: "read-write" });
    const { geometry } = host.hypervisor;
    for (const gfn of [
      TARGET / PAGE,
      shared / PAGE,
      TABLE / PAGE,
      0x3_0000,
      0xf_fffe,
      0xf_ffff,
      0x10_0000,
      0xffff_ffff,
      geometry.machineFrames - 1,
    ]) {
      granter.grant(9, mapper.domid, gfn);
      const { status } = await mapper.map({ granter: granter.domid, ref: 9, address: TARGET });
      assert.equal(status, GNTST_bad_page, `gfn ${gfn.toString(16)}`);
      assert.equal(granter.flags(9), GTF_permit_access);
      assertClean(host);
    }
    share.close();
    await Promise.all([mapper.domain.destroy(), granter.domain.destroy()]);
    assertClean(host);
  });

  it("nothing, and revokes what it never granted: nothing happens, or bad_gntref", async () => {
    const guest = await Hostile.start();
    for (const ref of [0, 8, 511]) assert.equal(await guest.revoke(ref), GNTST_okay);
    for (const ref of [512, 32_768, 0x8000_0000, 0xffff_ffff]) assert.equal(await guest.revoke(ref), GNTST_bad_gntref);
    const mapper = await Hostile.start();
    guest.grant(8, mapper.domid, OWN_GFN);
    assert.equal((await mapper.map({ granter: guest.domid, ref: 8, address: TARGET })).status, GNTST_okay);
    assert.equal(await guest.revoke(8), GNTST_general_error, "a plain grant is not taken back");
    await Promise.all([guest.domain.destroy(), mapper.domain.destroy()]);
    assertClean(host);
  });
});

describe("a guest that maps over", () => {
  it("its own image loses those pages to the mapping and nobody else anything", async () => {
    const others = await bystanders();
    const mapper = await Hostile.start();
    const granter = await granterFor(mapper);
    const wish = { granter: granter.domid, ref: 8 };
    for (const gfn of [8, 9, 31]) {
      const { status, handle } = await mapper.map({ ...wish, address: gfn * PAGE });
      assert.equal(status, GNTST_okay);
      assert.equal(await mapper.domain.call("load", gfn * PAGE), 77);
      assertClean(host);
      if (gfn === 9) assert.equal(await mapper.unmap(handle, gfn * PAGE), GNTST_okay);
    }
    await assert.rejects(mapper.domain.call("load", 9 * PAGE), { code: "DOMAIN_CRASHED" });
    await mapper.domain.destroy();
    assert.equal(granter.flags(8), GTF_permit_access);
    await granter.domain.destroy();
    await others.check();
  });

  for (const [name, place] of [
    ["its table's frame", () => TABLE],
    ["another mapping", () => TARGET],
    ["a share", (shared: number) => shared],
  ] as const) {
    it(`${name} is crashed, and the granter has its page back`, async () => {
      const others = await bystanders();
      const mapper = await Hostile.start();
      const granter = await granterFor(mapper);
      const share = host.share(PAGE);
      const shared = share.mapInto(mapper.domain, { access: "read-only" });
      const wish = { granter: granter.domid, ref: 8, address: TARGET };
      assert.equal((await mapper.map(wish)).status, GNTST_okay);
      await assert.rejects(mapper.map({ ...wish, address: place(shared) }), { code: "DOMAIN_CRASHED" });
      assert.match((await mapper.domain.exited).reason, /mapped over a page that is not its own RAM/);
      await mapper.domain.destroy();
      assert.equal(granter.flags(8), GTF_permit_access);
      share.close();
      await granter.domain.destroy();
      await others.check();
    });
  }

  it("its rings: the page goes on for the control domain, and the guest talks to itself", async () => {
    const others = await bystanders();
    const mapper = await Hostile.start();
    const granter = await granterFor(mapper);
    for (const gfn of [0xf_fffa, 0xf_fffb, 0xf_fffd, 0xf_ffff]) {
      const entry = host.hypervisor.p2m.get(host.hypervisor.domains.slotOf(mapper.domid), gfn);
      if (entry === 0) continue;
      await mapper.map({ granter: granter.domid, ref: 8, address: gfn * PAGE }).catch(() => {});
      assertClean(host);
    }
    await Promise.all([mapper.domain.destroy(), granter.domain.destroy()]);
    await others.check();
  });
});
