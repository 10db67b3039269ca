import * as abi from "@xenolith/abi";
import { EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOSYS, ENXIO } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ATTENTION_REQUEST } from "../src/attention.ts";
import { wakeVcpu } from "../src/block.ts";
import { domainInfo } from "../src/domain-info.ts";
import { beginDestroy, continueDestroy } from "../src/domain-reap.ts";
import { GATE_DOWN, GATE_IN } from "../src/gate.ts";
import { hypercall } from "../src/hypercall.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { beginVcpu, bringUp, isUp, onlineVcpuCount, vcpuStartRequests } from "../src/vcpu-life.ts";
import {
  ARG,
  clearUpcall,
  connected,
  NOWHERE,
  otherVcpu,
  pending,
  runningGuest,
  sched,
  selector,
  send,
  SPARE,
  upcallPending,
  vcpuInfo,
  vcpuOp,
} from "./events-kit.ts";
import { Machine, peek } from "./machine.ts";

const VCPU = abi.__HYPERVISOR_vcpu_op;
const MS = 1_000_000;
/** Head of a vcpu_hvm_context in 32-bit mode: entry 7, stack 0x8000, argument 42. */
const CONTEXT = [0, 0, 42, 0, 0, 0, 0x8000, 0, 0, 0, 7];

const u64 = (guest: Parameters<typeof peek>[0], address: number): number =>
  Number(new DataView(peek(guest, address, 8).buffer).getBigUint64(0, true));

describe("vcpu_op: up and down", () => {
  it("vCPU 0 is up at birth, the others are down and unknown until initialised", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 3 });
    assert.deepEqual(
      [0, 1, 2].map((vcpu) => vcpuOp(guest, abi.VCPUOP_is_up, vcpu)),
      [1, 0, 0],
    );
    assert.equal(vcpuOp(guest, abi.VCPUOP_up, 1), -EINVAL);
    assert.equal(vcpuOp(guest, abi.VCPUOP_initialise, 1, ...CONTEXT), 0);
    assert.equal(vcpuOp(guest, abi.VCPUOP_initialise, 1, ...CONTEXT), -EEXIST);
    assert.equal(vcpuOp(guest, abi.VCPUOP_up, 1), 0);
    assert.equal(vcpuOp(guest, abi.VCPUOP_is_up, 1), 1);
  });

  it("bringing one up asks the host for a thread, once", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const { hypervisor } = machine;
    vcpuStartRequests(hypervisor);
    hypervisor.attention.take();
    vcpuOp(guest, abi.VCPUOP_initialise, 1, ...CONTEXT);
    assert.deepEqual(vcpuStartRequests(hypervisor), []);
    assert.equal(vcpuOp(guest, abi.VCPUOP_up, 1), 0);
    assert.equal(hypervisor.attention.take() & ATTENTION_REQUEST, ATTENTION_REQUEST);
    assert.equal(vcpuOp(guest, abi.VCPUOP_up, 1), 0);
    assert.deepEqual(vcpuStartRequests(hypervisor), [{ slot: guest.slot, vcpu: 1 }]);
    assert.deepEqual(vcpuStartRequests(hypervisor), []);
    const row = hypervisor.vcpus.index(guest.slot, 1);
    const { entry, stack, argument } = hypervisor.vcpus;
    assert.deepEqual([entry[row], stack[row], argument[row]], [7, 0x8000, 42]);
  });

  it("unpausing a domain for the first time asks for a thread for vCPU 0", () => {
    const machine = new Machine();
    const guest = machine.guest();
    assert.deepEqual(vcpuStartRequests(machine.hypervisor), [{ slot: guest.slot, vcpu: 0 }]);
  });

  it("a bad vCPU number is -ENOENT, for every command", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    for (let command = 0; command <= 15; command += 1) {
      for (const vcpu of [2, 31, 32, 0xffff_ffff]) assert.equal(vcpuOp(guest, command, vcpu), -ENOENT);
    }
  });

  it("one that takes itself down waits at its gate until another brings it up, and goes on there", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const second = otherVcpu(guest, 1);
    const { vcpus } = machine.hypervisor;
    let waits = 0;
    machine.parts.platform.onWait = (wait) => {
      waits += 1;
      assert.equal(wait.words, vcpus.gate);
      assert.equal(isUp(machine.hypervisor, second.cpu.index), false);
      machine.parts.platform.nowNs += 5 * MS;
      assert.equal(vcpuOp(guest, abi.VCPUOP_up, 1), 0);
    };
    assert.equal(vcpuOp(second, abi.VCPUOP_down, 1), 0);
    assert.equal(waits, 1);
    assert.equal(vcpuOp(second, abi.VCPUOP_get_runstate_info, 1), 0);
    assert.equal(u64(second, ARG + 12 + 3 * 8), 5 * MS, "accounted as offline");
    machine.check();
  });

  it("one that is taken down by another is held at its next hypercall", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const second = otherVcpu(guest, 1);
    assert.equal(vcpuOp(guest, abi.VCPUOP_down, 1), 0);
    const { gate } = machine.hypervisor.vcpus;
    assert.equal(gate[second.cpu.index], GATE_DOWN);
    let held = false;
    machine.parts.platform.onWait = () => {
      held = true;
      bringUp(machine.hypervisor, second.cpu.index);
    };
    assert.equal(sched(second, abi.SCHEDOP_yield), 0);
    assert.equal(held, true);
    assert.equal(gate[second.cpu.index]! & (GATE_DOWN | GATE_IN), 0);
  });

  it("taking the last one down shuts the domain down", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    otherVcpu(guest, 1);
    machine.parts.platform.onWait = (wait) => void Atomics.store(wait.words, wait.index, 0);
    assert.equal(vcpuOp(guest, abi.VCPUOP_down, 1), 0);
    assert.equal(domainInfo(machine.hypervisor, guest.slot).state, "running");
    assert.equal(vcpuOp(guest, abi.VCPUOP_down, 0), 0);
    const info = domainInfo(machine.hypervisor, guest.slot);
    assert.deepEqual([info.state, info.shutdownCode], ["shutdown", abi.SHUTDOWN_poweroff]);
    assert.equal(onlineVcpuCount(machine.hypervisor, guest.slot), 1);
  });
});

describe("vcpu_op: register_vcpu_info", () => {
  const register = (guest: Parameters<typeof vcpuOp>[0], vcpu: number, gfn: number, offset: number): number =>
    vcpuOp(guest, abi.VCPUOP_register_vcpu_info, vcpu, gfn, 0, offset, 0);

  it("copies it, then marks every selector bit and the upcall: one spurious scan", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    vcpuInfo(machine.hypervisor, guest.slot).setUint8(1, 1);
    assert.equal(register(guest, 0, SPARE >>> 12, 64), 0);
    const bytes = peek(guest, SPARE + 64, 64);
    assert.deepEqual([bytes[0], bytes[1]], [1, 1]);
    assert.equal(new DataView(bytes.buffer).getUint32(4, true), 0xffff_ffff);
    machine.check();
  });

  it("from then on events are told there, and the old place is not updated any more", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a } = connected(machine, first, second);
    const old = vcpuInfo(machine.hypervisor, second.slot);
    assert.equal(register(second, 0, SPARE >>> 12, 0), 0);
    clearUpcall(second);
    const version = old.getUint32(32, true);
    assert.equal(send(first, a), 0);
    assert.equal(sched(second, abi.SCHEDOP_yield), 0);
    assert.deepEqual([old.getUint8(0), old.getUint32(4, true), old.getUint32(32, true)], [0, 0, version]);
    assert.deepEqual([upcallPending(second), selector(second)], [true, 1]);
  });

  it("a place that is misaligned or crosses the page's end is refused with -ENXIO", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    for (const offset of [1, 2, 3, 4033, 4036, 4095, 4096, 0xffff_fffc]) {
      assert.equal(register(guest, 0, SPARE >>> 12, offset), -ENXIO, `offset ${offset}`);
    }
    assert.equal(register(guest, 0, SPARE >>> 12, 4032), 0);
  });

  it("a second time is refused with -EBUSY, before anything else is looked at", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    assert.equal(register(guest, 0, SPARE >>> 12, 0), 0);
    assert.equal(register(guest, 0, SPARE >>> 12, 1), -EBUSY);
    assert.equal(register(guest, 1, SPARE >>> 12, 64), 0, "another vCPU may");
  });

  it("a page that is not there is refused with -EINVAL", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    for (const gfn of [NOWHERE >>> 12, 0xfffff, 0xffff_ffff]) assert.equal(register(guest, 0, gfn, 0), -EINVAL);
    assert.equal(vcpuOp(guest, abi.VCPUOP_register_vcpu_info, 0, 3, 1, 0, 0), -EINVAL, "a gfn above 2^32");
    assert.equal(register(guest, 0, SPARE >>> 12, 0), 0);
  });

  it("its frame outlives the guest's page, and goes when the domain does", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a } = connected(machine, first, second);
    assert.equal(register(second, 0, SPARE >>> 12, 0), 0);
    assert.equal(depopulateRun(machine.hypervisor, second.slot, SPARE >>> 12, 1), 1);
    machine.check();
    clearUpcall(second);
    assert.equal(send(first, a), 0);
    assert.equal(upcallPending(second), true);
    beginDestroy(machine.hypervisor, second.slot);
    Atomics.store(machine.hypervisor.vcpus.gate, first.cpu.index, 0);
    for (let round = 0; round < 10; round += 1) continueDestroy(machine.hypervisor, second.slot);
    machine.check();
    assert.equal(machine.hypervisor.domains.stateOf(second.slot), "free");
  });
});

describe("vcpu_op: runstate and time", () => {
  it("get_runstate_info tells state, entry time and the time in each state", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const { platform } = machine.parts;
    platform.nowNs = 10 * MS;
    sched(guest, abi.SCHEDOP_poll, 0, 0, 30 * MS, 0);
    platform.nowNs = 35 * MS;
    assert.equal(vcpuOp(guest, abi.VCPUOP_get_runstate_info, 0), 0);
    const info = new DataView(peek(guest, ARG, 44).buffer);
    assert.equal(info.getInt32(0, true), abi.RUNSTATE_running);
    assert.equal(Number(info.getBigUint64(4, true)), 30 * MS);
    const times = [0, 1, 2, 3].map((state) => Number(info.getBigUint64(12 + state * 8, true)));
    assert.deepEqual(times, [15 * MS, 0, 20 * MS, 0]);
  });

  it("a registered area follows every change of state, until its page goes away", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.equal(vcpuOp(guest, abi.VCPUOP_register_runstate_memory_area, 0, SPARE, 0), 0);
    const states: number[] = [];
    machine.parts.platform.onWait = () => {
      states.push(new DataView(peek(guest, SPARE, 4).buffer).getInt32(0, true));
      wakeVcpu(machine.hypervisor, guest.cpu.index);
    };
    sched(guest, abi.SCHEDOP_block);
    states.push(new DataView(peek(guest, SPARE, 4).buffer).getInt32(0, true));
    assert.deepEqual(states, [abi.RUNSTATE_blocked, abi.RUNSTATE_running]);
    assert.equal(depopulateRun(machine.hypervisor, guest.slot, SPARE >>> 12, 1), 1);
    machine.parts.platform.onWait = () => wakeVcpu(machine.hypervisor, guest.cpu.index);
    assert.equal(sched(guest, abi.SCHEDOP_block), 0);
  });

  it("areas that are not writable are refused with -EFAULT, by physical address also with -ENXIO across pages", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const memory = [abi.VCPUOP_register_runstate_memory_area, abi.VCPUOP_register_vcpu_time_memory_area];
    for (const command of memory) assert.equal(vcpuOp(guest, command, 0, NOWHERE, 0), -EFAULT);
    const physical = [abi.VCPUOP_register_runstate_phys_area, abi.VCPUOP_register_vcpu_time_phys_area];
    for (const command of physical) {
      assert.equal(vcpuOp(guest, command, 0, NOWHERE, 0), -EFAULT);
      assert.equal(vcpuOp(guest, command, 0, SPARE - 4, 0), -ENXIO);
      assert.equal(vcpuOp(guest, command, 0, SPARE + 2, 0), -ENXIO);
      assert.equal(vcpuOp(guest, command, 0, SPARE, 1), -EINVAL);
      assert.equal(vcpuOp(guest, command, 0, SPARE, 0), 0);
      assert.equal(vcpuOp(guest, command, 0, 0xffff_ffff, 0xffff_ffff), 0, "all ones unregister");
    }
    const { runstateArea, timeArea } = machine.hypervisor.vcpus;
    assert.deepEqual([runstateArea[guest.cpu.index], timeArea[guest.cpu.index]], [0, 0]);
  });

  it("system_time is read as is: multiplier 0, shift 0, an even version that moves with every update", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const info = vcpuInfo(machine.hypervisor, guest.slot);
    const before = info.getUint32(32, true);
    machine.parts.platform.nowNs = 2 ** 40 + 0.75;
    sched(guest, abi.SCHEDOP_yield);
    assert.equal(Number(info.getBigUint64(48, true)), 2 ** 40);
    assert.deepEqual([info.getUint32(56, true), info.getInt8(60), info.getUint8(61)], [0, 0, 1]);
    assert.equal(info.getUint32(32, true) % 2, 0);
    assert.notEqual(info.getUint32(32, true), before);
  });

  it("a version that the guest spoiled is put right", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const info = vcpuInfo(machine.hypervisor, guest.slot);
    info.setUint32(32, 0xffff_ffff, true);
    sched(guest, abi.SCHEDOP_yield);
    assert.equal(info.getUint32(32, true) % 2, 0);
  });

  it("a registered time area gets the same time", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.equal(vcpuOp(guest, abi.VCPUOP_register_vcpu_time_memory_area, 0, SPARE, 0), 0);
    machine.parts.platform.nowNs = 123 * MS;
    sched(guest, abi.SCHEDOP_yield);
    assert.equal(u64(guest, SPARE + 16), 123 * MS);
    assert.equal(new DataView(peek(guest, SPARE, 4).buffer).getUint32(0, true) % 2, 0);
  });

  it("shared_info holds the wall clock of the moment that system time counts from", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const frame = machine.hypervisor.domains.sharedInfo[guest.slot]! - 1;
    const at = frame * 4096 + abi.shared_info.wc_version.offset;
    const { directMap } = machine.hypervisor;
    assert.equal(directMap.loadU32(at) % 2, 0);
    assert.equal(directMap.loadU32(at + 4), 1_700_000_000);
  });
});

describe("vcpu_op: the rest", () => {
  it("get_physid is -EINVAL as nothing is pinned; send_nmi takes no argument; unknown commands are -ENOSYS", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const call = (command: number, arg: number): number => hypercall(guest.cpu, VCPU, command, 0, arg, 0, 0);
    assert.equal(call(abi.VCPUOP_get_physid, ARG), -EINVAL);
    assert.equal(call(abi.VCPUOP_send_nmi, ARG), -EINVAL);
    assert.equal(call(abi.VCPUOP_send_nmi, 0), 0);
    for (const command of [16, 17, 0xffff_ffff]) assert.equal(call(command, ARG), -ENOSYS);
  });

  it("arguments that are not readable are -EFAULT", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const { VCPUOP_initialise, VCPUOP_get_runstate_info, VCPUOP_set_periodic_timer, VCPUOP_set_singleshot_timer } = abi;
    for (const command of [
      VCPUOP_initialise,
      VCPUOP_get_runstate_info,
      VCPUOP_set_periodic_timer,
      VCPUOP_set_singleshot_timer,
      5,
      10,
      13,
      14,
      15,
    ]) {
      assert.equal(hypercall(guest.cpu, VCPU, command, 0, NOWHERE, 0, 0), -EFAULT, `command ${command}`);
    }
    machine.check();
  });

  it("a vCPU that begins is running from that moment", () => {
    const machine = new Machine();
    const guest = machine.guest();
    machine.parts.platform.nowNs = 4 * MS;
    beginVcpu(guest.cpu);
    assert.equal(vcpuOp(guest, abi.VCPUOP_get_runstate_info, 0), 0);
    assert.equal(u64(guest, ARG + 4), 4 * MS);
    assert.equal(pending(guest, 1), false);
  });
});
