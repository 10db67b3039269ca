import { E2BIG, EFAULT, EPERM } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ATTENTION_CONSOLE } from "../src/attention.ts";
import { CONSOLE_BURST_BYTES, CONSOLE_LINE_BYTES, CONSOLE_RING_BYTES } from "../src/console-table.ts";
import { Machine, poke, RAM_BYTES } from "./machine.ts";
import type { Guest } from "./machine.ts";

const CONSOLE_IO = 18;
const WRITE = 0;
const READ = 1;

const print = (machine: Machine, guest: Guest, output: string | Uint8Array): number => {
  const bytes = typeof output === "string" ? new TextEncoder().encode(output) : output;
  poke(guest, 0x1000, bytes);
  return machine.call(guest, CONSOLE_IO, WRITE, bytes.length, 0x1000);
};

const taken = (machine: Machine, guest: Guest): string =>
  new TextDecoder().decode(machine.hypervisor.consoles.take(guest.slot));

describe("console_io", () => {
  it("a line is passed on when it ends, and rings for the control domain", () => {
    const machine = new Machine();
    const guest = machine.guest();
    machine.hypervisor.attention.take();
    assert.equal(print(machine, guest, "Hello, "), 0);
    assert.equal(machine.hypervisor.attention.take(), 0);
    assert.equal(taken(machine, guest), "");
    assert.equal(print(machine, guest, "world\nnext"), 0);
    assert.equal(machine.hypervisor.attention.take(), ATTENTION_CONSOLE);
    assert.equal(taken(machine, guest), "Hello, world\n");
  });

  it("control characters and C1 controls are dropped; tabs, letters of any script and newlines stay", () => {
    const machine = new Machine();
    const guest = machine.guest();
    print(machine, guest, "\u0000a\u001b[31mb\tc\u007f\u0085d\u009be é 漢 🙂\r\n");
    print(machine, guest, Uint8Array.of(0x80, 0x41, 0x9b, 0x42, 0x0a));
    assert.equal(taken(machine, guest), "a[31mb\tcde é 漢 🙂\nAB\n");
  });

  it("a line longer than the buffer is cut between characters", () => {
    const machine = new Machine();
    const guest = machine.guest();
    for (const lead of ["", "x", "xy", "xyz"]) {
      const line = `${lead}${"é".repeat(200)}\n`;
      print(machine, guest, line);
      assert.equal(taken(machine, guest), line);
    }
    print(machine, guest, "-".repeat(CONSOLE_LINE_BYTES));
    assert.equal(taken(machine, guest).length, CONSOLE_LINE_BYTES);
  });

  it("what is not taken in time is dropped line by line and counted", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const line = `${"0123456789".repeat(10)}\n`;
    const fitting = Math.floor(CONSOLE_RING_BYTES / line.length);
    for (let count = 0; count < fitting + 5; count += 1) print(machine, guest, line);
    assert.equal(taken(machine, guest), line.repeat(fitting));
    assert.equal(machine.hypervisor.consoles.dropped[guest.slot], 5 * line.length);
    print(machine, guest, line);
    assert.equal(taken(machine, guest), line);
  });

  it("H23, T15: a guest, be it a device model, prints no more than its burst and its rate, and others are not affected", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const other = machine.guest();
    const line = `${"x".repeat(127)}\n`;
    let bytes = 0;
    for (let count = 0; count < (2 * CONSOLE_BURST_BYTES) / 128; count += 1) {
      poke(guest, 0x1000, new TextEncoder().encode(line));
      if (count % 64 === 0) machine.call(guest, CONSOLE_IO, WRITE, 128, 0x1000);
      else machine.hypervisor.locks.acquire(machine.hypervisor.locks.id("domain", guest.slot));
      if (count % 64 !== 0) {
        for (const byte of new TextEncoder().encode(line)) machine.hypervisor.consoles.put(guest.slot, byte, 0);
        machine.hypervisor.locks.release(machine.hypervisor.locks.id("domain", guest.slot));
      }
      bytes += machine.hypervisor.consoles.take(guest.slot).length;
    }
    assert.equal(bytes, CONSOLE_BURST_BYTES);
    print(machine, other, "I am still heard\n");
    assert.equal(taken(machine, other), "I am still heard\n");
    machine.parts.platform.nowNs += 1e9;
    print(machine, guest, line);
    assert.equal(taken(machine, guest), line);
  });

  it("the stream goes on when its counters wrap", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const { consoles } = machine.hypervisor;
    consoles.produced[guest.slot] = 0xffff_fff0;
    consoles.consumed[guest.slot] = 0xffff_fff0;
    print(machine, guest, "across the end of the counter\n");
    assert.equal(taken(machine, guest), "across the end of the counter\n");
    assert.equal(consoles.readable(guest.slot), 0);
  });

  it("H03: lengths are bounded before anything is done with them", () => {
    const machine = new Machine();
    const guest = machine.guest();
    for (const length of [2 ** 20, 2 ** 31 - 1, 2 ** 32 - 1, -1]) {
      assert.equal(machine.call(guest, CONSOLE_IO, WRITE, length, 0), -E2BIG);
      assert.equal(machine.call(machine.dom0, CONSOLE_IO, READ, length, 0), -E2BIG);
    }
    assert.equal(machine.call(guest, CONSOLE_IO, WRITE, 0, -1), 0);
  });

  it("a buffer is printed as far as it exists", () => {
    const machine = new Machine();
    const guest = machine.guest();
    assert.equal(machine.call(guest, CONSOLE_IO, WRITE, RAM_BYTES, 0), 0);
    assert.equal(machine.call(guest, CONSOLE_IO, WRITE, RAM_BYTES + 1, 0), -EFAULT);
    assert.equal(machine.call(guest, CONSOLE_IO, WRITE, 2, 0xffff_ffff), -EFAULT);
    assert.equal(machine.call(guest, CONSOLE_IO, WRITE, 1, RAM_BYTES - 1), 0);
  });

  it("reading is for privileged domains, and there is nothing to read", () => {
    const machine = new Machine();
    assert.equal(machine.call(machine.guest(), CONSOLE_IO, READ, 10, 0), -EPERM);
    assert.equal(machine.call(machine.dom0, CONSOLE_IO, READ, 10, 0), 0);
  });
});
