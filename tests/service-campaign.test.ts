import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { runServiceCampaign } from "./service-campaign.ts";

describe("the campaign against the service", () => {
  it("two administrators at once, a daemon killed at random: nothing acknowledged is lost, memory adds up, the auditor finds nothing", async (t) => {
    const seed = Number(process.env["XENOLITH_SEED"] ?? Date.now() % 2 ** 31);
    t.diagnostic(`seed ${seed} (replay with XENOLITH_SEED=${seed})`);
    const report = await runServiceCampaign({ seed, seconds: 8 });
    t.diagnostic(JSON.stringify(report));
    assert.deepEqual(report.findings, []);
    assert.ok(report.audits > 0, "a campaign without an audit proves nothing");
    assert.ok((report.counts["create"] ?? 0) > 0, "domains were made");
    assert.ok((report.counts["target"] ?? 0) > 0, "targets were set");
  });
});
