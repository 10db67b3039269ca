/**
 * Entry point of a vCPU thread whose program could not be linked into one script (see thread-program.ts).
 */
import { workerData } from "node:worker_threads";
import type { ThreadBoot } from "./protocol.ts";
import { attachThread, rehearse, serveDomain } from "./vcpu-worker.ts";

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- posted by `VcpuThread`, nobody else starts this.
const boot = workerData as ThreadBoot;
const thread = attachThread(boot);
if (!boot.isUrgent) rehearse(thread);
serveDomain(thread);
