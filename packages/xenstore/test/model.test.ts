/**
 * The tree, transactions and watches against a plain model: any sequence of requests of three domains gives the same
 * answers and the same events, and the counters agree with a recount.
 */
import fc from "fast-check";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { addGuest, OK, type Peer, setUp } from "./kit.ts";
import { Model, type ModelStep } from "./model.ts";

const SEED = Number(process.env["XENSTORE_SEED"] ?? Date.now() % 2 ** 31);
const NODES_MAX = 9;
const CALLERS = [0, 7, 8] as const;

const path = fc.oneof(
  fc.constantFrom("/", "/s", "/s/a", "/s/a/x", "/s/a/y", "/s/b", "/s/b/x", "/s/b/x/z"),
  fc.constantFrom("/local/domain/7", "/local/domain/7/p", "/local/domain/7/p/q", "/local/domain/8/p", "/local/domain"),
);
const permissions = fc.constantFrom("n0", "r0", "b0", "n7", "n8", "r7 b8", "b7 n8", "n0 r7", "n0 b7 b8", "w8 r7", "b8");
const step: fc.Arbitrary<ModelStep> = fc.oneof(
  fc.record({ op: fc.constantFrom("read" as const, "list" as const, "permissions" as const), path }),
  fc.record({ op: fc.constantFrom("mkdir" as const, "rm" as const), path }),
  fc.record({ op: fc.constant("write" as const), path, value: fc.constantFrom("", "1", "22") }),
  fc.record({ op: fc.constant("write" as const), path, value: fc.constantFrom("", "1", "22") }),
  fc.record({ op: fc.constant("chmod" as const), path, value: permissions }),
);
const who = fc.nat(CALLERS.length - 1);
const action = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("step" as const), who, step, inside: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom("begin" as const, "commit" as const, "abort" as const), who }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("watch" as const), who, path }) },
);
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never;

const ask = (peer: Peer, step: ModelStep, transaction: number): string => {
  if (step.op === "write") return peer.write(step.path, step.value, transaction);
  if (step.op === "chmod") return peer.chmod(step.path, step.value, transaction);
  return peer[step.op](step.path, transaction);
};

class Run {
  readonly #model = new Model(NODES_MAX);
  readonly #server;
  readonly #peers: Peer[];
  /** The open transaction of each caller. */
  readonly #open = new Map<number, number>();
  #tokens = 0;

  constructor() {
    const { server, dom0 } = setUp({ quota: { nodes: NODES_MAX } });
    this.#server = server;
    this.#peers = [dom0, addGuest(server, dom0, 7), addGuest(server, dom0, 8)];
    for (const domid of [7, 8]) {
      this.#model.step(0, { op: "mkdir", path: `/local/domain/${domid}` });
      this.#model.step(0, { op: "chmod", path: `/local/domain/${domid}`, value: `n${domid}` });
    }
    for (const step of [
      { op: "mkdir", path: "/s" } as const,
      { op: "chmod", path: "/s", value: "n0 b7 b8" } as const,
    ]) {
      ask(dom0, step, 0);
      this.#model.step(0, step);
    }
  }

  apply(action: Action): void {
    const caller = CALLERS[action.who]!;
    const peer = this.#peers[action.who]!;
    const transaction = this.#open.get(caller);
    let expected: { answer: string; events: string[] } = { answer: OK, events: [] };
    let answer = OK;
    if (action.kind === "step") {
      const inside = action.inside ? transaction : undefined;
      expected = this.#model.step(caller, action.step, inside === undefined ? undefined : `${caller}`);
      answer = ask(peer, action.step, inside ?? 0);
    } else if (action.kind === "watch") {
      this.#tokens += 1;
      const token = String(this.#tokens);
      this.#model.watches.push({ caller, path: action.path, token });
      expected = { answer: OK, events: [`${caller} ${action.path} ${token}`] };
      answer = peer.watch(action.path, token);
    } else if (action.kind === "begin") {
      if (transaction !== undefined) return;
      this.#open.set(caller, peer.begin());
      this.#model.begin(caller, `${caller}`);
      this.#model.keepLists(`${caller}`);
    } else if (transaction !== undefined) {
      this.#open.delete(caller);
      if (action.kind === "commit") {
        expected = this.#model.commit(`${caller}`);
        answer = peer.commit(transaction);
      } else {
        this.#model.abort(`${caller}`);
        answer = peer.abort(transaction);
      }
    }
    assert.equal(answer, expected.answer);
    assert.deepEqual(this.#takeEvents(), expected.events);
    assert.deepEqual(this.#server.audit(), []);
  }

  #takeEvents(): string[] {
    const events = this.#peers.flatMap((peer, index) => peer.takeEvents().map((event) => `${CALLERS[index]} ${event}`));
    return events.toSorted();
  }
}

describe("the store", () => {
  it(`does what the model does, in and outside transactions (seed ${SEED})`, () => {
    const property = fc.property(fc.array(action, { maxLength: 60, size: "max" }), (actions) => {
      const run = new Run();
      for (const action of actions) run.apply(action);
    });
    fc.assert(property, { seed: SEED, numRuns: Number(process.env["XENSTORE_RUNS"] ?? 600) });
  });
});
