/**
 * Entry point of a vCPU thread. Everything that can be done before it is known whose vCPU it will be is done here, so
 * that starting a domain on a warm thread costs an instantiation only.
 */
import { workerData } from "node:worker_threads";
import { threadId } from "@xenolith/sys";
import { GuestThread } from "./guest-thread.ts";
import type { ThreadBoot } from "./protocol.ts";
import { runVcpu } from "./vcpu-main.ts";
import { rehearse } from "./vcpu-rehearsal.ts";

/** Frames that a crash report looks through for the guest's. */
const STACK_FRAMES = 32;

Error.stackTraceLimit = STACK_FRAMES;
const thread = new GuestThread(workerData as ThreadBoot);
rehearse(thread);
thread.report({ type: "ready", threadId: threadId() });
runVcpu(thread);
