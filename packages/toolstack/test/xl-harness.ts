/**
 * Runs `xl` as a person does: as a process of its own, with guests from WebAssembly text.
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import wabt from "wabt";

const XL = path.join(import.meta.dirname, "../../bin/xl.js");

/** What a run left behind. */
export interface XlRun {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A directory for one test file, with an image cache of its own. */
export class Workbench implements Disposable {
  readonly directory = mkdtempSync(path.join(tmpdir(), "xenolith-xl-"));

  /** Runs `xl` with `words`; `input` is its standard input, `environment` goes on top of this process's. */
  async xl(words: readonly string[], input = "", environment: NodeJS.ProcessEnv = {}): Promise<XlRun> {
    const { child, done } = this.start(words, environment);
    child.stdin.end(input);
    return done;
  }

  /** Starts `xl` with `words`, standard input open. */
  start(
    words: readonly string[],
    environment: NodeJS.ProcessEnv = {},
  ): { readonly child: ChildProcessWithoutNullStreams; readonly done: Promise<XlRun> } {
    const child = spawn(process.execPath, [XL, ...words], {
      cwd: this.directory,
      env: { ...process.env, XDG_CACHE_HOME: path.join(this.directory, "cache"), NO_COLOR: "1", ...environment },
    });
    child.stdin.on("error", () => {});
    return { child, done: ended(child) };
  }

  /** Assembles `text` into a file and returns its path. */
  async image(name: string, text: string): Promise<string> {
    const assembler = await wabt();
    const features = { threads: true, exceptions: true, multi_memory: true, memory64: true };
    const module = assembler.parseWat(name, text, features);
    return this.file(name, module.toBinary({ write_debug_names: true }).buffer);
  }

  /** Writes a file and returns its path. */
  file(name: string, bytes: Uint8Array | string): string {
    const file = path.join(this.directory, name);
    writeFileSync(file, bytes);
    return file;
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const ended = async (child: ChildProcessWithoutNullStreams): Promise<XlRun> => {
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { code, stdout: await stdout, stderr: await stderr };
};

const collect = async (stream: NodeJS.ReadableStream): Promise<string> => {
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  return text;
};

/** Imports and helpers that most guests here want: `exit`, `write` of a string in memory at 64. */
export const prelude = `
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $write (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))`;
