/**
 * A daemon in a process of its own, as `xl daemon` starts it, and xl beside it.
 */
import type { ChildProcess } from "node:child_process";
import path from "node:path";
import { prelude, Workbench, type XlRun } from "./xl-harness.ts";

/** Says hello, then says what it hears until it hears nothing more. */
export const ECHO = `(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  ${prelude}
  (data (i32.const 64) "hello\\n")
  (func (export "_start")
    (call $write (i32.const 64) (i32.const 6))
    (loop $again
      (i32.store (i32.const 0) (i32.const 256))
      (i32.store (i32.const 4) (i32.const 100))
      (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.eqz (i32.load (i32.const 8))) (then (call $exit (i32.const 0))))
      (call $write (i32.const 256) (i32.load (i32.const 8)))
      (br $again))))`;

const READY = /the daemon answers at /;

/** A bench with a daemon. */
export class DaemonBench implements AsyncDisposable {
  readonly bench = new Workbench();
  readonly socket = path.join(this.bench.directory, "xl.sock");
  #child: ChildProcess | undefined;
  #done: Promise<XlRun> | undefined;

  /** Starts the daemon, with more words, and waits until it answers. */
  async start(words: readonly string[] = []): Promise<void> {
    const state = path.join(this.bench.directory, "state");
    const { child, done } = this.bench.start(["daemon", "--socket", this.socket, "--state", state, ...words]);
    this.#child = child;
    this.#done = done;
    const ready = new Promise<void>((resolve) => {
      let text = "";
      child.stderr.on("data", (chunk) => {
        text += String(chunk);
        if (READY.test(text)) resolve();
      });
    });
    const failed = async (): Promise<never> => {
      const { code, stderr } = await done;
      throw new Error(`the daemon ended with ${code}: ${stderr}`);
    };
    await Promise.race([ready, failed()]);
  }

  /** Ends the daemon by a signal; what it left behind. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<XlRun> {
    this.#child!.kill(signal);
    return this.#done!;
  }

  /** Runs xl against the daemon. */
  xl(words: readonly string[], input = ""): Promise<XlRun> {
    const [command, ...rest] = words;
    const at = command === "debug" ? [...words, "--socket", this.socket] : [command!, "--socket", this.socket, ...rest];
    return this.bench.xl(at, input);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child?.exitCode === null) await this.end();
    this.bench[Symbol.dispose]();
  }
}
