/**
 * A program with two guests that share a secret page, for guest-secrets.test.ts, which looks for what is in it from
 * outside. One guest makes the bytes by itself, in the page, and the same number of others in its ordinary memory: neither
 * is anywhere else. Prints what the guests and this process can tell, as JSON.
 *
 *   node secrets-target.js IMAGE.wasm POLICY SECRET_SEED PLAIN_SEED
 */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { constants } from "node:os";
import { createInterface } from "node:readline";
import { writeHeapSnapshot } from "node:v8";
import { type Domain, Host } from "@xenolith/host";
import { forbidSecretMemory } from "./forbid-secret-memory.ts";

const [, , image = "", policy = "", secretSeed = "0", plainSeed = "0"] = process.argv;

// Where the kernel has none, there is what a policy allows in its place.
if (policy === "degraded") forbidSecretMemory(constants.errno.ENOSYS);
const host = await Host.open({
  memoryBytes: 2 ** 26,
  warmVcpuCount: 0,
  secrets: { policy: policy === "strict" ? "strict" : "degraded" },
});
const module = readFileSync(image);
const start = async (): Promise<Domain> => {
  const domain = await host.createDomain({ image: module, memoryBytesMax: 2 ** 24 });
  await domain.start();
  return domain;
};
const call = async (domain: Domain, name: string, ...values: readonly number[]): Promise<number> =>
  // Addresses are unsigned.
  Number(await domain.call(name, ...values.map((value) => value | 0))) >>> 0;

const [owner, user] = [await start(), await start()];
const secretAt = await call(owner, "hide", Number(secretSeed), user.domid);
const sharedAt = await call(user, "use", owner.domid, 0);
const plainAt = await call(owner, "show", Number(plainSeed));
/** Whether both see the same bytes, as they say themselves. */
const areSame = (await call(owner, "sum", secretAt)) === (await call(user, "sum", sharedAt));

const { domains } = host.hypervisor;
const base = domains.spaceBase[domains.slotOf(owner.domid)]!;
const [secretAddress, plainAddress] = [base + secretAt, base + plainAt];

/** What this process reads of itself through the kernel: the first byte, or the error. */
const readSelf = (address: number): number | string => {
  const memory = openSync("/proc/self/mem", "r");
  const byte = Buffer.alloc(1);
  try {
    return readSync(memory, byte, 0, 1, address) === 1 ? byte[0]! : "nothing";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "error";
  } finally {
    closeSync(memory);
  }
};

console.log(
  JSON.stringify({
    areSame,
    hidden: (await host.secrets()).hidden,
    secretAddress,
    plainAddress,
    self: { secret: readSelf(secretAddress), plain: readSelf(plainAddress) },
  }),
);
for await (const line of createInterface({ input: process.stdin })) {
  const [command, file = ""] = line.split(" ");
  if (command === "snapshot") writeHeapSnapshot(file);
  if (command === "release") await call(owner, "release", 0);
  if (command === "end") break;
  console.log("done");
}
const findings = host.audit();
await host.close();
console.log(findings.length === 0 ? "sound" : findings.join("; "));
process.exit(0);
