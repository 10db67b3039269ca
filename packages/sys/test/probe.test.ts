import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import {
  capabilities,
  type Capability,
  mayLockBeyondLimit,
  openDescriptorCount,
  tryTraps,
  vmaCount,
} from "@xenolith/sys";

const indexUrl = new URL("../src/index.js", import.meta.url).href;

/** What a child process with these flags and limits finds. */
const foundBy = (flags: readonly string[], limits = ""): ReadonlyMap<string, Capability> => {
  const program = `import { capabilities } from ${JSON.stringify(indexUrl)}; console.log(JSON.stringify(await capabilities()));`;
  const command = `${limits} exec "$0" "$@"`;
  const args = ["-c", command, process.execPath, ...flags, "--input-type=module", "--eval", program];
  const child = spawnSync("sh", args, { encoding: "utf8" });
  assert.equal(child.status, 0, child.stderr);
  const found = JSON.parse(child.stdout) as readonly Capability[];
  return new Map(found.map((capability) => [capability.name, capability]));
};

describe("capabilities", () => {
  it("finds what this machine must have for these tests to run, and leaves nothing behind", async () => {
    await capabilities();
    const before = { descriptors: openDescriptorCount(), mappings: vmaCount() };
    const found = await capabilities();
    assert.equal(openDescriptorCount(), before.descriptors);
    assert.ok(Math.abs(vmaCount() - before.mappings) < 20, "but for V8's own");
    for (const name of ["platform", "node", "kernel", "memfd", "openat2", "wasm-trap-handler"]) {
      assert.equal(found.find((capability) => capability.name === name)?.state, "available", name);
    }
    for (const { name, detail, state, remedy } of found) {
      assert.match(name, /^[a-z0-9-]+$/);
      assert.notEqual(detail, "");
      assert.equal(remedy === "", state === "available", `${name}: a remedy where one is needed`);
    }
  });

  it("reports a disabled trap handler: the child dies by a signal, this process does not", () => {
    const trap = foundBy(["--disable-wasm-trap-handler"]).get("wasm-trap-handler");
    assert.equal(trap?.state, "missing");
    assert.match(trap.detail, /SIGSEGV/);
    assert.notEqual(trap.remedy, "");
  });

  it("reports address space that is too small for a guest's memory and the guard regions that traps rely on", () => {
    const trap = foundBy([], "ulimit -v 6000000;").get("wasm-trap-handler");
    assert.equal(trap?.state, "missing");
    assert.match(trap.detail, /RangeError|SIGSEGV/, "V8 refuses the memory, or makes it without guard regions");
  });

  it("reports an inspector", () => {
    assert.equal(foundBy(["--inspect=127.0.0.1:0"]).get("inspector")?.state, "degraded");
    assert.equal(foundBy([]).get("inspector")?.state, "available");
  });

  it("says whether secrets are strong here, and what is to be raised to which value", () => {
    const { state, detail, remedy } = foundBy([], "ulimit -l 64;").get("secret-memory")!;
    const { mayLock, strong } = {
      mayLock: mayLockBeyondLimit(),
      strong: foundBy([]).get("memfd-secret")!.state === "available",
    };
    if (!strong) {
      assert.match(`${state} ${detail}`, /^degraded weak: locked in RAM/);
      assert.notEqual(remedy, "");
    } else if (mayLock) assert.deepEqual([state, detail], ["available", "strong: nobody but this process reads it"]);
    else {
      assert.match(`${state} ${detail}`, /^degraded strong, but little of it: limited to 64/);
      assert.match(remedy, /67174400 bytes \(ulimit -l 65600, LimitMEMLOCK=67174400\)/);
    }
    if (!mayLock) assert.equal(foundBy([], "ulimit -l 0;").get("secret-memory")?.state, "missing");
  });

  it("reports limits that are too low", () => {
    const found = foundBy([], "ulimit -n 200;");
    assert.equal(found.get("descriptors")?.state, "degraded");
    assert.match(found.get("descriptors")?.detail ?? "", /of 200 /);
  });
});

describe("tryTraps", () => {
  it("tells traps from death, flag by flag; flags that do not matter are not passed on", async () => {
    assert.deepEqual(await tryTraps([]), { traps: true, detail: "loads and stores trap" });
    assert.deepEqual(await tryTraps(["--no-liftoff"]), { traps: true, detail: "loads and stores trap" });
    assert.deepEqual(await tryTraps(["--inspect-brk", "--eval", "--test"]), {
      traps: true,
      detail: "loads and stores trap",
    });
    const { traps, detail } = await tryTraps(["--disable-wasm-trap-handler"]);
    assert.equal(traps, false);
    assert.match(detail, /SIGSEGV after 0 traps/);
  });
});
