import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { XenstoreClient } from "@xenolith/xenstore";
import { parseConfig } from "../src/config/index.ts";
import { CONFIG_BYTES_MAX } from "../src/config/keys.ts";
import { ServiceBench } from "./service-harness.ts";

const MIB = 2 ** 20;

describe("published bugs of toolstacks", () => {
  it("T01: whatever stands in a domain's part of xenstore, requests act on the domain that they name", async () => {
    const bench = await ServiceBench.open();
    const liar = await bench.create("idle", { name: "liar", memory: 4, memory_min: 1 });
    const other = await bench.create("idle", { name: "other", memory: 4, memory_min: 1 });
    const home = `/local/domain/${liar.domid}`;
    const store = await XenstoreClient.connect(bench.xenstoreSocket);
    const lies = {
      name: "other",
      domid: String(other.domid),
      vm: `/vm/${other.domid}`,
      "memory/static-max": "1073741824",
      "memory/target": "-1",
      "control/shutdown": "garbage",
      "device/vbd/1/backend": `/local/domain/${other.domid}/backend`,
      "data/balloon/info/current_kb": "18446744073709551616",
    };
    for (const [node, value] of Object.entries(lies)) await store.write(`${home}/${node}`, value);
    const listed = await bench.get("/v1/domains/liar");
    const set = await bench.ask("PUT", "/v1/domains/liar/memory/target", { bytes: 2 * MIB });
    await store.rm(home);
    const gone = await bench.ask("DELETE", "/v1/domains/liar");
    const left = await bench.names();
    const stays = await bench.get("/v1/domains/other");
    store.close();
    const findings = await bench.close();
    await bench[Symbol.asyncDispose]();
    assert.deepEqual([listed.domid, listed.memory.maxBytes], [liar.domid, 4 * MIB]);
    assert.equal(set.status, 200);
    assert.equal(gone.status, 204);
    assert.deepEqual(left, ["other"]);
    assert.deepEqual([stays.domid, stays.generation, stays.memory.maxBytes], [other.domid, other.generation, 4 * MIB]);
    assert.deepEqual(findings, []);
  });

  it("T06: a configuration at its longest means what it says, and one byte more is an error that names the limit", () => {
    const least = `name = "web"\nkernel = "/web.wasm"\n`;
    const filled = (bytes: number): string => `${least}#${"x".repeat(bytes - least.length - 19)}\nmemory = "32MiB"\n`;
    const whole = filled(CONFIG_BYTES_MAX);
    assert.equal(Buffer.byteLength(whole), CONFIG_BYTES_MAX);
    assert.equal(parseConfig(whole, "web.toml").memoryBytes, 32 * MIB);
    assert.throws(() => parseConfig(filled(CONFIG_BYTES_MAX + 1), "web.toml"), {
      code: "CONFIG_INVALID",
      message: `web.toml: ${CONFIG_BYTES_MAX + 1} bytes long, the limit is ${CONFIG_BYTES_MAX}`,
    });
    for (const key of ["name", "extra"]) {
      const bytesMax = [...Array(2000).keys()].findLast((length) => isAccepted(key, length))!;
      const value = "y".repeat(bytesMax);
      const config = parseConfig(configWith(key, value), "web.toml");
      assert.ok(Object.values(config).includes(value), key);
      assert.throws(() => parseConfig(configWith(key, `${value}y`), "web.toml"), new RegExp(String(bytesMax)));
    }
  });
});

const configWith = (key: string, value: string): string =>
  key === "name"
    ? `name = "${value}"\nkernel = "/web.wasm"\n`
    : `name = "web"\nkernel = "/web.wasm"\n${key} = "${value}"\n`;

const isAccepted = (key: string, length: number): boolean => {
  try {
    parseConfig(configWith(key, "y".repeat(length)), "web.toml");
    return true;
  } catch {
    return false;
  }
};
