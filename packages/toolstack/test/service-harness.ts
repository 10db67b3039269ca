/**
 * A service in the test's own process, asked without a socket, and the guests that its tests run.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { XenstoreClient } from "@xenolith/xenstore";
import type { ApiFailure, DomainView, ServiceEvent } from "../src/daemon/api-types.ts";
import { openService, type Service } from "../src/daemon/service.ts";
import { prelude, Workbench } from "./xl-harness.ts";

const xen = (main: string): string => `(module
  (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "xen_start") (param i32) ${main}))`;
const shutdown = (reason: number): string =>
  `(i32.store (i32.const 0) (i32.const ${reason})) (drop (call $sched_op (i32.const 2) (i32.const 0)))`;

/** Guests by what they do. */
export const guestTexts = {
  idle: xen("(loop $again (drop (call $sched_op (i32.const 1) (i32.const 0))) (br $again))"),
  poweroff: xen(shutdown(0)),
  reboot: xen(shutdown(1)),
  crash: xen("unreachable"),
  /** Asks 100 times for what only the control domain may, then stays. */
  denied: `(module
    (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
    (import "xen" "memory_op" (func $memory_op (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "xen_start") (param i32) (local $left i32)
      (local.set $left (i32.const 100))
      (loop $again
        (drop (call $memory_op (i32.const 24) (i32.const 0)))
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (loop $stay (drop (call $sched_op (i32.const 1) (i32.const 0))) (br $stay))))`,
  greet: `(module ${prelude} (data (i32.const 64) "hello\\0a")
    (func (export "_start") (call $write (i32.const 64) (i32.const 6))))`,
  /** Prints what it reads, until the end of its input. */
  echo: `(module ${prelude.replace(
    "(memory",
    `(import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32))) (memory`,
  )}
    (func (export "_start")
      (loop $again
        (i32.store (i32.const 16) (i32.const 256))
        (i32.store (i32.const 20) (i32.const 1024))
        (drop (call $fd_read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
        (if (i32.load (i32.const 24))
          (then (call $write (i32.const 256) (i32.load (i32.const 24))) (br $again))))))`,
  /** A reactor that crashes when it is initialised. */
  brokenReactor: `(module (memory (export "memory") 1) (func (export "_initialize") unreachable) (func (export "f")))`,
  /** A reactor whose initialisation never ends, and can be paused. */
  slowReactor: `(module
    (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_initialize") (loop $again (drop (call $sched_op (i32.const 0) (i32.const 0))) (br $again)))
    (func (export "f")))`,
  /** Computes and never makes a hypercall. */
  spin: `(module ${prelude} (func (export "_start") (loop $again (br $again))))`,
} as const;

/** An answer with its JSON. */
export interface Answered<T> {
  readonly status: number;
  readonly headers: Headers;
  readonly body: T;
}

/** One service, its directory and its guests' images. */
export class ServiceBench implements AsyncDisposable {
  readonly bench: Workbench;
  service!: Service;

  private constructor(bench: Workbench) {
    this.bench = bench;
  }

  /** Opens a service with `memoryBytes` of machine memory. */
  static async open(): Promise<ServiceBench> {
    const opened = new ServiceBench(new Workbench());
    mkdirSync(path.join(opened.bench.directory, "run"));
    await opened.start();
    return opened;
  }

  /** Socket of the service. */
  get socketPath(): string {
    return path.join(this.bench.directory, "run", "xl.sock");
  }

  /** State of the service. */
  get stateDirectory(): string {
    return path.join(this.bench.directory, "state");
  }

  /** Opens the service (again). */
  async start(): Promise<void> {
    this.service = await openService({
      socketPath: this.socketPath,
      stateDirectory: this.stateDirectory,
      logLevel: "silent",
      host: {
        memoryBytes: 64 * 2 ** 20,
        warmVcpuCount: 1,
        cacheDirectory: path.join(this.bench.directory, "cache"),
        xenstoreSocket: this.xenstoreSocket,
      },
    });
  }

  get xenstoreSocket(): string {
    return path.join(this.bench.directory, "run", "xenstore.sock");
  }

  /** What stands in xenstore; undefined where nothing does. */
  async readXenstore(at: string): Promise<Buffer | undefined> {
    const client = await XenstoreClient.connect(this.xenstoreSocket);
    try {
      if ((await client.readIfPresent(at)) === undefined) return undefined;
      return Buffer.from(await client.readBytes(at));
    } finally {
      client.close();
    }
  }

  /** A configuration of a guest with 1 MiB. */
  async config(
    guest: keyof typeof guestTexts,
    more: Readonly<Record<string, unknown>> = {},
  ): Promise<Record<string, unknown>> {
    const kernel = await this.bench.image(`${guest}.wasm`, guestTexts[guest]);
    return { name: guest, kernel, memory: 1, ...more };
  }

  /** Asks the service. */
  async ask<T = DomainView>(
    method: string,
    target: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Answered<T>> {
    const content = body === undefined ? {} : { body: body instanceof Uint8Array ? body : JSON.stringify(body) };
    const response = await this.service.request(target, { method, headers, ...content });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: text === "" ? undefined : JSON.parse(text) };
  }

  /** Asks, and expects success. */
  async get<T = DomainView>(target: string): Promise<T> {
    const { status, body } = await this.ask<T>("GET", target);
    assert.equal(status, 200, JSON.stringify(body));
    return body;
  }

  /** Asks, and expects a refusal: `status code`. */
  async refusal(method: string, target: string, body?: unknown, headers?: Record<string, string>): Promise<string> {
    const answer = await this.ask<ApiFailure>(method, target, body, headers);
    return `${answer.status} ${answer.body.code}`;
  }

  /** Creates a domain, and expects success. */
  async create(guest: keyof typeof guestTexts, more: Readonly<Record<string, unknown>> = {}): Promise<DomainView> {
    const { status, body } = await this.ask("POST", "/v1/domains", { config: await this.config(guest, more) });
    assert.equal(status, 201, JSON.stringify(body));
    return body;
  }

  /** Names of the domains, dom0 excluded. */
  async names(): Promise<string[]> {
    const { domains } = await this.get<{ domains: DomainView[] }>("/v1/domains");
    return domains.slice(1).map(({ name }) => name);
  }

  /** All that is printed on a console, once `isEnough`. */
  async consoleText(domain: string, isEnough: (text: string) => boolean): Promise<string> {
    for (;;) {
      const response = await this.service.request(`/v1/domains/${domain}/console`);
      const text = await response.text();
      // Between two runs of a domain there is none of its name.
      if (response.status === 200 && isEnough(text)) return text;
      await delay(5);
    }
  }

  /** What happens, from now on. */
  async events(): Promise<AsyncGenerator<ServiceEvent, void, undefined>> {
    const response = await this.service.request("/v1/events");
    return readEvents(response.body!);
  }

  /** Audits, closes, and returns what the auditor found. */
  async close(): Promise<readonly string[]> {
    const { body } = await this.ask<{ findings: string[] }>("POST", "/v1/audit", {});
    await this.service.close();
    return body.findings;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.service.close();
    this.bench[Symbol.dispose]();
  }
}

/** Events in a stream, parsed. */
export async function* readEvents(stream: ReadableStream<Uint8Array>): AsyncGenerator<ServiceEvent, void, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n\n");
    rest = parts.pop()!;
    for (const part of parts) yield JSON.parse(/^data: (.*)$/m.exec(part)![1]!) as ServiceEvent;
  }
}

/** Waits for an event of this type and name; fails when the stream ends before. */
export const eventOf = async (
  events: AsyncGenerator<ServiceEvent, void, undefined>,
  type: ServiceEvent["type"],
  name?: string,
): Promise<ServiceEvent> => {
  for (;;) {
    const { value, done } = await events.next();
    if (done === true) throw new Error(`the events ended before ${type} ${name ?? ""}`);
    if (value.type === type && (name === undefined || value.name === name)) return value;
  }
};
