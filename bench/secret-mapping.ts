/**
 * Secret memory in guests, for the secrets bench: an object of 64 KiB appears in a guest's memory, beside the bare mmap of
 * such a file. What the control domain's thread does for it, and the guest's whole hypercall, which waits for that thread.
 */
import assert from "node:assert/strict";
import { XENSECRET_allocate, XENSECRET_map, XENSECRET_unmap } from "@xenolith/abi";
import type { Domain, Host } from "@xenolith/host";
import { baseAddress, check, createMemfd, createSecretMemfd, mapFrames, PROT_READ_WRITE, reserve } from "@xenolith/sys";
import { numberOf, startDomain, withHost } from "./bench-host.ts";
import { assembleGuest } from "./guest-text.ts";
import { comparePair, type Result, result } from "./harness.ts";

const PAGES = 16;
const PAGE_BYTES = 4096;
/** Where objects are mapped: far from the guest's memory. */
const GFN = 0x1_0000;
const SPACE_BYTES = 2 ** 32;

const words = (...values: readonly number[]): string =>
  [...new Uint8Array(Int32Array.from(values).buffer)].map((byte) => `\\${byte.toString(16).padStart(2, "0")}`).join("");

/** Exports `make()`, and `map(n)` and `unmap(n)`, which do so n times side by side. */
const image = assembleGuest(`(module
  (import "xen" "secret_op" (func $secret_op (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "${words(PAGES, 0, 0)}")
  (data (i32.const 64) "${words(0, GFN, 0, PAGES, 0)}")
  (data (i32.const 128) "${words(GFN, PAGES)}")
  (func (export "make") (result i32)
    (call $secret_op (i32.const ${XENSECRET_allocate}) (i32.const 0)))
  (func $each (param $command i32) (param $struct i32) (param $gfn i32) (param $left i32) (result i32)
    (local $failed i32)
    (i32.store (local.get $gfn) (i32.const ${GFN}))
    (loop $again
      (if (call $secret_op (local.get $command) (local.get $struct)) (then (local.set $failed (i32.const 1))))
      (i32.store (local.get $gfn) (i32.add (i32.load (local.get $gfn)) (i32.const ${PAGES + 1})))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (local.get $failed))
  (func (export "map") (param i32) (result i32)
    (call $each (i32.const ${XENSECRET_map}) (i32.const 64) (i32.const 68) (local.get 0)))
  (func (export "unmap") (param i32) (result i32)
    (call $each (i32.const ${XENSECRET_unmap}) (i32.const 128) (i32.const 128) (local.get 0))))`);

/** Both figures. */
export const secretMapping = (small: boolean): Promise<readonly Result[]> =>
  withHost({ memoryBytes: 64 * 2 ** 20, warmVcpuCount: 1, secrets: { policy: "degraded" } }, async (host) => {
    const domain = await startDomain(host, { image, memoryBytesMax: 2 ** 20, secretBytesMax: 8 * 2 ** 20 });
    assert.equal(numberOf(await domain.call("make")), 0);
    const rounds = { count: small ? 4 : 100, rounds: small ? 1 : 41, warmup: small ? 0 : 15 };
    const bare = bareMapping((await host.secrets()).hidden);
    const called = await comparePair({ value: mapByCall(host, domain), floor: bare }, rounds);
    const whole = await comparePair({ value: mapByGuest(domain), floor: bare }, rounds);
    return [
      result("map-64KiB-into-guest-beside-mmap", "ns", called, { limit: 1.5 }),
      result("map-64KiB-hypercall-beside-mmap", "ns", whole),
    ];
  });

/** What the control domain does when a guest asks. */
const mapByCall = (host: Host, domain: Domain) => (count: number) => {
  const { guestSecrets, hypervisor } = host;
  const slot = hypervisor.domains.slotOf(domain.domid);
  const places = Array.from({ length: count }, (_, index) => ({
    gfn: GFN + index * (PAGES + 1),
    page: 0,
    count: PAGES,
    isWritable: true,
  }));
  let failed = 0;
  const start = process.hrtime.bigint();
  for (const place of places) failed |= guestSecrets.map(slot, 0, place);
  const took = Number(process.hrtime.bigint() - start);
  for (const { gfn } of places) failed |= guestSecrets.unmap(slot, gfn, PAGES);
  assert.equal(failed, 0);
  return took;
};

/** The guest itself, one hypercall after the other. */
const mapByGuest = (domain: Domain) => async (count: number) => {
  const start = process.hrtime.bigint();
  const mapped = numberOf(await domain.call("map", count));
  const took = Number(process.hrtime.bigint() - start);
  assert.deepEqual([mapped, numberOf(await domain.call("unmap", count))], [0, 0]);
  return took;
};

/** The system call alone, between reserved addresses of a memory like a guest's. */
const bareMapping = (hidden: boolean) => {
  const memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
  const lengthBytes = PAGES * PAGE_BYTES;
  const fd = hidden ? createSecretMemfd(lengthBytes) : createMemfd({ name: "bare-secret", sizeBytes: lengthBytes });
  const base = baseAddress(memory);
  check(reserve(base, SPACE_BYTES), "mmap", { length: SPACE_BYTES });
  const addressOf = (index: number): number => base + (GFN + index * (PAGES + 1)) * PAGE_BYTES;
  return (count: number): number => {
    let failed = 0;
    const start = process.hrtime.bigint();
    for (let index = 0; index < count; index += 1) {
      failed |= mapFrames(addressOf(index), lengthBytes, PROT_READ_WRITE, fd, 0);
    }
    const took = Number(process.hrtime.bigint() - start);
    for (let index = 0; index < count; index += 1) failed |= reserve(addressOf(index), lengthBytes);
    // The memory is used to the end: its addresses must not be anybody else's.
    assert.equal(failed + memory.buffer.byteLength, SPACE_BYTES);
    return took;
  };
};
