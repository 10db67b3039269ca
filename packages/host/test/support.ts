// What the tests of the host share: guests written in WebAssembly's text format, and looks at the process.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { openDescriptorCount } from "@xenolith/sys";
import wabtInit from "wabt";
import { type Domain, Host, type HostOptions } from "../src/index.ts";

const wabt = await wabtInit();
const features = {
  bulk_memory: true,
  exceptions: true,
  multi_value: true,
  mutable_globals: true,
  reference_types: true,
  sat_float_to_int: true,
  sign_extension: true,
  simd: true,
  threads: true,
};

/** Assembles a guest; keeps the names of functions. */
export const guest = (text: string): Uint8Array => {
  const module = wabt.parseWat("guest.wat", text, features);
  return module.toBinary({ write_debug_names: true }).buffer;
};

/** Image cache of this test file, also for the processes that it starts. */
export const cacheDirectory = mkdtempSync(join(tmpdir(), "xenolith-test-"));
after(() => rmSync(cacheDirectory, { recursive: true, force: true }));

/** Opens a small host whose image cache is of this test file only. */
export const openHost = (options: HostOptions = {}): Promise<Host> =>
  Host.open({ memoryBytes: 512 * 2 ** 20, warmVcpuCount: 1, cacheDirectory, ...options });

/** The domains of `host` are at rest and the auditor finds nothing. */
export const assertClean = (host: Host): void => assert.deepEqual(host.audit(), []);

/** Creates and starts a domain. */
export const run = async (host: Host, image: Uint8Array, options: object = {}): Promise<Domain> => {
  const domain = await host.createDomain({ image, ...options });
  await domain.start();
  return domain;
};

/** Descriptors of the process, after what is closing has closed. */
export const descriptorCount = (): number => openDescriptorCount();

/** Waits until `condition` holds; a condition that never holds ends the test by the runner's own means. */
export const eventually = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
};

/** A guest of one function. */
export const program = (body: string, rest = ""): Uint8Array =>
  guest(`(module
    (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
    (import "xen" "memory_op" (func $memory_op (param i32 i32) (result i32)))
    (import "xen" "console_io" (func $console_io (param i32 i32 i32) (result i32)))
    (import "xen" "event_channel_op" (func $event_channel_op (param i32 i32) (result i32)))
    (import "xen" "hypercall" (func $hypercall (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (memory (export "memory") 1)
    ${rest}
    (func $main (export "_start") ${body}))`);
