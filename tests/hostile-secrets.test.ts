/**
 * Guests with several vCPUs that make secret_op with arguments at random, offer their objects to each other, and are
 * destroyed in the middle of it. Afterwards nothing is left of them, and the auditor agrees with the kernel.
 */
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Host } from "@xenolith/host";
import { lockedBytes, openDescriptorCount } from "@xenolith/sys";
import { compileTest, startGuest } from "./c-domains.ts";

const VCPUS = 4;
const CALLS = 1500;

let image: Uint8Array;
before(async () => {
  image = await compileTest("c-secrets-hostile.c");
});

describe("guests that ask for secrets at random", () => {
  it("leave nothing behind, whether they end or are ended", async (t) => {
    const seed = randomInt(1, 2 ** 31);
    t.diagnostic(`seed ${seed}`);
    const host = await Host.open({ warmVcpuCount: 0, secrets: { policy: "degraded", underPressure: () => false } });
    const pool = await host.secrets();
    const before = { descriptors: openDescriptorCount(), locked: lockedBytes() };
    const start = (number: number) =>
      startGuest(host, image, `${seed + number} ${CALLS}`, { vcpus: VCPUS, secretBytesMax: 2 ** 17 });
    const [first, second, ...others] = await Promise.all([start(0), start(1), start(2), start(3)]);
    await Promise.all([first, second, ...others].map((guest) => guest.printed(/begins/)));
    await delay(100);
    await first.destroy();
    await delay(100);
    await second.destroy();
    const ends = await Promise.all(others.map((guest) => guest.end()));
    const { slots, mappedBytes, regionBytes } = pool.statistics();
    const findings = host.audit();
    const after = { descriptors: openDescriptorCount(), locked: lockedBytes() };
    await host.close();
    assert.deepEqual(findings, [], `seed ${seed}`);
    for (const { reason, text } of ends) {
      assert.equal(reason, "poweroff", text);
      const [, made, allowed] = /made (\d+) calls, (\d+) were allowed/.exec(text) ?? [];
      assert.equal(Number(made), VCPUS * CALLS, text);
      assert.ok(Number(allowed) > 0, text);
    }
    assert.deepEqual([slots, mappedBytes, regionBytes], [0, 0, 0], `seed ${seed}`);
    assert.deepEqual(after, before, `seed ${seed}`);
  });
});
