import assert from "node:assert/strict";
import { test } from "node:test";
import { Host, type PolicyDocument, type PolicyRule } from "../src/index.ts";
import { assertClean, guest, openHost, run } from "./support.ts";

const EPERM = -1;

const image = guest(`(module
  (import "xen" "memory_op" (func $memory_op (param i32 i32) (result i32)))
  (import "xen" "xen_version" (func $xen_version (param i32 i32) (result i32)))
  (import "xen" "domctl" (func $domctl (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "\\f0\\7f")
  (func (export "version") (result i32) (call $xen_version (i32.const 0) (i32.const 0)))
  (func (export "reservation") (result i32) (call $memory_op (i32.const 3) (i32.const 64)))
  (func (export "grow") (result i32) (memory.grow (i32.const 1)))
  (func (export "pause_self") (param $domid i32) (result i32)
    (i32.store (i32.const 128) (i32.const 3))
    (i32.store (i32.const 132) (i32.const 0x18))
    (i32.store (i32.const 136) (local.get $domid))
    (call $domctl (i32.const 128))))`);

const hostWith = (...rules: readonly PolicyRule[]): Promise<Host> => openHost({ policy: { rules } });

test("without a policy, and for domains that no rule is about, everything is as the table says", async () => {
  await using host = await hostWith({ operations: ["xen_version"], domains: ["other"], require: "NOBODY" });
  await using domain = await run(host, image, { name: "mine", memoryBytesMax: 2 ** 20 });
  assert.notEqual(await domain.call("version"), EPERM);
  assert.equal(await domain.call("reservation"), 16);
  assert.equal(await domain.call("grow"), 1);
  assert.equal(domain.stats().denied, 0);
});

test("rules are about names, labels, domids or everybody; the calls that take short cuts are refused too", async () => {
  await using host = await hostWith(
    { operations: ["XENVER_version"], domains: ["named"], require: "NOBODY" },
    { operations: ["XENMEM_current_reservation"], labels: ["tenant"], require: "PRIV" },
    { operations: ["XENMEM_populate_physmap"], domains: [3], require: "DM_PRIV" },
    { operations: ["domctl"], domains: ["*"], require: "NOBODY" },
  );
  await using named = await run(host, image, { name: "named" });
  await using labelled = await run(host, image, { name: "labelled", label: "tenant" });
  await using third = await run(host, image);
  await using both = await run(host, image, { name: "named", label: "tenant" });
  assert.deepEqual([1, 2, 3], [named.domid, labelled.domid, third.domid]);
  const answers = [];
  for (const domain of [named, labelled, third, both]) {
    const version = Number(await domain.call("version")) === EPERM;
    const reservation = Number(await domain.call("reservation")) === EPERM;
    const grow = Number(await domain.call("grow")) === -1;
    answers.push([version, reservation, grow]);
  }
  assert.deepEqual(answers, [
    [true, false, false],
    [false, true, false],
    [false, false, true],
    [true, true, false],
  ]);
  assert.deepEqual(
    [named, labelled, third, both].map((domain) => domain.stats().denied),
    [1, 1, 1, 2],
  );
  assertClean(host);
});

test("W25: denial wins over every permission, also of a privileged domain, and rules add up in any order", async () => {
  const rules: PolicyRule[] = [
    { operations: ["XEN_DOMCTL_pausedomain"], domains: ["*"], require: "NOBODY" },
    { operations: ["xen_version"], labels: ["tenant"], require: "PRIV" },
  ];
  for (const order of [rules, rules.toReversed()]) {
    await using host = await hostWith(...order);
    await using toolstack = await run(host, image, { privileged: true, label: "tenant" });
    assert.equal(await toolstack.call("pause_self", toolstack.domid), EPERM);
    assert.notEqual(await toolstack.call("version"), EPERM);
    await using free = await Host.open({ memoryBytes: 64 * 2 ** 20, warmVcpuCount: 0 });
    await using other = await run(free, image, { privileged: true });
    assert.notEqual(await other.call("pause_self", other.domid), EPERM);
  }
});

test("a policy that is none, or takes nothing, is refused with what is wrong", async () => {
  const rule = { operations: ["xen_version"], domains: ["*"], require: "NOBODY" };
  const cases: readonly (readonly [document: unknown, message: RegExp])[] = [
    [null, /must be an object/],
    [[], /must be an object/],
    [{}, /must be an object with `rules`/],
    [{ rules: [], role: 1 }, /"role", known are rules/],
    [{ rules: [5] }, /rule 0 is no object/],
    [{ rules: [{ ...rule, allow: "*" }] }, /"allow", known are/],
    [{ rules: [{ ...rule, require: "HOOK" }] }, /`require` is "HOOK"/],
    [{ rules: [{ ...rule, operations: [] }] }, /not empty/],
    [{ rules: [{ ...rule, operations: "xen_version" }] }, /not empty/],
    [{ rules: [{ ...rule, operations: ["XENVER_nothing"] }] }, /no operation "XENVER_nothing"/],
    [{ rules: [{ ...rule, operations: ["constructor"] }] }, /no operation/],
    [{ rules: [{ ...rule, domains: [] }] }, /not empty/],
    [{ rules: [{ operations: ["xen_version"], require: "NOBODY" }] }, /neither domains nor labels/],
    [{ rules: [{ ...rule, domains: [0] }] }, /0 is neither a name nor a domid/],
    [{ rules: [{ ...rule, domains: [1.5] }] }, /neither a name/],
    [{ rules: [{ ...rule, labels: ["*"] }] }, /no label/],
    // Not narrower than the table.
    [
      { rules: [{ ...rule, operations: ["XEN_DOMCTL_pausedomain"], require: "PRIV" }] },
      /wants PRIV, PRIV takes nothing/,
    ],
    [{ rules: [{ ...rule, operations: ["XENMEM_populate_physmap"], require: "XS_PRIV" }] }, /takes nothing/],
    [{ rules: [{ ...rule, operations: ["EVTCHNOP_send"], require: "DM_PRIV" }] }, /takes nothing/],
    [{ rules: [{ ...rule, operations: ["kexec_op"], require: "PRIV" }] }, /takes nothing/],
  ];
  for (const [document, message] of cases) {
    const policy = document as PolicyDocument;
    await assert.rejects(openHost({ policy }), { code: "CONFIG_INVALID", message }, JSON.stringify(document));
  }
  const domains = Array.from({ length: 65 }, (_, index) => index + 1);
  await assert.rejects(
    hostWith({ operations: ["xen_version"], domains, require: "NOBODY" }),
    /65 domids, the limit is 64/,
  );
});
