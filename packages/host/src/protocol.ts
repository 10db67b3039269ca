/**
 * Messages between the control domain's thread and a vCPU thread. They carry what cannot stand in shared tables:
 * modules, memories and values of calls. A vCPU thread sleeps between commands on a word of shared memory, not in its
 * event loop, so that an event, a timer and a command wake it the same way.
 */
import type { MessagePort } from "node:worker_threads";
import type { HypervisorStorage } from "@xenolith/core";
import type { FunctionImport, ImageManifest } from "@xenolith/loader";
import type { ThreadMemory } from "@xenolith/sys";
import type { StdioConfiguration } from "./stdio.ts";
import type { WasiConfiguration } from "./wasi-setup.ts";

/** What a vCPU thread gets when it starts, before it knows whose vCPU it will be. */
export interface ThreadBoot {
  readonly storage: HypervisorStorage;
  readonly hostTable: SharedArrayBuffer;
  readonly bankFds: readonly number[];
  readonly bankBases: readonly number[];
  /** Bases of the control domain's address spaces, where nothing may fault (see mmu.ts). */
  readonly softBases: readonly number[];
  readonly epochNs: bigint;
  /** Where the FFI's compiled part is (see sys's `useAddon`). */
  readonly addonPath: string | undefined;
  /** What the end of the process waits for (see sys's `useExitGuard`). */
  readonly exitGuard: SharedArrayBuffer;
  /** Nice value of the thread from the moment on when it enters a guest. */
  readonly guestNice: number;
  /** Lock tag of the thread. */
  readonly tag: number;
  /** Whether no thread before it was found to be as expected (see sys's `threadMemory`). */
  readonly isFirst: boolean;
  /** Whether a domain waits for it already, so that it should not practise first. */
  readonly isUrgent: boolean;
  /** Word that is increased with each command that is sent before the thread runs a vCPU. */
  readonly mailbox: SharedArrayBuffer;
  readonly port: MessagePort;
}

/** A value that crosses between JavaScript and an export of a guest: i32, f32 and f64 as number, i64 as bigint. */
export type GuestValue = number | bigint;

/** How a vCPU enters its guest for the first time. */
export type VcpuEntry =
  | { readonly kind: "command" }
  | { readonly kind: "reactor" }
  | { readonly kind: "xen"; readonly startInfo: number }
  | { readonly kind: "thread"; readonly argument: number }
  | { readonly kind: "vcpu"; readonly argument: number; readonly stack: number; readonly entry: number };

/** Passive data segments, one after the other; the empty ones were dropped or are active. */
export interface PassiveSegments {
  readonly bytes: SharedArrayBuffer;
  /** Offset and length of each segment of the module in `bytes`. */
  readonly ranges: readonly { readonly offset: number; readonly length: number }[];
}

/** Makes the thread a vCPU of a domain. The first command of every thread; sent again for a further WASI thread. */
export interface StartCommand {
  readonly type: "start";
  readonly slot: number;
  readonly domid: number;
  readonly vcpu: number;
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** The manifest, without its long lists. */
  readonly manifest: ImageManifest;
  /** Namespaces that the module imports from. */
  readonly namespaces: readonly string[];
  readonly passive: PassiveSegments | undefined;
  readonly entry: VcpuEntry;
  /** Functions that the calling program offers, by number. */
  readonly offered: readonly FunctionImport[];
  readonly stdio: StdioConfiguration;
  readonly wasi: WasiConfiguration;
}

/** Calls an export of a reactor. */
export interface CallCommand {
  readonly type: "call";
  readonly id: number;
  readonly name: string;
  readonly values: readonly GuestValue[];
}

/** What an offered function returned; the vCPU that called it waits for this. */
export interface AnswerCommand {
  readonly type: "answer";
  readonly value: GuestValue | undefined;
}

/** What the control domain's thread tells a vCPU thread. */
export type Command = StartCommand | CallCommand | AnswerCommand;

/** What a vCPU thread tells the control domain's thread. */
export type Report =
  /** V8's code cache of the thread's program, for the threads that start later. */
  | { readonly type: "codeCache"; readonly bytes: Uint8Array }
  /** Attached; waits for a domain. */
  | { readonly type: "ready"; readonly threadId: number; readonly memory: ThreadMemory | undefined }
  | { readonly type: "doorbell" }
  /** The instance exists; the guest's first instruction comes next. */
  | { readonly type: "started" }
  /** A reactor is initialised and waits for calls; a WASI thread ended and the vCPU waits for another. */
  | { readonly type: "idle" }
  | { readonly type: "returned"; readonly id: number; readonly values: readonly GuestValue[] }
  /** The call did not reach the guest: the values do not fit the export's type. */
  | { readonly type: "refused"; readonly id: number; readonly message: string }
  /** The guest called offered function number `offered`, and waits for the answer. */
  | { readonly type: "asked"; readonly offered: number; readonly values: readonly GuestValue[] }
  /** Our own code failed in the vCPU thread. */
  | { readonly type: "fault"; readonly message: string };
