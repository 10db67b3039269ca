import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { after, afterEach, before, describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { DefinitionView, DomainView } from "../src/daemon/api-types.ts";
import { eventOf, ServiceBench } from "./service-harness.ts";

let bench: ServiceBench;
before(async () => {
  bench = await ServiceBench.open();
});
afterEach(async () => {
  for (const name of await bench.names()) await bench.ask("DELETE", `/v1/domains/${name}`);
  const { definitions } = await bench.get<{ definitions: DefinitionView[] }>("/v1/definitions");
  for (const { name } of definitions) await bench.ask("DELETE", `/v1/definitions/${name}`);
});
after(async () => {
  const findings = await bench.close();
  await bench[Symbol.asyncDispose]();
  assert.deepEqual(findings, []);
});

describe("the service: domains", () => {
  it("a domain that was created is found by name and by domid, and its figures are the hypervisor's", async () => {
    const created = await bench.create("idle", { memory: 2, vcpus: 2 });
    const byName = await bench.get("/v1/domains/idle");
    const byDomid = await bench.get(`/v1/domains/${created.domid}`);
    assert.equal(byName.generation, created.generation);
    assert.equal(byDomid.name, "idle");
    assert.equal(byName.memory.maxBytes, 2 * 2 ** 20);
    assert.ok(byName.memory.currentBytes > 0 && byName.memory.currentBytes <= byName.memory.maxBytes);
    assert.equal(byName.vcpus, 2);
  });
  it("dom0 is listed first, as Domain-0", async () => {
    const { domains } = await bench.get<{ domains: DomainView[] }>("/v1/domains");
    assert.deepEqual([domains[0]!.domid, domains[0]!.name], [0, "Domain-0"]);
    assert.equal((await bench.get("/v1/domains/0")).name, "Domain-0");
  });
  it("a second domain of the same name is refused", async () => {
    await bench.create("idle");
    assert.equal(
      await bench.refusal("POST", "/v1/domains", { config: await bench.config("idle") }),
      "409 DOMAIN_EXISTS",
    );
  });
  it("of two requests for the same name at once, one wins", async () => {
    const config = await bench.config("idle");
    const both = await Promise.all([1, 2].map(() => bench.ask("POST", "/v1/domains", { config })));
    assert.deepEqual(
      both.map(({ status }) => status).toSorted((a, b) => a - b),
      [201, 409],
    );
  });
  it("a domain that is created paused begins when it is unpaused", async () => {
    const config = await bench.config("greet", { on_poweroff: "preserve" });
    const { body } = await bench.ask("POST", "/v1/domains", { config, paused: true });
    assert.equal(body.state.paused, true);
    assert.equal((await bench.ask("POST", "/v1/domains/greet/unpause")).status, 200);
    assert.equal(await bench.consoleText("greet", (text) => text !== ""), "hello\n");
  });
  it("a domain that is paused before it is ready has been created", async () => {
    const config = await bench.config("slowReactor", { name: "slow" });
    const created = bench.ask("POST", "/v1/domains", { config });
    while ((await bench.ask("POST", "/v1/domains/slow/pause")).status !== 200) await nextTurn();
    const { status, body } = await created;
    assert.deepEqual([status, body.state.paused], [201, true]);
    assert.equal((await bench.ask("DELETE", "/v1/domains/slow")).status, 204);
  });
  it("a domain is paused and goes on", async () => {
    await bench.create("idle");
    assert.equal((await bench.ask("POST", "/v1/domains/idle/pause")).body.state.paused, true);
    assert.equal((await bench.ask("POST", "/v1/domains/idle/pause")).body.state.paused, true);
    assert.equal((await bench.ask("POST", "/v1/domains/idle/unpause")).body.state.paused, false);
  });
  it("a domain that was destroyed is gone, and so is the definition that came with it", async () => {
    await bench.create("idle");
    assert.equal((await bench.ask("DELETE", "/v1/domains/idle")).status, 204);
    assert.equal(await bench.refusal("GET", "/v1/domains/idle"), "404 DOMAIN_NOT_FOUND");
    assert.equal(await bench.refusal("GET", "/v1/definitions/idle"), "404 DEFINITION_NOT_FOUND");
  });
  it("a creation that fails leaves no definition behind", async () => {
    const config = { ...(await bench.config("idle")), memory: 4096 };
    assert.match(await bench.refusal("POST", "/v1/domains", { config }), /^(400 INVALID_SIZE|507 MEMORY_EXHAUSTED)$/);
    assert.equal(await bench.refusal("GET", "/v1/definitions/idle"), "404 DEFINITION_NOT_FOUND");
  });
  it("a creation that fails takes back its own definition, not what was kept under that name meanwhile", async () => {
    const config = await bench.config("idle");
    const broken = { ...config, kernel: await bench.bench.image("broken.wasm", '(module (import "none" "f" (func)))') };
    const creation = bench.ask("POST", "/v1/domains", { config: broken });
    while ((await bench.ask("GET", "/v1/definitions/idle")).status !== 200) await nextTurn();
    assert.equal((await bench.ask("PUT", "/v1/definitions/idle", { config })).status, 200);
    assert.equal((await creation).status, 400);
    assert.deepEqual((await bench.get<DefinitionView>("/v1/definitions/idle")).config, config);
  });
  it("a renamed domain is found by its new name only, and its definition too", async () => {
    await bench.create("idle");
    assert.equal((await bench.ask("POST", "/v1/domains/idle/rename", { name: "calm" })).body.name, "calm");
    assert.equal(await bench.refusal("GET", "/v1/domains/idle"), "404 DOMAIN_NOT_FOUND");
    assert.equal((await bench.get<DefinitionView>("/v1/definitions/calm")).config.name, "calm");
  });
  it("a name that is taken, or is no name, is refused", async () => {
    await bench.create("idle");
    await bench.create("echo");
    assert.equal(await bench.refusal("POST", "/v1/domains/idle/rename", { name: "echo" }), "409 DOMAIN_EXISTS");
    assert.equal(await bench.refusal("POST", "/v1/domains/idle/rename", { name: "a/b" }), "400 CONFIG_INVALID");
    assert.deepEqual(await bench.names(), ["idle", "echo"]);
  });
  it("dom0 cannot be destroyed", async () => {
    assert.equal(await bench.refusal("DELETE", "/v1/domains/0"), "409 DOMAIN_STATE");
  });
});

describe("the service: the end of a domain", () => {
  it("destroy: a domain whose program ends is gone with its definition", async () => {
    const events = await bench.events();
    await bench.create("poweroff");
    await eventOf(events, "domain-destroyed", "poweroff");
    assert.deepEqual(await bench.names(), []);
  });
  it("preserve: a crashed domain stays to be looked at, and says why", async () => {
    const events = await bench.events();
    await bench.create("crash", { on_crash: "preserve" });
    await eventOf(events, "domain-ended", "crash");
    const { state, exit } = await bench.get("/v1/domains/crash");
    assert.deepEqual([state.crashed, state.shutdown, exit?.crashed], [true, false, true]);
    assert.match(exit!.where!, /xen_start|wasm-function/);
  });
  it("restart: a domain that reboots comes back with its name and its console", async () => {
    const events = await bench.events();
    const { generation } = await bench.create("greet", { on_poweroff: "restart" });
    await eventOf(events, "domain-restarted", "greet");
    await eventOf(events, "domain-created", "greet");
    const again = await bench.get("/v1/domains/greet").catch(() => undefined);
    assert.ok(again === undefined || again.generation > generation);
    assert.match(await bench.consoleText("greet", (text) => text.length >= 12), /^(hello\n){2,}$/);
  });
  it("rename-restart: the crashed domain stays under another name and a new one starts", async () => {
    const events = await bench.events();
    const { generation } = await bench.create("crash", { on_crash: "rename-restart" });
    assert.equal((await eventOf(events, "domain-renamed")).name, `crash-${generation}`);
    await eventOf(events, "domain-created", "crash");
    assert.ok((await bench.names()).includes(`crash-${generation}`));
  });
  it("a reactor that crashes while it is initialised was created, and its on_crash follows", async () => {
    const events = await bench.events();
    await bench.create("brokenReactor", { on_crash: "restart" });
    await eventOf(events, "domain-restarted", "brokenReactor");
    await eventOf(events, "domain-restarted", "brokenReactor");
    await bench.ask("DELETE", "/v1/domains/brokenReactor");
  });
  it("a domain that never ran can be shut down", async () => {
    const events = await bench.events();
    const config = await bench.config("idle");
    await bench.ask("POST", "/v1/domains", { config, paused: true });
    assert.equal((await bench.ask("POST", "/v1/domains/idle/shutdown")).status, 200);
    await eventOf(events, "domain-destroyed", "idle");
  });
  it("a definition whose module is gone is tried again later, and can be given up", async () => {
    const events = await bench.events();
    const kernel = bench.bench.file("gone.wasm", readFileSync(String((await bench.config("idle"))["kernel"])));
    await bench.create("idle", { kernel });
    rmSync(kernel);
    await bench.ask("POST", "/v1/domains/idle/reboot", { force: true });
    assert.match((await eventOf(events, "domain-failed", "idle")).reason!, /gone\.wasm/);
    assert.equal((await bench.ask("DELETE", "/v1/domains/idle")).status, 204);
  });
  it("coredump-restart is refused when the domain is created", async () => {
    const config = await bench.config("crash", { on_crash: "coredump-restart" });
    assert.equal(await bench.refusal("POST", "/v1/domains", { config }), "400 CONFIG_INVALID");
  });
  it("the second restart of a loop of crashes waits, and destroying the domain gives it up", async () => {
    const events = await bench.events();
    await bench.create("crash", { on_crash: "restart" });
    await eventOf(events, "domain-restarted", "crash");
    await eventOf(events, "domain-restarted", "crash");
    assert.equal(await bench.refusal("GET", "/v1/domains/crash"), "404 DOMAIN_NOT_FOUND");
    assert.equal(await bench.refusal("POST", "/v1/domains", { definition: "crash" }), "409 DOMAIN_EXISTS");
    assert.ok((await bench.get<DefinitionView>("/v1/definitions/crash")).restartAtMs! > Date.now() - 60_000);
    assert.equal((await bench.ask("DELETE", "/v1/domains/crash")).status, 204);
    assert.equal(await bench.refusal("GET", "/v1/definitions/crash"), "404 DEFINITION_NOT_FOUND");
  });
  it("reboot with force: on_reboot decides", async () => {
    const events = await bench.events();
    await bench.create("idle");
    assert.equal((await bench.ask("POST", "/v1/domains/idle/reboot", { force: true })).status, 200);
    assert.equal((await eventOf(events, "domain-ended", "idle")).reason, "reboot");
    await eventOf(events, "domain-created", "idle");
    assert.equal((await bench.get("/v1/domains/idle")).restarts, 1);
  });
  it("a Xen-style guest is asked to shut down, and may take its time", async () => {
    await bench.create("idle");
    const { body } = await bench.ask("POST", "/v1/domains/idle/shutdown");
    assert.equal(body.exit, undefined);
  });
  it("a WASI command is stopped, for it cannot be asked", async () => {
    const events = await bench.events();
    await bench.create("spin");
    assert.equal((await bench.ask("POST", "/v1/domains/spin/shutdown")).status, 200);
    assert.equal((await eventOf(events, "domain-ended", "spin")).reason, "poweroff");
  });
});

describe("the service: consoles", () => {
  it("what is typed reaches the guest, and what it prints is on the console", async () => {
    await bench.create("echo");
    assert.equal((await bench.ask("POST", "/v1/domains/echo/console", Buffer.from("ping\n"))).status, 204);
    assert.equal(await bench.consoleText("echo", (text) => text !== ""), "ping\n");
  });
  it("a follower gets what was printed and what comes, and ends when the domain is gone", async () => {
    await bench.create("echo");
    const response = await bench.service.request("/v1/domains/echo/console?follow=1");
    await bench.ask("POST", "/v1/domains/echo/console", Buffer.from("one\n"));
    const reader = response.body!.getReader();
    assert.equal(new TextDecoder().decode((await reader.read()).value), "one\n");
    await bench.ask("DELETE", "/v1/domains/echo");
    assert.equal((await reader.read()).done, true);
  });
  it("input that a guest does not read is refused beyond 64 KiB", async () => {
    await bench.create("spin");
    const piece = Buffer.alloc(32 * 1024, "x");
    const statuses: number[] = [];
    for (let count = 0; count < 8; count += 1) {
      statuses.push((await bench.ask("POST", "/v1/domains/spin/console", piece)).status);
    }
    assert.equal(statuses[0], 204);
    assert.equal(statuses.at(-1), 503);
  });
});
