/**
 * Advisories about pointers, copies and replies of hypercalls (docs/advisories.md, sections 3, 4 and 12).
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hookRun, unhookRun } from "../src/address-space.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { P2M_HOLE, P2M_RAM_RO } from "../src/p2m.ts";
import { bytesOf, callerOf, calls, LIST, make, prepare, STRUCT } from "./advisories-calls.ts";
import type { Call } from "./advisories-calls.ts";
import { interleave } from "./advisories-kit.ts";
import type { Guest, Machine } from "./machine.ts";
import { peek, poke, pokeWords, RAM_BYTES } from "./machine.ts";

const PAGE = 4096;

/** All bytes of the guest's memory, and its p2m: what a refused call must leave as it was. */
const picture = (machine: Machine, guest: Guest): string => {
  const { p2m, events, domains } = machine.hypervisor;
  const entries = p2m.entries.subarray(p2m.at(guest.slot, 0), p2m.at(guest.slot, 100));
  const memory = [...entries.keys()].filter((gfn) => entries[gfn] !== P2M_HOLE && gfn < RAM_BYTES / PAGE);
  const contents = memory.map((gfn) => Buffer.from(peek(guest, gfn * PAGE, PAGE)).toString("base64"));
  return JSON.stringify([[...entries], contents, [...events.word.filter((word) => word !== 0)], [...domains.totPages]]);
};

const makeReadOnly = (guest: Guest, gfn: number): void => {
  const { hypervisor } = guest.cpu;
  const lock = hypervisor.locks.id("p2m", guest.slot);
  hypervisor.locks.acquire(lock);
  const frame = hypervisor.p2m.get(guest.slot, gfn) >>> 4;
  assert.equal(unhookRun(hypervisor, guest.slot, gfn, 1), 0);
  assert.equal(hookRun(hypervisor, guest.slot, gfn, frame, 1, P2M_RAM_RO), 0);
  hypervisor.locks.release(lock);
};

/** A result of a call that did what it was asked for. */
const isSuccess = (call: Call, result: number): boolean => (call.fault === 0 ? result === 1 : result >= 0);

describe("pointers of hypercalls", () => {
  for (const call of calls) {
    it(`W01, M04: ${call.name} at an address that is not all in memory is refused and touches nothing (W-01, XSA-63)`, () => {
      const world = prepare();
      const caller = callerOf(call, world);
      const before = picture(world.machine, caller);
      const end = RAM_BYTES;
      const top = world.machine.hypervisor.p2m.gfnCount * PAGE;
      const short = [1, call.sizeBytes >>> 1, call.sizeBytes - 1].filter((length) => length > 0);
      const places = [
        ...short.map((length) => end - length),
        end,
        end + 1,
        top - 1,
        top,
        2 ** 31 - 1,
        2 ** 31,
        2 ** 31 + 4,
      ];
      const wrapping = [2 ** 32 - 1, 2 ** 32 - 2, 2 ** 32 - call.sizeBytes + 1, -1, -4, -(2 ** 31)];
      for (const address of [...places, ...wrapping]) {
        assert.equal(make(caller, call, address), call.fault, `at ${address}`);
      }
      world.machine.check();
      assert.equal(picture(world.machine, caller), before);
    });

    it(`M04: ${call.name} whose second page is ballooned out is refused, and works when it is there (XSA-63)`, () => {
      const world = prepare();
      const caller = callerOf(call, world);
      const address = STRUCT + PAGE - Math.max(1, call.sizeBytes >>> 1);
      poke(caller, address, bytesOf(call));
      assert.ok(isSuccess(call, make(caller, call, address)), call.name);
      const again = prepare();
      const other = callerOf(call, again);
      poke(other, address, bytesOf(call));
      depopulateRun(again.machine.hypervisor, other.slot, STRUCT / PAGE + 1, 1);
      const before = picture(again.machine, other);
      assert.equal(make(other, call, address), call.fault);
      assert.equal(picture(again.machine, other), before);
      again.machine.check();
    });

    it(`M03: ${call.name} ${call.writes ? "does not write to" : "reads"} a page that its caller may only read (XSA-98)`, () => {
      const world = prepare();
      const caller = callerOf(call, world);
      poke(caller, STRUCT, bytesOf(call));
      makeReadOnly(caller, STRUCT / PAGE);
      const before = peek(caller, STRUCT, PAGE);
      const words = world.machine.hypervisor.events.word.slice();
      const result = make(caller, call, STRUCT);
      assert.deepEqual(peek(caller, STRUCT, PAGE), before);
      if (call.writes) assert.equal(result, -abi.EFAULT);
      else assert.ok(isSuccess(call, result), `${result}`);
      if (call.writes) assert.deepEqual(world.machine.hypervisor.events.word, words);
      world.machine.check();
    });

    it(`H08, H04: ${call.name} replies with its own bytes only, whatever stands in arguments it does not have (XSA-122, XSA-111)`, () => {
      const results = [0, 0xa5a5_a5a5, -1].map((junk) => {
        const world = prepare();
        const caller = callerOf(call, world);
        poke(caller, STRUCT, bytesOf(call));
        new Uint8Array(caller.cpu.memory.scratch.buffer).fill(0xa5);
        const result = make(caller, call, STRUCT, junk);
        const reply = peek(caller, STRUCT, PAGE);
        const leaked = reply.findIndex((byte, at) => byte === 0xa5 && reply[at + 1] === 0xa5);
        assert.equal(leaked, -1, `byte ${leaked} comes from the host`);
        if (call.number !== abi.__HYPERVISOR_console_io) {
          assert.ok(
            reply.subarray(call.sizeBytes).every((byte) => byte === 0),
            "it wrote beyond its structure",
          );
        }
        return { result, reply: Buffer.from(reply).toString("base64") };
      });
      assert.deepEqual(results[1], results[0]);
      assert.deepEqual(results[2], results[0]);
      assert.ok(isSuccess(call, results[0]!.result), `${results[0]!.result}`);
    });
  }
});

describe("lengths that a guest names", () => {
  it("H03: a length is looked at before anything is allocated for it (XSA-84)", () => {
    const { machine, guest, dom0 } = prepare();
    const heap = (): number => process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
    const before = heap();
    for (const length of [2 ** 20, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]) {
      const console_io = machine.call(guest, abi.__HYPERVISOR_console_io, abi.CONSOLEIO_write, length, 0);
      assert.equal(console_io, -abi.E2BIG);
      pokeWords(guest, STRUCT, abi.DOMID_SELF, length, LIST);
      assert.equal(machine.call(guest, abi.__HYPERVISOR_memory_op, abi.XENMEM_set_memory_map, STRUCT), -abi.E2BIG);
      pokeWords(guest, STRUCT, LIST, length, 1, 0);
      assert.equal(machine.call(guest, abi.__HYPERVISOR_sched_op, abi.SCHEDOP_poll, STRUCT), -abi.EINVAL);
      assert.equal(machine.call(guest, abi.__HYPERVISOR_multicall, RAM_BYTES, length), -abi.EFAULT);
      pokeWords(guest, STRUCT, length);
      const name = machine.call(guest, abi.__HYPERVISOR_xen_version, abi.XENVER_extraversion2, STRUCT);
      assert.ok(name > 0 && name < 64);
      pokeWords(dom0, STRUCT, abi.XEN_SYSCTL_getdomaininfolist, abi.XEN_SYSCTL_INTERFACE_VERSION, length, 0, RAM_BYTES);
      assert.ok(machine.call(dom0, abi.__HYPERVISOR_sysctl, STRUCT) <= 0);
    }
    assert.ok(heap() - before < 64 << 20, `${heap() - before} bytes`);
  });

  it("H15: a range whose end is before its start, or beyond all memory, is refused (XSA-238)", () => {
    const { machine, guest } = prepare();
    const { memory } = guest.cpu;
    for (const [address, length] of [
      [8, -1],
      [8, -8],
      [2 ** 32, 1],
      [2 ** 32 - 1, 2],
      [0, 2 ** 32 + 1],
      [1.5, 4],
      [0, Number.NaN],
    ] as const) {
      assert.equal(memory.accessible(address, length, false), false, `${address}, ${length}`);
      assert.equal(memory.zero(address, length) === 0, false, `${address}, ${length}`);
    }
    // A range of a physmap that runs past the last frame stops there; one of no pages does nothing.
    for (const [size, index, gfn, expected] of [
      [0, 0, 50, 0],
      [2, 0, 1023, -abi.EINVAL],
      [3, 2 ** 32 - 1, 50, -abi.EINVAL],
    ] as const) {
      pokeWords(guest, STRUCT, (abi.DOMID_SELF | (size << 16)) >>> 0, abi.XENMAPSPACE_gmfn_range, index, gfn);
      assert.equal(machine.call(guest, abi.__HYPERVISOR_memory_op, abi.XENMEM_add_to_physmap, STRUCT), expected);
    }
  });
});

describe("arguments that change while they are read", () => {
  interface Race {
    readonly call: string;
    /** Index of a word of the structure (or, negative, of the list) and what it becomes. */
    readonly word: number;
    readonly value: number;
    /** What is so after the call with the one value, and with the other. */
    readonly effects: (machine: Machine, guest: Guest) => readonly [boolean, boolean];
  }
  const present = (machine: Machine, guest: Guest, gfn: number): boolean =>
    machine.hypervisor.p2m.get(guest.slot, gfn) !== P2M_HOLE;
  const races: readonly Race[] = [
    { call: "populate_physmap", word: -1, value: 81, effects: (m, g) => [present(m, g, 80), present(m, g, 81)] },
    { call: "populate_physmap", word: 0, value: LIST + 36, effects: (m, g) => [present(m, g, 80), present(m, g, 75)] },
    { call: "decrease_reservation", word: -2, value: 5, effects: (m, g) => [!present(m, g, 4), !present(m, g, 5)] },
    { call: "add_to_physmap", word: 3, value: 71, effects: (m, g) => [present(m, g, 70), present(m, g, 71)] },
    { call: "remove_from_physmap", word: 1, value: 1, effects: (m, g) => [!present(m, g, 7), !present(m, g, 1)] },
    {
      call: "bind_virq",
      word: 0,
      value: abi.VIRQ_DEBUG,
      effects: ({ hypervisor: { events } }, { slot }) => [
        events.virqPort[events.virqRow(slot, 0, abi.VIRQ_TIMER)] !== 0,
        events.virqPort[events.virqRow(slot, 0, abi.VIRQ_DEBUG)] !== 0,
      ],
    },
    {
      call: "register_vcpu_info",
      word: 0,
      value: 1,
      effects: ({ hypervisor: { frames, vcpus } }, { cpu }) => [
        frames.gfn[vcpus.infoFrame[cpu.index]! - 1] === 6,
        frames.gfn[vcpus.infoFrame[cpu.index]! - 1] === 2,
      ],
    },
  ];
  for (const { call: name, word, value, effects } of races) {
    it(`W04: ${name} uses its word ${word} as it was at one moment (W-04, CVE-2025-64345, XSA-155)`, () => {
      const call = calls.find((candidate) => candidate.name === name)!;
      const seen = new Set<string>();
      interleave(() => {
        const world = prepare();
        const caller = callerOf(call, world);
        poke(caller, STRUCT, bytesOf(call));
        const { hypervisor } = world.machine;
        const gfn = word < 0 ? LIST / PAGE : STRUCT / PAGE;
        const offset = word < 0 ? (-1 - word) * 4 : word * 4;
        const machine = (hypervisor.p2m.get(caller.slot, gfn) >>> 4) * PAGE + offset;
        let result = 0;
        return {
          hypervisor,
          isLockFree: true,
          victim: () => (result = make(caller, call, STRUCT)),
          adversary: () => hypervisor.directMap.storeU32(machine, value),
          verify: () => {
            assert.ok(isSuccess(call, result), `${result}`);
            const [old, fresh] = effects(world.machine, caller);
            assert.notEqual(old, fresh, "it used both values, or none");
            seen.add(old ? "old" : "new");
          },
        };
      });
      assert.deepEqual([...seen].toSorted(), ["new", "old"]);
    });
  }
});
