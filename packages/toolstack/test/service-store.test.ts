import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { DefinitionsView, DomainsView } from "../src/daemon/api-types.ts";
import { openStore } from "../src/daemon/store.ts";
import { guestTexts } from "./service-harness.ts";
import { ServiceProcess } from "./service-process.ts";
import { Workbench } from "./xl-harness.ts";

const KILL_COUNT = 8;
const NAMES = ["a", "b", "c", "d", "e", "f"];

/** A generator of numbers in [0, 1) that a seed repeats. */
const randomFrom = (seed: number): (() => number) => {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
};

/** What a name may hold after a kill: the last acknowledged weight, and that of a change that was under way. */
type Possible = Map<string, readonly (number | undefined)[]>;

/** Changes definitions until the service is gone. */
const changeUntilGone = async (service: ServiceProcess, possible: Possible, random: () => number): Promise<number> => {
  let acknowledged = 0;
  const changeOne = async (name: string): Promise<void> => {
    const target = `/v1/definitions/${name}`;
    const isRemoval = random() < 0.2;
    const weight = isRemoval ? undefined : 1 + Math.floor(random() * 60_000);
    const [before] = possible.get(name) ?? [undefined];
    possible.set(name, [before, weight]);
    const body = isRemoval ? undefined : { config: { name, kernel: "/nowhere.wasm", weight } };
    const { status } = await service.ask(isRemoval ? "DELETE" : "PUT", target, body);
    assert.ok([200, 204, 404].includes(status), String(status));
    possible.set(name, [weight]);
    acknowledged += 1;
  };
  const worker = async (name: string): Promise<void> => {
    for (;;) await changeOne(name);
  };
  await Promise.all(
    NAMES.map((name) =>
      worker(name).catch((error: unknown) => {
        if (error instanceof assert.AssertionError) throw error;
      }),
    ),
  );
  return acknowledged;
};

const weights = async (service: ServiceProcess): Promise<Map<string, number>> => {
  const { text } = await service.ask("GET", "/v1/definitions");
  const { definitions } = JSON.parse(text) as DefinitionsView;
  return new Map(definitions.map(({ name, config }) => [name, config.weight!]));
};

describe("the service's state", () => {
  it("kill -9 at any instant loses no acknowledged change", async () => {
    const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
    console.log(`seed ${seed} (SEED=${seed} repeats it)`);
    const random = randomFrom(seed);
    using bench = new Workbench();
    const possible: Possible = new Map();
    let acknowledged = 0;
    for (let round = 0; round < KILL_COUNT; round += 1) {
      await using service = await ServiceProcess.start(bench);
      assert.equal(service.firstLine, "ready");
      const found = await weights(service);
      for (const [name, options] of possible) {
        assert.ok(options.includes(found.get(name)), `${name} is ${found.get(name)}, not one of ${options.join(", ")}`);
        possible.set(name, [found.get(name)]);
      }
      const changes = changeUntilGone(service, possible, random);
      await delay(random() * 120);
      await service.end("SIGKILL");
      acknowledged += await changes;
    }
    assert.ok(acknowledged > 0, "nothing was acknowledged: the test proved nothing");
  });

  it("after kill -9 the domains marked autostart come back, and others are definitions only", async () => {
    using bench = new Workbench();
    const kernel = await bench.image("idle.wasm", guestTexts.idle);
    {
      await using service = await ServiceProcess.start(bench);
      for (const [name, autostart] of [
        ["one", true],
        ["two", false],
      ] as const) {
        const { status, text } = await service.ask("POST", "/v1/domains", {
          config: { name, kernel, memory: 1, autostart },
        });
        assert.equal(status, 201, text);
      }
    }
    await using service = await ServiceProcess.start(bench);
    const names = async (): Promise<string[]> => {
      const { text } = await service.ask("GET", "/v1/domains");
      return (JSON.parse(text) as DomainsView).domains.map(({ name }) => name);
    };
    while ((await names()).length < 2) await delay(10);
    assert.deepEqual(await names(), ["Domain-0", "one"]);
    assert.deepEqual([...(await weights(service)).keys()], ["one", "two"]);
  });

  it("holds configurations and no figure of the hypervisor's: max_pages, tot_pages and claims are kept by it alone", async () => {
    using bench = new Workbench();
    const kernel = await bench.image("idle.wasm", guestTexts.idle);
    const config = { name: "only", kernel, memory: 3, maxmem: 5 };
    {
      await using service = await ServiceProcess.start(bench);
      const created = await service.ask("POST", "/v1/domains", { config });
      assert.equal(created.status, 201, created.text);
      const changed = await service.ask("PUT", "/v1/domains/only/memory/max", { bytes: 4_321 * 4096 });
      assert.equal(changed.status, 200, changed.text);
      assert.equal(JSON.parse(changed.text).memory.balloon.maxBytes, 4_321 * 4096);
      const stateBytes = readdirSync(service.stateDirectory)
        .map((file) => readFileSync(path.join(service.stateDirectory, file), "latin1"))
        .join("");
      assert.match(stateBytes, /"memory":3/, "the state is not where the test looks");
      assert.doesNotMatch(stateBytes, /max_?pages|tot_?pages|claim|maxBytes|currentBytes|memoryBytes|4321|17698816/i);
    }
    const store = openStore(path.join(bench.directory, "state"));
    const stored = store.definitions();
    await store.close();
    assert.deepEqual(stored, [{ name: "only", revision: 1, isTransient: true, config }]);
  });

  it("belongs to one service: a second one is refused, and takes over when the first was killed", async () => {
    using bench = new Workbench();
    await using first = await ServiceProcess.start(bench);
    await using second = await ServiceProcess.start(bench);
    assert.match(second.firstLine, /^SERVICE_RUNNING .*process \d+ uses the state/);
    await first.end("SIGKILL");
    await using third = await ServiceProcess.start(bench);
    assert.equal(third.firstLine, "ready");
  });

  it("a full disk is refused with the reason, the state stays, and changes work again when there is room", async () => {
    using bench = new Workbench();
    await using service = await ServiceProcess.start(bench);
    assert.equal(service.firstLine, "ready");
    // The file size limit makes the kernel refuse to extend the file, as a full disk does.
    execFileSync("prlimit", [`--pid=${service.child.pid}`, `--fsize=${256 * 1024}`]);
    const filler = "x".repeat(4000);
    const put = (name: string): ReturnType<ServiceProcess["ask"]> =>
      service.ask("PUT", `/v1/definitions/${name}`, {
        config: { name, kernel: "/nowhere.wasm", args: [filler, filler, filler, filler] },
      });
    const kept: string[] = [];
    let refusal = "";
    for (let index = 0; refusal === ""; index += 1) {
      const { status, text } = await put(`n${index}`);
      if (status === 200) kept.push(`n${index}`);
      else refusal = `${status} ${JSON.parse(text).code}`;
      assert.ok(index < 1000, "the limit was never met");
    }
    assert.equal(refusal, "507 STORE_FAILED");
    assert.equal((await service.ask("GET", "/healthz")).status, 503);
    assert.deepEqual([...(await weights(service)).keys()].toSorted(), kept.toSorted());
    assert.equal((await service.ask("DELETE", `/v1/definitions/${kept[0]}`)).status, 204);
    assert.equal((await service.ask("GET", "/healthz")).status, 200);
  });
});
