import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { once } from "node:events";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  createMemfd,
  closeDescriptor,
  exactProcessMemory,
  type DirectMap,
  directMap,
  type DirectMapPlace,
  machineMemory,
  mapAnywhere,
  mappingsIn,
  openDescriptorCount,
  overcommitMode,
  PAGE_BYTES,
  peerCredentials,
  platformRefusal,
  processMemory,
  PROT_NONE,
  PROT_READ,
  PROT_READ_WRITE,
  protect,
  reserve,
  resourceLimit,
  threadCpuTimeNs,
  thisPlatform,
  threadId,
  unmap,
  viewMemory,
  vmaCount,
  vmaCountMax,
} from "@xenolith/sys";

const { EBADF, EINVAL, ENOTSOCK } = constants.errno;
const indexUrl = new URL("../src/index.js", import.meta.url).href;

/** Runs a module in a child process, through a shell command that may set limits before. */
const runChild = (program: string, limits = ""): { readonly output: string; readonly errors: string } => {
  const command = `${limits} exec "$0" --input-type=module --eval "$1"`;
  const source = `import * as sys from ${JSON.stringify(indexUrl)};\n${program}`;
  const child = spawnSync("sh", ["-c", command, process.execPath, source], { encoding: "utf8" });
  return { output: child.stdout.trim(), errors: `${child.stderr}\n${String(child.signal)}` };
};

describe("mappings of this process", () => {
  it("are listed with addresses, protection, file and offset, in order", () => {
    const fd = createMemfd({ name: "test-maps", sizeBytes: 16 * PAGE_BYTES });
    const lengthBytes = 8 * PAGE_BYTES;
    const address = mapAnywhere({ fd, offsetBytes: 4 * PAGE_BYTES, lengthBytes, protection: PROT_READ_WRITE });
    assert.equal(protect(address + 2 * PAGE_BYTES, PAGE_BYTES, PROT_READ), 0);
    assert.equal(reserve(address + 5 * PAGE_BYTES, PAGE_BYTES), 0);

    const found = mappingsIn(address, address + lengthBytes);
    const pageOf = (at: number): number => (at - address) / PAGE_BYTES;
    assert.deepEqual(
      found.map(({ startAddress, endAddress, protection, offsetBytes, shared, executable }) => [
        pageOf(startAddress),
        pageOf(endAddress),
        protection,
        offsetBytes / PAGE_BYTES,
        shared,
        executable,
      ]),
      [
        [0, 2, PROT_READ_WRITE, 4, true, false],
        [2, 3, PROT_READ, 6, true, false],
        [3, 5, PROT_READ_WRITE, 7, true, false],
        [5, 6, PROT_NONE, 0, false, false],
        [6, 8, PROT_READ_WRITE, 10, true, false],
      ],
    );
    assert.match(found[0]?.path ?? "", /^\/memfd:test-maps/);
    assert.ok((found[0]?.inode ?? 0) > 0);
    assert.equal(found[3]?.inode, 0);
    assert.deepEqual(
      mappingsIn(address + 2 * PAGE_BYTES, address + 3 * PAGE_BYTES).map((mapping) => mapping.protection),
      [PROT_READ],
    );
    assert.deepEqual(mappingsIn(address, address), []);
    unmap(address, lengthBytes);
    assert.deepEqual(mappingsIn(address, address + lengthBytes), []);
    closeDescriptor(fd);
  });

  it("are counted as the kernel counts them: each isolated page adds two", () => {
    const fd = createMemfd({ name: "test-count", sizeBytes: 64 * PAGE_BYTES });
    const lengthBytes = 64 * PAGE_BYTES;
    const address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes, protection: PROT_READ_WRITE });
    for (let page = 1; page < 64; page += 4) assert.equal(reserve(address + page * PAGE_BYTES, PAGE_BYTES), 0);
    assert.equal(mappingsIn(address, address + lengthBytes).length, 1 + 32);
    assert.ok(vmaCountMax() > vmaCount());
    unmap(address, lengthBytes);
    closeDescriptor(fd);
  });

  it("above vm.max_map_count every mmap fails, also one that only replaces; whole mappings can be protected, punched, unmapped", () => {
    const { output, errors } = runChild(`
      const fd = sys.createMemfd({ name: "exhaust", sizeBytes: 2 ** 32 });
      const memory = new WebAssembly.Memory({ initial: 65536, maximum: 65536, shared: true });
      const base = sys.baseAddress(memory);
      const bytes = new Uint8Array(memory.buffer);
      const results = new Int32Array(11);
      sys.check(sys.reserve(base, 2 ** 32), "reserve");
      sys.check(sys.mapFrames(base, 16384, sys.PROT_READ_WRITE, fd, 0), "map");
      bytes[4096] = 55;
      let page = 8;
      while ((results[0] = sys.mapFrames(base + page * 4096, 4096, sys.PROT_READ_WRITE, fd, page * 4096)) === 0) page += 2;
      const more = [0, 0, 0, 0];
      try { for (let n = 0; n < 4; n++) more[n] = sys.mapAnywhere({ fd, offsetBytes: 0, lengthBytes: 4096, protection: 1 }); } catch {}
      results[1] = sys.reserve(base + 4096, 4096);
      results[2] = sys.protect(base + 4096, 4096, sys.PROT_READ);
      results[3] = sys.unmap(base + 4096, 4096);
      results[4] = sys.mapFrames(base + 8 * 4096, 4096, sys.PROT_READ, fd, 0);
      results[5] = sys.protect(base + 8 * 4096, 4096, sys.PROT_NONE);
      results[6] = sys.punchHole(fd, 10 * 4096, 4096);
      results[7] = sys.unmap(base + 8 * 4096, (page - 8) * 4096);
      results[8] = sys.reserve(base + 8 * 4096, (page - 8) * 4096);
      results[9] = sys.mapFrames(base + 8 * 4096, 4096, sys.PROT_READ, fd, 4096);
      for (const address of more) if (address > 0) sys.unmap(address, 4096);
      results[10] = bytes[4096] + bytes[8 * 4096];
      console.log(results.join(" "), page > 10000);`);
    assert.equal(output, "-12 -12 -12 -12 -12 0 0 0 0 0 110 true", errors);
  });
});

describe("memory figures", () => {
  it("resident and proportional memory follow the pages that are touched, and fall when they are dropped", () => {
    const lengthBytes = 64 * 2 ** 20;
    const fd = createMemfd({ name: "test-rss", sizeBytes: lengthBytes });
    const before = { quick: processMemory(), exact: exactProcessMemory() };
    const address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes, protection: PROT_READ_WRITE });
    new Uint8Array(viewMemory(address, lengthBytes)).fill(1);
    const during = { quick: processMemory(), exact: exactProcessMemory() };
    unmap(address, lengthBytes);
    const afterwards = exactProcessMemory();
    closeDescriptor(fd);
    const most = lengthBytes * 0.9;
    assert.ok(during.quick.residentSharedBytes - before.quick.residentSharedBytes > most);
    assert.ok(during.quick.residentBytes - before.quick.residentBytes > most);
    assert.ok(during.quick.virtualBytes > during.quick.residentBytes);
    assert.ok(during.exact.residentBytes - before.exact.residentBytes > most);
    assert.ok(during.exact.proportionalBytes - before.exact.proportionalBytes > most);
    assert.ok(during.exact.residentBytes - afterwards.residentBytes > most);
    assert.ok(during.exact.privateBytes > 0 && during.exact.lockedBytes >= 0 && during.exact.swappedBytes >= 0);
  });

  it("the machine's memory and overcommit mode are the kernel's", () => {
    const { totalBytes, availableBytes, controlGroupBytes } = machineMemory();
    assert.match(readFileSync("/proc/meminfo", "latin1"), new RegExp(`^MemTotal: +${String(totalBytes / 1024)} kB`));
    assert.ok(availableBytes > 0 && availableBytes <= totalBytes && controlGroupBytes > 0);
    const mode = readFileSync("/proc/sys/vm/overcommit_memory", "latin1").trim();
    assert.equal(overcommitMode(), ["heuristic", "always", "never"][Number(mode)]);
  });
});

describe("limits", () => {
  it("are what the shell set, in bytes or counts; no limit is Infinity", () => {
    const { output, errors } = runChild(
      `const limits = [sys.resourceLimit("NOFILE").hard, sys.resourceLimit("MEMLOCK").soft, sys.resourceLimit("CORE").soft, sys.resourceLimit("AS").soft];
       sys.forbidCoreDumps();
       console.log(limits.join(" "), JSON.stringify(sys.resourceLimit("CORE")));`,
      "ulimit -n 77; ulimit -l 64; ulimit -c 0;",
    );
    assert.equal(output, '77 65536 0 Infinity {"soft":0,"hard":0}', errors);
    assert.ok(resourceLimit("NOFILE").soft > 0);
  });

  it("locked memory beyond RLIMIT_MEMLOCK is EAGAIN for an unprivileged process, and within it works", (test) => {
    if (process.getuid?.() !== 0) {
      test.skip("only root can become somebody else");
      return;
    }
    const { output, errors } = runChild(
      `process.setgid(65534); process.setuid(65534);
       let fd;
       try { fd = sys.createSecretMemfd(2 ** 20); } catch (error) { console.log("absent"); process.exit(); }
       const run = (lengthBytes) => ({ fd, offsetBytes: 0, lengthBytes, protection: sys.PROT_READ_WRITE });
       const within = sys.mapAnywhere(run(65536));
       const before = sys.vmaCount();
       let refused;
       try { sys.mapAnywhere(run(2 ** 20)); } catch (error) { refused = error.errnoName; }
       console.log(within > 0, refused, sys.vmaCount() - before);`,
      "ulimit -l 128;",
    );
    assert.ok(output === "true EAGAIN 0" || output === "absent", output + errors);
  });

  it("descriptors are counted without the one that counts", () => {
    const before = openDescriptorCount();
    const fd = createMemfd({ name: "test-counted", sizeBytes: PAGE_BYTES });
    assert.equal(openDescriptorCount(), before + 1);
    closeDescriptor(fd);
    assert.equal(openDescriptorCount(), before);
  });
});

describe("platform", () => {
  it("is this one, and others are refused with the reason", () => {
    const here = thisPlatform();
    assert.equal(platformRefusal(here), undefined);
    assert.equal(platformRefusal({ ...here, architecture: "arm64" }), undefined);
    assert.match(platformRefusal({ ...here, pageBytes: 65536 }) ?? "", /page size 65536.*4096/);
    assert.match(platformRefusal({ ...here, pageBytes: 16384 }) ?? "", /page size 16384/);
    assert.match(platformRefusal({ ...here, system: "darwin", pageBytes: 0 }) ?? "", /darwin/);
    assert.match(platformRefusal({ ...here, architecture: "riscv64" }) ?? "", /riscv64/);
    assert.match(platformRefusal({ ...here, byteOrder: "BE" }) ?? "", /BE/);
  });
});

describe("threads and peers", () => {
  it("the main thread has the process's number, and its CPU time grows with work", () => {
    assert.equal(threadId(), process.pid);
    const before = threadCpuTimeNs(threadId());
    let sum = 0;
    for (let n = 0; n < 5_000_000; n++) sum += n;
    assert.ok(sum > 0);
    assert.ok(threadCpuTimeNs(threadId()) > before && before > 0);
    assert.equal(threadCpuTimeNs(2 ** 28 - 1), -EINVAL);
  });

  it("a Unix socket's peer is this process and user; other descriptors are refused", async () => {
    const path = join(tmpdir(), `xenolith-peer-${String(process.pid)}`);
    const server = createServer().listen(path);
    await once(server, "listening");
    const client = connect(path);
    const [[accepted]] = await Promise.all([once(server, "connection"), once(client, "connect")]);
    const { _handle: handle } = accepted as { readonly _handle: { readonly fd: number } };
    assert.deepEqual(peerCredentials(handle.fd), {
      processId: process.pid,
      userId: process.getuid?.(),
      groupId: process.getgid?.(),
    });
    const fd = createMemfd({ name: "test-no-socket", sizeBytes: PAGE_BYTES });
    assert.equal(peerCredentials(fd), -ENOTSOCK);
    assert.equal(peerCredentials(1_000_000), -EBADF);
    closeDescriptor(fd);
    client.destroy();
    server.close();
    (accepted as { destroy: () => void }).destroy();
  });
});

describe("the kernel's map of memory", () => {
  const meminfo =
    "MemTotal: 100 kB\nDirectMap4k:      432128 kB\nDirectMap2M:     9005056 kB\nDirectMap1G:    17825792 kB\n";
  const vmstat = "nr_free 1\ndirect_map_level2_splits 201\ndirect_map_level3_splits 7\ndirect_map_level2_collapses 0\n";
  const rows: readonly (readonly [string, DirectMapPlace, DirectMap | undefined])[] = [
    [
      "is told in three sizes, with what was split",
      { meminfo, vmstat },
      {
        smallBytes: 432_128 * 1024,
        largeBytes: 9_005_056 * 1024,
        hugeBytes: 17_825_792 * 1024,
        largeSplits: 201,
        hugeSplits: 7,
      },
    ],
    [
      "is told without splits by older kernels, without huge pages by older machines",
      { meminfo: "DirectMap4k: 4 kB\nDirectMap4M: 8192 kB\n", vmstat: "nr_free 1\n" },
      { smallBytes: 4096, largeBytes: 8_388_608, hugeBytes: 0 },
    ],
    ["is not told by others", { meminfo: "MemTotal: 100 kB\n", vmstat }, undefined],
  ];
  for (const [title, place, expected] of rows) it(title, () => assert.deepEqual(directMap(place), expected));

  it("of this machine is no larger than can be", () => {
    const map = directMap();
    if (map === undefined) return;
    const { smallBytes, largeBytes, hugeBytes } = map;
    assert.ok(smallBytes + largeBytes + hugeBytes >= machineMemory().totalBytes / 2);
  });
});
