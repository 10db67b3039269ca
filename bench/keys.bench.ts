/**
 * Operations of the key service in the same process, beside the kernel's own system calls for the same made from Node; how little a
 * search depends on what else is in the keyring; and what a small key costs in memory. Payloads are in secret memory.
 */
import assert from "node:assert/strict";
import { type Answer, KEY_SPEC, KeyService, Pending, type Process, SecretPayloadStore, settle } from "@xenolith/keys";
import { SecretPool } from "@xenolith/secrets";
import { BareKeys } from "./bare-keys.ts";
import { type Bench, comparePair, type Pair, type Result, result, type Rounds, single } from "./harness.ts";

const PAYLOAD = new Uint8Array(32).fill(7);
/** Keys that are asked for in turn; few, so that every ring is as far from the processor as every other. */
const ASKED = 64;

const ok = (answer: Answer): number => {
  assert(typeof answer === "number" && answer >= 0);
  return answer;
};

/** Where payloads are, as in the daemon: one owner of a pool for the caller. */
const pool = SecretPool.open({ policy: "degraded", lowWaterBytes: 0, underPressure: () => false });

/** A service with one caller and a keyring of so many keys. */
const ringOf = (count: number): Ring => {
  const payloads = new SecretPayloadStore(pool.table(), () => pool.owner(`keys:${(rings += 1)}`));
  const service = new KeyService({ payloads });
  const process = service.attach({ pid: 1, uid: 0, gid: 0 });
  ok(service.joinSession(process, null));
  const ring = ok(service.addKey(process, "keyring", "bench", null, KEY_SPEC.session));
  const serials: number[] = [];
  for (let index = 0; index < count; index += 1) {
    serials.push(ok(service.addKey(process, "user", `key:${index}`, PAYLOAD, ring)));
  }
  return { service, process, ring, serials };
};

let rings = 0;

interface Ring {
  readonly service: KeyService;
  readonly process: Process;
  readonly ring: number;
  readonly serials: readonly number[];
}

const timed =
  (once: (index: number) => unknown) =>
  (count: number): number => {
    const start = process.hrtime.bigint();
    for (let index = 0; index < count; index += 1) once(index % ASKED);
    return Number(process.hrtime.bigint() - start);
  };

export const bench: Bench = async ({ small }) => {
  const rounds = { count: small ? 200 : 20_000, rounds: small ? 1 : 15 };
  return [
    ...(await operations(small ? 200 : 10_000, rounds)),
    await searches({ few: 100, many: small ? 1000 : 100_000 }, rounds),
    memory(small ? 1000 : 100_000),
    await shared(small ? 20 : 1000),
  ];
};

/** Every operation in a keyring of this size, on both sides. */
const operations = async (size: number, rounds: Rounds): Promise<Result[]> => {
  const { service, process: caller, ring, serials } = ringOf(size);
  const kernel = new BareKeys();
  const bare = kernel.createRing("bench");
  const bareSerials = serials.map((_, index) => kernel.add(Buffer.from(`key:${index}\0`), PAYLOAD, bare));
  const step = Math.floor(size / ASKED);
  const names = Array.from({ length: ASKED }, (_, index) => `key:${index * step}`);
  const bareNames = names.map((name) => Buffer.from(`${name}\0`));
  const [mine, theirs] = [serials, bareSerials].map((all) => names.map((_, index) => all[index * step]!));
  const target = Buffer.alloc(64);
  const other = ok(service.addKey(caller, "keyring", "other", null, KEY_SPEC.session));
  const bareOther = kernel.createRing("other");
  const pairs: readonly (readonly [string, Pair])[] = [
    [
      "add-update",
      {
        value: timed((index) => ok(service.addKey(caller, "user", names[index]!, PAYLOAD, ring))),
        floor: timed((index) => kernel.add(bareNames[index]!, PAYLOAD, bare)),
      },
    ],
    [
      "read-32B",
      {
        value: timed((index) => ok(service.read(caller, mine![index]!, target))),
        floor: timed((index) => kernel.read(theirs![index]!, target)),
      },
    ],
    [
      "search",
      {
        value: timed((index) => ok(service.search(caller, ring, "user", names[index]!, 0))),
        floor: timed((index) => kernel.search(bare, bareNames[index]!)),
      },
    ],
    [
      "describe",
      {
        value: timed((index) => ok(service.describe(caller, mine![index]!, target))),
        floor: timed((index) => kernel.describe(theirs![index]!, target)),
      },
    ],
    [
      "link-and-unlink",
      {
        value: timed(
          (index) => ok(service.link(caller, mine![index]!, other)) + ok(service.unlink(caller, mine![index]!, other)),
        ),
        floor: timed((index) => kernel.linkAndUnlink(theirs![index]!, bareOther)),
      },
    ],
  ];
  const results: Result[] = [];
  for (const [name, pair] of pairs) {
    results.push(result(name, "ns", await comparePair(pair, rounds), { limit: 1, maximum: 2000 }));
  }
  service.close();
  return results;
};

/** The same search in a small and a large keyring. */
const searches = async (sizes: { readonly few: number; readonly many: number }, rounds: Rounds): Promise<Result> => {
  const [small, large] = [ringOf(sizes.few), ringOf(sizes.many)];
  const searching = ({ service, process, ring }: Ring): Pair["value"] => {
    const names = Array.from({ length: ASKED }, (_, index) => `key:${index}`);
    return timed((index) => ok(service.search(process, ring, "user", names[index]!, 0)));
  };
  const measured = await comparePair({ value: searching(large), floor: searching(small) }, rounds);
  small.service.close();
  large.service.close();
  return result("search-100000-beside-100", "ns", measured, { limit: 1.25 });
};

/** Bytes that a key of 32 bytes takes beside its payload, description included. */
const memory = (count: number): Result => {
  assert(globalThis.gc !== undefined, "run with --expose-gc");
  const kept = ringOf(1);
  const { service, process: caller, ring } = kept;
  const used = (): number => {
    globalThis.gc!();
    globalThis.gc!();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers + pool.statistics().usedBytes;
  };
  const before = used();
  for (let index = 0; index < count; index += 1) ok(service.addKey(caller, "user", `key:${index + 1}`, PAYLOAD, ring));
  const value = (used() - before) / count - PAYLOAD.length;
  service.close();
  return single("memory-per-key", "B", { value, floor: PAYLOAD.length }, { maximum: 400 });
};

/** Helpers that are started when so many ask for one key at the same time; one is enough. */
const shared = async (count: number): Promise<Result> => {
  let helpers = 0;
  const service: KeyService = new KeyService({
    upcall: {
      run: async ({ helper, target }) => {
        helpers += 1;
        await new Promise((resolve) => setImmediate(resolve));
        ok(service.assumeAuthority(helper, target));
        return ok(service.instantiate(helper, target, PAYLOAD, 0));
      },
    },
  });
  const first = service.attach({ pid: 1, uid: 0, gid: 0 });
  ok(service.joinSession(first, null));
  const askers = Array.from({ length: count }, (_, pid) => service.fork(first, { pid }));
  const answers = askers.map((asker) => service.requestKey(asker, "user", "shared", "", 0));
  assert(answers.every((answer) => answer instanceof Pending));
  assert.equal(new Set(await Promise.all(answers.map(settle))).size, 1);
  service.close();
  return single("helpers-for-1000-requests", "helpers", { value: helpers, floor: 1 }, { maximum: 1 });
};
