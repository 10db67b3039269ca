import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import { DescriptorKind, DescriptorTable, descriptorTableBytes } from "../src/wasi/descriptor-table.ts";
import { refuse } from "../src/wasi/errno.ts";

const EBADF = refuse("BADF");

/** A table that counts what it closes. */
const createTable = (capacity: number): { table: DescriptorTable; other: DescriptorTable; closed: number[] } => {
  const closed: number[] = [];
  const buffer = new SharedArrayBuffer(descriptorTableBytes(capacity));
  const close = (hostFd: number): void => void closed.push(hostFd);
  return { table: new DescriptorTable(buffer, close), other: new DescriptorTable(buffer, close), closed };
};

const open = (table: DescriptorTable, hostFd: number, kind: number = DescriptorKind.FILE): number => {
  const fd = table.reserve();
  if (fd < 0) return fd;
  const spec = { kind, hostFd, filetype: 4, base: 3, inheriting: 0, fdflags: 0, origin: 0, readOnly: false };
  assert.equal(table.publish(fd, spec), 0);
  return fd;
};

/** Which of the host's files `fd` names, or the error. */
const hostFdOf = (table: DescriptorTable, fd: number): number => {
  const row = table.acquire(fd);
  if (row < 0) return row;
  const hostFd = table.hostFd[row]!;
  table.release(row);
  return hostFd;
};

describe("WASI: descriptor table", () => {
  it("gives the lowest closed number, and EMFILE when all are open", () => {
    const { table } = createTable(3);
    assert.deepEqual([open(table, 10), open(table, 11), open(table, 12), open(table, 13)], [0, 1, 2, refuse("MFILE")]);
    assert.equal(table.close(1), 0);
    assert.equal(open(table, 14), 1);
  });

  it("a number that is closed, reserved or out of range is EBADF", () => {
    const { table } = createTable(4);
    const fd = table.reserve();
    for (const bad of [fd, 1, 4, 2 ** 31, 2 ** 32 - 1]) {
      assert.equal(table.acquire(bad), EBADF);
      assert.equal(table.close(bad), EBADF);
    }
    table.cancel(fd);
    assert.equal(hostFdOf(table, open(table, 20)), 20);
  });

  it("a file that another vCPU uses is closed when that use ends", () => {
    const { table, other, closed } = createTable(4);
    const fd = open(table, 10);
    const row = other.acquire(fd);
    assert.equal(table.close(fd), 0);
    assert.deepEqual(closed, []);
    assert.equal(table.acquire(fd), EBADF);
    other.release(row);
    assert.deepEqual(closed, [10]);
  });

  it("W17: renumbering replaces the target, and closes what it named before", () => {
    const { table, closed } = createTable(4);
    const from = open(table, 10);
    const to = open(table, 11);
    assert.equal(table.renumber(from, to), 0);
    assert.deepEqual([hostFdOf(table, from), hostFdOf(table, to)], [EBADF, 10]);
    assert.deepEqual(closed, [11]);
  });

  it("W17: renumbering a number to itself changes nothing", () => {
    const { table, closed } = createTable(4);
    const fd = open(table, 10);
    assert.equal(table.renumber(fd, fd), 0);
    assert.equal(hostFdOf(table, fd), 10);
    assert.equal(table.renumber(3, 3), EBADF);
    assert.deepEqual(closed, []);
  });

  it("W17: renumbering from or to a closed number is EBADF and changes nothing", () => {
    const { table, closed } = createTable(4);
    const fd = open(table, 10);
    for (const bad of [3, 4, 2 ** 32 - 1]) {
      assert.equal(table.renumber(fd, bad), EBADF);
      assert.equal(table.renumber(bad, fd), EBADF);
    }
    assert.equal(hostFdOf(table, fd), 10);
    assert.deepEqual(closed, []);
  });

  it("rights can be taken away and never given", () => {
    const { table } = createTable(2);
    const row = table.acquire(open(table, 10));
    table.restrict(row, 1, 0);
    table.restrict(row, 3, 3);
    assert.deepEqual([table.base[row], table.inheriting[row]], [1, 0]);
  });

  it("closing everything closes files in use too, and no standard stream", () => {
    const { table, other, closed } = createTable(8);
    open(table, 0, DescriptorKind.STDIO);
    other.acquire(open(table, 10));
    open(table, 11);
    table.reserve();
    assert.equal(table.closeAll(), 2);
    assert.deepEqual(closed, [10, 11]);
    assert.equal(table.openCount, 0);
    assert.equal(open(table, 12), 0);
  });

  it("W17: after any sequence of operations every host file is open once or closed once", () => {
    let seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
    const shown = `SEED=${seed}`;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 1;
      return (seed >>> 8) % below;
    };
    const { table, closed } = createTable(16);
    const model = new Map<number, number>();
    let nextHostFd = 100;
    for (let step = 0; step < 20_000; step += 1) {
      const [a, b] = [random(18), random(18)];
      const operation = random(3);
      if (operation === 0) {
        const fd = open(table, nextHostFd);
        assert.equal(fd < 0, model.size === 16, shown);
        if (fd >= 0) model.set(fd, nextHostFd++);
      } else if (operation === 1) {
        assert.equal(table.close(a), model.delete(a) ? 0 : EBADF, shown);
      } else {
        const legal = model.has(a) && model.has(b);
        assert.equal(table.renumber(a, b), legal ? 0 : EBADF, shown);
        if (legal && a !== b) {
          model.set(b, model.get(a)!);
          model.delete(a);
        }
      }
      assert.equal(table.openCount, model.size, shown);
    }
    for (const [fd, hostFd] of model) assert.equal(hostFdOf(table, fd), hostFd, shown);
    assert.equal(closed.length + model.size, nextHostFd - 100, shown);
    assert.equal(new Set(closed).size, closed.length, shown);
  });

  it("no file is closed under a vCPU that uses it, however four threads open, close and renumber", async () => {
    const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
    const stepCount = 30_000;
    const buffer = new SharedArrayBuffer(descriptorTableBytes(6));
    const alive = new Int32Array(new SharedArrayBuffer(4 * stepCount * 4));
    const next = new Int32Array(new SharedArrayBuffer(4));
    const racers = Array.from({ length: 4 }, async (_, index) => {
      const workerData = { buffer, alive, next, seed: seed + index, stepCount };
      const worker = new Worker(new URL("./wasi-descriptor-racer.js", import.meta.url), { workerData });
      const [message] = await once(worker, "message");
      return message as { readonly violations: number; readonly uses: number };
    });
    for (const { violations, uses } of await Promise.all(racers)) {
      assert.equal(violations, 0, `SEED=${seed}`);
      assert(uses > 0);
    }
    const table = new DescriptorTable(buffer, (hostFd) => assert.equal(Atomics.exchange(alive, hostFd, 0), 1));
    const open = table.openCount;
    assert.equal(table.closeAll(), open, `SEED=${seed}`);
    assert.equal(alive.indexOf(1), -1, `SEED=${seed}`);
  });
});
