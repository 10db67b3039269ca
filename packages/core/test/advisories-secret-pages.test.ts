/**
 * Advisories about secret memory, for guests' secret pages (docs/advisories.md, section 11): whatever takes a page of a
 * guest for anybody else, or for the hypervisor, does not take these. Each path is tried on a secret page and, as a
 * control, on a page of RAM in the same place of the same arguments.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { beginDestroy, continueDestroy, createExtent, extentRunLength, revokeMapping, unmapOwn } from "../src/index.ts";
import { FUTEX_FAULT, guestNotify, guestWait32 } from "../src/futex.ts";
import { getFrame, putFrame } from "../src/frame-reference.ts";
import { mapForeign } from "../src/memory-foreign.ts";
import { addToPhysmap, removeFromPhysmap } from "../src/memory-physmap.ts";
import { depopulateRun, populateRun } from "../src/memory-populate.ts";
import { P2M_SECRET_RW, p2mType } from "../src/p2m.ts";
import { setEoiPage } from "../src/pirq.ts";
import { registerVcpuInfo } from "../src/vcpu-areas.ts";
import { interleave, otherThread } from "./advisories-kit.ts";
import { GrantMachine, REVOKABLE, RW } from "./grant-kit.ts";
import { poke, pokeWords } from "./machine.ts";
import type { Guest } from "./machine.ts";
import { makeSecret, mapPages } from "./secret-kit.ts";
import type { TestSecret } from "./secret-kit.ts";

const { EFAULT, EINVAL } = abi;
const PAGE = 4096;
/** A secret page, and a page of RAM. */
const SECRET = 40;
const RAM = 2;
const REF = 8;
const BYTE = 0x5e;

/** An owner with a secret of four pages from gfn SECRET on, and another domain. */
const setUp = (): { machine: GrantMachine; owner: Guest; other: Guest; secret: TestSecret; mapping: number } => {
  const machine = new GrantMachine();
  const owner = machine.guest();
  const other = machine.guest();
  const secret = makeSecret(machine.parts, owner, 4);
  secret.bytes.fill(BYTE);
  const mapping = mapPages(machine.parts, secret, owner, SECRET, [0, 4]);
  assert.ok(mapping > 0);
  poke(owner, RAM * PAGE, new Uint8Array(PAGE).fill(0x0c));
  return { machine, owner, other, secret, mapping };
};

/** Nobody has read or written the secret, and it stands where it stood. */
const assertUntouched = ({ machine, owner, secret }: ReturnType<typeof setUp>): void => {
  machine.check();
  assert.ok(secret.bytes.every((byte) => byte === BYTE));
  for (let gfn = SECRET; gfn < SECRET + 4; gfn += 1) {
    assert.equal(p2mType(machine.hypervisor.p2m.get(owner.slot, gfn)), P2M_SECRET_RW);
  }
  for (const bank of machine.parts.storage.banks) {
    // Not one frame of the machine has what is in the secret.
    assert.equal(Buffer.from(new Uint8Array(bank)).indexOf(Buffer.alloc(64, BYTE)), -1);
  }
};

type World = ReturnType<typeof setUp>;

/** One path: what it answers for a gfn, and what it must answer for a secret one. */
interface Path {
  readonly name: string;
  readonly attempt: (world: World, gfn: number) => number;
  readonly refused: number;
}

const copyPair = ({ machine, owner, other }: World, gfn: number, isSource: boolean): number => {
  const { gnttab_copy: layout } = abi;
  machine.grant(owner, REF, other, gfn, RW);
  const bytes = new Uint8Array(layout.sizeBytes);
  const view = new DataView(bytes.buffer);
  const [near, far] = isSource ? [layout.dest, layout.source] : [layout.source, layout.dest];
  far.u.ref.set(view, 0, REF);
  far.domid.set(view, 0, owner.domid);
  near.u.gmfn.set(view, 0, 3);
  near.domid.set(view, 0, abi.DOMID_SELF);
  layout.len.set(view, 0, 64);
  layout.flags.set(view, 0, isSource ? abi.GNTCOPY_source_gref : abi.GNTCOPY_dest_gref);
  return grantStatus(machine, other, abi.GNTTABOP_copy, bytes, layout.status);
};

const copyOwn = ({ machine, owner }: World, gfn: number, isSource: boolean): number => {
  const { gnttab_copy: layout } = abi;
  const bytes = new Uint8Array(layout.sizeBytes);
  const view = new DataView(bytes.buffer);
  layout.source.u.gmfn.set(view, 0, isSource ? gfn : 3);
  layout.dest.u.gmfn.set(view, 0, isSource ? 3 : gfn);
  layout.source.domid.set(view, 0, abi.DOMID_SELF);
  layout.dest.domid.set(view, 0, abi.DOMID_SELF);
  layout.len.set(view, 0, 64);
  return grantStatus(machine, owner, abi.GNTTABOP_copy, bytes, layout.status);
};

const grantStatus = (
  machine: GrantMachine,
  guest: Guest,
  command: number,
  bytes: Uint8Array,
  status: { readonly offset: number },
): number => {
  poke(guest, 0x7000, bytes);
  assert.equal(machine.op(guest, command), 0);
  return (guest.cpu.memory.readU16(0x7000 + status.offset) << 16) >> 16;
};

/** A hypercall whose argument, one word or more of it, stands at the start of the page. */
const call = ({ machine, owner }: World, number: number, ...args: readonly number[]): number =>
  machine.call(owner, number, ...args);

const setupTable = (world: World, gfn: number): number => {
  const { gnttab_setup_table: layout } = abi;
  const bytes = new Uint8Array(layout.sizeBytes);
  const view = new DataView(bytes.buffer);
  layout.dom.set(view, 0, abi.DOMID_SELF);
  layout.nr_frames.set(view, 0, 1);
  layout.frame_list.set(view, 0, gfn * PAGE);
  return grantStatus(world.machine, world.owner, abi.GNTTABOP_setup_table, bytes, layout.status);
};

const exchange = ({ machine, owner }: World, gfn: number): number => {
  pokeWords(owner, 0x6000, gfn);
  pokeWords(owner, 0x6100, gfn);
  pokeWords(owner, 0x7000, 0x6000, 1, 0, 0, abi.DOMID_SELF, 0x6100, 1, 0, 0, abi.DOMID_SELF, 0);
  return machine.call(owner, abi.__HYPERVISOR_memory_op, abi.XENMEM_exchange, 0x7000);
};

const reservation = ({ machine, owner }: World, command: number, gfn: number): number => {
  pokeWords(owner, 0x6000, gfn);
  pokeWords(owner, 0x7000, 0x6000, 1, 0, 0, abi.DOMID_SELF);
  return machine.call(owner, abi.__HYPERVISOR_memory_op, command, 0x7000);
};

const paths: readonly Path[] = [
  {
    name: "a grant of it is mapped",
    attempt: (world, gfn) => {
      world.machine.grant(world.owner, REF, world.other, gfn);
      return world.machine.map(world.other, world.owner).status;
    },
    refused: abi.GNTST_bad_page,
  },
  {
    name: "a revokable grant of it is mapped",
    attempt: (world, gfn) => {
      world.machine.grant(world.owner, REF, world.other, gfn, REVOKABLE);
      return world.machine.mapRevokable(world.other, world.owner).status;
    },
    refused: abi.GNTST_bad_page,
  },
  {
    name: "it is to replace a revoked grant",
    attempt: (world, gfn) => {
      world.machine.grant(world.other, REF, world.owner, 1, REVOKABLE);
      return world.machine.mapRevokable(world.owner, world.other, { lgfn: gfn }).status;
    },
    refused: abi.GNTST_bad_page,
  },
  {
    name: "a grant is mapped over it",
    attempt: (world, gfn) => {
      world.machine.grant(world.other, REF, world.owner, 1);
      return world.machine.map(world.owner, world.other, { gfn }).status;
    },
    refused: abi.GNTST_general_error,
  },
  {
    name: "a grant of it is copied from",
    attempt: (world, gfn) => copyPair(world, gfn, true),
    refused: abi.GNTST_bad_page,
  },
  {
    name: "a grant of it is copied to",
    attempt: (world, gfn) => copyPair(world, gfn, false),
    refused: abi.GNTST_bad_page,
  },
  { name: "its owner copies from it", attempt: (world, gfn) => copyOwn(world, gfn, true), refused: abi.GNTST_bad_page },
  { name: "its owner copies to it", attempt: (world, gfn) => copyOwn(world, gfn, false), refused: abi.GNTST_bad_page },
  {
    name: "it receives a list of grant frames",
    attempt: setupTable,
    refused: abi.GNTST_bad_virt_addr,
  },
  {
    name: "the control domain maps it as foreign memory",
    attempt: ({ machine, owner }, gfn) => foreign(machine, owner, gfn),
    refused: -EINVAL,
  },
  {
    name: "it is shared as an extent",
    attempt: ({ machine, owner }, gfn) => Math.min(0, createExtent(machine.hypervisor, owner.slot, gfn, 1)),
    refused: -EINVAL,
  },
  {
    name: "it is exchanged for other memory",
    attempt: exchange,
    refused: -EINVAL,
  },
  {
    name: "it is given back to the machine",
    attempt: (world, gfn) => reservation(world, abi.XENMEM_decrease_reservation, gfn) - 1,
    refused: -1,
  },
  {
    name: "it is removed from the physical map",
    attempt: ({ machine, owner }, gfn) => removeFromPhysmap(machine.hypervisor, owner.slot, gfn),
    refused: -EINVAL,
  },
  {
    name: "it is moved in the physical map",
    attempt: ({ machine, owner }, gfn) => addToPhysmap(machine.hypervisor, owner.slot, abi.XENMAPSPACE_gmfn, gfn, 50),
    refused: -abi.EACCES,
  },
  {
    name: "shared_info is put over it",
    attempt: ({ machine, owner }, gfn) =>
      addToPhysmap(machine.hypervisor, owner.slot, abi.XENMAPSPACE_shared_info, 0, gfn),
    refused: -EINVAL,
  },
  {
    name: "a frame of the grant table is put over it",
    attempt: ({ machine, owner }, gfn) =>
      addToPhysmap(machine.hypervisor, owner.slot, abi.XENMAPSPACE_grant_table, 0, gfn),
    refused: -EINVAL,
  },
  {
    name: "it holds what is printed",
    attempt: (world, gfn) => Math.min(0, call(world, abi.__HYPERVISOR_console_io, abi.CONSOLEIO_write, 8, gfn * PAGE)),
    refused: -EFAULT,
  },
  {
    name: "it receives an answer",
    attempt: (world, gfn) => call(world, abi.__HYPERVISOR_xen_version, abi.XENVER_extraversion, gfn * PAGE),
    refused: -EFAULT,
  },
  {
    name: "it holds an argument",
    attempt: (world, gfn) => {
      const result = call(world, abi.__HYPERVISOR_event_channel_op, abi.EVTCHNOP_close, gfn * PAGE);
      return result === -EFAULT ? result : 0;
    },
    refused: -EFAULT,
  },
  {
    name: "it holds a list of calls",
    attempt: (world, gfn) => Math.min(0, call(world, abi.__HYPERVISOR_multicall, gfn * PAGE, 1)),
    refused: -EFAULT,
  },
  {
    name: "it becomes vcpu_info",
    attempt: ({ owner }, gfn) => registerVcpuInfo(owner.cpu, owner.cpu.index, gfn, 0),
    refused: -EINVAL,
  },
  {
    name: "it becomes a page of interrupt flags",
    attempt: ({ machine, owner }, gfn) => setEoiPage(machine.hypervisor, owner.slot, gfn, false),
    refused: -EINVAL,
  },
  {
    name: "a frame of it is held",
    attempt: ({ machine, owner }, gfn) => {
      const frame = getFrame(machine.hypervisor, owner.slot, gfn);
      if (frame >= 0) putFrame(machine.hypervisor, frame);
      return Math.min(0, frame);
    },
    refused: -1,
  },
  {
    name: "its owner waits on it",
    attempt: ({ owner }, gfn) => (guestWait32(owner.cpu, gfn * PAGE, 1, 0) === FUTEX_FAULT ? -EFAULT : 0),
    refused: -EFAULT,
  },
];

const foreign = (machine: GrantMachine, owner: Guest, gfn: number): number =>
  mapForeign(machine.hypervisor, 0, { foreign: owner.slot, index: gfn, gfn: 200 });

describe("secret pages of a guest", () => {
  for (const { name, attempt, refused } of paths) {
    it(`Z01: ${name}: refused, where a page of RAM is not`, () => {
      const world = setUp();
      assert.equal(attempt(world, SECRET + 1), refused);
      assertUntouched(world);
      const control = setUp();
      const granted = attempt(control, RAM);
      assert.ok(granted !== refused, `control: ${granted}`);
    });
  }

  it("Z01: no run of RAM begins at one, nobody is woken on it, and nothing takes or gives memory there", () => {
    const world = setUp();
    const { machine, owner } = world;
    const { hypervisor } = machine;
    assert.equal(extentRunLength(hypervisor, owner.slot, SECRET, 4), 0);
    assert.equal(guestNotify(owner.cpu, SECRET * PAGE, 1), 0);
    assert.equal(depopulateRun(hypervisor, owner.slot, SECRET, 4), 0);
    const outcome = { count: 0, blockedGfn: -1, error: 0 };
    populateRun(hypervisor, owner.slot, SECRET, 1, outcome);
    assert.equal(outcome.count, 0);
    assert.equal(owner.cpu.memory.zero(SECRET * PAGE, 1), -EFAULT);
    assert.equal(owner.cpu.memory.accessible(SECRET * PAGE - 1, 2, false), false);
    assert.equal(owner.cpu.memory.copyFromGuest(SECRET * PAGE, new Uint8Array(PAGE)), -EFAULT);
    assert.equal(owner.cpu.memory.copyToGuest(SECRET * PAGE, new Uint8Array(3 * PAGE)), -EFAULT);
    assert.equal(owner.cpu.memory.peek(SECRET * PAGE, 4), -1);
    assertUntouched(world);
  });

  it("Z02: a read for the guest meets a secret that is unmapped, revoked or killed with its domain: nothing of it, ever", () => {
    for (const end of ["unmap", "revoke", "kill"] as const) {
      const points = interleave(() => {
        const world = setUp();
        const { machine, owner, other, secret } = world;
        const { hypervisor } = machine;
        const theirs = mapPages(machine.parts, secret, other, SECRET, [0, 1]);
        const dom0 = otherThread(machine.parts);
        const bytes = new Uint8Array(64);
        let result = 0;
        return {
          hypervisor,
          victim: () => {
            result = other.cpu.memory.copyFromGuest(SECRET * PAGE, bytes);
          },
          adversary: () => {
            if (end === "unmap") unmapOwn(dom0, theirs);
            else if (end === "revoke") revokeMapping(dom0, theirs);
            else {
              beginDestroy(dom0, owner.slot);
              for (let turn = 0; turn < 8; turn += 1) continueDestroy(dom0, owner.slot);
            }
          },
          verify: () => {
            assert.ok(bytes.every((byte) => byte === 0));
            assert.ok(result === -EFAULT || (result === 0 && end !== "unmap"));
          },
        };
      });
      assert.ok(points > 0);
    }
  });
});
