/**
 * One route as data: what it takes, what it answers, and what it does. The HTTP application and the OpenAPI document are
 * both made from the same list, so neither has a route that the other lacks.
 */
import { XenolithError } from "@xenolith/abi";
import { type Context, Hono } from "hono";
import * as v from "valibot";
import { failureOf, isOurFault } from "./failures.ts";

/** Most bytes of a request's JSON: a configuration may have 64 KiB, written in JSON with escapes. */
export const JSON_BYTES_MAX = 256 * 1024;
/** Most bytes of a request that is not JSON. */
export const BYTES_MAX = 64 * 1024;

/** Methods of the API. */
export type Method = "DELETE" | "GET" | "PATCH" | "POST" | "PUT";

/** A request, as a route's code sees it. */
export interface Call<Body> {
  readonly body: Body;
  /** The whole path. */
  readonly path: string;
  /** A part of the path. */
  readonly param: (name: string) => string;
  /** A word of the query. */
  readonly query: (name: string) => string | undefined;
  readonly header: (name: string) => string | undefined;
  /** Revision that the caller saw, from `If-Match`. */
  readonly expected: string | undefined;
}

/** One route. */
export interface Route {
  readonly method: Method;
  /** With `:name` parts; `*` is the rest. */
  readonly path: string;
  readonly summary: string;
  /** Schema of a JSON body, or `bytes`. */
  readonly request?: v.GenericSchema | "bytes";
  /** Schema of a JSON answer, or a media type; without it the answer is empty. */
  readonly answer?: v.GenericSchema | string;
  /** 200, or 204 without an answer, by default. */
  readonly status?: 201;
  readonly run: (call: Call<unknown>) => unknown;
}

/** Declares a route whose body is checked by `request` before `run` sees it. */
export const jsonRoute = <Schema extends v.GenericSchema>(
  route: Omit<Route, "request" | "run"> & {
    readonly request: Schema;
    readonly run: (call: Call<v.InferOutput<Schema>>) => unknown;
  },
): Route => {
  const { run, request } = route;
  return { ...route, run: (call) => run({ ...call, body: parseBody(request, call.body) }) };
};

const parseBody = <Schema extends v.GenericSchema>(schema: Schema, body: unknown): v.InferOutput<Schema> => {
  const result = v.safeParse(schema, body);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const place = v.getDotPath(issue) ?? "the body";
  throw new XenolithError("REQUEST_INVALID", `${place}: ${issue.message}`);
};

/** What the application tells of each request. */
export type OnAnswer = (facts: {
  readonly method: string;
  readonly route: string;
  readonly status: number;
  readonly durationMs: number;
}) => void;

/** The HTTP application of `routes`. `onFault` hears of failures that are our own. */
export const createApp = (routes: readonly Route[], onAnswer: OnAnswer, onFault: (error: unknown) => void): Hono => {
  const app = new Hono();
  for (const route of routes) {
    app.on(route.method, route.path, async (context) => {
      const start = performance.now();
      const response = await answerOf(route, context, onFault);
      const { method, path } = route;
      onAnswer({ method, route: path, status: response.status, durationMs: performance.now() - start });
      return response;
    });
  }
  app.notFound((context) => {
    const { method, path } = context.req;
    return failureResponse(new XenolithError("ROUTE_NOT_FOUND", `there is no ${method} ${path.slice(0, 200)}`));
  });
  app.onError((error) => {
    onFault(error);
    return failureResponse(error);
  });
  return app;
};

/** The answer that tells of a failure. */
export const failureResponse = (error: unknown): Response => {
  const { status, body } = failureOf(error);
  return Response.json(body, { status });
};

const answerOf = async (route: Route, context: Context, onFault: (error: unknown) => void): Promise<Response> => {
  try {
    return await success(route, context);
  } catch (error) {
    if (isOurFault(error)) onFault(error);
    return failureResponse(error);
  }
};

const success = async (route: Route, context: Context): Promise<Response> => {
  const { req } = context;
  const value = await route.run({
    body: await readBody(route, req.raw),
    path: req.path,
    param: (name) => req.param(name) ?? "",
    query: (name) => req.query(name),
    header: (name) => req.header(name),
    expected: revisionOf(req.header("if-match")),
  });
  if (value instanceof Response) return value;
  if (route.answer === undefined) return context.body(null, 204);
  const tag = revisionIn(value);
  // The application's own constructor is the fast path of its server.
  return context.body(JSON.stringify(value), route.status ?? 200, {
    "content-type": "application/json",
    ...(tag === undefined ? {} : { etag: `"${tag}"` }),
  });
};

const revisionOf = (header: string | undefined): string | undefined =>
  header === undefined || header === "*" ? undefined : header.replace(/^"(.*)"$/, "$1");

const revisionIn = (value: unknown): string | undefined =>
  typeof value === "object" && value !== null && "revision" in value && typeof value.revision === "string"
    ? value.revision
    : undefined;

const readBody = async (route: Route, request: Request): Promise<unknown> => {
  if (route.request === undefined) return undefined;
  if (route.request === "bytes") return readBytes(request, BYTES_MAX);
  const bytes = await readBytes(request, JSON_BYTES_MAX);
  // A request that needs to say nothing may say nothing.
  if (bytes.length === 0) return {};
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new XenolithError("REQUEST_INVALID", "the body is no JSON in UTF-8", { cause });
  }
};

/** The body, as long as it stays below `bytesMax`. */
const readBytes = async (request: Request, bytesMax: number): Promise<Uint8Array> => {
  const tooLarge = (): XenolithError =>
    new XenolithError("REQUEST_TOO_LARGE", `the body is over ${bytesMax} bytes, the limit of this route`);
  if (Number(request.headers.get("content-length") ?? 0) > bytesMax) throw tooLarge();
  if (request.body === null) return new Uint8Array(0);
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of request.body) {
    length += chunk.length;
    if (length > bytesMax) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
};
