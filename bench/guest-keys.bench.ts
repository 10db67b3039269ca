/**
 * A guest reads a key: the whole hypercall, which the control domain's thread answers. Into a page that the kernel itself
 * cannot read, beside ordinary memory.
 */
import assert from "node:assert/strict";
import {
  XENKEY_add,
  XENKEY_read,
  XENKEY_SESSION_KEYRING,
  XENKEYF_ordinary_memory,
  XENSECRET_allocate,
  XENSECRET_map,
} from "@xenolith/abi";
import type { Domain } from "@xenolith/host";
import { numberOf, startDomain, withHost } from "./bench-host.ts";
import { assembleGuest } from "./guest-text.ts";
import { type Bench, comparePair, result, single } from "./harness.ts";

const KEY_BYTES = 32;
/** Where the secret page is mapped, and where an ordinary page is. */
const SECRET_AT = 0x1000_0000;
const ORDINARY_AT = 0x8000;
/** Of the structs and texts in the guest's memory. */
const ADD_AT = 0;
const ALLOCATE_AT = 64;
const MAP_AT = 96;
const READ_AT = 128;
const TYPE_AT = 256;
const DESCRIPTION_AT = 272;
const PAYLOAD_AT = 512;
/** What the promise allows reading into a secret page to add. */
const ADDS_NS_MAX = 1000;

/** Words as a data segment has them. */
const words = (...values: readonly number[]): string =>
  [...new Uint8Array(Int32Array.from(values).buffer)].map((byte) => `\\${byte.toString(16).padStart(2, "0")}`).join("");

/** Exports `set_up()`, which adds a key and maps a secret page, and `read(n, buffer, flags)`: n times, and the last answer. */
const image = assembleGuest(`(module
  (import "xen" "key_op" (func $key_op (param i32 i32) (result i32)))
  (import "xen" "secret_op" (func $secret_op (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const ${ADD_AT}) "${words(TYPE_AT, 4, DESCRIPTION_AT, 5, PAYLOAD_AT, KEY_BYTES, 0, XENKEY_SESSION_KEYRING)}")
  (data (i32.const ${ALLOCATE_AT}) "${words(1, 0, 0)}")
  (data (i32.const ${MAP_AT}) "${words(0, SECRET_AT / 4096, 0, 1, 0)}")
  (data (i32.const ${READ_AT}) "${words(0, 0, KEY_BYTES, 0)}")
  (data (i32.const ${TYPE_AT}) "user")
  (data (i32.const ${DESCRIPTION_AT}) "bench")
  (func (export "set_up") (result i32)
    (i32.store (i32.const ${READ_AT}) (call $key_op (i32.const ${XENKEY_add}) (i32.const ${ADD_AT})))
    (drop (call $secret_op (i32.const ${XENSECRET_allocate}) (i32.const ${ALLOCATE_AT})))
    (i32.store (i32.const ${MAP_AT}) (i32.load (i32.const ${ALLOCATE_AT + 8})))
    (call $secret_op (i32.const ${XENSECRET_map}) (i32.const ${MAP_AT})))
  (func (export "read") (param $left i32) (param $buffer i32) (param $flags i32) (result i32) (local $answer i32)
    (i32.store (i32.const ${READ_AT + 4}) (local.get $buffer))
    (i32.store (i32.const ${READ_AT + 12}) (local.get $flags))
    (loop $again
      (local.set $answer (call $key_op (i32.const ${XENKEY_read}) (i32.const ${READ_AT})))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (local.get $answer)))`);

export const bench: Bench = ({ small }) =>
  withHost({ memoryBytes: 64 * 2 ** 20, warmVcpuCount: 1, secrets: { policy: "degraded" } }, async (host) => {
    const domain = await startDomain(host, { image, memoryBytesMax: 2 ** 20 });
    assert.equal(numberOf(await domain.call("set_up")), 0);
    const secret = reads(domain, SECRET_AT, 0);
    const ordinary = reads(domain, ORDINARY_AT, XENKEYF_ordinary_memory);
    const rounds = { count: small ? 50 : 2000, rounds: small ? 1 : 25 };
    const beside = await comparePair({ value: secret, floor: ordinary }, rounds);
    const adds = { value: beside.value - beside.floor, floor: beside.floor };
    return [
      result("key-read-secret-beside-ordinary", "ns", beside),
      single("key-read-secret-adds", "ns", adds, { maximum: ADDS_NS_MAX }),
    ];
  });

/** Times so many reads. */
const reads =
  (domain: Domain, buffer: number, flags: number) =>
  async (count: number): Promise<number> => {
    const start = process.hrtime.bigint();
    const answer = numberOf(await domain.call("read", count, buffer, flags));
    const took = Number(process.hrtime.bigint() - start);
    assert.equal(answer, KEY_BYTES);
    return took;
  };
