import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { mappingHandle } from "../src/extent-mapping.ts";
import { resetGrants } from "../src/grant-reset.ts";
import { UnmapBatch, unmapBatch } from "../src/grant-unbatch.ts";
import { createUnmapRequest, unmapGrant } from "../src/grant-unmap.ts";
import type { Hypervisor } from "../src/hypervisor.ts";
import { closeExtent, createExtent, mapExtent, revokeMapping, unmapExtent } from "../src/index.ts";
import { interleave, otherThread } from "./advisories-kit.ts";
import { HOLE, pair } from "./grant-kit.ts";
import type { Guest } from "./machine.ts";

describe("two threads and an extent", () => {
  const guestCalls: readonly (readonly [string, (on: Hypervisor, mapper: Guest, handle: number) => void])[] = [
    [
      "unmaps it",
      (on, { slot }, handle) =>
        void unmapGrant(on, slot, { ...createUnmapRequest(), handle, hostAddress: HOLE * 4096 }),
    ],
    [
      "unmaps it in a list",
      (on, { slot }, handle) => {
        const batch = new UnmapBatch();
        batch.handle[0] = handle;
        batch.hostLow[0] = HOLE * 4096;
        unmapBatch(on, slot, batch, 1);
      },
    ],
    ["resets its grants", (on, { slot }) => void resetGrants(on, slot)],
  ];
  for (const isRevoked of [false, true]) {
    for (const [name, call] of guestCalls) {
      it(`a mapping that dom0 takes away${isRevoked ? ", revoked before," : ""} while its guest ${name} is freed once`, () => {
        interleave(() => {
          const { machine, granter, mapper } = pair();
          const { hypervisor } = machine;
          const other = otherThread(machine.parts);
          const extent = createExtent(hypervisor, granter.slot, 1, 2);
          const mapping = mapExtent(hypervisor, extent, { slot: mapper.slot, gfn: HOLE, isWritable: true });
          assert.ok(mapping >= 0);
          if (isRevoked) revokeMapping(hypervisor, mapping);
          return {
            hypervisor,
            victim: () => assert.equal(unmapExtent(hypervisor, mapping), 0),
            adversary: () => call(other, mapper, mappingHandle(mapping)),
            verify: () => {
              assert.equal(hypervisor.maptrack.liveCount[mapper.slot], 0);
              assert.equal(closeExtent(hypervisor, extent), 0);
              machine.check();
            },
          };
        });
      });
    }
  }
});
