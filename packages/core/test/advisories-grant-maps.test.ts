/**
 * Published advisories about mappings of grants, as tests; see docs/advisories.md. Those about tables and copies stand in
 * advisories-grant-tables.test.ts.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { createMapRequest, mapGrant } from "../src/grant-map.ts";
import { revokeGrant } from "../src/grant-revoke.ts";
import { allocHandle, freeHandle } from "../src/maptrack.ts";
import { HANDLES_PER_PAGE, MAPPING_FREE, MAPPING_PENDING } from "../src/maptrack-table.ts";
import { interleave, otherThread, watchAtomics } from "./advisories-kit.ts";
import { DEVICE, HOLE, HOST, pair, PROVIDED, READ_ONLY, REVOKABLE, RO, RW } from "./grant-kit.ts";
import type { Guest } from "./machine.ts";

const { GNTST_okay, GNTST_bad_handle, GNTST_general_error, GNTST_no_space } = abi;
const DEVICE_ADDRESS = 0x9000;

describe("the maptrack", () => {
  it("G09: at every step of its growth, each handle below the bound has a row of its own (XSA-218 c)", () => {
    const { machine, mapper } = pair();
    const { hypervisor } = machine;
    const { maptrack } = hypervisor;
    let looks = 0;
    let isLooking = false;
    const taken: number[] = [];
    const look = (): void => {
      if (isLooking) return;
      isLooking = true;
      looks += 1;
      const handles = maptrack.frameCount[mapper.slot]! * HANDLES_PER_PAGE;
      for (const handle of [0, handles - HANDLES_PER_PAGE, handles - 1]) {
        if (handle < 0 || handle >= handles) continue;
        const row = maptrack.row(mapper.slot, handle);
        assert.equal(maptrack.ownerOf(row), mapper.slot);
        assert.ok(maptrack.state[row] === MAPPING_FREE || maptrack.state[row] === MAPPING_PENDING);
      }
      isLooking = false;
    };
    for (let count = 0; count < 2 * HANDLES_PER_PAGE + 1; count += 1) {
      watchAtomics(() => taken.push(allocHandle(hypervisor, mapper.slot)), look);
    }
    assert.equal(new Set(taken).size, taken.length);
    assert.equal(maptrack.frameCount[mapper.slot], 3);
    assert.ok(looks > 1000);
    for (const handle of taken) freeHandle(hypervisor, mapper.slot, handle);
    machine.check();
  });
});

describe("mappings", () => {
  it("G10: each half that was mapped is dropped once, whatever is unmapped how often (XSA-224)", () => {
    for (const flags of [HOST, DEVICE, HOST | DEVICE].flatMap((halves) => [halves, halves | READ_ONLY])) {
      const { machine, granter } = pair();
      const { dom0 } = machine;
      const mfn = machine.frame(granter, 1);
      const before = machine.refs(mfn);
      machine.grant(granter, 8, 0, 1);
      const { handle, status } = machine.map(dom0, granter, { flags, deviceAddress: DEVICE_ADDRESS });
      assert.equal(status, GNTST_okay);
      const host = { handle, host: HOLE * 4096 };
      const device = { handle, device: DEVICE_ADDRESS };
      for (const half of [host, host, host, device, device, device]) {
        machine.unmapAll(dom0, [half]);
        machine.check();
      }
      assert.deepEqual(machine.unmapAll(dom0, [{ ...host, ...device }]), [GNTST_bad_handle]);
      assert.equal(machine.refs(mfn), before);
      assert.equal(machine.use(granter, 8), "");
    }
  });

  it("G12: an address inside a page is that page's, and nothing but the page is touched (XSA-227)", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    for (const inside of [1, 2047, 4095]) {
      const { status, handle } = machine.map(mapper, granter, { hostAddress: HOLE * 4096 + inside });
      assert.equal(status, GNTST_okay);
      assert.equal(machine.frameAt(mapper, HOLE), machine.frame(granter, 1));
      assert.deepEqual([machine.frameAt(mapper, HOLE - 1), machine.frameAt(mapper, HOLE + 1)], [-1, -1]);
      assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    }
    assert.equal(machine.map(mapper, granter, { hostAddress: 2 ** 32 + 1 }).status, GNTST_general_error);
    machine.check();
  });

  it("G16: what is unmapped is the mapping that was recorded: place, page and access (XSA-234)", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, RO);
    machine.grant(granter, 9, mapper, 2, RW);
    const readOnly = machine.map(mapper, granter, { flags: HOST | READ_ONLY });
    const writable = machine.map(mapper, granter, { ref: 9, gfn: HOLE + 1 });
    assert.equal(machine.unmap(mapper, readOnly.handle, HOLE + 1), GNTST_general_error);
    assert.equal(machine.unmap(mapper, writable.handle, HOLE), GNTST_general_error);
    machine.check();
    assert.equal(machine.unmap(mapper, readOnly.handle, HOLE), GNTST_okay);
    assert.equal(machine.unmap(mapper, readOnly.handle, HOLE), GNTST_bad_handle);
    assert.equal(machine.unmap(mapper, writable.handle, HOLE + 1), GNTST_okay);
    for (const gfn of [1, 2]) assert.equal(machine.refs(machine.frame(granter, gfn)), 1);
  });

  it("G25: whatever is asked for, a status is 0 or a documented negative number (XSA-316)", () => {
    const { machine, granter, mapper } = pair();
    const statuses = new Set<number>();
    const entries = [0, RW, RO, REVOKABLE, abi.GTF_accept_transfer, abi.GTF_transitive, RW | abi.GTF_sub_page];
    const flagsOfMaps = [0, HOST, HOST | READ_ONLY, HOST | abi.GNTMAP_contains_pte, DEVICE];
    const wishes = flagsOfMaps.flatMap((flags) =>
      [undefined, PROVIDED, 3, HOLE, 0x12_3456].map((lgfn) => ({ flags, lgfn })),
    );
    for (const [entry, to] of entries.flatMap((each) =>
      [mapper.domid, 0x7ff0].map((domid) => [each, domid] as const),
    )) {
      machine.grant(granter, 8, to, 1, entry);
      for (const { flags, lgfn } of wishes) {
        const { status, handle } =
          lgfn === undefined
            ? machine.map(mapper, granter, { flags })
            : machine.mapRevokable(mapper, granter, { flags, lgfn });
        statuses.add(status);
        if (status === GNTST_okay) machine.unmap(mapper, handle, HOLE);
      }
    }
    for (const status of statuses) assert.ok(status <= 0 && status >= abi.GNTST_no_space, `status ${status}`);
    assert.ok(statuses.size >= 5, "many of them were met");
    machine.check();
  });

  it("G31: unmapping one of many looks at as much as unmapping one of two (XSA-380)", () => {
    const stepsWith = (count: number): number => {
      const { machine, granter, mapper } = pair({ framesPerBank: 4096 });
      machine.grant(granter, 8, mapper, 1);
      machine.grant(granter, 9, mapper, 2);
      for (let index = 0; index < count; index += 1) {
        const ref = index % 2 === 0 ? 8 : 9;
        assert.equal(machine.map(mapper, granter, { ref, gfn: HOLE + 2 * index }).status, GNTST_okay);
      }
      const { status, handle } = machine.map(mapper, granter, { ref: 9, gfn: HOLE - 1 });
      assert.equal(status, GNTST_okay);
      let steps = 0;
      watchAtomics(
        () => assert.equal(machine.unmap(mapper, handle, HOLE - 1), GNTST_okay),
        () => (steps += 1),
      );
      return steps;
    };
    // The kit compares all page tables after an operation, which is no atomic operation.
    assert.ok(stepsWith(100) <= stepsWith(1) + 8);
  });

  it("G33: a counter moves with a mapping that goes and not with a call that succeeds (XSA-394)", () => {
    const { machine, granter } = pair();
    const { dom0, hypervisor } = machine;
    machine.grant(granter, 8, 0, 1);
    const { handle } = machine.map(dom0, granter, { flags: HOST | DEVICE, deviceAddress: DEVICE_ADDRESS });
    const live = (): number => hypervisor.maptrack.liveCount[0]!;
    const before = live();
    for (let times = 0; times < 5; times += 1) {
      assert.deepEqual(machine.unmapAll(dom0, [{ handle }]), [GNTST_okay]);
      assert.equal(live(), before);
    }
    for (let times = 0; times < 5; times += 1) {
      assert.deepEqual(machine.unmapAll(dom0, [{ handle, device: DEVICE_ADDRESS }]), [GNTST_okay]);
      assert.equal(live(), before);
    }
    assert.deepEqual(machine.unmapAll(dom0, [{ handle, host: HOLE * 4096 }]), [GNTST_okay]);
    assert.equal(live(), before - 1);
  });

  it("G37: what a mapper has mapped counts against its own limits, and no other's (XSA-300)", () => {
    const { machine, granter, mapper } = pair();
    const third = machine.guest({ vmaBudget: 500 });
    const { domains, maptrack } = machine.hypervisor;
    maptrack.frameMax[mapper.slot] = 1;
    machine.grant(granter, 8, mapper, 1);
    machine.grant(granter, 9, mapper, 2);
    machine.grant(granter, 10, mapper, 3);
    machine.grant(granter, 11, third, 1);
    let count = 0;
    let status = 0;
    for (; status === 0; count += 1) {
      status = machine.map(mapper, granter, { ref: 8 + (count % 3), gfn: HOLE + 2 * count }).status;
    }
    assert.equal(status, GNTST_no_space);
    assert.ok(count > 10);
    assert.equal(machine.map(third, granter, { ref: 11 }).status, GNTST_okay);
    assert.equal(domains.vmaCount[granter.slot], 1, "the granter pays for none of it");
    machine.destroy(mapper);
    assert.equal(machine.use(granter, 8), "");
  });

  it("G38: of a run mapped in one go each page goes once, whatever is unmapped first (CVE-2026-31787)", () => {
    const { machine, granter, mapper } = pair();
    for (let index = 0; index < 4; index += 1) machine.grant(granter, 8 + index, mapper, 1 + index);
    const wishes = [0, 1, 2, 3].map((index) => ({ ref: 8 + index, gfn: HOLE + index }));
    const handles = machine.mapAll(mapper, granter, wishes).map(({ handle }) => handle);
    const unmap = (index: number): number => machine.unmap(mapper, handles[index]!, HOLE + index);
    assert.equal(unmap(1), GNTST_okay);
    assert.deepEqual(
      machine.unmapAll(
        mapper,
        handles.map((handle, index) => ({ handle, host: (HOLE + index) * 4096 })),
      ),
      [GNTST_okay, GNTST_bad_handle, GNTST_okay, GNTST_okay],
    );
    for (const index of [0, 1, 2, 3]) {
      assert.equal(unmap(index), GNTST_bad_handle);
      assert.equal(machine.refs(machine.frame(granter, 1 + index)), 1);
    }
  });
});

describe("taking pages back", () => {
  const mapAgain = (hypervisor: Parameters<typeof mapGrant>[0], mapper: Guest, granter: Guest, gfn: number): number =>
    mapGrant(hypervisor, mapper.slot, {
      ...createMapRequest(),
      granter: granter.domid,
      ref: 8,
      flags: HOST,
      gfn,
      isRevokable: true,
      lgfn: PROVIDED,
    });

  const revokeAgainstMap = (): void => {
    interleave(() => {
      const { machine, granter, mapper } = pair();
      const { hypervisor } = machine;
      const other = otherThread(machine.parts);
      const mfn = machine.frame(granter, 1);
      machine.grant(granter, 8, mapper, 1, REVOKABLE);
      assert.equal(mapAgain(hypervisor, mapper, granter, HOLE), GNTST_okay);
      let status = 1;
      return {
        hypervisor,
        victim: () => {
          machine.denyAccess(granter, 8);
          status = revokeGrant(hypervisor, granter.slot, 8);
        },
        adversary: () => void mapAgain(other, mapper, granter, HOLE + 2),
        verify: () => {
          assert.equal(status, GNTST_okay);
          for (const gfn of [HOLE, HOLE + 2]) assert.notEqual(machine.frameAt(mapper, gfn), mfn);
          assert.equal(machine.use(granter, 8), "");
          assert.equal(machine.refs(mfn), 1);
          const copy = mapAgain(other, mapper, granter, HOLE + 4);
          assert.equal(copy, GNTST_general_error);
          machine.check();
        },
      };
    });
  };

  it("M37: it is claimed first and made safe then: no writable mapping of it survives (XSA-401)", revokeAgainstMap);

  it("B12: it is one step with a result: nobody reaches the page afterwards, in any way (XSA-396)", revokeAgainstMap);

  it("B15: mappings and unmappings of one frame by two vCPUs at every step of each other are all counted (XSA-406)", () => {
    interleave(() => {
      const { machine, granter, mapper } = pair();
      const { hypervisor } = machine;
      const { maptrack } = hypervisor;
      const other = otherThread(machine.parts);
      machine.grant(granter, 8, mapper, 1);
      const map = (on: typeof hypervisor, gfn: number): number => {
        const request = { ...createMapRequest(), granter: granter.domid, ref: 8, flags: HOST, gfn };
        assert.equal(mapGrant(on, mapper.slot, request), GNTST_okay);
        return request.handle;
      };
      const handles: number[] = [];
      let turn = 0;
      return {
        hypervisor,
        victim: () => handles.push(map(hypervisor, HOLE), map(hypervisor, HOLE + 2)),
        adversary: () => handles.push(map(other, HOLE + 4 + 2 * (turn += 1))),
        verify: () => {
          assert.equal(maptrack.liveCount[mapper.slot], handles.length);
          assert.equal(machine.refs(machine.frame(granter, 1)), 1 + handles.length);
          for (const handle of handles) {
            const gfn = maptrack.gfn[maptrack.row(mapper.slot, handle)]! - 1;
            assert.equal(machine.unmap(mapper, handle, gfn), GNTST_okay);
            assert.equal(maptrack.state[maptrack.row(mapper.slot, handle)], MAPPING_FREE);
          }
          assert.equal(machine.refs(machine.frame(granter, 1)), 1);
          machine.check();
        },
      };
    });
  });
});
