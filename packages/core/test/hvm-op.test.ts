import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTarget } from "../src/domain-ops.ts";
import { beginDestroy, continueDestroy } from "../src/domain-reap.ts";
import { Machine, peek, poke, pokeWords, RAM_BYTES, RAM_FRAMES } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { EEXIST, EFAULT, EINVAL, ENOENT, EPERM, ESRCH } = abi;
const HVM_OP = abi.__HYPERVISOR_hvm_op;
const AT = 0x1000;

/** What the domain itself may do with each parameter: s set, g get, - neither, x gone, = refused with EEXIST. */
const own = `
  0 sg   1 g    2 sg   3 -    4 x    5 -    6 -    7 -    8 -    9 -
  10 -   11 -   12 -   13 x   14 -   15 sg  16 -   17 g   18 sg  19 sg
  20 x   21 x   22 x   23 x   24 x   25 x   26 x   27 -   28 -   29 -
  30 x   31 -   32 -   33 -   34 sg  35 =g  36 sg  37 sg  38 -
`;
const rights = new Map(Array.from(own.matchAll(/(\d+) ([sgx=-]+)/g), ([, index, right]) => [Number(index), right!]));
const SET_ONCE = [5, 6, 9, 32, 33, 38];

const set = (machine: Machine, caller: Guest, domid: number, index: number, value: bigint): number => {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, domid, true);
  view.setUint32(4, index, true);
  view.setBigUint64(8, BigInt.asUintN(64, value), true);
  poke(caller, AT, bytes);
  return machine.call(caller, HVM_OP, abi.HVMOP_set_param, AT);
};

const get = (machine: Machine, caller: Guest, domid: number, index: number): number | bigint => {
  pokeWords(caller, AT, domid, index, 0xa5a5_a5a5, 0xa5a5_a5a5);
  const result = machine.call(caller, HVM_OP, abi.HVMOP_get_param, AT);
  return result === 0 ? new DataView(peek(caller, AT, 16).buffer).getBigUint64(8, true) : result;
};

describe("hvm_op parameters", () => {
  for (const [index, right] of rights) {
    it(`parameter ${index}: the domain itself may ${right === "-" || right === "x" ? "do nothing" : right}`, () => {
      const machine = new Machine();
      const guest = machine.guest();
      const refusal = right === "x" ? -EINVAL : -EPERM;
      const setRefusal = right.includes("=") ? -EEXIST : refusal;
      assert.equal(set(machine, guest, abi.DOMID_SELF, index, 7n), right.includes("s") ? 0 : setRefusal);
      const got = get(machine, guest, guest.domid, index);
      if (right.includes("g")) assert.equal(got, right.includes("s") ? 7n : 0n);
      else assert.equal(got, refusal);
    });

    it(`parameter ${index}: dom0 and the device model may do everything that exists`, () => {
      const machine = new Machine();
      const model = machine.guest();
      const guest = machine.guest();
      setTarget(machine.hypervisor, model.slot, guest.slot);
      for (const caller of [machine.dom0, model]) {
        const expected = right === "x" ? -EINVAL : right.includes("=") ? -EEXIST : 0;
        assert.equal(set(machine, caller, guest.domid, index, 9n), expected);
        const value = expected === 0 ? 9n : 0n;
        assert.equal(get(machine, caller, guest.domid, index), right === "x" ? -EINVAL : value);
      }
    });
  }

  it("W27: all 64 bits of a value are kept", () => {
    const machine = new Machine();
    const guest = machine.guest();
    for (const value of [2n ** 53n, 2n ** 53n + 1n, 2n ** 64n - 1n, -1n, 0n]) {
      assert.equal(set(machine, guest, abi.DOMID_SELF, 0, value), 0);
      assert.equal(get(machine, guest, abi.DOMID_SELF, 0), BigInt.asUintN(64, value));
    }
  });

  for (const index of SET_ONCE) {
    it(`parameter ${index} is set once; saying the same again is allowed`, () => {
      const machine = new Machine();
      const guest = machine.guest();
      assert.equal(set(machine, machine.dom0, guest.domid, index, 0n), 0);
      assert.equal(set(machine, machine.dom0, guest.domid, index, 2n ** 40n), 0);
      assert.equal(set(machine, machine.dom0, guest.domid, index, 2n ** 40n), 0);
      assert.equal(set(machine, machine.dom0, guest.domid, index, 1n), -EEXIST);
      assert.equal(get(machine, machine.dom0, guest.domid, index), 2n ** 40n);
    });
  }

  it("H01, H02: an index or a domain that does not exist is refused, the last index is not", () => {
    const machine = new Machine();
    const guest = machine.guest();
    for (const index of [39, 40, 2 ** 31, 2 ** 32 - 1, -1]) {
      assert.equal(set(machine, machine.dom0, guest.domid, index, 1n), -EINVAL);
      assert.equal(get(machine, machine.dom0, guest.domid, index), -EINVAL);
    }
    assert.equal(set(machine, machine.dom0, guest.domid, 38, 1n), 0);
    for (const domid of [99, 0x7ff1, 0x7fff, 0xffff]) assert.equal(get(machine, machine.dom0, domid, 0), -ESRCH);
  });

  it("a new domain in the same slot finds no parameter of the old one", () => {
    const machine = new Machine();
    const guest = machine.guest();
    set(machine, machine.dom0, guest.domid, 1, 5n);
    beginDestroy(machine.hypervisor, guest.slot);
    continueDestroy(machine.hypervisor, guest.slot);
    const next = machine.guest();
    assert.equal(next.slot, guest.slot);
    assert.equal(get(machine, machine.dom0, next.domid, 1), 0n);
  });
});

describe("hvm_op, the rest", () => {
  it("flush_tlbs takes no argument", () => {
    const machine = new Machine();
    const guest = machine.guest();
    assert.equal(machine.call(guest, HVM_OP, abi.HVMOP_flush_tlbs, 0), 0);
    assert.equal(machine.call(guest, HVM_OP, abi.HVMOP_flush_tlbs, AT), -EINVAL);
  });

  it("get_time is the system time in whole nanoseconds", () => {
    const machine = new Machine();
    const guest = machine.guest();
    machine.parts.platform.nowNs = 123_456_789_012.75;
    assert.equal(machine.call(guest, HVM_OP, abi.HVMOP_get_time, AT), 0);
    assert.equal(new DataView(peek(guest, AT, 8).buffer).getBigUint64(0, true), 123_456_789_012n);
  });

  it("get_mem_type tells RAM from holes, for every frame number", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const typeOf = (low: number, high: number): number => {
      pokeWords(guest, AT, abi.DOMID_SELF, 0, low, high);
      assert.equal(machine.call(guest, HVM_OP, abi.HVMOP_get_mem_type, AT), 0);
      return new DataView(peek(guest, AT, 4).buffer).getUint16(2, true);
    };
    assert.equal(typeOf(0, 0), 0);
    assert.equal(typeOf(RAM_FRAMES - 1, 0), 0);
    for (const [low, high] of [
      [RAM_FRAMES, 0],
      [0, 1],
      [-1, 0],
      [-1, -1],
      [0x10_0000, 0],
    ] as const) {
      assert.equal(typeOf(low, high), 2);
    }
  });

  it("an upcall vector is of an existing vCPU and not one of the exceptions'", () => {
    const machine = new Machine();
    const guest = machine.guest({ vcpus: 2 });
    const setVector = (vcpu: number, vector: number): number => {
      pokeWords(guest, AT, vcpu, vector);
      return machine.call(guest, HVM_OP, abi.HVMOP_set_evtchn_upcall_vector, AT);
    };
    assert.equal(setVector(1, 0xf3), 0);
    assert.equal(setVector(1, 15), -EINVAL);
    for (const vcpu of [2, -1, 2 ** 31]) assert.equal(setVector(vcpu, 0xf3), -ENOENT);
  });

  it("a structure that is not all there is refused", () => {
    const machine = new Machine();
    const guest = machine.guest();
    for (const command of [abi.HVMOP_set_param, abi.HVMOP_get_param, abi.HVMOP_get_time, abi.HVMOP_get_mem_type]) {
      for (const address of [RAM_BYTES - 4, RAM_BYTES, -4, 2 ** 31]) {
        assert.equal(machine.call(guest, HVM_OP, command, address), -EFAULT);
      }
    }
  });
});
