/**
 * `npm run campaign:service -- [--minutes N] [--seed N]`: the campaign against `xl daemon` for as long as one likes. Exit
 * code 0 when nothing was found; the seed replays what is drawn, not how processes interleave.
 */
import { parseArgs } from "node:util";
import { runServiceCampaign, type ServiceCampaignReport } from "./service-campaign.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
  },
});

const line = ({ lives, kills, earlyKills, audits, back, findings }: ServiceCampaignReport): string =>
  `${lives} lives of the daemon, ${kills} ended by a kill and ${earlyKills} before it answered; ${back} domains came back; ` +
  `${audits} audits, ${findings.length} findings`;

process.stdout.write(`seed ${values.seed}\n`);
let lastMs = 0;
const report = await runServiceCampaign({
  seed: Number(values.seed),
  seconds: Number(values.minutes) * 60,
  onProgress: (progress) => {
    if (performance.now() - lastMs < 10_000) return;
    lastMs = performance.now();
    process.stdout.write(`${line(progress)}\n`);
  },
});
process.stdout.write(`${line(report)}\n${JSON.stringify(report.counts)}\n`);
for (const finding of report.findings) process.stdout.write(`finding: ${finding}\n`);
process.exitCode = report.findings.length === 0 && report.audits > 0 ? 0 : 1;
