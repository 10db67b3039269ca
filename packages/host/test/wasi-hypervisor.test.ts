/**
 * WASI over the hypervisor's own guest memory: pages that are scattered over the machine, absent, or taken away by a
 * hypercall while a call waits.
 */
import assert from "node:assert/strict";
import { openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  audit,
  type Cpu,
  createCpu,
  createDomain,
  createTestHypervisor,
  depopulateRun,
  type Hypervisor,
  initialise,
  populateRun,
  setMaxPages,
  unpauseDomain,
} from "@xenolith/core";
import type { WasiContext } from "../src/wasi/context.ts";
import { errnos } from "../src/wasi/errno.ts";
import { createWasi, type WasiImport, type WasiImports } from "../src/wasi/functions.ts";
import { Oflag } from "../src/wasi/layouts.ts";
import { wasiSignatures } from "../src/wasi/signatures.ts";
import { attachDescriptors, createDescriptorBuffer, openInitialDescriptors } from "../src/wasi/start.ts";
import { temporaryDirectory, TestStdio } from "./wasi-guest.ts";

const PAGE = 4096;
const PATH = 0x100;
const IOVECS = 0x200;
const RESULT = 0x300;

interface World {
  readonly hypervisor: Hypervisor;
  readonly cpu: Cpu;
  readonly imports: WasiImports;
  readonly stdio: TestStdio;
  readonly call: (name: string, ...values: (number | bigint)[]) => number;
}

/** A domain with pages 0-3 and 8-11, filled in an order that scatters them, and a directory as descriptor 3. */
const withWorld = (body: (world: World, path: string) => void): void => {
  using directory = temporaryDirectory();
  const { hypervisor } = createTestHypervisor();
  initialise(hypervisor);
  const slot = hypervisor.domains.slotOf(createDomain(hypervisor, { vcpus: 1 }));
  assert.equal(setMaxPages(hypervisor, slot, 16), 0);
  assert.equal(unpauseDomain(hypervisor, slot), 0);
  const outcome = { count: 0, blockedGfn: -1, error: 0 };
  for (const gfn of [3, 11, 1, 8, 0, 10, 2, 9]) {
    populateRun(hypervisor, slot, gfn, 1, outcome);
    assert.equal(outcome.count, 1);
  }
  const cpu = createCpu(hypervisor, slot, 0);
  const stdio = new TestStdio();
  const descriptors = attachDescriptors(createDescriptorBuffer(16));
  const preopens = [{ guestPath: new Uint8Array([0x2f]), hostFd: openSync(directory.path, "r"), readOnly: false }];
  openInitialDescriptors(descriptors, stdio, preopens);
  const imports = createWasi(contextOf({ cpu, stdio, descriptors, preopens }), "wasi_snapshot_preview1");
  const call = (name: string, ...values: (number | bigint)[]): number => {
    const import_: WasiImport = imports[name]!;
    return import_(...values);
  };
  body({ hypervisor, cpu, imports, stdio, call }, directory.path);
  assert.deepEqual(audit(hypervisor), []);
  assert.equal(hypervisor.locks.heldCount, 0);
  descriptors.closeAll();
};

const contextOf = (parts: Pick<WasiContext, "cpu" | "stdio" | "descriptors" | "preopens">): WasiContext => ({
  ...parts,
  arguments: [],
  environment: [],
  clock: { realtime: () => 0n, monotonic: () => 0n, processCpu: () => 0n, threadCpu: () => 0n },
  random: (target) => void target.fill(1),
  sleepUntil: () => undefined,
  exit: () => assert.fail("exits"),
});

const iovecs = ({ cpu }: World, ...pieces: readonly (readonly [number, number])[]): [number, number] => {
  assert.equal(cpu.memory.copyToGuest(IOVECS, new Uint8Array(Uint32Array.from(pieces.flat()).buffer)), 0);
  return [IOVECS, pieces.length];
};

const open = (world: World, name: string, oflags: number): number => {
  const path = new TextEncoder().encode(name);
  assert.equal(world.cpu.memory.copyToGuest(PATH, path), 0);
  assert.equal(world.call("path_open", 3, 0, PATH, path.length, oflags, 0x3fff_ffffn, 0n, 0, RESULT), 0);
  return world.cpu.memory.readU32(RESULT);
};

describe("WASI over guest memory", () => {
  it("moves bytes between a file and pages that are scattered over the machine", () =>
    withWorld((world, path) => {
      const bytes = Uint8Array.from({ length: 4 * PAGE }, (_, index) => index * 13);
      writeFileSync(join(path, "in"), bytes);
      const input = open(world, "in", 0);
      assert.equal(world.call("fd_read", input, ...iovecs(world, [8 * PAGE, 4 * PAGE]), RESULT), 0);
      assert.equal(world.cpu.memory.readU32(RESULT), 4 * PAGE);
      const output = open(world, "out", Oflag.CREAT);
      const pieces = iovecs(world, [8 * PAGE + 1, 2 * PAGE], [10 * PAGE + 1, 2 * PAGE - 1], [8 * PAGE, 1]);
      assert.equal(world.call("fd_write", output, ...pieces, RESULT), 0);
      assert.deepEqual(
        new Uint8Array(readFileSync(join(path, "out"))),
        Uint8Array.from([...bytes.slice(1), bytes[0]!]),
      );
    }));

  it("refuses a buffer that reaches into an absent page, and takes nothing from the stream", () =>
    withWorld((world) => {
      world.stdio.input = new Uint8Array([1, 2, 3]);
      for (const address of [4 * PAGE, 4 * PAGE - 2, 7 * PAGE + 4094, 0x8000_0000, 0xffff_ffff]) {
        assert.equal(world.call("fd_read", 0, ...iovecs(world, [address, 3]), RESULT), errnos.FAULT[0]);
      }
      assert.equal(world.call("fd_read", 0, ...iovecs(world, [4 * PAGE - 3, 3]), RESULT), 0);
      assert.equal(world.cpu.memory.readU32(RESULT), 3);
    }));

  it("survives a page that goes away while a read waits for input", () =>
    withWorld((world) => {
      world.stdio.onWait = () => {
        assert.equal(depopulateRun(world.hypervisor, world.cpu.slot, 8, 1), 1);
        world.stdio.input = new Uint8Array([1]);
      };
      assert.equal(world.call("fd_read", 0, ...iovecs(world, [8 * PAGE, 1]), RESULT), errnos.FAULT[0]);
      world.stdio.input = new Uint8Array([2]);
      assert.equal(world.call("fd_read", 0, ...iovecs(world, [9 * PAGE, 1]), RESULT), 0);
    }));

  it("answers every function with hostile arguments, and holds no lock afterwards", () =>
    withWorld((world) => {
      const hostile = [0, 1, 3, 4095, 4 * PAGE - 1, 4 * PAGE, -1, -4, 0x7fff_ffff, -0x8000_0000];
      for (const [name, import_] of Object.entries(world.imports)) {
        if (name === "proc_exit" || name === "poll_oneoff") continue;
        for (const [index, value] of hostile.entries()) {
          for (const wide of [BigInt(value), BigInt(value) << 40n]) {
            const values = parametersOf(name).map((kind, position) =>
              kind === "i64" ? wide : hostile[(index + position * 3) % hostile.length]!,
            );
            const result = import_(...values);
            assert(Number.isInteger(result) && result >= 0 && result <= 76, `${name}(${values.join()}): ${result}`);
          }
        }
      }
    }));
});

const parametersOf = (name: string): readonly ("i32" | "i64")[] =>
  wasiSignatures("wasi_snapshot_preview1").find((signature) => signature.name === name)!.params;
