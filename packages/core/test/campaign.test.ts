import assert from "node:assert/strict";
import { it } from "node:test";
import fc from "fast-check";
import { anyStep, Campaign } from "./campaign.ts";

/** How many lives of up to how many steps; more by `CAMPAIGN_RUNS`, the same again by `CAMPAIGN_SEED`. */
const RUNS = Number(process.env["CAMPAIGN_RUNS"] ?? 60);
const STEPS_MAX = 150;

it("whatever guests ask and whenever domains come and go, every table agrees and nothing throws", (context) => {
  const seed = Number(process.env["CAMPAIGN_SEED"] ?? Date.now() % 2 ** 31);
  context.diagnostic(`seed ${seed}, ${RUNS} runs`);
  assert(RUNS > 0);
  const life = fc.array(anyStep, { minLength: 50, maxLength: STEPS_MAX, size: "max" });
  const property = fc.property(life, (steps) => {
    const campaign = new Campaign();
    for (const step of steps) campaign.step(step);
    campaign.finish();
  });
  fc.assert(property, { seed, numRuns: RUNS });
});
