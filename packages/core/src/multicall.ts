/**
 * multicall: a list of hypercalls in the guest's memory, made one after the other. Each entry is read once, right before
 * it is made, and its result is written back right after; where the list begins and how long it is are kept here, so a
 * guest that rewrites the list only changes entries not made yet.
 *
 * An element that changes what the caller is (it shut down, closed its ports, was asked to stop) ends the list: the
 * entries after it are not made and get -EAGAIN. Source: xen/include/public/xen.h (multicall_entry).
 */
import * as abi from "@xenolith/abi";
import { multicall_entry } from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { enterGate, leaveGate, GATE_IN } from "./gate.ts";
import type { Dispatch } from "./hypercall.ts";

const { EAGAIN, EFAULT } = abi;
const ENTRY_BYTES = multicall_entry.sizeBytes;
const RESULT_OFFSET = multicall_entry.result.offset;
const ADDRESS_END = 0x1_0000_0000;
/** Elements between two looks at whether the vCPU should pause. */
const SLICE_COUNT = 32;

/**
 * Makes `count` hypercalls from the list at `list`. 0, or -EFAULT: an entry could not be read or its result not be
 * written; the entries before it were made.
 */
export const runBatch = (cpu: Cpu, list: number, count: number, dispatch: Dispatch): number => {
  if (list + count * ENTRY_BYTES > ADDRESS_END) return -EFAULT;
  for (let done = 0; done < count; done += 1) {
    if (done % SLICE_COUNT === SLICE_COUNT - 1) letOthersGo(cpu);
    const at = list + done * ENTRY_BYTES;
    const number = runElement(cpu, at, dispatch);
    if (number === FAULT) return -EFAULT;
    if (number === ENDS_LIST && done + 1 < count) return refuseRest(cpu, at + ENTRY_BYTES, count - done - 1);
  }
  return 0;
};

const NEXT = 0;
const FAULT = 1;
const ENDS_LIST = 2;

/** Makes the call at `at`. The entry is in locals before the call is made: the call uses the same scratch buffer. */
const runElement = (cpu: Cpu, at: number, dispatch: Dispatch): number => {
  const { memory } = cpu;
  if (!memory.fetch(at, ENTRY_BYTES)) return FAULT;
  const { args } = multicall_entry;
  const number = multicall_entry.op.get(memory.scratch, 0);
  const a = args.get(memory.scratch, 0, 0);
  const b = args.get(memory.scratch, 0, 1);
  const c = args.get(memory.scratch, 0, 2);
  const d = args.get(memory.scratch, 0, 3);
  const e = args.get(memory.scratch, 0, 4);
  const result = dispatch(cpu, number, a, b, c, d, e);
  if (!memory.writeU32(at + RESULT_OFFSET, result >>> 0)) return FAULT;
  return endsList(cpu, number, a) ? ENDS_LIST : NEXT;
};

/** Whether nothing may follow the element just made. */
const endsList = (cpu: Cpu, number: number, command: number): boolean => {
  const isReset = number === abi.__HYPERVISOR_event_channel_op && command === abi.EVTCHNOP_reset;
  return isReset || cpu.hypervisor.vcpus.gate[cpu.index] !== GATE_IN;
};

const refuseRest = (cpu: Cpu, from: number, count: number): number => {
  for (let i = 0; i < count; i += 1) {
    if (!cpu.memory.writeU32(from + i * ENTRY_BYTES + RESULT_OFFSET, -EAGAIN >>> 0)) return -EFAULT;
  }
  return 0;
};

/** A list may be long: between elements nothing is half done, so the vCPU may leave, pause or stop here. */
const letOthersGo = (cpu: Cpu): void => {
  const { vcpus, platform } = cpu.hypervisor;
  leaveGate(vcpus.gate, cpu.index, platform);
  enterGate(vcpus.gate, cpu.index, platform);
};
