import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { XenolithError } from "@xenolith/abi/error";
import { listenAt } from "./socket-place.ts";

/** Only the owner of the socket may read the metrics. */
const SOCKET_MODE = 0o600;

/**
 * Serves metrics over HTTP, at a path or at ADDRESS:PORT. The result ends it. `SYSTEM_CALL`.
 */
export const serveMetrics = async (place: string, render: () => string): Promise<() => Promise<void>> => {
  const server = createServer((request, response) => {
    if (request.method !== "GET" || request.url !== "/metrics") {
      response.writeHead(404).end("metrics are at /metrics\n");
      return;
    }
    response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(render());
  });
  const isPath = place.startsWith("/") || place.startsWith(".");
  const remove = await (isPath ? listenAt(server, place, SOCKET_MODE) : listenTcp(server, place));
  return async () => {
    server.close();
    server.closeAllConnections();
    await remove();
  };
};

const listenTcp = async (server: Server, place: string): Promise<() => Promise<void>> => {
  const colon = place.lastIndexOf(":");
  const port = Number(place.slice(colon + 1));
  const host = place.slice(0, Math.max(0, colon)).replace(/^\[(.*)\]$/, "$1");
  if (host === "" || !Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new XenolithError("CONFIG_INVALID", `--metrics ${place}: neither a path nor ADDRESS:PORT`);
  }
  try {
    server.listen({ port, host });
    await once(server, "listening");
  } catch (cause) {
    throw new XenolithError("SYSTEM_CALL", `listen at ${place}: ${String(cause)}`, { cause });
  }
  return () => Promise.resolve();
};
