/**
 * Keys in whole guests: what the C library offers, what another guest can do, and what can be seen from outside of a payload
 * that a guest has in a secret page.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Writable } from "node:stream";
import { after, before, describe, it } from "node:test";
import { Host, type KeyReply, type KeyRequest } from "@xenolith/host";
import { closeDescriptor, createSecretMemfd } from "@xenolith/sys";
import { assertChecks, compileReactor, compileTest, createGuest, startGuest } from "./c-domains.ts";
import { countIn, countInMemory } from "./memory-scan.ts";

let image: Uint8Array;
let wasi: Uint8Array;
const WASI = `
  #include <string.h>
  #include <xenolith/keys.h>
  #include <xenolith/secrets.h>
  __attribute__((export_name("ask"))) int ask(void) {
    void *page;
    if (secret_alloc(1, &page) < 0) return -1;
    int length = key_read(key_request("user", "db:orders", "", 0), page, 4096);
    return length > 0 && memcmp(page, "the password", (size_t)length) ? -2 : length;
  }`;
const directory = mkdtempSync(path.join(tmpdir(), "c-keys-"));
before(async () => {
  image = await compileTest("c-keys.c");
  wasi = await compileReactor("wasi.c", WASI);
});
after(() => {
  rmSync(directory, { recursive: true });
});

/** FNV-1a, as the guest computes it. */
const hashOf = (bytes: Uint8Array): string => {
  let value = 2166136261;
  for (const byte of bytes) value = Math.imul(value ^ byte, 16_777_619) >>> 0;
  return value.toString(16);
};

interface Scene {
  readonly host: Host;
  readonly asked: KeyRequest[];
  /** Answers what was asked, in that order. */
  readonly answer: ((reply: KeyReply) => void)[];
}

/** A host whose builder of keys is the test; at the end nothing may be left. */
const onHost = async (test: (scene: Scene) => Promise<void>, isHeld = false): Promise<void> => {
  const scene: { host?: Host } & Omit<Scene, "host"> = { asked: [], answer: [] };
  const requestKey = (request: KeyRequest): KeyReply | Promise<KeyReply> => {
    scene.asked.push({ ...request, callout: Uint8Array.from(request.callout) });
    return isHeld ? new Promise((resolve) => scene.answer.push(resolve)) : Buffer.from("the password");
  };
  const host = await Host.open({
    memoryBytes: 2 ** 26,
    warmVcpuCount: 0,
    secrets: { policy: "degraded" },
    keys: { requestKey },
  });
  try {
    await test({ ...scene, host });
    const keys = await host.keys();
    const pool = await host.secrets();
    await Promise.all(host.domains.map((domain) => domain.destroy()));
    const findings = [...host.audit(), ...keys.audit()];
    const { processes, waits, payloads } = keys.statistics();
    const { slots } = pool.statistics();
    const users = keys.procKeyUsers().trim().split("\n").length;
    await host.close();
    assert.deepEqual(findings, []);
    assert.deepEqual(
      { processes, waits, payloads, slots, users },
      { processes: 0, waits: 0, payloads: 0, slots: 0, users: 1 },
    );
  } finally {
    await host.close();
  }
};

describe("keys of the guest library", () => {
  it("do what <xenolith/keys.h> says", () =>
    onHost(async ({ host, asked }) => {
      assertChecks(await (await startGuest(host, image, "checks")).end(), 61);
      assert.deepEqual(asked, []);
    }));

  it("are built when they are asked for, by one who is told which domain asks", () =>
    onHost(async ({ host, asked }) => {
      const guest = await startGuest(host, image, "hold db:orders", { name: "orders" });
      const [, key, size, hash] = await guest.printed(/key (\d+): (-?\d+) bytes, ([0-9a-f]+)/);
      assert.deepEqual([size, hash], ["12", hashOf(Buffer.from("the password"))]);
      const [request] = asked;
      assert.ok(request !== undefined);
      assert.deepEqual(request.domain, { domid: guest.domain.domid, name: "orders" });
      assert.deepEqual([request.type, request.description, String(request.key)], ["user", "db:orders", key]);
      assert.equal(request.uid, await guest.domain.keys.uid());
      // Another guest, which even knows its number.
      const spy = await startGuest(host, image, `spy ${key}`);
      assertChecks(await spy.end(), 12);
      await guest.destroy();
    }));

  it("are built once for eight vCPUs that ask at once", () =>
    onHost(async ({ host, asked }) => {
      const guest = await startGuest(host, image, "many db:orders", { vcpus: 8 });
      assertChecks(await guest.end(), 8);
      assert.equal(asked.length, 1);
    }));

  it("that are being built when their domain is destroyed leave nothing behind", () =>
    onHost(async ({ host, asked, answer }) => {
      const guest = await startGuest(host, image, "ask db:orders");
      const other = await startGuest(host, image, "ask db:orders");
      await Promise.all([guest.printed(/asks/), other.printed(/asks/)]);
      while (asked.length < 2) await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual(
        asked.map(({ callout }) => Buffer.from(callout).toString()),
        ["please", "please"],
      );
      const first = asked.findIndex(({ domain }) => domain?.domid === guest.domain.domid);
      await guest.destroy();
      assert.deepEqual(
        asked.map(({ signal }) => signal.aborted),
        asked.map((_, index) => index === first),
      );
      const keys = await host.keys();
      assert.deepEqual(keys.audit(), []);
      const late = Buffer.from("too late");
      answer[first]!(late);
      answer[1 - first]!(Buffer.from("in time"));
      const { reason, text } = await other.end();
      assert.equal(reason, "poweroff");
      assert.match(text, /answer \d+\n$/);
      assert.deepEqual(late, Buffer.alloc(8), "what nobody wanted is wiped");
    }, true));

  it("can be given by the control domain, and taken back", () =>
    onHost(async ({ host, asked }) => {
      const guest = await createGuest(host, image, "use db:given");
      const payload = Buffer.from("given");
      const serial = await guest.domain.keys.give({ description: "db:given", payload });
      assert.deepEqual(payload, Buffer.alloc(5), "it is wiped");
      await guest.domain.start();
      await guest.printed(/used/);
      await guest.domain.keys.take(serial);
      assertChecks(await guest.end(), 7);
      assert.deepEqual(asked, []);
      await assert.rejects(guest.domain.keys.give({ description: "x", payload }), { code: "DOMAIN_STATE" });
    }));

  it("are for WASI programs, too", () =>
    onHost(async ({ host }) => {
      const domain = await host.createDomain({ image: wasi, memoryBytesMax: 2 ** 23 });
      await domain.start();
      assert.equal(await domain.call("ask"), "the password".length);
      await domain.destroy();
    }));
});

const withoutSecretMemory = ((): string | false => {
  try {
    closeDescriptor(createSecretMemfd(4096));
    return false;
  } catch (error) {
    return `this kernel gives no secret memory: ${String(error)}`;
  }
})();

describe("a key in a guest's secret page", { skip: withoutSecretMemory }, () => {
  it("is not in what /proc/PID/mem shows, nor in a heap snapshot; one in ordinary memory is", async () => {
    const file = path.join(directory, "keys.wasm");
    writeFileSync(file, image);
    const program = path.join(import.meta.dirname, "keys-target.js");
    const child = spawn(process.execPath, [program, file], { stdio: ["pipe", "pipe", "inherit", "pipe", "pipe"] });
    const [secret, plain] = [randomBytes(32), randomBytes(32)];
    (child.stdio[3] as Writable).end(secret);
    (child.stdio[4] as Writable).end(plain);
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const next = async (): Promise<unknown> => (await lines.next()).value;
    // Both guests have what was given.
    assert.equal(await next(), `32 ${hashOf(secret)}`);
    assert.equal(await next(), `32 ${hashOf(plain)}`);
    const found = { plain: countInMemory(child.pid!, plain), secret: countInMemory(child.pid!, secret) };
    const heap = path.join(directory, "keys.heapsnapshot");
    child.stdin!.write(`snapshot ${heap}\n`);
    assert.equal(await next(), "done");
    const snapshot = readFileSync(heap);
    child.stdin!.write("end\n");
    const gone = once(child, "exit");
    assert.equal(await next(), "sound");
    await gone;
    assert.ok(found.plain > 0, "control");
    assert.equal(found.secret, 0);
    for (const form of ["hex", "base64", "latin1"] as const)
      assert.equal(countIn(snapshot, Buffer.from(secret.toString(form), "latin1")), 0, form);
  });
});
