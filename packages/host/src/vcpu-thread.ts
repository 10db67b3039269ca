/**
 * A vCPU thread as the control domain sees it: a Worker that is started ahead, gets exactly one domain, and is ended by
 * termination. It keeps the process alive only while somebody holds a reference on it.
 */
import { MessageChannel, SHARE_ENV, Worker, type MessagePort } from "node:worker_threads";
import { releaseThreadMemory, threadCpuTimeNs, type ThreadMemory } from "@xenolith/sys";
import { HEAP_MIB_MAX, STACK_MIB, YOUNG_HEAP_MIB_MAX } from "./thread-limits.ts";
import type { ThreadProgram } from "./thread-program.ts";
import type { Command, Report, ThreadBoot } from "./protocol.ts";

/** What all vCPU threads of a host are started with. */
export type ThreadSetting = Omit<ThreadBoot, "isFirst" | "isUrgent" | "mailbox" | "port" | "tag">;

const entryPoint = new URL("./vcpu-entry.js", import.meta.url);

/**
 * Runs a linked program in a thread. The first one that does makes the code cache for the others, after it has run what
 * they will; threads that nobody waits for do so in any case.
 */
const BOOTSTRAP = `
const { createRequire } = require("node:module");
const { Script } = require("node:vm");
const { workerData } = require("node:worker_threads");
const { text, encoding, filename, codeCache } = workerData.program;
const source = Buffer.from(text).toString(encoding);
const script = new Script(source, codeCache === undefined ? { filename } : { filename, cachedData: codeCache });
const { attachThread, serveDomain, rehearse, runAll } = script.runInThisContext()(createRequire(filename));
const thread = attachThread(workerData);
const isUncached = codeCache === undefined || script.cachedDataRejected;
if (isUncached || !workerData.isUrgent) {
  rehearse(thread);
  runAll();
}
if (isUncached) thread.report({ type: "codeCache", bytes: script.createCachedData() });
serveDomain(thread);
`;

/** A linked program in memory that threads share: a message with it would be copied twice. */
interface SharedText {
  readonly text: SharedArrayBuffer;
  readonly encoding: BufferEncoding;
  readonly filename: string;
}

/** The threads' program, and V8's code cache for it once a thread has made one. */
export interface SharedProgram {
  readonly program: SharedText | undefined;
  codeCache: Uint8Array | undefined;
  /** A thread was found to be as expected. */
  isKnown: boolean;
}

/** The program as threads get it. */
export const shareProgram = (program: ThreadProgram | undefined): SharedProgram => ({
  program: program === undefined ? undefined : shareText(program),
  codeCache: undefined,
  isKnown: false,
});

const shareText = ({ source, filename }: ThreadProgram): SharedText => {
  const latin = Buffer.from(source, "latin1");
  const isLatin = latin.toString("latin1") === source;
  const bytes = isLatin ? latin : Buffer.from(source, "utf16le");
  return { text: shareBytes(bytes).buffer, encoding: isLatin ? "latin1" : "utf16le", filename };
};

const shareBytes = (bytes: Uint8Array): Uint8Array<SharedArrayBuffer> => {
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  return shared;
};

/** One Worker for one vCPU. */
export class VcpuThread {
  readonly tag: number;
  /** What the thread reports, apart from readiness. */
  onReport: (report: Report) => void = () => {};
  /** The thread is gone, with the error that ended it, if any. Called once. */
  onEnd: (cause: unknown) => void = () => {};
  readonly #shared: SharedProgram;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #mailbox = new Int32Array(new SharedArrayBuffer(4));
  /** Settled when the thread has attached, or has ended before. */
  readonly #attached: Promise<void>;
  #resolveAttached: () => void = () => {};
  #threadId = 0;
  #memory: ThreadMemory | undefined;
  #ended = false;
  #cause: unknown;

  constructor(
    setting: ThreadSetting,
    shared: SharedProgram,
    own: { readonly tag: number; readonly isUrgent: boolean },
  ) {
    const { tag, isUrgent } = own;
    this.tag = tag;
    this.#shared = shared;
    this.#attached = new Promise((resolve) => (this.#resolveAttached = resolve));
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const mailbox = this.#mailbox.buffer;
    const boot: ThreadBoot = { ...setting, tag, isUrgent, isFirst: !shared.isKnown, mailbox, port: port2 };
    const program = shared.program === undefined ? undefined : { ...shared.program, codeCache: shared.codeCache };
    this.#worker = new Worker(program === undefined ? entryPoint : BOOTSTRAP, {
      eval: program !== undefined,
      workerData: { ...boot, program },
      transferList: [port2],
      argv: [],
      execArgv: [],
      env: SHARE_ENV,
      name: `xenolith vcpu ${tag}`,
      resourceLimits: {
        maxOldGenerationSizeMb: HEAP_MIB_MAX,
        maxYoungGenerationSizeMb: YOUNG_HEAP_MIB_MAX,
        stackSizeMb: STACK_MIB,
      },
    });
    this.#worker.on("error", (error) => {
      this.#cause = error;
    });
    this.#worker.on("exit", () => this.#finish());
    this.#port.on("message", (report: Report) => this.#receive(report));
    this.unref();
  }

  /** Whether the thread has attached to the hypervisor and waits for its domain. */
  get ready(): boolean {
    return this.#threadId !== 0;
  }

  /** Whether the thread no longer exists. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Sends a command. A thread that runs a vCPU already is woken by its owner. */
  post(command: Command): void {
    this.#port.postMessage(command);
    Atomics.add(this.#mailbox, 0, 1);
    Atomics.notify(this.#mailbox, 0);
  }

  /** Keeps the process alive. */
  ref(): void {
    this.#worker.ref();
  }

  /** Lets the process end although the thread runs. */
  unref(): void {
    this.#worker.unref();
    this.#port.unref();
  }

  /**
   * Ends the thread wherever it is. The caller has made sure that it holds nothing of the hypervisor's. A thread that is
   * still attaching is let finish: terminated while the FFI is being loaded, it would take the process with it.
   */
  async end(): Promise<void> {
    this.ref();
    await this.#attached;
    if (!this.#ended) await this.#worker.terminate();
    this.#finish();
  }

  /** Whether the thread no longer exists although nobody has told yet. */
  get isDead(): boolean {
    return this.#threadId !== 0 && !this.#ended && threadCpuTimeNs(this.#threadId) < 0;
  }

  /** Processor time of the thread in nanoseconds; 0 when it is not known. */
  cpuNs(): number {
    return this.#threadId === 0 || this.#ended ? 0 : Math.max(0, threadCpuTimeNs(this.#threadId));
  }

  #receive(report: Report): void {
    if (report.type === "codeCache") {
      this.#shared.codeCache = shareBytes(report.bytes);
      return;
    }
    if (report.type === "ready") {
      this.#threadId = report.threadId;
      this.#memory = report.memory;
      this.#shared.isKnown ||= report.memory !== undefined;
      this.#resolveAttached();
    }
    this.onReport(report);
  }

  #finish(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#resolveAttached();
    this.#port.close();
    if (this.#memory !== undefined) releaseThreadMemory(this.#memory);
    this.onEnd(this.#cause);
  }
}
