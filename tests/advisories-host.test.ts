/**
 * Advisories about what guests of a running host do to it and to each other (docs/advisories.md, sections 2, 4 and 12).
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";

import type { GuestValue } from "@xenolith/host";
import { openDescriptorCount } from "@xenolith/sys";

import { assemble, assertClean, eventually, openHost, program, run, wordAt } from "./advisory-guests.ts";

const host = await openHost();
after(() => host.close());

/** A reactor that adds, to ask whether others still get their turn. */
const adder = assemble(`(module (memory 1) (func (export "add") (param i32 i32) (result i32)
  (i32.add (local.get 0) (local.get 1))))`);

describe("a guest and the host's code", () => {
  it("H12: an upcall whose hypercall raises the same event again does not run within itself (XSA-462, XSA-348)", async () => {
    // An ipi to itself: the handler sends it again before it returns, a thousand times.
    const image = assemble(`(module
      (import "xen" "event_channel_op" (func $event_channel_op (param i32 i32) (result i32)))
      (import "xen" "sched_op" (func $sched_op (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (global $info (mut i32) (i32.const 0))
      (func (export "xen_upcall")
        (i32.store (i32.const 200) (i32.add (i32.load (i32.const 200)) (i32.const 1)))
        (if (i32.gt_u (i32.load (i32.const 200)) (i32.load (i32.const 204)))
          (then (i32.store (i32.const 204) (i32.load (i32.const 200)))))
        (i32.store (i32.const 208) (i32.add (i32.load (i32.const 208)) (i32.const 1)))
        (i32.store8 (global.get $info) (i32.const 0))
        (i32.store offset=4 (global.get $info) (i32.const 0))
        (i32.store offset=2048 (global.get $info) (i32.const 0))
        (if (i32.lt_u (i32.load (i32.const 208)) (i32.const 1000))
          (then (drop (call $event_channel_op (i32.const 4) (i32.const 20)))))
        (i32.store (i32.const 200) (i32.sub (i32.load (i32.const 200)) (i32.const 1))))
      (func (export "xen_start") (param $start i32)
        (global.set $info (i32.load offset=36 (local.get $start)))
        (drop (call $event_channel_op (i32.const 7) (i32.const 16)))
        (drop (call $event_channel_op (i32.const 4) (i32.const 20)))
        (loop $again
          (drop (call $sched_op (i32.const 0) (i32.const 0)))
          (br_if $again (i32.lt_u (i32.load (i32.const 208)) (i32.const 1000))))))`);
    await using domain = await run(host, image);
    const exit = await domain.exited;
    assert.equal(exit.crashed, false, exit.reason);
    assert.equal(wordAt(domain, 208), 1000);
    assert.equal(wordAt(domain, 204), 1);
    assertClean(host);
  });

  it("H22: an answer that comes after its asker is gone reaches nobody (XSA-373)", async () => {
    const answers: ((value: GuestValue) => void)[] = [];
    const imports = {
      env: {
        ask: {
          params: ["i32"],
          results: ["i32"],
          call: (question: GuestValue) =>
            question === 1
              ? new Promise<GuestValue>((resolve) => answers.push(resolve))
              : Promise.resolve(Number(question) * 10),
        },
      },
    } as const;
    const asker = (question: number): Uint8Array =>
      assemble(`(module (import "env" "ask" (func $ask (param i32) (result i32))) (memory (export "memory") 1)
        (func (export "_start") (i32.store (i32.const 0) (call $ask (i32.const ${question})))))`);
    const image = asker(1);
    const first = await run(host, image, { imports });
    await eventually(() => answers.length === 1);
    await first.destroy();
    const waiting = await run(host, image, { imports });
    await eventually(() => answers.length === 2);
    answers[0]!(99);
    await using quick = await run(host, asker(7), { imports });
    assert.equal((await quick.exited).crashed, false);
    assert.equal(wordAt(quick, 0), 70);
    assert.equal(waiting.state, "running");
    answers[1]!(42);
    assert.equal((await waiting.exited).crashed, false);
    assert.equal(wordAt(waiting, 0), 42);
    await waiting.destroy();
    assertClean(host);
  });

  it("W02: a pointer that a guest returns is an address to be checked, not one to be used (W-02, CVE-2026-35195)", async () => {
    const image = assemble(`(module (memory (export "memory") 1)
      (func (export "malloc") (param i32) (result i32) (local.get 0))
      (func (export "grow") (result i32) (memory.grow (i32.const 1)))
      (func (export "fail") (result i32) unreachable))`);
    await using domain = await run(host, image);
    const bytes = new Uint8Array(64).fill(7);
    for (const wanted of [65536 - 63, 65535, 65536, 0x7fff_ffff, -1, -64, -(2 ** 31)]) {
      const pointer = Number(await domain.call("malloc", wanted));
      for (const address of [pointer, pointer >>> 0]) {
        assert.throws(() => domain.write(address, bytes), { code: "GUEST_ADDRESS" }, `${address}`);
        assert.throws(() => domain.read(address, 64), { code: "GUEST_ADDRESS" }, `${address}`);
      }
    }
    for (const address of [1.5, Number.NaN, Infinity, 2 ** 53, -1]) {
      assert.throws(() => domain.write(address, bytes), { code: "GUEST_ADDRESS" });
    }
    for (const address of [0, 3, 65536 - 64]) {
      domain.write(address, bytes);
      assert.deepEqual(domain.read(address, 64), bytes);
    }
    assert.equal(await domain.call("grow"), 1);
    domain.write(65536 - 32, bytes);
    await assert.rejects(domain.call("fail"), { code: "DOMAIN_CRASHED" });
    assertClean(host);
  });

  it("W03: what the host writes after the guest grew lands in the memory that the guest has then (W-03, CVE-2018-5093)", async () => {
    const written: number[] = [];
    const image = assemble(`(module (import "env" "fill" (func $fill (param i32)))
      (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "step") (result i32) (local $at i32)
        (call $fill (i32.const 1024))
        (local.set $at (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)))
        (drop (memory.grow (i32.const 0)))
        (call $fill (local.get $at))
        (if (call $random_get (i32.add (local.get $at) (i32.const 64)) (i32.const 32)) (then unreachable))
        (i32.and (i32.load (local.get $at)) (i32.load (i32.const 1024)))))`);
    const imports = {
      env: {
        fill: {
          params: ["i32"],
          results: [],
          call: (at: GuestValue) => {
            written.push(Number(at));
            domain.write(Number(at), new Uint8Array(8).fill(0x5a));
            return undefined;
          },
        },
      },
    } as const;
    await using domain = await host.createDomain({ image, imports });
    await domain.start();
    for (let round = 1; round <= 5; round += 1) {
      assert.equal(await domain.call("step"), 0x5a5a_5a5a);
      assert.equal(written.at(-1), round * 65536);
      assert.notDeepEqual(domain.read(round * 65536 + 64, 32), new Uint8Array(32));
    }
    assertClean(host);
  });

  it("E15: dom0's handler may close its own port, or the peer close it, and the other ports are served (XSA-331)", async () => {
    await using own = await openHost();
    const { events } = own;
    const served: string[] = [];
    const ends = ["closes itself", "throws", "closes the next", "next", "last"].map((name) => {
      const remote = events.allocateUnbound(0);
      const port = events.bindInterdomain(0, remote, (fired) => {
        served.push(name);
        if (name === "closes itself") events.close(fired);
        if (name === "throws") throw new Error("for the test");
        if (name === "closes the next" && !served.includes("last")) events.close(ends[3]!.port);
      });
      return { port, remote, name };
    });
    await eventually(() => served.includes("last"));
    assert.deepEqual(served, ["closes itself", "throws", "closes the next", "last"]);
    served.length = 0;
    events.on(ends[4]!.port, () => {
      served.push("last again");
    });
    for (const { remote, name } of ends) {
      if (name === "throws" || name === "last") events.notify(remote);
    }
    await eventually(() => served.includes("last again"));
    assert.ok(!served.includes("closes itself") && !served.includes("next") && !served.includes("last"));
    for (const { remote } of ends) events.close(remote);
    for (const { port, name } of ends) if (name !== "closes itself" && name !== "next") events.close(port);
    // The handler that threw was reported; nothing else is to be found.
    const findings = own.audit();
    assert.ok(findings.length > 0 && findings.every((finding) => finding.includes("for the test")), findings.join());
  });
});

describe("guests and their neighbours", () => {
  const stubborn: Readonly<Record<string, Uint8Array>> = {
    loops: program("(loop $again (br $again))"),
    "sets timers without end": program(
      `(loop $again (drop (call $set_timer_op (i32.const 1) (i32.const 0))) (br $again))`,
    ),
    "waits on its memory": assemble(`(module (memory (export "memory") 1 1 shared)
      (func (export "_start") (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))))`),
    "blocks for ever": program("(drop (call $sched_op (i32.const 1) (i32.const 0)))"),
    "fills memory without end": program(
      "(loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $again))",
    ),
    "makes the longest calls it can":
      program(`(i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 16000))
      (loop $again (drop (call $memory_op (i32.const 1) (i32.const 0))) (br $again))`),
  };
  for (const [what, image] of Object.entries(stubborn)) {
    it(`W12, W05: while a guest ${what}, others get their turn, and it ends when it is told to (W-12, CVE-2025-29776)`, async () => {
      const domain = await run(host, image);
      await using other = await run(host, adder);
      for (let round = 0; round < 20; round += 1) assert.equal(await other.call("add", round, 1), round + 1);
      await domain.destroy();
      assert.equal(domain.state, "free");
      assert.equal(await other.call("add", 40, 2), 42);
      assertClean(host);
    });
  }

  it("M11: creating and destroying domains of every kind leaves the process as it was (XSA-149, XSA-253, XSA-35)", async () => {
    const directory = mkdtempSync(join(tmpdir(), "xenolith-neutral-"));
    after(() => rmSync(directory, { recursive: true, force: true }));
    const trap = program("unreachable");
    const kinds: readonly (() => Promise<void>)[] = [
      async () => (await host.createDomain({ image: adder })).destroy(),
      async () => (await run(host, stubborn["loops"]!, { vcpus: 3 })).destroy(),
      async () => {
        await using domain = await run(host, trap, {
          directories: [{ host: directory, guest: "/d" }],
          stdio: { stdout: "pipe", stderr: "pipe" },
        });
        assert.equal((await domain.exited).crashed, true);
      },
      () =>
        assert.rejects(
          host.createDomain({
            image: adder,
            directories: [
              { host: directory, guest: "/d" },
              { host: "/no/such", guest: "/e" },
            ],
          }),
        ),
      () => assert.rejects(host.createDomain({ image: adder, memoryBytesMax: 4096 })),
      () => assert.rejects(host.createDomain({ image: Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1) })),
    ];
    const round = async (): Promise<void> => {
      for (const kind of kinds) await kind();
      await host.warm();
    };
    for (let warmUp = 0; warmUp < 5; warmUp += 1) await round();
    const before = { free: host.info().memoryFreeBytes, fds: openDescriptorCount(), threads: host.info().threadCount };
    const rounds = 20;
    for (let count = 0; count < rounds; count += 1) await round();
    assert.deepEqual(
      { free: host.info().memoryFreeBytes, fds: openDescriptorCount(), threads: host.info().threadCount },
      before,
    );
    assert.equal(host.info().vmas, 0);
    assert.equal(host.info().domainCount, 0);
    assertClean(host);
  });

  it("W30: many domains read their own files at once, and none gets bytes of another (W-30, CVE-2024-27935)", async () => {
    const directories = Array.from({ length: 4 }, () => mkdtempSync(join(tmpdir(), "xenolith-w30-")));
    after(() => directories.forEach((directory) => rmSync(directory, { recursive: true, force: true })));
    for (const [index, directory] of directories.entries())
      writeFileSync(join(directory, "f"), Buffer.alloc(60_000, index + 1));
    // Opens "f" beneath descriptor 3, reads it 200 times from the start and looks at every byte.
    const image = assemble(`(module
      (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_pread" (func $fd_pread (param i32 i32 i32 i64 i32) (result i32)))
      (memory (export "memory") 2) (data (i32.const 100) "f")
      (func (export "_start") (local $round i32) (local $at i32) (local $first i32)
        (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 0) (i64.const 6) (i64.const 0) (i32.const 0) (i32.const 200)) (then unreachable))
        (i32.store (i32.const 208) (i32.const 1024)) (i32.store (i32.const 212) (i32.const 60000))
        (loop $again
          (if (call $fd_pread (i32.load (i32.const 200)) (i32.const 208) (i32.const 1) (i64.const 0) (i32.const 216)) (then unreachable))
          (if (i32.ne (i32.load (i32.const 216)) (i32.const 60000)) (then unreachable))
          (local.set $first (i32.load8_u (i32.const 1024)))
          (local.set $at (i32.const 1024))
          (loop $bytes
            (if (i32.ne (i32.load8_u (local.get $at)) (local.get $first)) (then unreachable))
            (br_if $bytes (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 61024))))
          (br_if $again (i32.lt_u (local.tee $round (i32.add (local.get $round) (i32.const 1))) (i32.const 200))))
        (i32.store (i32.const 0) (local.get $first))))`);
    const domains = await Promise.all(
      directories.map((directory) =>
        run(host, image, { directories: [{ host: directory, guest: "/", readOnly: true }] }),
      ),
    );
    for (const [index, domain] of domains.entries()) {
      const exit = await domain.exited;
      assert.equal(exit.crashed, false, `${exit.reason} ${exit.where}`);
      assert.equal(wordAt(domain, 0), index + 1);
      await domain.destroy();
    }
    assertClean(host);
  });
});
