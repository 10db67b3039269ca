/** Secret memory where the kernel gives none: nothing, or locked memory that everybody is told of. Each in a child process. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";

const run = (program: string): string => {
  const source = `
    import { Host } from ${JSON.stringify(import.meta.resolve("@xenolith/host"))};
    import { forbidSecretMemory } from ${JSON.stringify(new URL("forbid-secret-memory.js", import.meta.url).href)};
    const codeOf = (work) => work.then(() => "none", (error) => error.code);
    const small = { memoryBytes: 64 * 2 ** 20, warmVcpuCount: 0 };
    forbidSecretMemory(38);
    ${program}`;
  const child = spawnSync(process.execPath, ["--input-type=module", "--eval", source], { encoding: "utf8" });
  assert.equal(child.status, 0, child.stderr);
  return child.stdout.trim();
};

describe("a host on a kernel without secret memory", () => {
  it("has no secrets and no keys by default, and goes on", () => {
    const output = run(`
      const host = await Host.open(small);
      console.log(await codeOf(host.secrets()), await codeOf(host.keys()), host.openedSecrets, host.audit().length);
      await host.close();`);
    assert.equal(output, "SECRET_UNSUPPORTED SECRET_UNSUPPORTED undefined 0");
  });

  it("that is degraded calls who wants to know, once", () => {
    const output = run(`
      let told = 0;
      const host = await Host.open({ ...small, secrets: { policy: "degraded", onDegraded: () => (told += 1) } });
      const before = told;
      const [pool] = await Promise.all([host.secrets(), host.keys(), host.secrets()]);
      console.log(before, told, pool.hidden);
      await host.close();`);
    assert.equal(output, "0 1 false");
  });
});
