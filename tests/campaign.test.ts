import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { compileCampaignGuest, runCampaign } from "./campaign.ts";

describe("the random campaign", () => {
  it("eight hostile guests, domains created and destroyed at random: the host lives and the auditor finds nothing", async (t) => {
    const seed = Number(process.env["XENOLITH_SEED"] ?? Date.now() % 2 ** 31);
    t.diagnostic(`seed ${seed} (replay with XENOLITH_SEED=${seed})`);
    const report = await runCampaign(await compileCampaignGuest(), { seed, seconds: 8, guestCount: 8 });
    t.diagnostic(JSON.stringify(report));
    assert.deepEqual(report.findings, []);
    assert.ok(report.domainsCreated >= 8);
    assert.ok(report.hypercalls > 0, "guests that made no hypercall prove nothing");
  });
});
