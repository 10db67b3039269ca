/**
 * The commands of xen_version whose answer is the result itself: they are made most, and by themselves need nothing of
 * what the others do.
 */
import { XENVER_pagesize, XENVER_version } from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";

/** Release of the public interface that this hypervisor follows. */
export const XEN_MAJOR = 4;
export const XEN_MINOR = 22;

/** The commands whose answer is the result itself. They need no gate: they look at nothing that changes. 0: others. */
export const versionWithoutMemory = (cpu: Cpu, command: number, arg: number): number => {
  if (command === XENVER_version) return countCall(cpu, (XEN_MAJOR << 16) | XEN_MINOR);
  if (command === XENVER_pagesize && arg === 0) return countCall(cpu, FRAME_BYTES);
  return 0;
};

const countCall = (cpu: Cpu, answer: number): number => {
  cpu.hypervisor.domains.hypercalls[cpu.index]! += 1;
  return answer;
};
