/**
 * Every instruction that touches memory, rewritten by the loader and applied to pages that are absent or read-only, at
 * page ends and at the end of the address space, with addresses in registers and in constants. Each tier of the compiler
 * runs in a child process, since what is tested is that the process survives: each case must end in a trap that
 * JavaScript can catch, or succeed. Set XENOLITH_TEST_NODES to paths of more Node binaries, separated by colons.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

import type { Image, ServiceFunctions } from "@xenolith/loader";
import { bindServices, rewriteModule } from "@xenolith/loader";
import {
  PAGE_BYTES,
  PROT_READ,
  PROT_READ_WRITE,
  baseAddress,
  check,
  createMemfd,
  forbidCoreDumps,
  mapFrames,
  reserve,
} from "@xenolith/sys";
import wabtInit from "wabt";

const MEMORY_BYTES = 2 ** 32;

interface Instruction {
  readonly name: string;
  readonly sizeBytes: number;
  readonly access: "none" | "read" | "write";
  readonly isAligned: boolean;
  /** Operands behind the address. */
  readonly operands: string;
  /** Type of the result, "" for none. */
  readonly result: string;
  /** Lane, for instructions that have one. */
  readonly lane: string;
}

type Given = Partial<Instruction> & Pick<Instruction, "name" | "sizeBytes" | "access">;
const instruction = (given: Given): Instruction => ({ isAligned: false, operands: "", result: "", lane: "", ...given });

const constants: Readonly<Record<string, string>> = {
  i32: "(i32.const 5)",
  i64: "(i64.const 5)",
  f32: "(f32.const 5)",
  f64: "(f64.const 5)",
  v128: "(v128.const i32x4 1 2 3 4)",
};

const loads: readonly (readonly [type: string, names: string])[] = [
  ["i32", "load:4 load8_s:1 load8_u:1 load16_s:2 load16_u:2"],
  ["i64", "load:8 load8_s:1 load8_u:1 load16_s:2 load16_u:2 load32_s:4 load32_u:4"],
  ["f32", "load:4"],
  ["f64", "load:8"],
  ["v128", "load:16 load8x8_s:8 load8x8_u:8 load16x4_s:8 load16x4_u:8 load32x2_s:8 load32x2_u:8"],
  ["v128", "load8_splat:1 load16_splat:2 load32_splat:4 load64_splat:8 load32_zero:4 load64_zero:8"],
];
const stores: readonly (readonly [type: string, names: string])[] = [
  ["i32", "store:4 store8:1 store16:2"],
  ["i64", "store:8 store8:1 store16:2 store32:4"],
  ["f32", "store:4"],
  ["f64", "store:8"],
  ["v128", "store:16"],
];

function* expand(table: typeof loads): Generator<{ type: string; name: string; sizeBytes: number }> {
  for (const [type, names] of table) {
    for (const entry of names.split(" ")) {
      const [name, size] = entry.split(":");
      yield { type, name: `${type}.${name}`, sizeBytes: Number(size) };
    }
  }
}

function plainInstructions(): Instruction[] {
  const list: Instruction[] = [];
  for (const { type, name, sizeBytes } of expand(loads)) {
    list.push(instruction({ name, sizeBytes, access: "read", result: type }));
  }
  for (const { type, name, sizeBytes } of expand(stores)) {
    list.push(instruction({ name, sizeBytes, access: "write", operands: constants[type]! }));
  }
  for (const bits of [8, 16, 32, 64]) {
    const lane = { sizeBytes: bits / 8, lane: "1", operands: constants["v128"]! };
    list.push(instruction({ ...lane, name: `v128.load${bits}_lane`, access: "read", result: "v128" }));
    list.push(instruction({ ...lane, name: `v128.store${bits}_lane`, access: "write" }));
  }
  const [wait, result] = [{ access: "read", isAligned: true } as const, "i32"];
  list.push(
    instruction({
      ...wait,
      name: "memory.atomic.wait32",
      sizeBytes: 4,
      operands: "(i32.const 77) (i64.const 0)",
      result,
    }),
  );
  list.push(
    instruction({
      ...wait,
      name: "memory.atomic.wait64",
      sizeBytes: 8,
      operands: "(i64.const 77) (i64.const 0)",
      result,
    }),
  );
  const notify = { name: "memory.atomic.notify", sizeBytes: 4, access: "none", isAligned: true } as const;
  list.push(instruction({ ...notify, operands: "(i32.const 1)", result }));
  return list;
}

const atomicForms: readonly (readonly [type: string, bits: number, suffix: string])[] = [
  ["i32", 32, ""],
  ["i64", 64, ""],
  ["i32", 8, "_u"],
  ["i32", 16, "_u"],
  ["i64", 8, "_u"],
  ["i64", 16, "_u"],
  ["i64", 32, "_u"],
];

function atomicInstructions(): Instruction[] {
  const list: Instruction[] = [];
  for (const [type, bits, suffix] of atomicForms) {
    const width = suffix === "" ? "" : String(bits);
    const [operand, sizeBytes] = [constants[type]!, bits / 8];
    const common = { sizeBytes, isAligned: true, result: type } as const;
    list.push(instruction({ ...common, name: `${type}.atomic.load${width}${suffix}`, access: "read" }));
    list.push(
      instruction({ ...common, name: `${type}.atomic.store${width}`, access: "write", operands: operand, result: "" }),
    );
    for (const operation of ["add", "sub", "and", "or", "xor", "xchg"]) {
      list.push(
        instruction({
          ...common,
          name: `${type}.atomic.rmw${width}.${operation}${suffix}`,
          access: "write",
          operands: operand,
        }),
      );
    }
    const name = `${type}.atomic.rmw${width}.cmpxchg${suffix}`;
    list.push(instruction({ ...common, name, access: "write", operands: operand + operand }));
  }
  return list;
}

/** What a page is in this test. Every region of 16 pages begins with these; the rest of it is absent. */
const layout = ["present", "absent", "present", "absent", "read-only", "present", "present", "read-only"] as const;
type PageState = (typeof layout)[number];
/** Below the module's declared minimum, in the middle, above 2^31, and at the end of the address space. */
const regions = [0, 0x10_0000, 0xc000_0000, MEMORY_BYTES - layout.length * PAGE_BYTES];

function pageState(address: number): PageState {
  const region = regions.find((start) => address >= start && address < start + layout.length * PAGE_BYTES);
  return region === undefined ? "absent" : layout[Math.floor((address - region) / PAGE_BYTES)]!;
}

/** Addresses worth trying: inside pages of each kind and across each change from one kind to the next. */
function targets(sizeBytes: number): number[] {
  const within = regions.flatMap((region) =>
    [0x1000, 0x1ff0, 0x2000, 0x3800, 0x4000, 0x4ff0, 0x5000, 0x7ff0].map((at) => region + at),
  );
  const changes = regions.flatMap((region) =>
    [0x1000, 0x2000, 0x4000, 0x5000, 0x7000, 0x8000].map((at) => region + at),
  );
  const across =
    sizeBytes < 2 ? [] : changes.flatMap((change) => [change - 1, change - sizeBytes + 1, change - sizeBytes / 2]);
  return [...new Set([...within, ...across])].filter((address) => address >= 0 && address < MEMORY_BYTES);
}

function expected({ access, isAligned, sizeBytes }: Instruction, address: number): "ok" | "trap" {
  if (isAligned && address % sizeBytes !== 0) return "trap";
  if (address + sizeBytes > MEMORY_BYTES) return "trap";
  if (access === "none") return "ok";
  const states = [pageState(address), pageState(address + sizeBytes - 1)];
  if (states.includes("absent")) return "trap";
  return access === "write" && states.includes("read-only") ? "trap" : "ok";
}

interface Case {
  readonly title: string;
  readonly expected: "ok" | "trap";
  /** Name of the exported function and its parameters. */
  readonly call: readonly [name: string, ...parameters: number[]];
}

/** One function that applies an instruction to an address. */
function functionText(
  name: string,
  { name: opcode, lane, operands, result }: Instruction,
  address: string,
  offset: number,
): string {
  const access = `(${opcode} offset=${offset} ${lane} ${address} ${operands})`;
  const value = result === "v128" ? `(i32x4.extract_lane 0 ${access})` : access;
  const type = result === "v128" ? "i32" : result;
  return `(func (export "${name}") (param i32) ${type === "" ? "" : `(result ${type})`} ${value})\n`;
}

/** Forms of an address: register, register with offset, constant, constant with all of it in the offset, and split. */
function* instructionCases(list: readonly Instruction[], text: string[]): Generator<Case> {
  for (const [index, tried] of list.entries()) {
    const title = (form: string, address: number) =>
      `${tried.name} ${form} at 0x${address.toString(16)} (${pageState(address)})`;
    text.push(functionText(`r${index}`, tried, "(local.get 0)", 0));
    text.push(functionText(`o${index}`, tried, "(local.get 0)", 4096));
    for (const address of targets(tried.sizeBytes)) {
      const outcome = expected(tried, address);
      yield { title: title("register", address), expected: outcome, call: [`r${index}`, address] };
      if (address >= 4096)
        yield { title: title("offset", address), expected: outcome, call: [`o${index}`, address - 4096] };
      text.push(functionText(`c${index}_${address}`, tried, `(i32.const ${address})`, 0));
      yield { title: title("constant", address), expected: outcome, call: [`c${index}_${address}`, 0] };
      text.push(functionText(`k${index}_${address}`, tried, "(i32.const 0)", address));
      yield { title: title("constant offset", address), expected: outcome, call: [`k${index}_${address}`, 0] };
    }
    const past = [-1, -tried.sizeBytes, -4096].map((address) => address >>> 0);
    for (const address of past)
      yield { title: title("overflow", address), expected: "trap", call: [`o${index}`, address] };
  }
}

function isWritable(start: number, length: number): boolean {
  return touched(start, length).every((state) => state === "present");
}
function isReadable(start: number, length: number): boolean {
  return touched(start, length).every((state) => state !== "absent");
}
function touched(start: number, length: number): PageState[] {
  if (length === 0) return [];
  const states: PageState[] = [];
  for (let at = start - (start % PAGE_BYTES); at < start + length; at += PAGE_BYTES) states.push(pageState(at));
  return states;
}

function* bulkCases(text: string[]): Generator<Case> {
  text.push(`(func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
    (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))`);
  const lengths = [0, 1, 2, 7, 15, 16, 17, 33, 64, 65, 100, 128, 129, 300, 4096, 5000, 3 * PAGE_BYTES];
  const addresses = regions.flatMap((region) =>
    [0, 0xff0, 0x1000, 0x1ff0, 0x2000, 0x2fff, 0x4000, 0x4ff8, 0x5000, 0x6fc0].map((at) => region + at),
  );
  for (const length of lengths) {
    for (const address of addresses) {
      const isInRange = address + length <= MEMORY_BYTES;
      const fill = isInRange && isWritable(address, length) ? "ok" : "trap";
      yield {
        title: `memory.fill 0x${address.toString(16)} ${length}`,
        expected: fill,
        call: ["fill", address, 1, length],
      };
      for (const source of [0, 0x2800, 0x4800, address + 8, Math.max(0, address - 8)]) {
        const isSourceInRange = source + length <= MEMORY_BYTES;
        const copy = fill === "ok" && isSourceInRange && isReadable(source, length) ? "ok" : "trap";
        const title = `memory.copy 0x${address.toString(16)} 0x${source.toString(16)} ${length}`;
        yield { title, expected: copy, call: ["copy", address, source, length] };
      }
    }
  }
}

/** Builds the module, with its declared minimum above the first region, and rewrites it. */
async function buildImage(withAtomics: boolean): Promise<{ image: Image; cases: Case[] }> {
  const text: string[] = [];
  const list = [...plainInstructions(), ...(withAtomics ? atomicInstructions() : [])];
  const cases = [...instructionCases(list, text), ...bulkCases(text)];
  const wabt = await wabtInit();
  const features = { threads: true, simd: true, bulk_memory: true };
  const module = wabt.parseWat("hostile.wat", `(module (memory 16 65536 shared)\n${text.join("")})`, features);
  return { image: rewriteModule(module.toBinary({}).buffer), cases };
}

/** A memory of 4 GiB in which only the pages of the layout exist. */
function mapLayout(): WebAssembly.Memory {
  const memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
  const base = baseAddress(memory);
  check(reserve(base, MEMORY_BYTES), "mmap", { address: base });
  const fd = createMemfd({ name: "hostile", sizeBytes: regions.length * layout.length * PAGE_BYTES });
  for (const [region, start] of regions.entries()) {
    for (const [page, state] of layout.entries()) {
      const offset = (region * layout.length + page) * PAGE_BYTES;
      const protection = state === "present" ? PROT_READ_WRITE : PROT_READ;
      if (state !== "absent")
        check(mapFrames(base + start + page * PAGE_BYTES, PAGE_BYTES, protection, fd, offset), "mmap", { fd });
    }
  }
  return memory;
}

/** Services that touch nothing: what they are asked about was proven by the probe before. */
const idleServices: ServiceFunctions = {
  memory_size: () => 0,
  memory_grow: () => -1,
  atomic_wait32: () => 1,
  atomic_wait64: () => 1,
  atomic_notify: () => 0,
  memory_init: () => 1,
  data_drop: () => undefined,
  poll: () => 1_000,
};

/** The child: announces each case before it runs it, so that the parent knows which one was deadly. */
async function runCases(withAtomics: boolean): Promise<void> {
  forbidCoreDumps();
  const { image, cases } = await buildImage(withAtomics);
  assert.equal(image.manifest.usesAtomics, withAtomics);
  const memory = mapLayout();
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(image.module), { xen: { memory } });
  bindServices(image, exports, idleServices);
  let wrongCount = 0;
  for (const { title, expected: wanted, call } of cases) {
    writeSync(1, `try ${title}\n`);
    const [name, ...parameters] = call;
    const got = attempt(exports[name], parameters);
    if (got === wanted) continue;
    wrongCount++;
    writeSync(1, `wrong: ${title}: ${got}, expected ${wanted}\n`);
  }
  writeSync(1, `done: ${cases.length} cases, ${wrongCount} wrong\n`);
}

function attempt(exported: WebAssembly.ExportValue | undefined, parameters: readonly number[]): string {
  if (typeof exported !== "function") return "not exported";
  try {
    exported(...parameters);
    return "ok";
  } catch (error) {
    return error instanceof WebAssembly.RuntimeError ? "trap" : String(error);
  }
}

/** The child of the control case: a native `memory.fill` over an absent page, as the module had it. */
async function runControl(): Promise<void> {
  forbidCoreDumps();
  const wabt = await wabtInit();
  const text = `(module (import "xen" "memory" (memory 0 65536 shared))
    (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2))))`;
  const { buffer } = wabt.parseWat("control.wat", text, { threads: true, bulk_memory: true }).toBinary({});
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(buffer), { xen: { memory: mapLayout() } });
  writeSync(1, `survived: ${attempt(exports["fill"], [0x1000, 1, 64])}\n`);
}

interface Ended {
  readonly signal: NodeJS.Signals | null;
  readonly lines: readonly string[];
  readonly stderr: string;
}

/** Runs this file as a child. Its output goes to a file, which takes what was written however the child ends. */
function runChild(node: string, flags: readonly string[], mode: string): Ended {
  const directory = mkdtempSync(join(tmpdir(), "xenolith-hostile-"));
  const output = openSync(join(directory, "output"), "w+");
  try {
    const parameters = [...flags, fileURLToPath(import.meta.url), "--child", mode];
    const { signal, stderr } = spawnSync(node, parameters, { encoding: "utf8", stdio: ["ignore", output, "pipe"] });
    return { signal, stderr, lines: readFileSync(join(directory, "output"), "utf8").trimEnd().split("\n") };
  } finally {
    closeSync(output);
    rmSync(directory, { recursive: true });
  }
}

const tiers: readonly (readonly [title: string, flags: readonly string[], cases: "all" | "plain"])[] = [
  ["TurboFan alone, atomics included", ["--no-liftoff"], "all"],
  ["Liftoff alone, images without atomics", ["--liftoff-only"], "plain"],
  ["V8's default tiers, images without atomics", [], "plain"],
];

function registerTests(): void {
  const others = (process.env["XENOLITH_TEST_NODES"] ?? "").split(":").filter((path) => path !== "");
  for (const node of [process.execPath, ...others]) {
    const version = spawnSync(node, ["--version"], { encoding: "utf8" }).stdout.trim();
    describe(`every memory instruction over absent and read-only pages, Node ${version}`, () => {
      for (const [title, flags, cases] of tiers) {
        it(`traps or succeeds and never kills the process: ${title}`, () => {
          const { signal, lines, stderr } = runChild(node, flags, cases);
          assert.equal(signal, null, `killed by ${signal} at: ${lines.at(-1)}`);
          assert.deepEqual(lines.filter((line) => line.startsWith("wrong")).slice(0, 20), [], stderr);
          assert.match(lines.at(-1) ?? "", /^done: \d{4,} cases, 0 wrong$/, stderr);
        });
      }
      it("would kill the process if an instruction had not been rewritten", () => {
        const { signal, lines } = runChild(node, [], "control");
        assert.notEqual(signal, null, lines.join());
      });
    });
  }
}

const mode = process.argv.indexOf("--child");
if (mode < 0) registerTests();
else if (process.argv[mode + 1] === "control") await runControl();
else await runCases(process.argv[mode + 1] === "all");
