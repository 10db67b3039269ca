import assert from "node:assert/strict";
import https from "node:https";
import net from "node:net";
import { after, before, describe, it } from "node:test";
import { selfSigned } from "./self-signed.ts";
import { ServiceBench } from "./service-harness.ts";

const TOKEN = "a token of more than sixteen";
const pair = selfSigned("localhost");
let bench: ServiceBench;
let port = 0;
before(async () => {
  bench = await ServiceBench.open();
  await bench.service.listenAtPort({ address: "127.0.0.1", port: 0, ...pair, token: TOKEN });
  port = Number(bench.service.places.at(-1)!.split(":")[1]);
});
after(async () => {
  const findings = await bench.close();
  await bench[Symbol.asyncDispose]();
  assert.deepEqual(findings, []);
});

const status = (headers: Readonly<Record<string, string>>, path = "/healthz"): Promise<number> =>
  new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", servername: "localhost", port, path, ca: pair.certificate, agent: false };
    https
      .get({ ...options, headers, checkServerIdentity: () => undefined }, (response) => {
        response.resume();
        response.on("end", () => resolve(response.statusCode!));
      })
      .on("error", reject);
  });

describe("the service over TCP", () => {
  it("answers over TLS those who have the token", async () => {
    assert.equal(await status({ authorization: `Bearer ${TOKEN}` }), 200);
    assert.equal(await status({ authorization: `bearer ${TOKEN}` }, "/v1/domains"), 200);
  });
  it("refuses no token, a wrong one, and parts of it, on each route", async () => {
    const wrong = [{}, { authorization: "Bearer " }, { authorization: TOKEN }, { authorization: `Bearer ${TOKEN}x` }];
    const part = { authorization: `Bearer ${TOKEN.slice(0, -1)}` };
    for (const headers of [...wrong, part, { authorization: `Basic ${TOKEN}` }]) {
      for (const path of ["/healthz", "/metrics", "/v1/domains", "/openapi.json", "/nothing"])
        assert.equal(await status(headers as Record<string, string>, path), 401);
    }
  });
  it("speaks nothing to those who speak no TLS", async () => {
    const socket = net.createConnection(port, "127.0.0.1");
    socket.on("error", () => {});
    let text = "";
    socket.on("data", (piece) => (text += piece.toString("latin1")));
    socket.write(`GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${TOKEN}\r\n\r\n`);
    await new Promise((resolve) => socket.on("close", resolve));
    assert.doesNotMatch(text, /HTTP/);
  });
  it("is refused with a short token, and with a certificate that is none", async () => {
    const place = { address: "127.0.0.1", port: 0 };
    await assert.rejects(bench.service.listenAtPort({ ...place, ...pair, token: "short" }), { code: "CONFIG_INVALID" });
    await assert.rejects(bench.service.listenAtPort({ ...place, ...pair, certificate: "none", token: TOKEN }), {
      code: "CONFIG_INVALID",
    });
  });
});
