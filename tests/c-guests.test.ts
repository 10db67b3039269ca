/**
 * Guests in C, compiled with clang from npm: the examples of the guest library, and a program that uses nothing but
 * Xen's public interface in its 32-bit layout.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { type DomainExit, Host } from "@xenolith/host";

const root = path.join(import.meta.dirname, "../..");
// From the compiled test's place the module is one folder further away than the compiler thinks.
const { compileGuest } = (await import(path.join(root, "guest/xencc.mjs"))) as typeof import("../guest/xencc.mjs");
const MIB = 2 ** 20;

let host: Host;
const images = new Map<string, Uint8Array>();
before(async () => {
  // Before a guest with atomics makes V8 compile everything, the C compiler included, with its slow compiler.
  for (const name of ["hello.c", "timer.c", "pages.c"]) {
    images.set(name, await compileGuest({ [name]: readFileSync(path.join(root, "guest/examples", name)) }));
  }
  const source = readFileSync(path.join(root, "tests/xen-style.c"));
  images.set(
    "xen-style.c",
    await compileGuest({ "xen-style.c": source }, { library: false, flags: ["-O1", "-fno-builtin"] }),
  );
  host = await Host.open();
});
after(async () => {
  assert.deepEqual(host.audit(), []);
  await host.close();
});

const runGuest = async (name: string): Promise<{ exit: DomainExit; text: string }> => {
  await using domain = await host.createDomain({ image: images.get(name)!, memoryBytesMax: 4 * MIB });
  const text = domain.console.text();
  await domain.start();
  const exit = await domain.exited;
  await domain.destroy();
  return { exit, text: await text };
};

describe("examples of the guest library", () => {
  it("hello.c prints what it owns", async () => {
    const { exit, text } = await runGuest("hello.c");
    assert.equal(exit.reason, "poweroff");
    assert.match(text, /^hello from a domain: \d+ pages at boot, \d+ now, 1024 at most\n$/);
  });
  it("timer.c gets three timer events", async () => {
    const { exit, text } = await runGuest("timer.c");
    assert.deepEqual([exit.reason, text], ["poweroff", "tick 1\ntick 2\ntick 3\n"]);
  });
  it("pages.c takes all it may have and gives it back", async () => {
    const { exit, text } = await runGuest("pages.c");
    assert.equal(exit.reason, "poweroff");
    assert.match(text, /took \d+ blocks of 4 pages; 10(?:2[0-4]|1\d) of 1024 pages owned\ngave them back: as before\n/);
  });
});

describe("a guest written against Xen's public interface alone", () => {
  it("finds every structure and result where the 32-bit layout has it", async () => {
    const { exit, text } = await runGuest("xen-style.c");
    const failed = text.split("\n").filter((line) => line.startsWith("FAILED"));
    assert.deepEqual(failed, []);
    assert.equal(exit.reason, "poweroff");
    assert.equal(text.split("\n").filter((line) => line.startsWith("ok ")).length, 26);
  });
});
