/**
 * What a hypercall costs. Both sides run the same WebAssembly loop on a Worker: the guest's calls enter the hypervisor,
 * the floor's call a JavaScript function of one addition.
 */
import assert from "node:assert/strict";
import {
  __HYPERVISOR_memory_op,
  __HYPERVISOR_xen_version,
  XENMEM_current_reservation,
  XENMEM_populate_physmap,
} from "@xenolith/abi";
import { authorise, createCpu, hypercall } from "@xenolith/core";
import type { Domain, Host } from "@xenolith/host";
import { BareThread } from "./bare-thread.ts";
import { numberOf, startDomain, withHost } from "./bench-host.ts";
import { assembleGuest } from "./guest-text.ts";
import { type Bench, comparePair, median, type Result, result, single, timeNs } from "./harness.ts";

/** The promise for the policy table. */
const POLICY_NS_MAX = 10;
const DOMID_ADDRESS = 64;
const DOMID_SELF_BYTES = "\\f0\\7f";

/** Exports `version(n)` and `reservation(n)`: n calls each, and the last answer. */
const loops = (namespace: string): Uint8Array<ArrayBuffer> =>
  assembleGuest(`(module
    (import "${namespace}" "xen_version" (func $xen_version (param i32 i32) (result i32)))
    (import "${namespace}" "memory_op" (func $memory_op (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const ${DOMID_ADDRESS}) "${DOMID_SELF_BYTES}")
    ${loop("version", "$xen_version", "(i32.const 0) (i32.const 0)")}
    ${loop("reservation", "$memory_op", `(i32.const ${XENMEM_current_reservation}) (i32.const ${DOMID_ADDRESS})`)})`);

const loop = (name: string, callee: string, operands: string): string => `
  (func (export "${name}") (param $left i32) (result i32) (local $answer i32)
    (loop $again
      (local.set $answer (call ${callee} ${operands}))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (local.get $answer))`;

export const bench: Bench = ({ small }) =>
  withHost({ memoryBytes: 64 * 2 ** 20, warmVcpuCount: 1 }, async (host) => {
    const thread = new BareThread();
    try {
      await thread.call("bare-wasm.js", "loadAdding", loops("bare"));
      const domain = await startDomain(host, { image: loops("xen"), memoryBytesMax: 2 ** 20 });
      const measure = async (id: string, name: string, count: number, limit: number): Promise<Result> => {
        const expected = numberOf(await domain.call(name, 1));
        assert(expected > 0);
        const pair = { value: timed(domain, name, expected), floor: timedBare(thread, name) };
        return result(id, "ns", await comparePair(pair, { count, rounds: small ? 1 : 15, warmup: small ? 0 : 3 }), {
          limit,
        });
      };
      const count = small ? 1000 : 3_000_000;
      return [
        await measure("xen_version", "version", count, 4),
        await measure("memory_op-current_reservation", "reservation", count, 10),
        policy(host, small),
        ...(await allocations(host, domain, small)),
      ];
    } finally {
      await thread.close();
    }
  });

const timed =
  (domain: Domain, name: string, expected: number) =>
  async (count: number): Promise<number> => {
    const start = process.hrtime.bigint();
    const answer = numberOf(await domain.call(name, count));
    const elapsedNs = Number(process.hrtime.bigint() - start);
    assert.equal(answer, expected);
    return elapsedNs;
  };

const timedBare =
  (thread: BareThread, name: string) =>
  async (count: number): Promise<number> => {
    const start = process.hrtime.bigint();
    await thread.call("bare-wasm.js", "call", name, count);
    return Number(process.hrtime.bigint() - start);
  };

/** What the policy table adds to a hypercall: the look at the row of a command, with the loop around it. */
const policy = ({ dom0 }: Host, small: boolean): Result => {
  const count = small ? 1000 : 10_000_000;
  const looks = (): void => {
    let refused = 0;
    for (let call = 0; call < count; call += 1)
      refused += authorise(dom0, __HYPERVISOR_memory_op, XENMEM_populate_physmap);
    assert.equal(refused, 0);
  };
  for (let warm = 0; warm < 3; warm += 1) looks();
  const times = Array.from({ length: 11 }, () => timeNs(looks) / count);
  return single("policy-table", "ns", { value: median(times), floor: POLICY_NS_MAX }, { maximum: POLICY_NS_MAX });
};

/** Bytes of JavaScript heap that a call allocates, with the calling side on this thread; the floor is an empty loop. */
const allocations = async (host: Host, domain: Domain, small: boolean): Promise<Result[]> => {
  const { hypervisor } = host;
  await domain.pause();
  const cpu = createCpu(hypervisor, hypervisor.domains.slotOf(domain.domid), 0);
  domain.unpause();
  const count = small ? 1000 : 1_000_000;
  const measure = (id: string, operation: () => number): Result => {
    for (let warm = 0; warm < 20; warm += 1) heapGrowth(count / 20, operation);
    const bytes = Math.min(...[1, 2, 3].map(() => heapGrowth(count, operation)));
    return single(id, "bytes", { value: Math.round(bytes / count), floor: 1 }, small ? {} : { maximum: 0 });
  };
  return [
    measure("xen_version-heap", () => hypercall(cpu, __HYPERVISOR_xen_version, 0, 0, 0, 0, 0)),
    measure("memory_op-heap", () =>
      hypercall(cpu, __HYPERVISOR_memory_op, XENMEM_current_reservation, DOMID_ADDRESS, 0, 0, 0),
    ),
  ];
};

const heapGrowth = (count: number, operation: () => number): number => {
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  let sum = 0;
  for (let call = 0; call < count; call += 1) sum += operation();
  assert(sum !== 0);
  return Math.max(0, process.memoryUsage().heapUsed - before);
};
