// A domain with a copy engine. Build the repository first (npm run build), then: node examples/copy-engine/run.mjs
import { readFileSync } from "node:fs";
import { Host } from "@xenolith/host";
import { compileGuest } from "../../guest/xencc.mjs";
import { CopyEngine } from "./dist/copy-engine.js";

const read = (name) => readFileSync(new URL(name, import.meta.url));
const image = await compileGuest({ "driver.c": read("driver.c"), "copy-engine.h": read("copy-engine.h") });

const host = await Host.open();
// The interrupt is known before the domain starts: its command line is part of what it is built from.
const IRQ = 70;
const domain = await host.createDomain({ image, commandLine: String(IRQ), memoryBytesMax: 8 * 2 ** 20 });
const engine = new CopyEngine(host, domain, IRQ);
const served = engine.serve();
const text = domain.console.text();
await domain.start();
await domain.exited;
await served;
engine.close();
await domain.destroy();
process.stdout.write(await text);
await host.close();
