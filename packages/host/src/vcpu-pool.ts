/**
 * Warm vCPU threads: starting a Worker costs tens of milliseconds, so some are started ahead. A thread is given to one
 * domain and never comes back: no state of one guest's thread can reach another.
 */
import { stackProbeText } from "@xenolith/core";
import { linkProgram } from "./thread-program.ts";
import { type SharedProgram, shareProgram, type ThreadSetting, VcpuThread } from "./vcpu-thread.ts";

/** A new thread is started this long after one was taken, so that starting it does not slow the guest that took it. */
const REFILL_DELAY_MS = 20;
/**
 * What a guest can do without on the way to its first instruction: the door and the handlers of hypercalls, and most
 * WASI functions. The modules behind them are the greater part of the program.
 */
const LATE = [
  "authorise",
  "consoleIo",
  "domctl",
  "eventChannelOp",
  "grantTableOp",
  "hvmOp",
  "memoryOp",
  "physdevOp",
  "runBatch",
  "schedOp",
  "setTimerOp",
  "sysctl",
  "vcpuOp",
  "xenVersion",
  "reservationOf",
  "copySingle",
  "growHeap",
  "fdAdvise",
  "fdAllocate",
  "fdDatasync",
  "fdFilestatGet",
  "fdFilestatSetSize",
  "fdFilestatSetTimes",
  "fdSync",
  "fdReaddir",
  "pathCreateDirectory",
  "pathFilestatGet",
  "pathFilestatSetTimes",
  "pathLink",
  "pathOpen",
  "pathReadlink",
  "pathRemoveDirectory",
  "pathRename",
  "pathSymlink",
  "pathUnlinkFile",
  "pollOneoff",
];

/** Lock tags: 1 is the control domain's. */
const TAG_FIRST = 2;
const TAG_LAST = 0x3fff_fffe;

/** Starts threads and keeps `size` of them warm. */
export class VcpuPool {
  readonly #setting: ThreadSetting;
  readonly #size: number;
  readonly #warm: VcpuThread[] = [];
  /** Threads that exist, by their lock tags. */
  readonly #threads = new Map<number, VcpuThread>();
  #shared: SharedProgram | undefined;
  #lastTag = TAG_FIRST - 1;
  #refill: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(setting: ThreadSetting, size: number) {
    this.#setting = setting;
    this.#size = size;
    this.#fill();
  }

  /** Threads that are attached and wait for a domain. */
  get readyCount(): number {
    return this.#warm.filter((thread) => thread.ready).length;
  }

  /** Threads that exist, given away ones included. */
  get threadCount(): number {
    return this.#threads.size;
  }

  /** Lock tags of threads that died and whose end has not been noticed yet. */
  deadTags(): number[] {
    return [...this.#threads.values()].filter((thread) => thread.isDead).map(({ tag }) => tag);
  }

  /** A thread for one vCPU: a warm one if there is any. */
  take(): VcpuThread {
    const ready = this.#warm.findIndex((thread) => thread.ready);
    const thread = this.#warm.splice(Math.max(0, ready), 1)[0] ?? this.#start(true);
    this.#scheduleRefill();
    return thread;
  }

  /** Starts a thread if none waits: one will be taken soon, and what is done until then need not be waited for. */
  prepare(): void {
    if (!this.#closed && this.#warm.length === 0) this.#warm.push(this.#start(true));
  }

  /** The thread has ended: its tag may name another one. */
  forget(thread: VcpuThread): void {
    this.#threads.delete(thread.tag);
  }

  /** Ends the warm threads and starts no more. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#refill);
    await Promise.all(this.#warm.splice(0).map((thread) => this.#retire(thread)));
  }

  /** Waits until the warm threads are attached. */
  async warm(): Promise<void> {
    this.#fill();
    await Promise.all(this.#warm.map((thread) => readiness(thread)));
  }

  async #retire(thread: VcpuThread): Promise<void> {
    thread.onEnd = () => {};
    await thread.end();
    this.forget(thread);
  }

  #scheduleRefill(): void {
    if (this.#closed || this.#refill !== undefined) return;
    this.#refill = setTimeout(() => {
      this.#refill = undefined;
      this.#fill();
    }, REFILL_DELAY_MS).unref();
  }

  #fill(): void {
    while (!this.#closed && this.#warm.length < this.#size) this.#warm.push(this.#start(false));
  }

  #start(isUrgent: boolean): VcpuThread {
    this.#shared ??= shareProgram(
      linkProgram(new URL("./vcpu-worker.js", import.meta.url), {
        substitutes: [{ expression: "= compile(stackProbeText())", text: `= ${stackProbeText()}` }],
        late: LATE,
      }),
    );
    const thread = new VcpuThread(this.#setting, this.#shared, { tag: this.#nextTag(), isUrgent });
    this.#threads.set(thread.tag, thread);
    // A warm thread that dies by itself is forgotten; the next `take` or `warm` starts another.
    thread.onEnd = () => {
      this.forget(thread);
      const at = this.#warm.indexOf(thread);
      if (at >= 0) this.#warm.splice(at, 1);
    };
    return thread;
  }

  #nextTag(): number {
    do this.#lastTag = this.#lastTag >= TAG_LAST ? TAG_FIRST : this.#lastTag + 1;
    while (this.#threads.has(this.#lastTag));
    return this.#lastTag;
  }
}

const readiness = (thread: VcpuThread): Promise<void> =>
  new Promise((resolve) => {
    if (thread.ready || thread.ended) return resolve();
    thread.ref();
    const { onEnd } = thread;
    thread.onReport = (report) => {
      if (report.type !== "ready") return;
      thread.onReport = () => {};
      thread.onEnd = onEnd;
      thread.unref();
      resolve();
    };
    thread.onEnd = (cause) => {
      onEnd(cause);
      resolve();
    };
  });
