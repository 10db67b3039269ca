/**
 * A thread that opens, uses, renumbers and closes descriptors of a shared table at random, and counts how often a
 * host descriptor was closed while it used it. Host descriptors are imaginary: cells of `alive`, 1 while open.
 */
import { parentPort, workerData } from "node:worker_threads";
import { DescriptorKind, DescriptorTable } from "../src/wasi/descriptor-table.ts";

const { buffer, alive, next, seed, stepCount } = workerData as {
  readonly buffer: SharedArrayBuffer;
  readonly alive: Int32Array;
  readonly next: Int32Array;
  readonly seed: number;
  readonly stepCount: number;
};

let violations = 0;
let uses = 0;
const table = new DescriptorTable(buffer, (hostFd) => {
  if (Atomics.exchange(alive, hostFd, 0) !== 1) violations += 1;
});

let state = seed;
const random = (below: number): number => {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 1;
  return (state >>> 8) % below;
};

const open = (): void => {
  const fd = table.reserve();
  if (fd < 0) return;
  const hostFd = Atomics.add(next, 0, 1);
  Atomics.store(alive, hostFd, 1);
  const spec = { hostFd, filetype: 4, base: 0, inheriting: 0, fdflags: 0, origin: 0, readOnly: false };
  if (table.publish(fd, { ...spec, kind: DescriptorKind.FILE }) === 0) return;
  Atomics.store(alive, hostFd, 0);
  table.cancel(fd);
};

const use = (): void => {
  const row = table.acquire(random(table.capacity));
  if (row < 0) return;
  uses += 1;
  const hostFd = table.hostFd[row]!;
  for (let look = 0; look < 20; look += 1) if (Atomics.load(alive, hostFd) !== 1) violations += 1;
  if (table.hostFd[row] !== hostFd) violations += 1;
  table.release(row);
};

const operations = [open, use, use, use];
for (let step = 0; step < stepCount; step += 1) {
  const operation = operations[random(6)];
  if (operation !== undefined) operation();
  else if (random(2) === 0) table.close(random(table.capacity));
  else table.renumber(random(table.capacity), random(table.capacity));
}
parentPort!.postMessage({ violations, uses });
