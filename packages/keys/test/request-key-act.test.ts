import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { actOn, type HelperKeys, type ProgramEnd, type Programs, RequestFailed } from "../src/request-key/act.ts";
import { parseConfig } from "../src/request-key/config.ts";

const request = {
  operation: "create",
  key: 57,
  uid: "1000",
  gid: "100",
  threadRing: "0",
  processRing: "8",
  sessionRing: "9",
};

/** Everything that a request did: which programs it ran and what it made of the key. */
interface Recorded {
  readonly code: number | string;
  readonly ran: readonly string[];
  readonly instantiated: string | undefined;
}

const end = (code: number | undefined, output: ProgramEnd["output"] = Buffer.alloc(0)): ProgramEnd => ({
  code,
  output,
});

/** Acts on the request for a key of this description with these rules; programs end as given by their path. */
const act = async (
  rules: string,
  {
    ends = {},
    described = "user;0;0;3f010000;db:a;b",
    callout = "ci",
  }: {
    readonly ends?: Readonly<Record<string, ProgramEnd>>;
    readonly described?: string;
    readonly callout?: string;
  } = {},
): Promise<Recorded> => {
  const ran: string[] = [];
  let instantiated: string | undefined;
  const keys: HelperKeys = {
    assumeAuthority: () => Promise.resolve(1),
    describe: () => Promise.resolve(described),
    read: (key) =>
      Promise.resolve(key === -7 ? Buffer.from(callout) : key === 3 ? Buffer.from("tok en") : Buffer.of(7)),
    find: (type, description) =>
      Promise.resolve(description === "token" ? 3 : type === "user" && description === "bell" ? 4 : -126),
    instantiate: (_key, payload) => {
      instantiated = Buffer.from(payload).toString("latin1");
      return Promise.resolve(0);
    },
  };
  const programs: Programs = {
    run: (file, words, input) => {
      ran.push(
        `${file}(${words.join("|")})${input === undefined ? "" : ` < ${Buffer.from(input).toString("latin1")}`}`,
      );
      return Promise.resolve(ends[file] ?? end(0));
    },
  };
  const code = await actOn(request, { rules: parseConfig(rules, "f"), keys, programs }).catch((error: unknown) => {
    assert.ok(error instanceof RequestFailed);
    return error.message;
  });
  return { code, ran, instantiated };
};

describe("a rule that matches", () => {
  it("runs its program with every macro replaced, and ends as the program does", async () => {
    const rules = "create user db:* * /b/helper %o %k %t %d %c %u %g %T %P %S %%k %kk x%k %{user:token}\n";
    const words = "helper|create|57|user|db:a;b|ci|1000|100|0|8|9|%k|%kk|x%k|tok en";
    assert.deepEqual(await act(rules, { ends: { "/b/helper": end(3) } }), {
      code: 3,
      ran: [`/b/helper(${words})`],
      instantiated: undefined,
    });
  });

  it("gives an empty callout as an empty argument", async () => {
    assert.deepEqual((await act("create * * * /b/h %c .\n", { callout: "" })).ran, ["/b/h(h||.)"]);
  });

  it("does nothing when the key of a macro is missing, or is not printable", async () => {
    for (const [spec, reason] of [
      ["user:none", "error 126"],
      ["user:bell", "its content is not printable"],
    ]) {
      const { code, ran } = await act(`create * * * /b/h %{${spec}}\n`);
      assert.deepEqual(ran, []);
      assert.equal(code, `f:1: find the key of %{user:…}: ${reason}`);
    }
  });
});

describe("a program behind a pipe", () => {
  it("gets the callout, and what it prints is the payload to the byte", async () => {
    const { ran, instantiated } = await act("create * * * |/b/gen %d\n", {
      ends: { "/b/gen": end(0, Buffer.from("x\n")) },
    });
    assert.deepEqual([ran, instantiated], [["/b/gen(gen|db:a;b) < ci"], "x\n"]);
  });

  for (const [how, ended] of [
    ["fails", end(1)],
    ["is killed", end(undefined)],
  ] as const) {
    it(`that ${how}: the rule for negate is followed, not the same once more`, async () => {
      const rules = "create user db:* * |/b/gen %d\nnegate * * * /b/keyctl negate %k 30 %S\n";
      const { code, ran, instantiated } = await act(rules, { ends: { "/b/gen": ended } });
      assert.deepEqual(ran, ["/b/gen(gen|db:a;b) < ci", "/b/keyctl(keyctl|negate|57|30|9)"]);
      assert.deepEqual([code, instantiated], [0, undefined]);
    });
  }

  it("that fails with no rule for negate, or with one that fails too: the request fails", async () => {
    const failing = { "/b/gen": end(1) };
    assert.equal((await act("create * * * |/b/gen\n", { ends: failing })).code, "negate: No matching action");
    const { code, ran } = await act("* * * * |/b/gen\n", { ends: failing });
    assert.deepEqual([code, ran.length], ["f:1: /b/gen failed", 2]);
  });

  it("that prints too much: the request fails and nothing is instantiated", async () => {
    const { code, instantiated } = await act("create * * * |/b/gen\n", { ends: { "/b/gen": end(0, "too much") } });
    assert.deepEqual([code, instantiated], ["f:1: /b/gen printed more than 32768 bytes", undefined]);
  });
});

describe("a request", () => {
  it("that no rule matches fails with the operation in front of the message", async () => {
    assert.equal((await act("create user other * /b/h\n")).code, "create: No matching action");
  });

  it("that a malformed rule matches fails with file, line and reason", async () => {
    assert.equal((await act("\ncreate user db:*\n")).code, "f:2: Syntax error: a callout is missing");
  });
});
