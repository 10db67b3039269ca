/**
 * What a warm vCPU thread does before it has a domain: it loads and binds what every guest will need, so that the first
 * hypercalls of a guest do not pay for it.
 */
import type { GuestThread } from "./guest-thread.ts";

/** Makes system calls that change nothing, on the thread's own way to the kernel. */
export const rehearse = (thread: GuestThread): void => {
  const { mmu } = thread.platform;
  // Length 0 is refused by the kernel (EINVAL) before anything happens.
  mmu.discard(0, 0);
};
