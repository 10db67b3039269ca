/**
 * The routes about the host, definitions and the service itself.
 */
import { XenolithError } from "@xenolith/abi";
import type { DefinitionView, ServiceEvent } from "./api-types.ts";
import { openApiDocument } from "./openapi.ts";
import { streamOf } from "./reader-stream.ts";
import { jsonRoute, type Route } from "./router.ts";
import * as schemas from "./schemas.ts";
import { secretsView } from "./secrets-view.ts";
import type { ServiceParts } from "./service-parts.ts";
import type { Definition } from "./store.ts";
import { claimsView, hostView } from "./views.ts";

/** Routes below `/v1/definitions`. */
export const definitionRoutes = (parts: ServiceParts): readonly Route[] => [
  {
    method: "GET",
    path: "/v1/definitions",
    summary: "All definitions, by name",
    answer: schemas.DefinitionsView,
    run: () => ({ definitions: parts.definitions.list().map((each) => definitionView(parts, each)) }),
  },
  {
    method: "GET",
    path: "/v1/definitions/:name",
    summary: "What a domain is made from",
    answer: schemas.DefinitionView,
    run: (call) => definitionView(parts, parts.definitions.get(call.param("name"))),
  },
  jsonRoute({
    method: "PUT",
    path: "/v1/definitions/:name",
    summary: "Keeps a definition, to be started by request or, with autostart, with the service",
    request: schemas.ConfigRequest,
    answer: schemas.DefinitionView,
    run: ({ body: { config }, param, expected }) => {
      if (config["name"] !== param("name"))
        throw new XenolithError("REQUEST_INVALID", `config.name is not "${param("name")}", as the path says`);
      return changed(parts, parts.definitions.put(config, { isTransient: false, expected }).definition);
    },
  }),
  jsonRoute({
    method: "PATCH",
    path: "/v1/definitions/:name",
    summary: "Replaces some keys of a definition, null takes a key away; holds from the next start on",
    request: schemas.ConfigRequest,
    answer: schemas.DefinitionView,
    run: ({ body: { config }, param, expected }) =>
      changed(parts, parts.definitions.update(param("name"), config, expected).definition),
  }),
  {
    method: "DELETE",
    path: "/v1/definitions/:name",
    summary: "Forgets a definition; a domain that runs goes on",
    run: ({ param, expected }) => {
      parts.definitions.remove(param("name"), expected);
      parts.events.tell({ type: "definition-removed", name: param("name") });
    },
  },
];

const changed = (parts: ServiceParts, definition: Definition): DefinitionView => {
  parts.events.tell({ type: "definition-changed", name: definition.name });
  return definitionView(parts, definition);
};

const definitionView = (parts: ServiceParts, { name, revision, config }: Definition): DefinitionView => {
  const guest = parts.guests.list().find(({ definition }) => definition === name);
  const restartAtMs = parts.guests.restartAtMs(name);
  return {
    name,
    autostart: config["autostart"] === true,
    revision: String(revision),
    config: { ...config, name, kernel: String(config["kernel"]) },
    ...(guest === undefined ? {} : { domid: guest.domain.domid }),
    ...(restartAtMs === undefined ? {} : { restartAtMs }),
  };
};

/** Routes about nodes of xenstore that outlive the service. */
export const nodeRoutes = (parts: ServiceParts): readonly Route[] => [
  {
    method: "GET",
    path: "/v1/xenstore",
    summary: "The nodes of xenstore that outlive the service",
    answer: schemas.NodesView,
    run: () => ({
      nodes: parts.nodes
        .list()
        .map(({ path, value }) => ({ path, base64: Buffer.from(value, "latin1").toString("base64") })),
    }),
  },
  {
    method: "PUT",
    path: "/v1/xenstore/*",
    summary: "Keeps the body as the value of a node below /tool, and writes it; it is there again after a restart",
    request: "bytes",
    run: async (call) => {
      if (call.body instanceof Uint8Array) await parts.nodes.put(nodePath(call.path), call.body);
    },
  },
  {
    method: "DELETE",
    path: "/v1/xenstore/*",
    summary: "Forgets a node that outlives the service, and removes it",
    run: async (call) => parts.nodes.remove(nodePath(call.path)),
  },
];

const nodePath = (path: string): string => path.slice("/v1/xenstore".length);

/** Routes about the host and the service. */
export const serviceRoutes = (parts: ServiceParts): readonly Route[] => [
  {
    method: "GET",
    path: "/v1/host",
    summary: "Figures of the host, read now",
    answer: schemas.HostView,
    run: () => hostView(parts.views),
  },
  {
    method: "GET",
    path: "/v1/dmesg",
    summary: "The latest messages of the hypervisor and the service",
    answer: schemas.DmesgView,
    run: () => {
      parts.hypervisorNotes.take();
      return { lines: parts.log.lines() };
    },
  },
  {
    method: "GET",
    path: "/v1/claims",
    summary: "Memory that is set aside for domains being built",
    answer: schemas.ClaimsView,
    run: () => claimsView(parts.views),
  },
  {
    method: "GET",
    path: "/v1/secrets",
    summary: "Secret memory: the pool, its owners, and what it does to the kernel's map of memory",
    answer: schemas.SecretsView,
    run: () => secretsView(parts.host),
  },
  {
    method: "POST",
    path: "/v1/audit",
    summary: "Recomputes the hypervisor's state from scratch and tells what does not agree; domains rest meanwhile",
    answer: schemas.AuditView,
    run: () => parts.actions.audit(),
  },
  {
    method: "GET",
    path: "/v1/events",
    summary: "What happens, as server-sent events; Last-Event-ID goes on behind that event",
    answer: "text/event-stream",
    run: ({ header }) => {
      const last = header("last-event-id");
      if (last !== undefined && !/^\d{1,15}$/.test(last))
        throw new XenolithError("REQUEST_INVALID", "Last-Event-ID is not the number of an event");
      const reader = parts.events.read(last === undefined ? undefined : Number(last));
      return new Response(streamOf(reader, encodeEvent), {
        headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
      });
    },
  },
];

const encodeEvent = (event: ServiceEvent): Uint8Array =>
  new TextEncoder().encode(`id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);

/** Routes for tools that watch services, and the document that describes all of `described` and themselves. */
export const toolRoutes = (parts: ServiceParts, described: readonly Route[]): readonly Route[] => {
  const routes: Route[] = [
    {
      method: "GET",
      path: "/healthz",
      summary: "Whether the service works; 503 when not",
      answer: schemas.HealthView,
      run: () => {
        const problems = parts.problems();
        const status = problems.length === 0 ? "ok" : "degraded";
        return Response.json({ status, problems }, { status: problems.length === 0 ? 200 : 503 });
      },
    },
    {
      method: "GET",
      path: "/metrics",
      summary: "Figures in the text format of Prometheus",
      answer: "text/plain",
      run: async () =>
        new Response(await parts.metrics.text(), { headers: { "content-type": parts.metrics.contentType } }),
    },
    {
      method: "GET",
      path: "/openapi.json",
      summary: "This document",
      answer: "application/json",
      run: () => Response.json(openApiDocument([...described, ...routes])),
    },
  ];
  return routes;
};
