/** What the service tells of secret memory: never a secret, and without opening a pool. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Host } from "@xenolith/host";
import * as v from "valibot";
import type { SecretsView } from "../src/daemon/api-types.ts";
import * as schemas from "../src/daemon/schemas.ts";
import { embedService } from "../src/daemon/service.ts";

/** KEY_SPEC_SESSION_KEYRING. */
const SESSION_RING = -3;

describe("the service beside a host with secrets", () => {
  it("shows the pool from when somebody wanted one, with owners, refusals and metrics", async () => {
    const host = await Host.open({
      memoryBytes: 64 * 2 ** 20,
      warmVcpuCount: 0,
      secrets: { policy: "degraded", underPressure: () => false },
    });
    const service = embedService(host);
    const ask = async (): Promise<SecretsView> => (await service.request("/v1/secrets")).json() as Promise<SecretsView>;
    const metrics = async (): Promise<string> => (await service.request("/metrics")).text();
    const before = [await ask(), await metrics()] as const;
    const opened = host.openedSecrets;
    const pool = await host.secrets();
    const owner = pool.owner("program", { slots: 1 });
    owner.keep(Buffer.from("correct horse battery"));
    owner.tryAllocate(1);
    const keys = await host.keys();
    const caller = keys.attach({ pid: 1, uid: 0, gid: 0 });
    keys.joinSession(caller, null);
    keys.addKey(caller, "user", "db:orders", Buffer.from("staple"), SESSION_RING);
    const after = [await ask(), await metrics()] as const;
    await service.close();
    await host.close();

    assert.equal(opened, undefined, "who looks opens nothing");
    assert.equal(before[0].pool, undefined);
    assert.doesNotMatch(before[1], /xenolith_secrets/);
    const form = v.safeParse(schemas.SecretsView, after[0]);
    assert.ok(form.success, JSON.stringify(form.issues));
    const { hidden, slots, degradedSlots, refusals, owners } = after[0].pool!;
    assert.deepEqual([slots, degradedSlots], [2, hidden ? 0 : 2]);
    assert.deepEqual(refusals, [{ code: "SECRET_QUOTA", count: 1 }]);
    assert.deepEqual(
      owners.map(({ path, bytes, slots: has, chunks, refusals: refused }) => [path, bytes, has, chunks, refused]),
      [
        ["program", 64, 1, 1, 1],
        ["keys:uid:0", 64, 1, 1, 0],
      ],
    );
    for (const line of [
      `xenolith_secrets_hidden ${hidden ? 1 : 0}`,
      "xenolith_secrets_slots 2",
      'xenolith_secrets_owner_bytes{owner="program"} 64',
      'xenolith_secrets_refusals_total{code="SECRET_QUOTA"} 1',
      "# TYPE xenolith_secrets_refusals_total counter",
    ]) {
      assert.ok(after[1].includes(`${line}\n`), `${line} in ${after[1]}`);
    }
    assert.doesNotMatch(JSON.stringify(after), /correct horse|staple|db:orders/);
  });
});
