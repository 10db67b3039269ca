/** One module's exports, called the same way in a domain and on a bare thread. */
import { readFile } from "node:fs/promises";
import type { Domain, Host } from "@xenolith/host";
import type { BareThread } from "./bare-thread.ts";
import { numberOf, startDomain } from "./bench-host.ts";

/** Calls exports and writes memory. */
export interface Runner {
  call(name: string, ...values: number[]): Promise<number>;
  write(address: number, bytes: Uint8Array): Promise<void>;
}

const orZero = (value: unknown): number => (value === undefined ? 0 : numberOf(value));

/** Of a reactor. */
export const domainRunner = (domain: Domain): Runner => ({
  call: async (name, ...values) => orZero(await domain.call(name, ...values)),
  write: async (address, bytes) => domain.write(address, bytes),
});

/** Of what a thread has loaded with bare-wasm.ts. */
export const bareRunner = (thread: BareThread): Runner => ({
  call: async (name, ...values) => orZero(await thread.call("bare-wasm.js", "call", name, ...values)),
  write: async (address, bytes) => thread.call("bare-wasm.js", "write", address, bytes),
});

/** A program: what it is called by, and one run of it, which returns a checksum. */
export interface Program {
  readonly name: string;
  readonly run: (runner: Runner) => Promise<number>;
}

const suite = (name: string, turns: number): Program => ({ name, run: (runner) => runner.call(name, turns) });

/** The programs of suite/suite.c. */
export const suitePrograms = (small: boolean): readonly Program[] => [
  suite("compute", small ? 1 : 30),
  suite("tree", small ? 1 : 8),
  suite("sort", 1),
  suite("allocate", small ? 1 : 12),
  suite("interpret", small ? 1 : 15),
];

/** A program in JavaScript for a published interpreter: objects, closures, strings, numbers. */
const script = (turns: number): string => `(() => {
  let sum = 0;
  for (let turn = 0; turn < ${turns}; turn++) {
    const people = [];
    for (let i = 0; i < 300; i++) people.push({ name: "person " + i, age: (i * 37 + turn) % 91, tags: [i, i + 1] });
    people.sort((a, b) => a.age - b.age || (a.name < b.name ? -1 : 1));
    const byAge = new Map();
    for (const { age, tags } of people) byAge.set(age, (byAge.get(age) ?? 0) + tags.reduce((x, y) => x + y, 0));
    for (const [age, weight] of byAge) sum = (sum + age * weight) % 1000003;
    const fibonacci = (n) => (n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2));
    sum += fibonacci(15);
  }
  return sum;
})()`;

/** QuickJS of the npm package quickjs-wasi, running `script`. */
export const quickjsProgram = (small: boolean): Program => ({
  name: "quickjs",
  run: async (runner) => {
    const source = new TextEncoder().encode(`${script(small ? 1 : 40)}\0`);
    const address = await runner.call("wasm_malloc", source.length);
    await runner.write(address, source);
    const name = await runner.call("wasm_malloc", 8);
    await runner.write(name, new TextEncoder().encode("bench\0"));
    const value = await runner.call("qjs_eval", address, source.length - 1, name, 0);
    const answer = await runner.call("qjs_get_float64", value);
    await runner.call("qjs_free_value", value);
    await runner.call("wasm_free", address);
    await runner.call("wasm_free", name);
    return answer;
  },
});

const i32 = (count: number): "i32"[] => Array.from({ length: count }, () => "i32");
const quickjsFunctions: Readonly<Record<string, number>> = {
  host_get_timezone_offset: 2,
  host_interrupt: 0,
  host_promise_rejection: 3,
  host_module_normalize: 2,
  host_module_load: 2,
  host_call: 5,
};

/** A domain that runs the published QuickJS. */
export const startQuickjs = async (host: Host, memoryBytesMax: number): Promise<Domain> => {
  const env = Object.fromEntries(
    Object.entries(quickjsFunctions).map(([name, count]) => {
      const results = name === "host_promise_rejection" ? [] : i32(1);
      return [name, { params: i32(count), results, call: () => (results.length === 0 ? undefined : 0) }];
    }),
  );
  return startDomain(host, { image: await quickjsModule(), imports: { env }, memoryBytesMax });
};

/** The bytes of the published module. */
export const quickjsModule = async (): Promise<Uint8Array<ArrayBuffer>> =>
  new Uint8Array(await readFile(new URL(import.meta.resolve("quickjs-wasi/quickjs.wasm"))));
