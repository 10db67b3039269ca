/**
 * What the advisory tests of whole hosts share: guests in WebAssembly's text format, and a host of their own.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { type Domain, type DomainOptions, Host, type HostOptions } from "@xenolith/host";
import wabtInit from "wabt";

const wabt = await wabtInit();
const features = {
  bulk_memory: true,
  exceptions: true,
  multi_value: true,
  mutable_globals: true,
  reference_types: true,
  sign_extension: true,
  simd: true,
  threads: true,
};

/** Assembles a guest; keeps the names of functions. */
export const assemble = (text: string): Uint8Array => {
  const module = wabt.parseWat("guest.wat", text, features);
  const { buffer } = module.toBinary({ write_debug_names: true });
  module.destroy();
  return buffer;
};

/** A guest that runs `body` and may call the hypervisor. */
export const program = (body: string, rest = ""): Uint8Array =>
  assemble(`(module
    (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
    (import "xen" "memory_op" (func $memory_op (param i32 i32) (result i32)))
    (import "xen" "console_io" (func $console_io (param i32 i32 i32) (result i32)))
    (import "xen" "event_channel_op" (func $event_channel_op (param i32 i32) (result i32)))
    (import "xen" "set_timer_op" (func $set_timer_op (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    ${rest}
    (func $main (export "_start") ${body}))`);

const cacheDirectory = mkdtempSync(join(tmpdir(), "xenolith-advisories-"));
after(() => rmSync(cacheDirectory, { recursive: true, force: true }));

/** Opens a small host whose image cache is of this test file only. */
export const openHost = (options: HostOptions = {}): Promise<Host> =>
  Host.open({ memoryBytes: 512 * 2 ** 20, warmVcpuCount: 1, cacheDirectory, ...options });

/** Creates and starts a domain. */
export const run = async (
  host: Host,
  image: Uint8Array,
  options: Omit<DomainOptions, "image"> = {},
): Promise<Domain> => {
  const domain = await host.createDomain({ image, ...options });
  await domain.start();
  return domain;
};

/** The domains of `host` are at rest and the auditor finds nothing. */
export const assertClean = (host: Host): void => assert.deepEqual(host.audit(), []);

/** Waits until `condition` holds; one that never holds ends the test by the runner's own means. */
export const eventually = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await pause(1);
};

/** The 32-bit word at `address` of the domain's memory. */
export const wordAt = (domain: Domain, address: number): number =>
  new DataView(domain.read(address, 4).buffer).getUint32(0, true);
