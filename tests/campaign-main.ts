/**
 * `npm run campaign -- [--minutes N] [--seed N] [--guests N]`: the random campaign for as long as one likes. Exit code 0
 * when nothing was found; the seed replays what each guest draws, not how threads interleave.
 */
import { parseArgs } from "node:util";
import { type CampaignReport, compileCampaignGuest, runCampaign } from "./campaign.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    guests: { type: "string", default: "8" },
  },
});

const line = (report: CampaignReport): string =>
  `${report.hypercalls} hypercalls of ended guests; domains: ${report.domainsCreated} created, ${report.domainsCrashed} crashed, ` +
  `${report.domainsShutDown} shut down, ${report.domainsDestroyed} destroyed; ${report.audits} audits, ${report.findings.length} findings`;

process.stdout.write(`seed ${values.seed}\n`);
let lastMs = 0;
const report = await runCampaign(await compileCampaignGuest(), {
  seed: Number(values.seed),
  seconds: Number(values.minutes) * 60,
  guestCount: Number(values.guests),
  onProgress: (progress) => {
    if (performance.now() - lastMs < 10_000) return;
    lastMs = performance.now();
    process.stdout.write(`${line(progress)}\n`);
  },
});
process.stdout.write(`${line(report)}\n${JSON.stringify(report.dom0)}\n${JSON.stringify(report.memory)}\n`);
for (const finding of report.findings) process.stdout.write(`finding: ${finding}\n`);
process.exitCode = report.findings.length === 0 && report.hypercalls > 0 ? 0 : 1;
