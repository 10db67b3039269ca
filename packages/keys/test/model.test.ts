/** Random operations against a plain model of what they should do, shrunk when they differ; the auditor looks after each. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type Key, keyErrno } from "../src/index.ts";
import { isKeyring, linksOf } from "../src/link-table.ts";
import { Bench, bytes, linksIn, ok, SESSION } from "./kit.ts";
import { Model, type ModelKey } from "./model.ts";

const RINGS = 4;
const LIMITS = { maxKeys: 14, maxBytes: 220, gcDelaySeconds: 5 };

const name = fc.constantFrom("a", "b", "c", "ring");
const index = fc.nat(30);
const ring = fc.nat(RINGS);
const action = fc.oneof(
  fc.record({ op: fc.constant("add" as const), name, ring, size: fc.constantFrom(1, 3, 40) }),
  fc.record({ op: fc.constant("newring" as const), name, ring }),
  fc.record({ op: fc.constant("link" as const), key: index, ring }),
  fc.record({ op: fc.constant("unlink" as const), key: index, ring }),
  fc.record({ op: fc.constant("move" as const), key: index, ring, to: ring, exclusive: fc.boolean() }),
  fc.record({ op: fc.constant("clear" as const), ring }),
  fc.record({ op: fc.constant("search" as const), name, ring }),
  fc.record({ op: fc.constant("revoke" as const), key: index }),
  fc.record({ op: fc.constant("invalidate" as const), key: index }),
  fc.record({ op: fc.constant("timeout" as const), key: index, seconds: fc.constantFrom(0, 2, 9) }),
  fc.record({ op: fc.constant("wait" as const), seconds: fc.constantFrom(1, 3, 8) }),
);
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never;

class Run {
  readonly #bench = new Bench({ limits: LIMITS });
  readonly #process = this.#bench.process();
  readonly #model = new Model(LIMITS);
  /** My serial numbers of the model's keys. */
  readonly #serials = new Map<ModelKey, number>();
  readonly #known: ModelKey[] = [];

  constructor() {
    this.#know(this.#model.session, ok(this.#bench.service.getKeyringId(this.#process, SESSION, false)));
  }

  #know(key: ModelKey, serial: number): void {
    if (!this.#serials.has(key)) this.#known.push(key);
    this.#serials.set(key, serial);
    // With the owner's rights, wherever it is linked: what possession means is tested elsewhere.
    for (const each of this.#linked()) if (each.serial === serial) each.permissions = 0x3f3f_0000;
  }

  #linked(): Set<Key> {
    const found = new Set([this.#process.session!]);
    for (const each of found) if (isKeyring(each)) for (const linked of linksOf(each).list()) found.add(linked);
    return found;
  }

  #key(at: number): ModelKey {
    return this.#known[at % this.#known.length]!;
  }

  #ring(at: number): ModelKey {
    const rings = this.#known.filter(({ links }) => links !== undefined);
    return rings[at % rings.length]!;
  }

  apply(action: Action): void {
    const { service, clock } = this.#bench;
    if (action.op === "wait") {
      clock.advance(action.seconds);
      this.#model.wait(action.seconds);
      this.#compare();
      return;
    }
    const [key, ringKey] = [
      "key" in action ? this.#key(action.key) : undefined,
      "ring" in action ? this.#ring(action.ring) : undefined,
    ];
    const id = key === undefined ? 0 : this.#serials.get(key)!;
    const ringId = ringKey === undefined ? 0 : this.#serials.get(ringKey)!;
    const process = this.#process;
    if (action.op === "add" || action.op === "newring") {
      const isRing = action.op === "newring";
      const expected = this.#model.add(ringKey!, action.name, isRing ? undefined : action.size);
      const payload = isRing ? null : bytes("x".repeat(action.size));
      const result = service.addKey(process, isRing ? "keyring" : "user", action.name, payload, ringId);
      this.#same(action, result, typeof expected === "string" ? expected : (this.#serials.get(expected) ?? "new"));
      if (typeof expected !== "string") this.#know(expected, ok(result));
    } else if (action.op === "search") {
      const expected = this.#model.search(ringKey!, action.name);
      const result = service.search(process, ringId, "user", action.name, 0);
      this.#same(action, result, typeof expected === "string" ? expected : this.#serials.get(expected)!);
    } else if (action.op === "move") {
      const to = this.#ring(action.to);
      const flags = action.exclusive ? 1 : 0;
      const expected = this.#model.move(key!, ringKey!, to, action.exclusive);
      this.#same(action, service.move(process, id, ringId, this.#serials.get(to)!, flags), expected);
    } else if (action.op === "clear") {
      this.#same(action, service.clear(process, ringId), this.#model.clear(ringKey!));
    } else if (action.op === "timeout") {
      this.#same(action, service.setTimeout(process, id, action.seconds), this.#model.setTimeout(key!, action.seconds));
    } else if (action.op === "revoke" || action.op === "invalidate") {
      this.#same(action, service[action.op](process, id), this.#model[action.op](key!));
    } else {
      this.#same(action, service[action.op](process, id, ringId), this.#model[action.op](key!, ringKey!));
    }
    this.#compare();
  }

  #same(action: Action, result: unknown, expected: number | string): void {
    const word = (value: unknown): unknown =>
      typeof value === "string" && value in keyErrno ? -keyErrno[value as keyof typeof keyErrno] : value;
    if (expected === "new") assert.ok(Number(result) > 0, `${JSON.stringify(action)}: ${String(result)}`);
    else assert.equal(result, expected === "ok" ? 0 : word(expected), JSON.stringify(action));
  }

  /** The keyrings that can be read, the charges and the books. */
  #compare(): void {
    const { service } = this.#bench;
    const { session } = this.#model;
    for (const each of this.#known) {
      if (each.links === undefined || this.#model.stateOf(each) !== "good") continue;
      const mine = linksIn(service, this.#process, this.#serials.get(each)!);
      assert.deepEqual(new Set(mine), new Set([...each.links].map((key) => this.#serials.get(key))));
    }
    const [, keys, used] = /1000: .* (\d+)\/\d+ (\d+)\/\d+$/m.exec(service.procKeyUsers()) ?? [];
    assert.deepEqual([Number(keys), Number(used)], [this.#model.keyCount, this.#model.byteCount]);
    assert.deepEqual(service.audit(), []);
    assert.ok(session.links !== undefined);
  }

  finish(): void {
    this.#bench.finish();
  }
}

describe("random operations", () => {
  it("do what a plain model says, and leave sound books", () => {
    const seed = Date.now() % 1_000_000;
    console.log(`seed ${seed}`);
    fc.assert(
      fc.property(fc.array(action, { minLength: 1, maxLength: 60, size: "max" }), (actions) => {
        const run = new Run();
        for (const each of actions) run.apply(each);
        run.finish();
      }),
      { seed, numRuns: 300, includeErrorInReport: true },
    );
  });
});
