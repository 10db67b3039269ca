import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import type { Hypervisor } from "../src/hypervisor.ts";
import { createMapRequest, mapGrant } from "../src/grant-map.ts";
import { revokeGrant } from "../src/grant-revoke.ts";
import { freeHandle } from "../src/maptrack.ts";
import { MAPPING_FREE } from "../src/maptrack-table.ts";
import { createUnmapRequest, unmapGrant } from "../src/grant-unmap.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { failEach, interleave, otherThread, watchAtomics } from "./advisories-kit.ts";
import type { Interleaving } from "./advisories-kit.ts";
import { HOLE, HOST, pair, PROVIDED, READ_ONLY, REVOKABLE, RO, RW } from "./grant-kit.ts";
import type { GrantMachine } from "./grant-kit.ts";
import type { Guest } from "./machine.ts";

const { GNTST_okay, GNTST_general_error, GNTST_bad_handle, GNTST_permission_denied } = abi;
const AT = HOLE * 4096;

const map = (
  hypervisor: Hypervisor,
  mapper: Guest,
  granter: Guest,
  wish: { ref?: number; gfn?: number; flags?: number; lgfn?: number } = {},
): { status: number; handle: number } => {
  const request = {
    ...createMapRequest(),
    granter: granter.domid,
    ref: wish.ref ?? 8,
    flags: wish.flags ?? HOST,
    gfn: wish.gfn ?? HOLE,
  };
  if (wish.lgfn !== undefined) Object.assign(request, { isRevokable: true, lgfn: wish.lgfn });
  const status = mapGrant(hypervisor, mapper.slot, request);
  return { status, handle: request.handle };
};

const unmap = (hypervisor: Hypervisor, mapper: Guest, handle: number, gfn = HOLE): number =>
  unmapGrant(hypervisor, mapper.slot, { ...createUnmapRequest(), handle, hostAddress: gfn * 4096 + 1 });

/** Every word that a granter could put into its entry in the middle of something. */
const flips = (grantee: number): readonly number[] =>
  [
    0,
    RW,
    RO,
    REVOKABLE,
    abi.GTF_accept_transfer,
    abi.GTF_transitive,
    RW | abi.GTF_sub_page,
    RW | abi.GTF_reading | abi.GTF_writing,
  ].flatMap((flags) => [((grantee << 16) | flags) >>> 0, ((0x1234 << 16) | flags) >>> 0]);

describe("the handshake (3.3) with a granter that changes its entry meanwhile", () => {
  it("at every step of a map, to every value: okay or refused, and pin and bits agree", () => {
    for (const isReadOnly of [false, true]) {
      for (const index of flips(1).keys()) {
        for (const lgfn of [undefined, PROVIDED]) {
          interleave((): Interleaving => {
            const { machine, granter, mapper } = pair();
            const { hypervisor } = machine;
            const { directMap, grants } = hypervisor;
            machine.grant(granter, 8, mapper, 1, lgfn === undefined ? RW : REVOKABLE);
            const address = grants.entryAddress(granter.slot, 8);
            let outcome = { status: 1, handle: 0 };
            return {
              hypervisor,
              isLockFree: true,
              victim: () => {
                const flags = HOST | (isReadOnly ? READ_ONLY : 0);
                outcome = map(hypervisor, mapper, granter, lgfn === undefined ? { flags } : { flags, lgfn });
              },
              adversary: () => {
                directMap.storeU32(address, flips(mapper.domid)[index]!);
                directMap.storeU32(address + 4, 2);
              },
              verify: () => {
                assert.ok(
                  [GNTST_okay, GNTST_general_error, GNTST_permission_denied].includes(outcome.status),
                  `${outcome.status}`,
                );
                const frames = [machine.frame(granter, 1), machine.frame(granter, 2)];
                if (outcome.status === GNTST_okay) {
                  assert.ok(frames.includes(machine.frameAt(mapper, HOLE)));
                  assert.equal(unmap(hypervisor, mapper, outcome.handle), GNTST_okay);
                }
                for (const mfn of frames) assert.equal(machine.refs(mfn), 1);
                machine.check();
              },
            };
          });
        }
      }
    }
  });

  it("five spoilt attempts: general_error; four: okay (XSA-295)", () => {
    for (const spoilt of [4, 5]) {
      const { machine, granter, mapper } = pair();
      const { hypervisor } = machine;
      const { directMap, grants } = hypervisor;
      machine.grant(granter, 8, mapper, 1);
      const address = grants.entryAddress(granter.slot, 8);
      const words = directMap.words[directMap.bankOf(address)]!;
      const offset = directMap.offsetOf(address);
      const compareExchange = words.compareExchange.bind(words);
      let left = spoilt;
      let tries = 0;
      words.compareExchange = (at, expected, replacement) => {
        if (at === offset) {
          tries += 1;
          if (left > 0) {
            left -= 1;
            directMap.storeU32(address, (directMap.loadU32(address) ^ abi.GTF_PWT) >>> 0);
          }
        }
        return compareExchange(at, expected, replacement);
      };
      const { status } = map(hypervisor, mapper, granter);
      words.compareExchange = compareExchange;
      assert.equal(status, spoilt === 4 ? GNTST_okay : GNTST_general_error);
      assert.equal(tries, 5);
      assert.equal(machine.use(granter, 8), spoilt === 4 ? "rw" : "");
      machine.check();
    }
  });

  it("the granter's own bits survive: only READING and WRITING are ever changed", () => {
    const { machine, granter, mapper } = pair();
    const others = RW | abi.GTF_PWT | abi.GTF_PCD | abi.GTF_PAT;
    machine.grant(granter, 8, mapper, 1, others);
    const { handle } = map(machine.hypervisor, mapper, granter);
    assert.equal(machine.flags(granter, 8), others | abi.GTF_reading | abi.GTF_writing);
    unmap(machine.hypervisor, mapper, handle);
    assert.equal(machine.flags(granter, 8), others);
  });
});

describe("3.4, the granter's side", () => {
  it("end of access fails while READING or WRITING is set, and works after", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter, { flags: HOST | READ_ONLY });
    assert.equal(machine.endAccess(granter, 8), false);
    machine.unmap(mapper, handle, HOLE);
    assert.equal(machine.endAccess(granter, 8), true);
    assert.equal(machine.map(mapper, granter).status, GNTST_general_error);
  });

  it("downgrade to read-only while nobody writes: readers go on, writers are refused", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    machine.map(mapper, granter, { flags: HOST | READ_ONLY });
    machine.hypervisor.directMap.orU32(machine.hypervisor.grants.entryAddress(granter.slot, 8), abi.GTF_readonly);
    assert.equal(machine.map(mapper, granter, { gfn: 70 }).status, GNTST_general_error);
    assert.equal(machine.map(mapper, granter, { gfn: 70, flags: HOST | READ_ONLY }).status, GNTST_okay);
  });

  it("changes of an entry in use, or of its frame's gfn, do not move a mapping", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    machine.grant(granter, 8, mapper, 2, abi.GTF_invalid);
    assert.equal(machine.load(mapper, AT), 0xa1);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
  });
});

describe("two threads", () => {
  it("G08, XSA-218 b: one handle unmapped by two vCPUs at once: freed once, one of them gets bad_handle", () => {
    interleave((): Interleaving => {
      const { machine, granter, mapper } = pair();
      const { hypervisor } = machine;
      const other = otherThread(machine.parts);
      machine.grant(granter, 8, mapper, 1);
      const { handle } = map(hypervisor, mapper, granter);
      const statuses: number[] = [];
      return {
        hypervisor,
        victim: () => void statuses.push(unmap(hypervisor, mapper, handle)),
        adversary: () => void statuses.push(unmap(other, mapper, handle)),
        verify: () => {
          assert.deepEqual(new Set(statuses), new Set([GNTST_okay, GNTST_bad_handle]));
          assert.equal(machine.use(granter, 8), "");
          machine.check();
        },
      };
    });
  });

  it("G07, XSA-218 a: as long as the mapper reaches the page its bits are set", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    const { handle } = map(machine.hypervisor, mapper, granter);
    watchAtomics(
      () => unmap(machine.hypervisor, mapper, handle),
      () => {
        if (machine.parts.mmu.writableAt(machine.base(mapper), HOLE)) {
          const word = machine.hypervisor.directMap.loadU32(machine.hypervisor.grants.entryAddress(granter.slot, 8));
          assert.ok((word & abi.GTF_writing) !== 0);
        }
      },
    );
    assert.equal(machine.use(granter, 8), "");
  });

  const adversaries: Record<string, (other: Hypervisor, machine: GrantMachine, granter: Guest, mapper: Guest) => void> =
    {
      revoke: (other, machine, granter) => {
        machine.denyAccess(granter, 8);
        assert.equal(revokeGrant(other, granter.slot, 8), GNTST_okay);
        // The promise: nobody but the granter reaches the page any more.
        for (let slot = 0; slot < other.domains.slotCount; slot += 1) {
          for (let gfn = 0; gfn < other.domains.gfnEnd[slot]!; gfn += 1) {
            const isHome = slot === granter.slot && gfn === 1;
            if (!isHome) assert.notEqual(machine.parts.mmu.frameAt(machine.base(slot), gfn), machine.frame(granter, 1));
          }
        }
      },
      unmap: (other, _machine, _granter, mapper) => void unmap(other, mapper, 0),
      "map again": (other, _machine, granter, mapper) => void map(other, mapper, granter, { gfn: 70, lgfn: PROVIDED }),
      "balloon out": (other, _machine, granter) => void depopulateRun(other, granter.slot, 1, 1),
      "balloon lgfn out": (other, _machine, _granter, mapper) => void depopulateRun(other, mapper.slot, 3, 1),
    };
  const victims: Record<string, (machine: GrantMachine, granter: Guest, mapper: Guest, handle: number) => void> = {
    map: (machine, granter, mapper) => void map(machine.hypervisor, mapper, granter, { gfn: 80, lgfn: 3 }),
    "map laid over": (machine, granter, mapper) => void map(machine.hypervisor, mapper, granter, { gfn: 3, lgfn: 3 }),
    unmap: (machine, _granter, mapper, handle) => void unmap(machine.hypervisor, mapper, handle),
    "unmap and map": (machine, granter, mapper, handle) => {
      unmap(machine.hypervisor, mapper, handle);
      map(machine.hypervisor, mapper, granter, { gfn: 90, lgfn: 4 });
    },
    revoke: (machine, granter) => {
      machine.denyAccess(granter, 8);
      assert.equal(revokeGrant(machine.hypervisor, granter.slot, 8), GNTST_okay);
    },
  };
  for (const [victimName, victim] of Object.entries(victims)) {
    for (const [adversaryName, adversary] of Object.entries(adversaries)) {
      it(`${victimName} of a revokable grant against ${adversaryName} at every step`, () => {
        for (const lgfn of [3, PROVIDED]) {
          interleave((): Interleaving => {
            const { machine, granter, mapper } = pair();
            const { hypervisor } = machine;
            const other = otherThread(machine.parts);
            machine.grant(granter, 8, mapper, 1, REVOKABLE);
            const { handle } = map(hypervisor, mapper, granter, { lgfn });
            // Two revokers at once wait for each other's pins: the other one goes on meanwhile, in this thread.
            return {
              hypervisor,
              victim: () => victim(machine, granter, mapper, handle),
              adversary: () => {
                if (victimName === "revoke" && adversaryName === "revoke") return;
                adversary(other, machine, granter, mapper);
              },
              verify: () => machine.check(),
            };
          });
        }
      });
    }
  }

  it("a second revoke of the same reference returns only when the first has switched the page", () => {
    const { machine, granter, mapper } = pair();
    const { hypervisor } = machine;
    const other = otherThread(machine.parts);
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    map(hypervisor, mapper, granter, { lgfn: 3 });
    machine.denyAccess(granter, 8);
    const { grants } = hypervisor;
    const row = grants.row(granter.slot, 8);
    let waits = 0;
    // What the first one does between taking the row off the list and unpinning it.
    const link = grants.first[row]!;
    grants.first[row] = 0;
    machine.parts.platform.onWait = () => {
      waits += 1;
      if (waits < 3) return;
      grants.first[row] = link;
    };
    assert.equal(revokeGrant(other, granter.slot, 8), GNTST_okay);
    assert.equal(waits, 3);
    machine.check();
  });

  it("a revoke that meets a mapping at its very end leaves its handle free", () => {
    const { machine, granter, mapper } = pair();
    const { hypervisor } = machine;
    const { locks, maptrack } = hypervisor;
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    const { handle } = map(hypervisor, mapper, granter, { lgfn: PROVIDED });
    machine.denyAccess(granter, 8);
    const other = otherThread(machine.parts);
    const state = maptrack.ownRow(mapper.slot, handle);
    // The other thread's unmap, once the row is off the list: up to where it would give the handle back.
    const stopped = new Error("stopped");
    const stopBefore = (lock: number, body: () => void): void => {
      const acquire = other.locks.acquire.bind(other.locks);
      other.locks.acquire = (id) => {
        if (id === lock) throw stopped;
        acquire(id);
      };
      assert.throws(body, stopped);
      other.locks.acquire = acquire;
    };
    const acquire = locks.acquire.bind(locks);
    let isUnmapped = false;
    locks.acquire = (id) => {
      if (id === locks.id("p2m", mapper.slot) && !isUnmapped) {
        isUnmapped = true;
        stopBefore(locks.id("maptrack", mapper.slot), () => unmap(other, mapper, handle));
      }
      acquire(id);
    };
    // And the rest of it, between the revoker's look at the row's state and what it makes of it.
    const { load } = Atomics;
    const watched = (array: Int32Array, index: number): number => {
      const value = load(array, index);
      if ((array as unknown) === maptrack.state && index === state && Atomics.load !== load) {
        Atomics.load = load;
        freeHandle(other, mapper.slot, handle);
      }
      return value;
    };
    Atomics.load = watched as typeof Atomics.load;
    assert.equal(revokeGrant(hypervisor, granter.slot, 8), GNTST_okay);
    assert.equal(Atomics.load, load, "the state was looked at");
    locks.acquire = acquire;
    assert.equal(maptrack.state[state], MAPPING_FREE);
    machine.check();
    machine.destroy(mapper);
  });

  it("a granter that leaves access on is not kept in its revoke for ever by one who maps again and again", () => {
    const { machine, granter, mapper } = pair();
    const { hypervisor } = machine;
    const { locks } = hypervisor;
    const other = otherThread(machine.parts);
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    map(hypervisor, mapper, granter, { lgfn: PROVIDED });
    const table = locks.id("grantTable", granter.slot);
    const acquire = locks.acquire.bind(locks);
    let taken = 0;
    let again = 0;
    locks.acquire = (id) => {
      if (id === table) taken += 1;
      // Whenever the revoker comes back to the table, somebody has the page again.
      if (id === table && taken % 2 === 1 && taken > 1 && again < 1000) {
        again += 1;
        map(other, mapper, granter, { lgfn: PROVIDED, gfn: HOLE + again });
      }
      acquire(id);
    };
    assert.equal(revokeGrant(hypervisor, granter.slot, 8), GNTST_okay);
    locks.acquire = acquire;
    assert.equal(again, 1);
    machine.check();
  });

  it("every call of the page table that map, unmap and revoke make may fail", () => {
    for (const lgfn of [undefined, 3, PROVIDED, HOLE]) {
      const gfn = lgfn === HOLE ? 3 : HOLE;
      const wish = lgfn === undefined ? { gfn } : { gfn, lgfn: lgfn === HOLE ? 3 : lgfn };
      const calls = failEach(() => {
        const { machine, granter, mapper } = pair();
        const { hypervisor } = machine;
        machine.grant(granter, 8, mapper, 1, lgfn === undefined ? RW : REVOKABLE);
        return {
          hypervisor,
          mmu: machine.parts.mmu,
          operation: () => {
            const { status, handle } = map(hypervisor, mapper, granter, wish);
            if (status !== GNTST_okay) {
              assert.equal(machine.use(granter, 8), "");
              return;
            }
            if (lgfn === undefined || unmap(hypervisor, mapper, handle, gfn) !== GNTST_okay) return;
            const again = map(hypervisor, mapper, granter, wish);
            if (again.status !== GNTST_okay) return;
            machine.denyAccess(granter, 8);
            assert.equal(revokeGrant(hypervisor, granter.slot, 8), GNTST_okay);
            unmap(hypervisor, mapper, again.handle, gfn);
          },
          verify: () => machine.check(),
        };
      });
      assert.ok(calls >= 1);
    }
  });
});
