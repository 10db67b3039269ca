import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { compileCampaignGuest, runCampaign } from "./campaign.ts";

describe("the random campaign", () => {
  it("eight hostile guests and a control domain that grants, maps, shares and revokes; destruction at random: the host lives and the auditor finds nothing", async (t) => {
    const seed = Number(process.env["XENOLITH_SEED"] ?? Date.now() % 2 ** 31);
    t.diagnostic(`seed ${seed} (replay with XENOLITH_SEED=${seed})`);
    const report = await runCampaign(await compileCampaignGuest(), { seed, seconds: 10, guestCount: 8 });
    t.diagnostic(JSON.stringify(report));
    assert.deepEqual(report.findings, []);
    assert.ok(report.domainsCreated >= 8);
    assert.ok(Object.keys(report.dom0).length > 0, "the control domain took part");
    assert.ok(Object.keys(report.memory).length > 0, "targets and limits changed");
    assert.ok(report.hypercalls > 0, "guests that made no hypercall prove nothing");
  });
});
