/**
 * Where the API is reached: a Unix socket for its owner alone, and TCP with TLS and a token. Clients are hostile: what
 * one can hold is a connection among many, for a bounded time, and a bounded number of bytes.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import type net from "node:net";
import { getRequestListener } from "@hono/node-server";
import { XenolithError } from "@xenolith/abi";
import { listenAtPath } from "@xenolith/sys/unix-socket";
import { failureResponse } from "./router.ts";

/** Connections at once, of each listener. */
export const CONNECTION_COUNT_MAX = 512;
/** Most bytes of a request's head. */
export const HEAD_BYTES_MAX = 16 * 1024;
/** Time for a request's head to arrive. */
export const HEAD_MS_MAX = 5000;
/** Time for a request to arrive altogether. */
export const REQUEST_MS_MAX = 20_000;
/** Time for a client to take an answer that it was given whole. */
export const ANSWER_MS_MAX = 20_000;
/** Time for answers to arrive when the service ends. */
export const CLOSE_MS_MAX = 500;
/** Fewest characters of a token. */
export const TOKEN_LENGTH_MIN = 16;

/** Answers requests: `Hono.fetch` is one. */
export type Fetch = (request: Request) => Promise<Response> | Response;

/** A listener over TCP. All of it is needed: there is no TCP without TLS and a token. */
export interface TcpOptions {
  readonly address: string;
  readonly port: number;
  /** Certificate (with its chain) and private key, in PEM. */
  readonly certificate: string | Buffer;
  readonly privateKey: string | Buffer;
  /** What clients send as `Authorization: Bearer`; at least 16 characters. */
  readonly token: string;
}

/** One place where the API is reached. */
export interface Listener {
  /** Path of the socket, or host and port. */
  readonly place: string;
  /** Ends all connections, and removes the socket. */
  close(): Promise<void>;
}

const limits = {
  connectionsCheckingInterval: 1000,
  headersTimeout: HEAD_MS_MAX,
  requestTimeout: REQUEST_MS_MAX,
  keepAliveTimeout: HEAD_MS_MAX,
  maxHeaderSize: HEAD_BYTES_MAX,
} as const;

/**
 * Serves at a Unix socket that only its owner can open. What a service that is gone left there is replaced. With
 * `ownsProcess` the process's global `Request` and `Response` are replaced by some that make no stream out of a text.
 *
 * @throws XenolithError `SERVICE_RUNNING`, `SYSTEM_CALL`.
 */
export const listenAtSocket = async (fetch: Fetch, path: string, ownsProcess: boolean): Promise<Listener> => {
  const server = http.createServer(limits, listenerOf(fetch, ownsProcess));
  server.maxConnections = CONNECTION_COUNT_MAX;
  const remove = await listenAtPath(server, path, 0o600);
  const close = async (): Promise<void> => {
    await closeServer(server);
    await remove();
  };
  return { place: path, close };
};

/**
 * Serves over TCP, with TLS and a token.
 *
 * @throws XenolithError `CONFIG_INVALID`, `SYSTEM_CALL`.
 */
export const listenAtPort = async (fetch: Fetch, options: TcpOptions): Promise<Listener> => {
  const { address, port, certificate: cert, privateKey: key, token } = options;
  if (token.length < TOKEN_LENGTH_MIN) {
    throw new XenolithError(
      "CONFIG_INVALID",
      `the token has ${token.length} characters, it must have at least ${TOKEN_LENGTH_MIN}`,
    );
  }
  const server = createSecureServer({ cert, key }, withToken(fetch, token));
  server.listen(port, address);
  await listening(server, `${address}:${port}`);
  const bound = server.address();
  const actualPort = typeof bound === "object" && bound !== null ? bound.port : port;
  return { place: `${address}:${actualPort}`, close: () => closeServer(server) };
};

const createSecureServer = (pair: Pick<https.ServerOptions, "cert" | "key">, fetch: Fetch): https.Server => {
  try {
    return https.createServer({ ...limits, ...pair, minVersion: "TLSv1.2" }, listenerOf(fetch, false));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("CONFIG_INVALID", `the certificate and key of the TCP listener: ${reason}`, { cause });
  }
};

/** Lets only requests with the token through. Compares in the same time whatever was sent. */
export const withToken = (fetch: Fetch, token: string): Fetch => {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  const expected = digest(token);
  return (request) => {
    const [, sent] = /^Bearer (.+)$/i.exec(request.headers.get("authorization") ?? "") ?? [];
    if (sent !== undefined && timingSafeEqual(digest(sent), expected)) return fetch(request);
    return failureResponse(new XenolithError("UNAUTHORISED", "the request carries no token, or a wrong one"));
  };
};

const listenerOf = (fetch: Fetch, ownsProcess: boolean): http.RequestListener => {
  const listener = getRequestListener((request) => fetch(request), { overrideGlobalObjects: ownsProcess });
  return (request, response) => {
    boundDelivery(response);
    void listener(request, response);
  };
};

/**
 * Ends the connection of a client that does not take what it was given. A stream of events or of a console is not given
 * whole before its end: what a slow reader of one costs is its bounded queue.
 */
export const boundDelivery = (response: http.ServerResponse, msMax = ANSWER_MS_MAX): void => {
  response.once("prefinish", () => {
    const overdue = setTimeout(() => response.destroy(), msMax);
    response.once("close", () => clearTimeout(overdue));
  });
};

const listening = async (server: net.Server, place: string): Promise<void> => {
  server.maxConnections = CONNECTION_COUNT_MAX;
  try {
    await once(server, "listening");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("SYSTEM_CALL", `listen at ${place}: ${reason}`, { cause });
  }
};

/** Takes no more requests, and lets answers that are on their way arrive. */
const closeServer = async (server: http.Server | https.Server): Promise<void> => {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const overdue = setTimeout(() => server.closeAllConnections(), CLOSE_MS_MAX);
  await closed;
  clearTimeout(overdue);
};
