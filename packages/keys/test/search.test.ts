/** Which key a search finds, and which error it answers with otherwise. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type ErrorPriority, KEY_ALL, KEY_SEARCH, permissionMask, type Process } from "../src/index.ts";
import { type Bench, bytes, errorOf, ok, onBench, SESSION } from "./kit.ts";

/** What a keyring of one's own may hold under the name that is asked for. */
const kinds: Readonly<Record<string, (bench: Bench, process: Process, ring: number) => void>> = {
  none: () => undefined,
  good: (bench, process, ring) => void add(bench, process, ring),
  revoked: (bench, process, ring) => void ok(bench.service.revoke(process, add(bench, process, ring))),
  expired: (bench, process, ring) => {
    ok(bench.service.setTimeout(process, add(bench, process, ring), 1));
    bench.clock.advance(1);
  },
  hidden: (bench, process, ring) => {
    const key = add(bench, process, ring);
    ok(bench.service.setPermissions(process, key, permissionMask({ possessor: KEY_ALL & ~KEY_SEARCH })));
  },
};

const add = ({ service }: Bench, process: Process, ring: number): number =>
  ok(service.addKey(process, "user", "k", bytes("v"), ring));

/** Two keyrings, searched one after the other, or one within the other: what a search of both answers, by how. */
const specification = `
  first    second   documented    linux-6
  none     none     ENOKEY        ENOKEY
  none     good     found         found
  revoked  good     found         found
  revoked  none     EKEYREVOKED   EKEYREVOKED
  expired  none     EKEYEXPIRED   EKEYEXPIRED
  hidden   none     ENOKEY        EACCES
  revoked  expired  EKEYREVOKED   EKEYEXPIRED
  expired  revoked  EKEYREVOKED   EKEYREVOKED
  revoked  hidden   EKEYREVOKED   EACCES
  hidden   expired  EKEYEXPIRED   EKEYEXPIRED
  hidden   hidden   ENOKEY        EACCES
`;
/** The same through the thread and the session keyring, as request_key looks: expired keys are passed over. */
const acrossRings = `
  first    second   documented    linux-6
  none     none     ENOKEY        ENOKEY
  none     good     found         found
  none     revoked  EKEYREVOKED   ENOKEY
  revoked  none     EKEYREVOKED   ENOKEY
  revoked  revoked  EKEYREVOKED   EKEYREVOKED
  none     expired  ENOKEY        ENOKEY
  expired  revoked  EKEYREVOKED   ENOKEY
  hidden   none     ENOKEY        ENOKEY
  hidden   hidden   ENOKEY        EACCES
`;

const rowsOf = (
  table: string,
): { readonly first: string; readonly second: string; readonly results: readonly string[] }[] =>
  table
    .trim()
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/ +/))
    .map(([first = "", second = "", ...results]) => ({ first, second, results }));

const resultOf = (answer: string | number): string => (typeof answer === "number" ? "found" : answer);

for (const [column, errorPriority] of (["documented", "linux-6"] satisfies ErrorPriority[]).entries()) {
  describe(`a search that answers with errors as ${errorPriority}`, () => {
    for (const { first, second, results } of rowsOf(specification)) {
      it(
        `meets ${first}, then ${second}: ${results[column]}`,
        onBench(
          (bench) => {
            const { service } = bench;
            const process = bench.process();
            const outer = ok(service.addKey(process, "keyring", "outer", null, SESSION));
            const inner = ok(service.addKey(process, "keyring", "inner", null, outer));
            kinds[first]!(bench, process, outer);
            kinds[second]!(bench, process, inner);
            assert.equal(resultOf(errorOf(service.search(process, outer, "user", "k", 0))), results[column]);
          },
          { errorPriority },
        ),
      );
    }
    for (const { first, second, results } of rowsOf(acrossRings)) {
      it(
        `meets ${first} in the thread keyring, then ${second} in the session: ${results[column]}`,
        onBench(
          (bench) => {
            const { service } = bench;
            const process = bench.process();
            const thread = ok(service.getKeyringId(process, -1, true));
            kinds[first]!(bench, process, thread);
            kinds[second]!(bench, process, SESSION);
            assert.equal(resultOf(errorOf(service.requestKey(process, "user", "k", null, 0))), results[column]);
          },
          { errorPriority },
        ),
      );
    }

    it(
      "answers EACCES if the keyring that is searched itself refuses, and passes over one within it that does",
      onBench(
        (bench) => {
          const { service } = bench;
          const process = bench.process();
          const outer = ok(service.addKey(process, "keyring", "outer", null, SESSION));
          const inner = ok(service.addKey(process, "keyring", "inner", null, outer));
          add(bench, process, inner);
          ok(service.setPermissions(process, inner, permissionMask({ possessor: KEY_ALL & ~KEY_SEARCH })));
          assert.equal(errorOf(service.search(process, outer, "user", "k", 0)), "ENOKEY");
          assert.equal(errorOf(service.search(process, inner, "user", "k", 0)), "EACCES");
          ok(service.setPermissions(process, outer, permissionMask({ possessor: KEY_ALL & ~KEY_SEARCH })));
          assert.equal(errorOf(service.search(process, outer, "user", "k", 0)), "EACCES");
        },
        { errorPriority },
      ),
    );
  });
}

describe("a search", () => {
  it(
    "looks at a keyring before the keyrings in it, and there first into the first, all the way down",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const [first, second] = ["one", "two"].map((name) => ok(service.addKey(process, "keyring", name, null, SESSION)));
      const below = ok(service.addKey(process, "keyring", "below", null, first!));
      const inSecond = add(bench, process, second!);
      assert.equal(ok(service.search(process, SESSION, "user", "k", 0)), inSecond);
      const inBelow = add(bench, process, below);
      assert.equal(ok(service.search(process, SESSION, "user", "k", 0)), inBelow);
      const inSession = add(bench, process, SESSION);
      assert.equal(ok(service.search(process, SESSION, "user", "k", 0)), inSession);
    }),
  );

  it(
    "finds the keyring itself that it begins with",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const session = ok(service.getKeyringId(process, SESSION, false));
      assert.equal(ok(service.search(process, SESSION, "keyring", "_ses", 0)), session);
    }),
  );

  it(
    "leaves out revoked keyrings and goes through expired ones",
    onBench((bench) => {
      const { service, clock } = bench;
      const process = bench.process();
      const ring = ok(service.addKey(process, "keyring", "ring", null, SESSION));
      const key = add(bench, process, ring);
      ok(service.setTimeout(process, ring, 1));
      clock.advance(1);
      assert.equal(ok(service.search(process, SESSION, "user", "k", 0)), key);
      ok(service.addKey(process, "user", "other", bytes("v"), SESSION));
      const second = ok(service.addKey(process, "keyring", "ring2", null, SESSION));
      ok(service.link(process, key, second));
      ok(service.revoke(process, second));
      assert.equal(errorOf(service.search(process, second, "user", "k", 0)), "EKEYREVOKED");
    }),
  );

  it(
    "costs the same in large keyrings: it asks its index, not each key",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process(0);
      const compared: string[] = [];
      const result = service.registerType({
        name: "counted",
        preparse: () => 0,
        instantiate: () => 0,
        matchPreparse: (match) => {
          match.compare = (key) => {
            compared.push(key.description);
            return true;
          };
          return 0;
        },
      });
      assert.equal(result, 0);
      for (let index = 0; index < 1000; index += 1) ok(service.addKey(process, "counted", `k${index}`, null, SESSION));
      ok(service.search(process, SESSION, "counted", "k500", 0));
      assert.deepEqual(compared, ["k500"]);
    }),
  );
});
