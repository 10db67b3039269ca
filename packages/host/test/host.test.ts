import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { Host } from "../src/index.ts";
import { assertClean, cacheDirectory, descriptorCount, openHost, program, run } from "./support.ts";

test("a host opens without arguments and offers most of the machine's memory", async () => {
  await using host = await Host.open();
  const { memoryBytes, memoryFreeBytes, domainCount } = host.info();
  assert.ok(memoryBytes > 2 ** 28);
  // Frame 0 belongs to nobody, and the control domain has two pages: shared_info and its grant table.
  assert.equal(memoryFreeBytes, memoryBytes - 3 * 4096);
  assert.equal(domainCount, 0);
  assertClean(host);
});

test("a closed host leaves no descriptor behind and refuses everything", async () => {
  const before = descriptorCount();
  const host = await openHost();
  await host.warm();
  assert.ok(descriptorCount() > before);
  await host.close();
  assert.equal(descriptorCount(), before);
  await assert.rejects(host.createDomain({ image: program("") }), { code: "HOST_CLOSED" });
});

for (const memoryBytes of [0, -1, 4095, Number.NaN, Infinity, 2 ** 60]) {
  test(`machine memory of ${memoryBytes} bytes is refused with the value`, async () => {
    await assert.rejects(openHost({ memoryBytes }), (error: Error) => {
      assert.equal((error as Error & { code: string }).code, "INVALID_SIZE");
      assert.ok(error.message.includes(String(memoryBytes)), error.message);
      return true;
    });
  });
}

for (const memoryBytesMax of [0, -1, Number.NaN, Infinity, 2 ** 60]) {
  test(`a domain with ${memoryBytesMax} bytes is refused and leaves nothing`, async () => {
    await using host = await openHost();
    const before = host.info();
    await assert.rejects(host.createDomain({ image: program(""), memoryBytesMax }), { code: "INVALID_SIZE" });
    assert.deepEqual(host.info().memoryFreeBytes, before.memoryFreeBytes);
    assertClean(host);
  });
}

for (const [option, value] of [
  ["vcpus", 0],
  ["vcpus", 33],
  ["vcpus", 1.5],
  ["descriptorCountMax", 0],
  ["vmaBudget", -1],
  ["commandLine", "x".repeat(1024)],
  ["arguments", ["a\0b"]],
] as const) {
  test(`a domain with ${option} ${JSON.stringify(value).slice(0, 20)} is refused`, async () => {
    await using host = await openHost();
    await assert.rejects(host.createDomain({ image: program(""), [option]: value }), { code: "INVALID_ARGUMENT" });
    assertClean(host);
  });
}

test("a directory that does not exist is refused, and the others are closed again", async () => {
  await using host = await openHost();
  // A thread has descriptors of its own.
  await host.warm();
  const before = descriptorCount();
  const directories = [
    { host: "/tmp", guest: "/tmp" },
    { host: "/nonexistent/xenolith", guest: "/" },
  ];
  await assert.rejects(host.createDomain({ image: program(""), directories }), { code: "DIRECTORY_NOT_FOUND" });
  assert.equal(descriptorCount(), before);
  assertClean(host);
});

test("a process whose guests have all ended exits by itself, with the host still open", async () => {
  const library = new URL("../src/index.js", import.meta.url).href;
  const script = `
    import { Host } from ${JSON.stringify(library)};
    const host = await Host.open({ memoryBytes: 2 ** 26, cacheDirectory: process.argv[1] });
    const image = Buffer.from(${JSON.stringify(Buffer.from(program("")).toString("base64"))}, "base64");
    const domain = await host.createDomain({ image });
    await domain.start();
    console.log((await domain.exited).reason);
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script, cacheDirectory]);
  assert.equal(stdout, "exit\n");
});

test("a program may end at any time, with guests that run, block and wait", async () => {
  const library = new URL("../src/index.js", import.meta.url).href;
  const guests = [
    program("(loop $again (br $again))"),
    program("(loop $again (drop (call $sched_op (i32.const 1) (i32.const 0))) (br $again))"),
    program("(loop $again (drop (call $memory_op (i32.const 3) (i32.const 0))) (br $again))"),
  ].map((image) => Buffer.from(image).toString("base64"));
  const script = `
    import { Host } from ${JSON.stringify(library)};
    const host = await Host.open({ memoryBytes: 2 ** 26, cacheDirectory: process.argv[1] });
    for (const image of ${JSON.stringify(guests)}) {
      const domain = await host.createDomain({ image: Buffer.from(image, "base64") });
      await domain.start();
    }
    process.exit(5);
  `;
  const ended = promisify(execFile)(process.execPath, ["--input-type=module", "-e", script, cacheDirectory]);
  await assert.rejects(ended, { code: 5 });
});

test("domids ascend and are not given out again at once (W15)", async () => {
  await using host = await openHost();
  const first = await run(host, program(""));
  await first.destroy();
  const second = await run(host, program(""));
  assert.ok(second.domid > first.domid);
  assert.notEqual(second.generation, first.generation);
  assert.equal(host.domain(first.domid), undefined);
  assert.equal(host.domain(second.domid), second);
});
