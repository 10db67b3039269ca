/**
 * The OpenAPI 3.1 document, made from the list of routes.
 */
import { toJsonSchema } from "@valibot/to-json-schema";
import type { GenericSchema } from "valibot";
import { configSchema } from "../config/index.ts";
import type { Route } from "./router.ts";
import * as schemas from "./schemas.ts";
import { VERSION } from "./views.ts";

type Json = Readonly<Record<string, unknown>>;

/** Describes `routes`. */
export const openApiDocument = (routes: readonly Route[]): Json => {
  const paths: Record<string, Record<string, Json>> = {};
  for (const route of routes) (paths[pathOf(route)] ??= {})[route.method.toLowerCase()] = operation(route);
  const bearer = { type: "http", scheme: "bearer", description: "Over TCP only; the Unix socket is for its owner." };
  return {
    openapi: "3.1.0",
    info: { title: "Xenolith", version: VERSION, description: "The service that owns a host's domains." },
    paths,
    components: { schemas: { ApiFailure: plainSchema(schemas.ApiFailure) }, securitySchemes: { token: bearer } },
    security: [{}, { token: [] }],
  };
};

/** A route's path as OpenAPI writes it. */
export const pathOf = ({ path }: Pick<Route, "path">): string => path.replace(/:(\w+)/g, "{$1}").replace("*", "{path}");

const operation = (route: Route): Json => {
  const parameters = [...pathOf(route).matchAll(/\{(\w+)\}/g)].map(([, name]) => parameter(name!, "path"));
  const isChange = route.method !== "GET" && parameters.length > 0 && route.request !== "bytes";
  return {
    summary: route.summary,
    parameters: [
      ...parameters,
      ...(isChange ? [parameter("If-Match", "header")] : []),
      ...(route.path.endsWith("/console") && route.method === "GET" ? [parameter("follow", "query")] : []),
      ...(route.path.endsWith("/events") ? [parameter("Last-Event-ID", "header")] : []),
    ],
    ...(route.request === undefined ? {} : { requestBody: { content: requestContent(route.request) } }),
    responses: {
      [route.status ?? (route.answer === undefined ? 204 : 200)]: success(route),
      default: {
        description: "It failed, and nothing was changed unless the message says so",
        content: { "application/json": { schema: { $ref: "#/components/schemas/ApiFailure" } } },
      },
    },
  };
};

const parameter = (name: string, place: "header" | "path" | "query"): Json => ({
  name,
  in: place,
  ...(place === "path" ? { required: true } : {}),
  schema: { type: "string" },
});

const requestContent = (request: NonNullable<Route["request"]>): Json =>
  request === "bytes" ? { "application/octet-stream": {} } : { "application/json": { schema: jsonSchema(request) } };

const success = ({ answer }: Route): Json => {
  if (answer === undefined) return { description: "Done" };
  const [type, content] =
    typeof answer === "string" ? [answer, {}] : ["application/json", { schema: jsonSchema(answer) }];
  return { description: "Done", content: { [type]: content } };
};

/** The schema with the published one of configurations where there is one. */
const jsonSchema = (schema: GenericSchema): Json => {
  const plain = plainSchema(schema);
  const { properties } = plain;
  if (typeof properties !== "object" || properties === null || !("config" in properties)) return plain;
  // A part of a configuration is for updates: what is missing in it stays as it was.
  return { ...plain, properties: { ...properties, config: configSchema() } };
};

const plainSchema = (schema: GenericSchema): Json => {
  const { $schema: _, ...rest } = toJsonSchema(schema);
  return rest;
};
