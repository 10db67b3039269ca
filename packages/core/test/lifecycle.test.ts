import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DOMAIN_STATES } from "../src/domain-table.ts";
import { DOMAIN_EVENTS, moveDomain, nextState } from "../src/lifecycle.ts";
import { Machine } from "./machine.ts";

const specification = `
  state     reserve   created  unpause  pause   shutdown  resume   resumePaused  destroy  reaped  released
  free      building  -        -        -       -         -        -             -        -       -
  building  -         paused   -        -       -         -        -             dying    -       -
  paused    -         -        running  -       shutdown  -        -             dying    -       -
  running   -         -        -        paused  shutdown  -        -             dying    -       -
  shutdown  -         -        -        -       -         running  paused        dying    -       -
  dying     -         -        -        -       -         -        -             -        dead    -
  dead      -         -        -        -       -         -        -             -        -       free
`;

const rows = specification
  .trim()
  .split("\n")
  .map((line) => line.trim().split(/\s+/));

describe("life cycle", () => {
  it("each state allows exactly the moves of the table", () => {
    const [, ...events] = rows[0]!;
    assert.deepEqual(events, [...DOMAIN_EVENTS]);
    assert.deepEqual(
      rows.slice(1).map(([state]) => state),
      [...DOMAIN_STATES],
    );
    for (const [state, ...next] of rows.slice(1)) {
      for (const [index, event] of DOMAIN_EVENTS.entries()) {
        const expected = next[index] === "-" ? undefined : next[index];
        const from = DOMAIN_STATES.find((name) => name === state)!;
        assert.equal(nextState(from, event), expected, `${from} ${event}`);
      }
    }
  });

  it("an illegal move leaves the state as it is, a legal one makes it", () => {
    const { hypervisor } = new Machine();
    const { domains } = hypervisor;
    assert.equal(moveDomain(domains, 5, "pause"), false);
    assert.equal(domains.stateOf(5), "free");
    assert.equal(moveDomain(domains, 5, "reserve"), true);
    assert.equal(domains.stateOf(5), "building");
  });
});
