// A domain whose option ROM a device model in another domain loads. Build the repository first (npm run build), then:
// node examples/device-model/run.mjs
import { readFileSync } from "node:fs";
import { Host } from "@xenolith/host";
import wabtInit from "wabt";
import { compileGuest } from "../../guest/xencc.mjs";

const MIB = 2 ** 20;
const KIB = 1024;
const ROM_ADDRESS = 0xc_0000_00;
const ROM_BYTES = 16 * KIB;

const wabt = await wabtInit();
const { buffer } = wabt
  .parseWat(
    "guest.wat",
    `(module (memory (export "memory") 1)
       (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0))))`,
  )
  .toBinary({});
const loader = readFileSync(new URL("rom-loader.c", import.meta.url));
const image = await compileGuest({ "rom-loader.c": loader });

const host = await Host.open();
const show = (when) => {
  const { memoryBytes, memoryBytesMax, deviceModelBytes, deviceModelBytesMax } = guest.memory.figures();
  console.log(
    `${when}: has ${memoryBytes / KIB} of ${memoryBytesMax / KIB} KiB, ` +
      `${deviceModelBytes / KIB} of ${deviceModelBytesMax / KIB} of that added by its device model`,
  );
};

// What the device model may add is fixed here, by who builds the guest.
const guest = await host.createDomain({ image: buffer, memoryBytesMax: 1 * MIB, deviceModelMemoryBytes: 64 * KIB });
show("built");
const model = await host.createDomain({
  image,
  memoryBytesMax: 4 * MIB,
  commandLine: `${guest.domid} ${ROM_ADDRESS / 4096}`,
  deviceModelFor: guest,
});
const said = model.console.text();
await model.start();
await model.exited;
await model.destroy();
process.stdout.write((await said).replace(/^/gm, "  device model: ").replace(/ {2}device model: $/, ""));
show("with its ROM");

await guest.start();
let sum = 0;
const bytes = guest.read(ROM_ADDRESS, ROM_BYTES);
for (const byte of bytes) sum = (sum + byte) % 256;
const signature = [await guest.call("peek", ROM_ADDRESS), await guest.call("peek", ROM_ADDRESS + 1)];
console.log(`the guest reads ${signature.map((byte) => byte.toString(16)).join(" ")}, all bytes add up to ${sum}`);

// The administrator resizes the guest: what its device model added comes on top, and is counted by the hypervisor only.
guest.setMemoryMax(2 * MIB);
show("resized to 2 MiB");
guest.setMemoryMax(MIB / 2);
show("resized to 512 KiB");
console.log(`audit: ${host.audit().join("; ") || "clean"}`);
await guest.destroy();
await host.close();
