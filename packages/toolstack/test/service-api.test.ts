import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import * as v from "valibot";
import type { ApiFailure, AuditView, DmesgView, DomainView, NodesView } from "../src/daemon/api-types.ts";
import { openApiDocument, pathOf } from "../src/daemon/openapi.ts";
import type { Route } from "../src/daemon/router.ts";
import { domainRoutes } from "../src/daemon/routes-domains.ts";
import { definitionRoutes, nodeRoutes, serviceRoutes, toolRoutes } from "../src/daemon/routes-service.ts";
import * as schemas from "../src/daemon/schemas.ts";
import type { ServiceParts } from "../src/daemon/service-parts.ts";
import { type Answered, eventOf, ServiceBench } from "./service-harness.ts";

let bench: ServiceBench;
before(async () => {
  bench = await ServiceBench.open();
});
after(async () => {
  const findings = await bench.close();
  await bench[Symbol.asyncDispose]();
  assert.deepEqual(findings, []);
});

interface Document {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, { responses: Readonly<Record<string, unknown>> }>>>>;
}

/** The routes as data: none of them is run, so none needs the parts. */
const allRoutes = (): readonly Route[] => {
  const parts = {} as ServiceParts;
  const routes = [...domainRoutes(parts), ...definitionRoutes(parts), ...nodeRoutes(parts), ...serviceRoutes(parts)];
  return [...routes, ...toolRoutes(parts, routes)];
};

describe("the service's API: its description", () => {
  it("the OpenAPI document names each route with its method, and no other", async () => {
    const document = await bench.get<Document>("/openapi.json");
    const described = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const routed = allRoutes().map((route) => `${route.method} ${pathOf(route)}`);
    assert.deepEqual(described.toSorted(), routed.toSorted());
    assert.deepEqual(document, JSON.parse(JSON.stringify(openApiDocument(allRoutes()))));
    assert.match(document.openapi, /^3\.1\./);
  });
  it("each route that is described is there: no request to it is answered with ROUTE_NOT_FOUND", async () => {
    for (const route of allRoutes()) {
      const target = route.path.replace(/:\w+/g, "nothing");
      if (target === "/v1/events") continue;
      const response = await bench.service.request(target, { method: route.method });
      const text = await response.text();
      assert.doesNotMatch(text, /ROUTE_NOT_FOUND/, `${route.method} ${target}`);
    }
  });
  it("each answer has the form that the document describes", async () => {
    await bench.create("idle", { seclabel: "quiet" });
    await bench.create("crash", { on_crash: "preserve" });
    while ((await bench.get("/v1/domains/crash")).exit === undefined) await delay(5);
    const forms: readonly (readonly [string, v.GenericSchema])[] = [
      ["/v1/domains", schemas.DomainsView],
      ["/v1/domains/0", schemas.DomainView],
      ["/v1/domains/crash", schemas.DomainView],
      ["/v1/domains/idle/vcpus", schemas.VcpusView],
      ["/v1/domains/0/vcpus", schemas.VcpusView],
      ["/v1/definitions", schemas.DefinitionsView],
      ["/v1/definitions/idle", schemas.DefinitionView],
      ["/v1/xenstore", schemas.NodesView],
      ["/v1/host", schemas.HostView],
      ["/v1/claims", schemas.ClaimsView],
      ["/v1/secrets", schemas.SecretsView],
      ["/v1/dmesg", schemas.DmesgView],
      ["/healthz", schemas.HealthView],
    ];
    for (const [target, form] of forms) {
      const result = v.safeParse(form, await bench.get(target));
      assert.ok(result.success, `${target}: ${JSON.stringify(v.flatten(result.issues ?? ([] as never)))}`);
    }
    for (const name of ["idle", "crash"]) await bench.ask("DELETE", `/v1/domains/${name}`);
  });
});

describe("the service's API: two administrators at once", () => {
  it("of two changes that saw the same revision of a domain, the second is refused", async () => {
    const { revision } = await bench.create("idle");
    const seen = { "if-match": `"${revision}"` };
    assert.equal((await bench.ask("POST", "/v1/domains/idle/pause", undefined, seen)).status, 200);
    assert.equal(await bench.refusal("POST", "/v1/domains/idle/unpause", undefined, seen), "412 CONFLICT");
    const { headers } = await bench.ask("GET", "/v1/domains/idle");
    const now = { "if-match": headers.get("etag")! };
    assert.equal((await bench.ask("DELETE", "/v1/domains/idle", undefined, now)).status, 204);
  });
  it("of two updates that saw the same revision of a definition, the second is refused and changes nothing", async () => {
    const config = await bench.config("idle");
    const target = "/v1/definitions/idle";
    const { body } = await bench.ask<{ revision: string }>("PUT", target, { config });
    const seen = { "if-match": `"${body.revision}"` };
    assert.equal((await bench.ask("PATCH", target, { config: { memory: 2 } }, seen)).status, 200);
    assert.equal(await bench.refusal("PATCH", target, { config: { memory: 3 } }, seen), "412 CONFLICT");
    assert.equal((await bench.get<{ config: { memory: number } }>(target)).config.memory, 2);
    assert.equal((await bench.ask("DELETE", target)).status, 204);
  });
  it("without If-Match the last one wins", async () => {
    await bench.create("idle");
    assert.equal((await bench.ask("POST", "/v1/domains/idle/pause")).status, 200);
    assert.equal((await bench.ask("POST", "/v1/domains/idle/unpause")).status, 200);
    await bench.ask("DELETE", "/v1/domains/idle");
  });
});

describe("the service's API: definitions", () => {
  it("an update replaces keys, null takes one away, and both hold from the next start on", async () => {
    await bench.create("idle", { memory: 2, weight: 100 });
    const { body } = await bench.ask<{ config: object }>("PATCH", "/v1/definitions/idle", {
      config: { memory: 4, weight: null },
    });
    assert.deepEqual(Object.keys(body.config).toSorted(), ["kernel", "memory", "name"]);
    assert.equal((await bench.get("/v1/domains/idle")).memory.maxBytes, 2 * 2 ** 20);
    const events = await bench.events();
    await bench.ask("POST", "/v1/domains/idle/reboot", { force: true });
    await eventOf(events, "domain-created", "idle");
    assert.equal((await bench.get("/v1/domains/idle")).memory.maxBytes, 4 * 2 ** 20);
    await bench.ask("DELETE", "/v1/domains/idle");
  });
  it("a configuration with an unknown key, a relative path or another name than the path is refused", async () => {
    const config = await bench.config("idle");
    const put = (more: object): Promise<string> =>
      bench.refusal("PUT", "/v1/definitions/idle", { config: { ...config, ...more } });
    assert.equal(await put({ memroy: 1 }), "400 CONFIG_INVALID");
    assert.equal(await put({ kernel: "idle.wasm" }), "400 CONFIG_INVALID");
    assert.equal(await put({ directories: ["data::/data"] }), "400 CONFIG_INVALID");
    assert.equal(await put({ name: "other" }), "400 REQUEST_INVALID");
    assert.equal(await bench.refusal("GET", "/v1/definitions/idle"), "404 DEFINITION_NOT_FOUND");
  });
  it("a definition that was put lasts: destroying its domain leaves it", async () => {
    const config = await bench.config("idle");
    await bench.ask("PUT", "/v1/definitions/idle", { config });
    assert.equal((await bench.ask("POST", "/v1/domains", { definition: "idle" })).status, 201);
    await bench.ask("DELETE", "/v1/domains/idle");
    assert.equal((await bench.ask("GET", "/v1/definitions/idle")).status, 200);
    await bench.ask("DELETE", "/v1/definitions/idle");
  });
});

describe("the service's API: nodes of xenstore that last", () => {
  it("a node that was put is in xenstore, and still is when the service has started again", async () => {
    const target = "/v1/xenstore/tool/backup/last-run";
    assert.equal((await bench.ask("PUT", target, Buffer.from([0x32, 0x30, 0xff]))).status, 204);
    await bench.service.close();
    await bench.start();
    const { nodes } = await bench.get<NodesView>("/v1/xenstore");
    assert.deepEqual(nodes, [{ path: "/tool/backup/last-run", base64: "MjD/" }]);
    assert.deepEqual(await bench.readXenstore("/tool/backup/last-run"), Buffer.from([0x32, 0x30, 0xff]));
    assert.equal((await bench.ask("DELETE", target)).status, 204);
    assert.equal(await bench.readXenstore("/tool/backup/last-run"), undefined);
    assert.deepEqual((await bench.get<NodesView>("/v1/xenstore")).nodes, []);
  });
  it("homes of domains, other roots, odd names and large values are refused", async () => {
    const put = (path: string, bytes = 1): Promise<string> =>
      bench.refusal("PUT", `/v1/xenstore${path}`, Buffer.alloc(bytes));
    for (const path of ["/local/domain/1/name", "/vm/x", "/tool", "/tool/", "/tool//a", "/tool/a.b", "/tool/%00"])
      assert.match(await put(path), /^400 REQUEST_INVALID$|^404 ROUTE_NOT_FOUND$/, path);
    assert.equal(await put("/tool/a", 4096), "413 REQUEST_TOO_LARGE");
    assert.deepEqual((await bench.get<NodesView>("/v1/xenstore")).nodes, []);
    assert.equal(await bench.refusal("DELETE", "/v1/xenstore/tool/a"), "400 REQUEST_INVALID");
  });
  it("a node that others stand below is kept until those are forgotten", async () => {
    for (const path of ["/tool/a", "/tool/a/b"]) await bench.ask("PUT", `/v1/xenstore${path}`, Buffer.from("x"));
    assert.equal(await bench.refusal("DELETE", "/v1/xenstore/tool/a"), "400 REQUEST_INVALID");
    for (const path of ["/tool/a/b", "/tool/a"])
      assert.equal((await bench.ask("DELETE", `/v1/xenstore${path}`)).status, 204);
  });
});

describe("the service's API: metrics", () => {
  it("has the names that dashboards look for, and a sample for each domain", async () => {
    await bench.create("idle");
    const response = await bench.service.request("/metrics");
    const text = await response.text();
    const names = new Set([...text.matchAll(/^# TYPE (\S+) (\w+)$/gm)].map(([, name, type]) => `${name} ${type}`));
    for (const expected of [
      "process_cpu_seconds_total counter",
      "process_resident_memory_bytes gauge",
      "nodejs_eventloop_lag_seconds gauge",
      "http_requests_total counter",
      "http_request_duration_seconds histogram",
      "xenolith_build_info gauge",
      "xenolith_host_memory_free_bytes gauge",
      "xenolith_domain_memory_bytes gauge",
      "xenolith_domain_memory_max_bytes gauge",
      "xenolith_domain_cpu_seconds_total counter",
      "xenolith_domain_state gauge",
    ])
      assert.ok(names.has(expected), expected);
    assert.match(text, /^xenolith_domain_memory_max_bytes\{domid="\d+",name="idle"\} 1048576$/m);
    assert.match(text, /^xenolith_domain_state\{domid="0",name="Domain-0",state="running"\} 1$/m);
    await bench.ask("DELETE", "/v1/domains/idle");
    assert.doesNotMatch(await (await bench.service.request("/metrics")).text(), /xenolith_domain_.*name="idle"/);
  });
});

describe("the service's API: memory", () => {
  it("a target is within what the maximum allows, and null leaves it to the manager again", async () => {
    await bench.create("idle", { memory: 2, maxmem: 4 });
    const put = (what: string, mib: number | null): Promise<Answered<DomainView>> =>
      bench.ask("PUT", `/v1/domains/idle/memory/${what}`, { bytes: mib === null ? null : mib * 2 ** 20 });
    const { body: raised } = await put("target", 3);
    assert.deepEqual([raised.memory.balloon?.isPinned, raised.memory.maxBytes], [true, 3 * 2 ** 20]);
    assert.equal((await put("target", 5)).status, 400);
    assert.equal((await put("max", 6)).status, 200);
    assert.equal((await put("target", 5)).status, 200);
    const { body: freed } = await put("target", null);
    assert.deepEqual([freed.memory.balloon?.isPinned, freed.memory.maxBytes], [false, 2 * 2 ** 20]);
    await bench.ask("DELETE", "/v1/domains/idle");
  });
  it("of 300 targets that come at once the last one holds", async () => {
    await bench.create("idle", { memory: 2, maxmem: 8 });
    const target = "/v1/domains/idle/memory/target";
    const sizes = Array.from({ length: 300 }, (_, index) => (2 + (index % 6)) * 2 ** 20);
    const answers = await Promise.all(sizes.map((bytes) => bench.ask("PUT", target, { bytes })));
    assert.ok(answers.every(({ status }) => status === 200));
    assert.equal((await bench.get("/v1/domains/idle")).memory.maxBytes, sizes.at(-1));
    await bench.ask("DELETE", "/v1/domains/idle");
  });
  it("a domain that cannot fit is refused with the numbers", async () => {
    const config = await bench.config("idle", { memory: 100, memory_min: 100 });
    const { status, body } = await bench.ask<ApiFailure>("POST", "/v1/domains", { config });
    assert.match(`${status} ${body.code}`, /^(507 MEMORY_EXHAUSTED|400 INVALID_SIZE)$/);
    assert.match(body.message, /\d+ bytes.*\d+/);
  });
});

describe("the service's API: the audit", () => {
  it("finds nothing while domains run, and leaves them as they were", async () => {
    for (const guest of ["idle", "echo", "spin"] as const) await bench.create(guest);
    await bench.ask("POST", "/v1/domains/echo/pause");
    for (let count = 0; count < 5; count += 1) {
      const { body } = await bench.ask<AuditView>("POST", "/v1/audit", {});
      assert.deepEqual(body.findings, []);
      const { machineBytes, freeBytes, hypervisorBytes, domainBytes } = body.memory;
      assert.equal(machineBytes, 64 * 2 ** 20);
      assert.equal(freeBytes + hypervisorBytes + domainBytes, machineBytes);
    }
    const paused = await Promise.all(
      ["idle", "echo", "spin"].map(async (name) => (await bench.get(`/v1/domains/${name}`)).state.paused),
    );
    assert.deepEqual(paused, [false, true, false]);
    for (const name of ["idle", "echo", "spin"]) await bench.ask("DELETE", `/v1/domains/${name}`);
  });
});

describe("the service's API: the hypervisor's messages", () => {
  it("tell of some refusals of a guest by name, and how many more there were; a guest that is never refused has none", async () => {
    const { domid } = await bench.create("denied");
    const other = await bench.create("idle");
    while ((await bench.get("/v1/domains/denied")).hypercallsDenied < 100) await delay(5);
    const texts = (await bench.get<DmesgView>("/v1/dmesg")).lines.map(({ text }) => text);
    for (const name of ["denied", "idle"]) await bench.ask("DELETE", `/v1/domains/${name}`);
    const about = (id: number): string[] => texts.filter((text) => text.startsWith(`hypervisor: domain ${id} `));
    const refusals = about(domid).filter((text) => text.endsWith("was denied XENMEM_claim_pages"));
    const more = about(domid).map((text) => Number(/caused (\d+) more notes/.exec(text)?.[1] ?? 0));
    assert.ok(refusals.length > 0 && refusals.length < 100, `${refusals.length} of 100 refusals are told one by one`);
    assert.equal(refusals.length + more.reduce((sum, count) => sum + count, 0), 100);
    assert.deepEqual(about(other.domid), []);
  });
});

describe("the service's API: bad sizes", () => {
  for (const bytes of [-1, 0, 0.5, 4096.5, 2 ** 53, 1e300, 2 ** 40]) {
    it(`a limit of ${bytes} bytes is refused, and the limit stays`, async () => {
      await bench.create("idle");
      const before = (await bench.get("/v1/domains/idle")).memory.maxBytes;
      const refusal = await bench.refusal("PUT", "/v1/domains/idle/memory/max", { bytes });
      const after = (await bench.get("/v1/domains/idle")).memory.maxBytes;
      await bench.ask("DELETE", "/v1/domains/idle");
      assert.equal(refusal, "400 INVALID_SIZE");
      assert.equal(after, before);
    });
  }
  for (const body of [{ bytes: "64" }, { bytes: null }, {}, { bytes: 4096, more: 1 }, [], 5, null]) {
    it(`a limit of ${JSON.stringify(body)} is no request`, async () => {
      assert.equal(await bench.refusal("PUT", "/v1/domains/idle/memory/max", body), "400 REQUEST_INVALID");
    });
  }
});
