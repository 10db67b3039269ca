import assert from "node:assert/strict";
import { it } from "node:test";
import * as abi from "@xenolith/abi";
import fc from "fast-check";
import { crashReason } from "../src/domain-ops.ts";
import { beginDestroy, continueDestroy } from "../src/domain-reap.ts";
import { depopulateRun, populateRun } from "../src/memory-populate.ts";
import { GrantMachine, HOST, PROVIDED, READ_ONLY, REVOKABLE, RO, RW } from "./grant-kit.ts";
import { poke } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { GNTST_okay } = abi;
const DOMAINS = 3;
const REFS = 4;
const FIRST_REF = 8;
const FLAGS = [RW, RO, REVOKABLE, 0] as const;

/** A mapping as the model knows it. */
interface Held {
  readonly granter: number;
  readonly ref: number;
  readonly gfn: number;
  readonly isReadOnly: boolean;
  readonly isRevokable: boolean;
  /** The byte that tells the granted page. */
  readonly mark: number;
  /** lgfn, if it is laid over: gfn. */
  readonly lgfn: number;
  isSevered: boolean;
}

/** Plain description of what a run came to. */
interface Model {
  readonly guests: Guest[];
  readonly alive: boolean[];
  readonly held: Map<number, Held>[];
}

const anyDomain = fc.nat({ max: DOMAINS - 1 });
const anyRef = fc.nat({ max: REFS - 1 });
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("grant" as const),
      by: anyDomain,
      to: anyDomain,
      ref: anyRef,
      gfn: fc.nat({ max: 6 }),
      flags: fc.nat({ max: 3 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("map" as const),
      by: anyDomain,
      of: anyDomain,
      ref: anyRef,
      gfn: fc.integer({ min: 64, max: 76 }),
      isReadOnly: fc.boolean(),
      local: fc.nat({ max: 2 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("unmap" as const), by: anyDomain, at: fc.nat({ max: 20 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("revoke" as const), by: anyDomain, ref: anyRef }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("balloon" as const),
      by: anyDomain,
      gfn: fc.nat({ max: 6 }),
      isOut: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("reset" as const), by: anyDomain }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("die" as const), by: anyDomain }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const markOf = (machine: GrantMachine, guest: Guest, gfn: number): number => machine.load(guest, gfn * 4096);

const run = (steps: readonly Step[]): void => {
  const machine = new GrantMachine();
  const guests = Array.from({ length: DOMAINS }, () => machine.guest());
  let mark = 1;
  for (const guest of guests) {
    for (let gfn = 0; gfn < 7; gfn += 1) poke(guest, gfn * 4096, Uint8Array.of((mark += 1)));
  }
  const model: Model = { guests, alive: guests.map(() => true), held: guests.map(() => new Map<number, Held>()) };
  for (const each of steps) {
    if (!model.alive[each.by]!) continue;
    apply(machine, model, each);
    machine.check();
    compare(machine, model);
  }
};

const apply = (machine: GrantMachine, model: Model, each: Step): void => {
  const guest = model.guests[each.by]!;
  const { hypervisor } = machine;
  switch (each.kind) {
    case "grant":
      // A granter that behaves keeps off an entry that is in use.
      if (machine.use(guest, FIRST_REF + each.ref) === "") {
        machine.grant(guest, FIRST_REF + each.ref, model.guests[each.to]!, each.gfn, FLAGS[each.flags]);
      }
      break;
    case "map":
      tryMap(machine, model, each);
      break;
    case "unmap": {
      const handles = [...model.held[each.by]!.keys()];
      const handle = handles[each.at % Math.max(1, handles.length)] ?? each.at;
      const held = model.held[each.by]!.get(handle);
      const status = machine.unmap(guest, handle, held?.gfn ?? 64);
      assert.equal(status, held === undefined ? abi.GNTST_bad_handle : GNTST_okay);
      model.held[each.by]!.delete(handle);
      break;
    }
    case "revoke": {
      const ref = FIRST_REF + each.ref;
      const users = usersOf(model, each.by, ref);
      const isPlain = users.some(({ isRevokable, isSevered }) => !isRevokable && !isSevered);
      if (!isPlain) machine.denyAccess(guest, ref);
      assert.equal(machine.revoke(guest, ref), isPlain ? abi.GNTST_general_error : GNTST_okay);
      if (isPlain) break;
      assert.equal(machine.use(guest, ref), "");
      for (const held of users) held.isSevered = true;
      break;
    }
    case "balloon": {
      if (each.isOut) depopulateRun(hypervisor, guest.slot, each.gfn, 1);
      else populateRun(hypervisor, guest.slot, each.gfn, 1, { count: 0, blockedGfn: -1, error: 0 });
      break;
    }
    case "reset":
      machine.op(guest, abi.GNTTABOP_reset);
      model.held[each.by]!.clear();
      for (let ref = 0; ref < REFS; ref += 1) {
        for (const held of usersOf(model, each.by, FIRST_REF + ref)) if (held.isRevokable) held.isSevered = true;
      }
      break;
    case "die":
      assert.equal(beginDestroy(hypervisor, guest.slot), 0);
      for (let round = 0; round < 9; round += 1) continueDestroy(hypervisor, guest.slot);
      model.alive[each.by] = false;
      model.held[each.by]!.clear();
      for (let ref = 0; ref < REFS; ref += 1) {
        for (const held of usersOf(model, each.by, FIRST_REF + ref)) if (held.isRevokable) held.isSevered = true;
      }
      break;
  }
};

const usersOf = (model: Model, granter: number, ref: number): Held[] =>
  model.held.flatMap((held) =>
    [...held.values()].filter((one) => one.granter === granter && one.ref === ref && !one.isSevered),
  );

const tryMap = (machine: GrantMachine, model: Model, each: Step & { kind: "map" }): void => {
  const guest = model.guests[each.by]!;
  const held = model.held[each.by]!;
  const gfn = each.local === 2 ? each.gfn - 62 : each.gfn;
  const taken = [...held.values()].some((one) => one.gfn === gfn && !(one.isSevered && one.lgfn === one.gfn));
  // Over another mapping it would be crashed: that is another test's.
  if (taken || (gfn >= 7 && gfn < 64)) return;
  const granter = model.guests[each.of]!;
  const ref = FIRST_REF + each.ref;
  const lgfn = each.local === 0 ? PROVIDED : each.local === 1 ? 5 : gfn;
  const entry = model.alive[each.of]! ? machine.flags(granter, ref) : 0;
  const isRevokable = (entry & abi.GTF_revokable) !== 0;
  const wish = { ref, gfn, lgfn, flags: HOST | (each.isReadOnly ? READ_ONLY : 0) };
  const { grants, directMap } = machine.hypervisor;
  const users = usersOf(model, each.of, ref);
  const source = model.alive[each.of]! ? directMap.loadU32(grants.entryAddress(granter.slot, ref) + 4) : 0;
  const mark = users[0]?.mark ?? (model.alive[each.of]! ? markOf(machine, granter, source) : -1);
  const { status, handle } = isRevokable
    ? machine.mapRevokable(guest, granter, wish)
    : machine.map(guest, granter, wish);
  assert.equal(crashReason(machine.hypervisor, guest.slot), "");
  if (status !== GNTST_okay) {
    assert.ok(status < 0 && status >= abi.GNTST_no_space, `status ${status}`);
    return;
  }
  assert.ok(!held.has(handle), "a handle is given out once");
  held.set(handle, {
    granter: each.of,
    ref,
    gfn,
    isReadOnly: each.isReadOnly,
    isRevokable,
    mark,
    lgfn: isRevokable ? lgfn : -1,
    isSevered: false,
  });
};

/** What the model knows of every mapping is what its guest sees. */
const compare = (machine: GrantMachine, model: Model): void => {
  for (const [index, held] of model.held.entries()) {
    const guest = model.guests[index]!;
    for (const one of held.values()) {
      const seen = machine.load(guest, one.gfn * 4096);
      if (!one.isSevered) assert.equal(seen, one.mark, `domain ${index} gfn ${one.gfn}`);
      else if (one.lgfn !== one.gfn) assert.notEqual(seen, -1, "a severed page never faults");
      if (!one.isSevered) assert.equal(machine.store(guest, one.gfn * 4096 + 8, 1), !one.isReadOnly);
    }
    if (!model.alive[index]!) continue;
    for (let ref = 0; ref < REFS; ref += 1) {
      const users = usersOf(model, index, FIRST_REF + ref);
      const bits = users.length === 0 ? "" : users.some(({ isReadOnly }) => !isReadOnly) ? "rw" : "r";
      assert.equal(machine.use(guest, FIRST_REF + ref), bits, `domain ${index} reference ${FIRST_REF + ref}`);
    }
  }
};

it("random grants, mappings, revocations, resets, ballooning and deaths agree with a plain model", (t) => {
  const seed = Number(process.env["GRANT_MODEL_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`seed ${seed}`);
  fc.assert(
    fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => run(steps)),
    { seed, numRuns: Number(process.env["GRANT_MODEL_RUNS"] ?? 40) },
  );
});
