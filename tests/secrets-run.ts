/**
 * Runs one guest on a host of its own and prints what it prints, for guest-secrets.test.ts.
 *
 *   node secrets-run.js IMAGE.wasm POLICY [forbidden]
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import path from "node:path";
import { Host } from "@xenolith/host";
import { startGuest } from "./c-domains.ts";
import { forbidSecretMemory } from "./forbid-secret-memory.ts";

const [, , image = "", policy = "", ...how] = process.argv;
const module = readFileSync(image);
if (how.includes("forbidden")) forbidSecretMemory(constants.errno.ENOSYS);
const cacheDirectory = mkdtempSync(path.join(tmpdir(), "xenolith-secrets-run-"));
const host = await Host.open({
  cacheDirectory,
  memoryBytes: 2 ** 26,
  warmVcpuCount: 0,
  secrets: { policy: policy === "strict" ? "strict" : "degraded" },
});
const guest = await startGuest(host, module, "");
const { text } = await guest.end();
const findings = host.audit();
await host.close();
rmSync(cacheDirectory, { recursive: true });
console.log(`${text}${findings.length === 0 ? "sound" : findings.join("; ")}`);
process.exit(0);
