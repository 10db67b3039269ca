/** Very many operations, and very many clients at once. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { KeyConnection } from "../src/client/index.ts";
import { findingsOf, startTestDaemon } from "./daemon-kit.ts";

/** A million in the long run; see docs/testing.md. */
const ADDITIONS = Number(process.env["XENOLITH_KEY_ADDITIONS"] ?? 100_000);
const WINDOW = 1000;
const USER_RING = -4;
const SESSION = -3;

describe("one client", () => {
  it(`that adds ${ADDITIONS} keys without waiting for answers gets one for each, and the daemon keeps what is linked`, async () => {
    await using test = await startTestDaemon();
    const keys = await KeyConnection.connect(test.socket);
    await keys.result("joinSession", [null]);
    const payload = Buffer.alloc(32, 7);
    const refused = new Set<number>();
    const serials = new Set<number>();
    // Every third one takes the place of another, the rest are updates of four keys.
    const add = async (index: number): Promise<void> => {
      const isRing = index % 3 === 0;
      const given = [isRing ? "keyring" : "user", `k${index % 4}`, isRing ? null : payload, SESSION] as const;
      const result = await keys.result("addKey", [...given]);
      if (result < 0) refused.add(result);
      else if (!isRing) serials.add(result);
    };
    for (let from = 0; from < ADDITIONS; from += WINDOW) {
      await Promise.all(Array.from({ length: Math.min(WINDOW, ADDITIONS - from) }, (_, at) => add(from + at)));
    }
    const room = Buffer.alloc(64);
    const { result: size } = await keys.call("read", [SESSION, room.length], { target: room });
    await keys.close();
    const findings = await findingsOf(test);
    const { payloads, waits } = test.daemon.service.statistics();
    await test.daemon.close();
    assert.deepEqual([...refused], []);
    assert.equal(serials.size, 4);
    assert.equal(size, 4 * 8);
    assert.deepEqual([payloads, waits], [4, 0]);
    assert.deepEqual(findings, []);
  });
});

describe("many clients", () => {
  const PROGRAMS = 8;
  const CONNECTIONS = 50;
  it(`at once, ${PROGRAMS} programs with ${CONNECTIONS} connections each: everybody gets its own answers`, async () => {
    await using test = await startTestDaemon(["--limit", "maxkeys=10000", "--limit", "maxbytes=1000000"]);
    const program = `
      const { KeyConnection } = await import("${new URL("../src/client/index.js", import.meta.url).href}");
      const first = await KeyConnection.connect(process.env.XKEYD_SOCKET);
      await first.result("joinSession", [null]);
      const clients = await Promise.all(Array.from({ length: ${CONNECTIONS} }, () => KeyConnection.connect(process.env.XKEYD_SOCKET)));
      let right = 0;
      const use = async (client, at) => {
        const own = Buffer.from(process.pid + ":" + at);
        const serial = await client.result("addKey", ["user", "own:" + at, own, ${SESSION}]);
        const reads = await Promise.all(Array.from({ length: 40 }, () => client.call("read", [serial, 64])));
        for (const { bytes } of reads) if (Buffer.from(bytes).equals(own)) right += 1;
        await client.result("addKey", ["user", process.pid + ":" + at, own, ${USER_RING}]);
      };
      await Promise.all(clients.map(use));
      console.log(right);
      process.stdin.once("end", () => process.exit(0)).resume();`;
    const { metrics } = test.daemon;
    const running = Array.from({ length: PROGRAMS }, () =>
      test.run(process.execPath, ["--input-type=module", "-e", program]),
    );
    const ended = await Promise.all(running);
    const listed = (await test.keyctl(["rlist", "@u"])).out.trim().split(" ");
    const findings = await findingsOf(test);
    const { connectionsTotal, refusedConnections } = metrics;
    await test.daemon.close();
    assert.deepEqual(
      ended.map(({ out, err }) => `${out}${err}`),
      ended.map(() => `${40 * CONNECTIONS}\n`),
    );
    assert.ok(connectionsTotal >= PROGRAMS * (CONNECTIONS + 1), `${connectionsTotal} connections`);
    assert.equal(refusedConnections, 0);
    assert.equal(listed.length, PROGRAMS * CONNECTIONS);
    assert.deepEqual(findings, []);
  });
});
