/**
 * The life of a vCPU thread: one domain, from its first command until it is terminated. Between commands it sleeps like
 * a blocked vCPU: its timers run, events reach the guest's upcall, and it can be paused and stopped.
 */
import { blockVcpu, cancelBlock, enterHypercall, leaveHypercall, prepareBlock } from "@xenolith/core";
import { GuestVcpu } from "./guest-vcpu.ts";
import type { GuestThread } from "./guest-thread.ts";
import type { Command } from "./protocol.ts";

/** Serves commands for ever. */
export const runVcpu = (thread: GuestThread): never => {
  let vcpu: GuestVcpu | undefined;
  for (;;) {
    const command = vcpu === undefined ? thread.awaitCommand() : nextCommand(thread, vcpu);
    if (command.type === "start") {
      vcpu = new GuestVcpu(thread, command);
      vcpu.run();
    } else if (command.type === "call") {
      vcpu?.call(command);
    }
  }
};

/** The next command of a vCPU that waits. Outside the gate on return, after passing it. */
const nextCommand = (thread: GuestThread, vcpu: GuestVcpu): Command => {
  const { cpu, upcall } = vcpu;
  for (;;) {
    enterHypercall(cpu);
    const seen = prepareBlock(cpu);
    const command = thread.takeCommand();
    const isDue = upcall.isDue;
    if (command !== undefined || isDue) cancelBlock(cpu);
    else blockVcpu(cpu, Infinity, seen);
    leaveHypercall(cpu);
    if (isDue) vcpu.deliverUpcall();
    if (command !== undefined) return command;
  }
};
