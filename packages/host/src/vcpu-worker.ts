/**
 * The program of a vCPU thread. Everything that can be done before it is known whose vCPU it will be is done first, so
 * that starting a domain on a warm thread costs an instantiation only.
 */
import { threadId, threadMemory, useAddon, useExitGuard } from "@xenolith/sys";
import { GuestThread } from "./guest-thread.ts";
import type { ThreadBoot } from "./protocol.ts";
import { runVcpu } from "./vcpu-main.ts";
import { loadNative } from "./vcpu-rehearsal.ts";

export { rehearse } from "./vcpu-rehearsal.ts";

/** Frames that a crash report looks through for the guest's. */
const STACK_FRAMES = 32;

/** Attaches the calling thread to its hypervisor. */
export const attachThread = (boot: ThreadBoot): GuestThread => {
  Error.stackTraceLimit = STACK_FRAMES;
  useExitGuard(boot.exitGuard);
  useAddon(boot.addonPath);
  const thread = new GuestThread(boot);
  loadNative(thread);
  return thread;
};

/** Waits for a domain and runs one of its vCPUs, until the thread is terminated. */
export const serveDomain = (thread: GuestThread): never => {
  thread.report({ type: "ready", threadId: threadId(), memory: threadMemory(thread.isFirst) });
  return runVcpu(thread);
};
