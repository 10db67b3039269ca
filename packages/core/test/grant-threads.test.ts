import assert from "node:assert/strict";
import { it } from "node:test";
import { Worker } from "node:worker_threads";
import { audit } from "../src/auditor.ts";
import { revokeGrant } from "../src/grant-revoke.ts";
import { dropMapping } from "../src/grant-unmap.ts";
import { Hypervisor } from "../src/hypervisor.ts";
import { P2M_REVOKABLE_RO, P2M_REVOKABLE_RW } from "../src/p2m.ts";
import { threadPlatform } from "./domain-worker.ts";
import { GrantMachine, REVOKABLE, RW } from "./grant-kit.ts";
import { firstGfn, noMmu, PLAIN_REF, REF_COUNT, REVOKABLE_REF, ROUNDS, STOP } from "./grant-worker.ts";

const THREADS = 3;
const REVOKES = 4000;
/** Rounds of the threads together. */
const ROUNDS_MIN = 4000;

it("G13: one thread revokes, three vCPUs of the mapper map and unmap each other's handles: nothing is lost or freed twice", async (t) => {
  const seed = Number(process.env["GRANT_THREADS_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`seed ${seed}`);
  const machine = new GrantMachine();
  const granter = machine.guest({ vmaBudget: 500 });
  const mapper = machine.guest({ vmaBudget: 500 });
  const { storage } = machine.parts;
  // From here on page tables are nobody's: the threads have none.
  for (const { slot } of [granter, mapper]) machine.hypervisor.domains.spaceBase[slot] = 0;
  for (let index = 0; index < REF_COUNT; index += 1) {
    machine.grant(granter, PLAIN_REF + index, mapper, index, RW);
    machine.grant(granter, REVOKABLE_REF + index, mapper, index, REVOKABLE);
  }
  const common = new SharedArrayBuffer(16);
  const words = new Int32Array(common);
  const ends: Promise<void>[] = [];
  for (let index = 0; index < THREADS; index += 1) {
    const order = { storage, mapper: mapper.slot, granter: granter.domid, tag: 2 + index, seed: seed + index, common };
    const worker = new Worker(new URL("grant-worker.js", import.meta.url), { workerData: order });
    ends.push(
      new Promise((resolve, reject) => {
        worker.on("error", reject);
        worker.on("exit", () => resolve());
      }),
    );
  }
  const hypervisor = new Hypervisor(storage, { platform: threadPlatform(noMmu), tag: 1 });
  const { domains, grants, p2m } = hypervisor;
  const ended = Promise.all(ends);
  let isOver = false;
  ended.then(
    () => (isOver = true),
    () => (isOver = true),
  );
  for (let round = 0; (round < REVOKES || words[ROUNDS]! < ROUNDS_MIN) && !isOver; round += 1) {
    const ref = REVOKABLE_REF + (round % REF_COUNT);
    machine.grant(granter, ref, mapper, round % REF_COUNT, REVOKABLE);
    if (round % 50 === 0 || words[ROUNDS] === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    machine.denyAccess(granter, ref);
    assert.equal(revokeGrant(hypervisor, granter.slot, ref), 0);
    const row = grants.row(granter.slot, ref);
    assert.equal(Atomics.load(grants.pin, row), 0);
    assert.equal(machine.use(granter, ref), "");
    const mfn = machine.frame(granter, round % REF_COUNT);
    for (let gfn = firstGfn(2); gfn < firstGfn(2 + THREADS); gfn += 1) {
      const entry = p2m.get(mapper.slot, gfn);
      const isRevokable = (entry & 15) === P2M_REVOKABLE_RO || (entry & 15) === P2M_REVOKABLE_RW;
      assert.ok(!(isRevokable && entry >>> 4 === mfn), `round ${round}: the page is still mapped at gfn ${gfn}`);
    }
  }
  Atomics.store(words, STOP, 1);
  await ended;
  assert.ok(words[ROUNDS]! > 0);
  assert.deepEqual(audit(hypervisor), []);
  for (let handle = 0; handle < 256; handle += 1) dropMapping(hypervisor, mapper.slot, handle, true);
  assert.deepEqual(audit(hypervisor), []);
  assert.equal(hypervisor.maptrack.liveCount[mapper.slot], 0);
  assert.equal(domains.totPages[mapper.slot], 8);
  for (let gfn = 0; gfn < REF_COUNT; gfn += 1) assert.equal(machine.refs(machine.frame(granter, gfn)), 1);
});
