import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Machine, peek, peekWord, poke, pokeWords, RAM_BYTES, text } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { EFAULT, EINVAL, ENOBUFS, ENODATA, EPERM } = abi;
const VERSION = abi.__HYPERVISOR_xen_version;
const AT = 0x1000;

const ask = (machine: Machine, guest: Guest, command: number, arg: number): number =>
  machine.call(guest, VERSION, command, arg);

describe("xen_version", () => {
  it("version and page size are the result itself, through the gate or past it", () => {
    const machine = new Machine();
    const guest = machine.guest();
    assert.equal(ask(machine, guest, abi.XENVER_version, 0), 0x0004_0016);
    assert.equal(ask(machine, guest, abi.XENVER_pagesize, 0), 4096);
    assert.equal(ask(machine, guest, abi.XENVER_pagesize, AT), -EINVAL);
  });

  const strings = [
    { name: "extraversion", command: abi.XENVER_extraversion, bytes: 16, starts: "-xenolith" },
    { name: "capabilities", command: abi.XENVER_capabilities, bytes: 1024, starts: "xen-3.0-wasm_32" },
    { name: "changeset", command: abi.XENVER_changeset, bytes: 64, starts: "unavailable" },
    { name: "commandline", command: abi.XENVER_commandline, bytes: 1024, starts: "<denied>" },
    { name: "compile_info", command: abi.XENVER_compile_info, bytes: 144, starts: "typescript" },
    { name: "platform_parameters", command: abi.XENVER_platform_parameters, bytes: 4, starts: "" },
    { name: "guest_handle", command: abi.XENVER_guest_handle, bytes: 16, starts: "" },
  ];
  for (const { name, command, bytes, starts } of strings) {
    it(`H08: the reply of ${name} is zero to the end of its ${bytes} bytes, and nothing is written behind it`, () => {
      const machine = new Machine();
      const guest = machine.guest();
      poke(guest, 0, new Uint8Array(0x3000).fill(0xa5));
      // Poisons the scratch buffer too.
      guest.cpu.memory.fetch(0, 4096);
      assert.equal(ask(machine, guest, command, AT), 0);
      const reply = peek(guest, AT, bytes + 16);
      assert(text(reply.subarray(0, bytes)).startsWith(starts));
      assert(reply.subarray(bytes).every((byte) => byte === 0xa5));
      const said = name === "compile_info" ? 144 : reply.indexOf(0);
      if (name !== "compile_info") assert(reply.subarray(said, bytes).every((byte) => byte === 0));
    });

    it(`${name} at the very end of memory is written, one byte further it is not`, () => {
      const machine = new Machine();
      const guest = machine.guest();
      assert.equal(ask(machine, guest, command, RAM_BYTES - bytes), 0);
      assert.equal(ask(machine, guest, command, RAM_BYTES - bytes + 1), -EFAULT);
      assert.equal(ask(machine, guest, command, -1), -EFAULT);
    });
  }

  it("every field of compile_info is zero to its end", () => {
    const machine = new Machine();
    const guest = machine.guest();
    poke(guest, AT, new Uint8Array(144).fill(0xa5));
    ask(machine, guest, abi.XENVER_compile_info, AT);
    const reply = peek(guest, AT, 144);
    for (const [from, end] of [
      [0, 64],
      [64, 80],
      [80, 112],
      [112, 144],
    ] as const) {
      const field = reply.subarray(from, end);
      assert(field.subarray(field.indexOf(0)).every((byte) => byte === 0));
    }
  });

  it("the handle is the domain's own", () => {
    const machine = new Machine();
    const handle = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
    const guest = machine.guest({ handle });
    assert.equal(ask(machine, guest, abi.XENVER_guest_handle, AT), 0);
    assert.deepEqual(peek(guest, AT, 16), handle);
  });

  it("the command line is for privileged domains; others get a placeholder and success", () => {
    const machine = new Machine();
    const guest = machine.guest();
    assert.equal(ask(machine, machine.dom0, abi.XENVER_commandline, AT), 0);
    assert.equal(text(peek(machine.dom0, AT, 1024)), "");
    assert.equal(ask(machine, guest, abi.XENVER_commandline2, 0), "<denied>".length);
    assert.equal(ask(machine, machine.dom0, abi.XENVER_commandline2, 0), 0);
  });

  it("features are told for submap 0 only, and dom0 is told that it is dom0", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const features = (of: Guest): number => {
      pokeWords(of, AT, 0, 0xa5a5_a5a5);
      assert.equal(ask(machine, of, abi.XENVER_get_features, AT), 0);
      return peekWord(of, AT + 4);
    };
    const bits = features(guest);
    for (const bit of [0, 2, 16]) assert.notEqual(bits & (1 << bit), 0, `feature ${bit}`);
    assert.equal(features(machine.dom0) & ~bits, 1 << abi.XENFEAT_dom0);
    for (const submap of [1, 2, -1]) {
      pokeWords(guest, AT, submap, 0);
      assert.equal(ask(machine, guest, abi.XENVER_get_features, AT), -EINVAL);
    }
  });

  it("there is no build id to tell, and guests may not even ask", () => {
    const machine = new Machine();
    assert.equal(ask(machine, machine.guest(), abi.XENVER_build_id, 0), -EPERM);
    assert.equal(ask(machine, machine.dom0, abi.XENVER_build_id, 0), -ENODATA);
  });

  for (const [name, command, expected] of [
    ["extraversion2", abi.XENVER_extraversion2, "-xenolith"],
    ["capabilities2", abi.XENVER_capabilities2, "xen-3.0-wasm_32 hvm-3.0-wasm_32"],
    ["changeset2", abi.XENVER_changeset2, "unavailable"],
  ] as const) {
    it(`${name} tells its length, then exactly its bytes, into a buffer that is large enough`, () => {
      const machine = new Machine();
      const guest = machine.guest();
      const { length } = expected;
      poke(guest, AT, new Uint8Array(64).fill(0xa5));
      assert.equal(ask(machine, guest, command, 0), length);
      pokeWords(guest, AT, 0);
      assert.equal(ask(machine, guest, command, AT), -EINVAL);
      pokeWords(guest, AT, length - 1);
      assert.equal(ask(machine, guest, command, AT), -ENOBUFS);
      assert.equal(peek(guest, AT + 4, 1)[0], 0xa5);
      pokeWords(guest, AT, -1);
      assert.equal(ask(machine, guest, command, AT), length);
      assert.equal(text(peek(guest, AT + 4, length)), expected);
      assert.equal(peek(guest, AT + 4 + length, 1)[0], 0xa5);
      pokeWords(guest, RAM_BYTES - 4, length);
      assert.equal(ask(machine, guest, command, RAM_BYTES - 4), -EFAULT);
      assert.equal(ask(machine, guest, command, RAM_BYTES - 2), -EFAULT);
    });
  }
});
