/**
 * console_io: the debug console. Every domain may write; what it writes ends in its own ring (console-table.ts), from
 * which the control domain takes it. Source: xen/include/public/xen.h (CONSOLEIO_*).
 */
import { CONSOLEIO_read, CONSOLEIO_write, E2BIG, EFAULT, ENOSYS } from "@xenolith/abi";
import { ATTENTION_CONSOLE } from "./attention.ts";
import type { Cpu, Handler } from "./cpu.ts";
import { SCRATCH_BYTES } from "./guest-memory.ts";

/** Bytes that one write may have; nobody prints more than this at once but to be a nuisance. */
export const CONSOLE_WRITE_BYTES_MAX = (1 << 20) - 1;

/** console_io(command, count, buffer). Write: 0. Read: bytes read. -E2BIG: too many, -EFAULT, -ENOSYS: no such command. */
export const consoleIo: Handler = (cpu, command, count, buffer) => {
  if (command !== CONSOLEIO_write && command !== CONSOLEIO_read) return -ENOSYS;
  if (count > CONSOLE_WRITE_BYTES_MAX) return -E2BIG;
  // There is no input: the machine's terminal belongs to the host program.
  return command === CONSOLEIO_read ? 0 : write(cpu, count, buffer);
};

const write = (cpu: Cpu, count: number, buffer: number): number => {
  const { memory, hypervisor } = cpu;
  for (let done = 0; done < count; done += SCRATCH_BYTES) {
    const chunk = Math.min(count - done, SCRATCH_BYTES);
    if (!memory.fetch(buffer + done, chunk)) return -EFAULT;
    if (print(cpu, chunk)) hypervisor.attention.raise(ATTENTION_CONSOLE);
  }
  return 0;
};

/** Prints the first `count` bytes of the scratch buffer. True: a line became readable. */
const print = (cpu: Cpu, count: number): boolean => {
  const { hypervisor, memory, slot } = cpu;
  const { consoles, locks, platform } = hypervisor;
  const now = platform.now();
  let isReadable = false;
  const lock = locks.id("domain", slot);
  locks.acquire(lock);
  for (let i = 0; i < count; i += 1) {
    if (consoles.put(slot, memory.scratch.getUint8(i), now)) isReadable = true;
  }
  locks.release(lock);
  return isReadable;
};
