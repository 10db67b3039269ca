import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { openHost, program, run } from "./support.ts";

const host = await openHost();
after(() => host.close());

/** A channel from dom0 to itself; returns the sending port. */
const loopback = (handler: () => unknown): number => {
  const receiving = host.events.allocateUnbound(0, handler);
  return host.events.bindInterdomain(0, receiving);
};

test("E16: a sender whose events bring no work is served less and less often, one with work each time (XSA-332, XSA-391)", async () => {
  let idleCalls = 0;
  let workCalls = 0;
  const idle = loopback(() => {
    idleCalls += 1;
    return false;
  });
  const work = loopback(() => {
    workCalls += 1;
  });
  while (workCalls < 1000) {
    host.events.notify(idle);
    host.events.notify(work);
    await nextTurn();
  }
  assert.ok(idleCalls >= 1);
  assert.ok(idleCalls < workCalls / 10, `${idleCalls} calls without work, ${workCalls} with`);
  host.events.close(idle);
  host.events.close(work);
});

test("E15: a port may close itself from inside its handler; the other pending ports are served (XSA-331)", async () => {
  const calls: string[] = [];
  const first = loopback(() => {
    calls.push("first");
    host.events.close(first);
  });
  const second = loopback(() => void calls.push("second"));
  const before = calls.length;
  host.events.notify(first);
  host.events.notify(second);
  while (calls.length < before + 2) await nextTurn();
  assert.deepEqual(new Set(calls), new Set(["first", "second"]));
  assert.throws(() => host.events.notify(first), { code: "HYPERCALL_FAILED" });
  host.events.close(second);
  assert.deepEqual(host.audit(), []);
});

test("a handler that throws is reported, and the others are called", async () => {
  let called = 0;
  const failing = loopback(() => {
    throw new Error("handler of a test");
  });
  const fine = loopback(() => (called += 1));
  host.events.notify(failing);
  host.events.notify(fine);
  while (called === 0) await nextTurn();
  host.events.close(failing);
  host.events.close(fine);
  assert.match(host.audit().join("\n"), /handler of a test/);
});

test("with every port of dom0 in use one more is refused with the number; guests run on, and a closed port is free again", async () => {
  const other = await openHost();
  const opened: number[] = [];
  const openAll = (): void => {
    for (;;) opened.push(other.events.allocateUnbound(0));
  };
  assert.throws(openAll, {
    code: "HYPERCALL_FAILED",
    message: "event channel alloc_unbound failed: ENOSPC: all 1023 ports of the control domain are in use",
  });
  const domain = await run(other, program("(call $proc_exit (i32.const 3))"));
  const { code } = await domain.exited;
  await domain.destroy();
  const last = opened.pop()!;
  other.events.close(last);
  const again = other.events.allocateUnbound(0);
  for (const port of [...opened, again]) other.events.close(port);
  const findings = other.audit();
  await other.close();
  assert.deepEqual(findings, []);
  assert.equal(code, 3);
  assert.equal(again, last);
});
