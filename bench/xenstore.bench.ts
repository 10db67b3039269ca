/**
 * What a request of the store costs, beside what the same costs in a plain `Map` of paths (which has no permissions,
 * snapshots or watches), and how little of it depends on how much is stored and watched.
 */
import assert from "node:assert/strict";
import { XenstoreClient, XenstoreServer } from "@xenolith/xenstore";
import { type Bench, comparePair, type Result, result, type Rounds } from "./harness.ts";

const VALUE = new TextEncoder().encode("4");
const pathOf = (domid: number, id: number): string => `/local/domain/${domid}/device/vbd/${id}/state`;

export const bench: Bench = async ({ small }) => {
  const rounds = { count: small ? 100 : 20_000, rounds: small ? 1 : 9 };
  return [
    ...(await storage("few-nodes", { domains: 2, devices: 4, watches: 0 }, rounds)),
    ...(await storage("many-nodes", { domains: small ? 4 : 200, devices: 64, watches: small ? 10 : 10_000 }, rounds)),
    await client({ ...rounds, count: small ? 20 : 2000 }),
  ];
};

/** Reads and writes of the store itself, as a connection makes them. */
const storage = async (
  name: string,
  size: { readonly domains: number; readonly devices: number; readonly watches: number },
  rounds: Rounds,
): Promise<Result[]> => {
  const server = new XenstoreServer();
  const { store } = server;
  const { control } = store.domains;
  const plain = new Map<string, Uint8Array>();
  const paths: string[] = [];
  for (let domid = 1; domid <= size.domains; domid += 1) {
    for (let id = 0; id < size.devices; id += 1) paths.push(pathOf(domid, id));
  }
  for (const path of paths) {
    assert.equal(store.write(control, path, VALUE), true);
    plain.set(path, VALUE);
  }
  const watcher = XenstoreClient.inProcess(server);
  for (let index = 0; index < size.watches; index += 1) watcher.watch(`/elsewhere/${index}`);
  await watcher.read("/");
  const timed =
    (once: (path: string) => unknown) =>
    (count: number): number => {
      const start = process.hrtime.bigint();
      for (let index = 0; index < count; index += 1) assert(once(paths[index % paths.length]!) !== undefined);
      return Number(process.hrtime.bigint() - start);
    };
  const read = { value: timed((path) => store.read(control, path)), floor: timed((path) => plain.get(path)) };
  const write = {
    value: timed((path) => store.write(control, path, VALUE)),
    floor: timed((path) => plain.set(path, VALUE)),
  };
  const results = [
    result(`read-${name}`, "ns", await comparePair(read, rounds)),
    result(`write-${name}`, "ns", await comparePair(write, rounds)),
  ];
  watcher.close();
  return results;
};

/** A request over the protocol, in the same thread, 64 under way at a time; the floor is as many turns of the event loop. */
const client = async (rounds: Rounds): Promise<Result> => {
  const server = new XenstoreServer();
  const connected = XenstoreClient.inProcess(server);
  await connected.write("/a/b", VALUE);
  const timed =
    (once: () => Promise<unknown>) =>
    async (count: number): Promise<number> => {
      const start = process.hrtime.bigint();
      for (let done = 0; done < count; done += 64) await Promise.all(Array.from({ length: 64 }, once));
      return Number(process.hrtime.bigint() - start);
    };
  const turn = (): Promise<unknown> => new Promise((resolve) => setImmediate(resolve));
  const pair = { value: timed(() => connected.readBytes("/a/b")), floor: timed(turn) };
  const measured = result("client-read", "ns", await comparePair(pair, rounds));
  connected.close();
  return measured;
};
