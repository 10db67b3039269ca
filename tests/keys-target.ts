/**
 * A program whose guests hold one key in a secret page and one in ordinary memory, for c-keys.test.ts, which looks for both
 * from outside. The payloads come through descriptors 3 and 4: the first goes straight into secret memory.
 *
 *   node keys-target.js IMAGE.wasm
 */
import { readFileSync, readSync } from "node:fs";
import { createInterface } from "node:readline";
import { writeHeapSnapshot } from "node:v8";
import { Host, type KeyReply, type KeyRequest } from "@xenolith/host";
import { readSecretInput } from "@xenolith/secrets";
import { startGuest } from "./c-domains.ts";

const [, , image = ""] = process.argv;
const PLAIN_BYTES = 32;

const build = async ({ description }: KeyRequest): Promise<KeyReply> => {
  if (description === "db:orders") return readSecretInput((await host.secrets()).owner("vault"), 3);
  const plain = Buffer.alloc(PLAIN_BYTES);
  readSync(4, plain);
  return plain;
};

const host = await Host.open({ memoryBytes: 2 ** 26, warmVcpuCount: 0, keys: { requestKey: build } });
const module = readFileSync(image);
const guests = [await startGuest(host, module, "hold db:orders"), await startGuest(host, module, "plain db:plain")];
for (const guest of guests) {
  const [, size, hash] = await guest.printed(/: (-?\d+) bytes, ([0-9a-f]+)/);
  console.log(`${size} ${hash}`);
}
for await (const line of createInterface({ input: process.stdin })) {
  const [command, file] = line.split(" ");
  if (command === "snapshot") writeHeapSnapshot(file);
  if (command === "end") break;
  console.log("done");
}
const findings = host.audit();
await host.close();
console.log(findings.length === 0 ? "sound" : findings.join("; "));
process.exit(0);
