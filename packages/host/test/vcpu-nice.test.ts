import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { getPriority } from "node:os";
import { test } from "node:test";
import { openHost, program } from "./support.ts";

/** Field of /proc/self/task/TID/stat, counted behind the name. */
const NICE_FIELD = 16;

/** How many threads of this process have each nice value. */
const niceValues = (): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const tid of readdirSync("/proc/self/task")) {
    const status = readFileSync(`/proc/self/task/${tid}/stat`, "utf8");
    const nice = status.slice(status.lastIndexOf(")") + 2).split(" ")[NICE_FIELD]!;
    counts[nice] = (counts[nice] ?? 0) + 1;
  }
  return counts;
};

const blocks = program("(loop $again (br $again))");

for (const vcpuNice of [0, 7])
  test(`with vcpuNice ${vcpuNice} the threads that are in guests have that nice value, and no others`, async () => {
    const own = getPriority();
    const host = await openHost({ vcpuNice, warmVcpuCount: 1 });
    await host.warm();
    assert.deepEqual(Object.keys(niceValues()), [String(own)]);
    const domains = [];
    for (let guest = 0; guest < 2; guest += 1) domains.push(await host.createDomain({ image: blocks }));
    for (const domain of domains) await domain.start();
    // It gives way when it has reported, at its first instruction.
    while (vcpuNice > own && niceValues()[String(vcpuNice)] !== 2) await new Promise(setImmediate);
    const values = niceValues();
    const findings = host.audit();
    await host.close();
    assert.deepEqual(Object.keys(values).map(Number), vcpuNice > own ? [own, vcpuNice] : [own]);
    assert.equal(getPriority(), own);
    assert.deepEqual(findings, []);
  });

for (const vcpuNice of [-1, 20, 1.5, Number.NaN])
  test(`vcpuNice ${vcpuNice} is refused with the value and the limits`, async () => {
    await assert.rejects(openHost({ vcpuNice }), {
      code: "INVALID_ARGUMENT",
      message: new RegExp(`${vcpuNice}.*0 to 19`),
    });
  });
