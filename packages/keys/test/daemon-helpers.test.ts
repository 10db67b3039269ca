/** Helpers that fail, hang, leave children, act twice or act on what is not theirs; and those that ship. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { describe, it } from "node:test";
import { KeyClient, KeyError, type RequestOptions } from "../src/client/index.ts";
import { findingsOf, packageRoot, startTestDaemon, type TestDaemon } from "./daemon-kit.ts";

const skip = process.getuid!() !== 0 && "helpers of a daemon that is not user 0 have other rights";
const xkeyHelper = path.join(packageRoot, "bin/xkey-helper.js");

/** Asks for a key with a new session: what is in it, or the name of the error. */
const ask = async (test: TestDaemon, description: string, options: RequestOptions = {}): Promise<string> => {
  await using keys = await KeyClient.connect({ socket: test.socket });
  try {
    const key = await keys.request("user", description, { callout: "ci", destination: "user", ...options });
    const bytes = Buffer.alloc(32_768);
    return bytes.toString("latin1", 0, await key.read(bytes));
  } catch (error) {
    assert.ok(error instanceof KeyError, String(error));
    return error.errorName ?? String(error.errno);
  }
};

const script = (test: TestDaemon, body: string): void => {
  const helper = test.script("helper", `#!/bin/sh\n${body}\n`);
  test.rules(`create user a:* * ${helper} %k %d %c %S\n`);
};

describe("a helper", { skip }, () => {
  const specification: readonly (readonly [how: string, body: string, answer: string])[] = [
    ["ends without a word", "exit 0", "ENOKEY"],
    ["fails", "exit 7", "ENOKEY"],
    ["is killed", "kill -9 $$", "ENOKEY"],
    ["builds the key and fails then", "keyctl instantiate $1 built 0; exit 9", "built"],
    ["builds it with data from its standard input", "printf 'from %s' $3 | keyctl pinstantiate $1 0", "from ci"],
    ["negates it", "keyctl negate $1 30 $4", "ENOKEY"],
    ["rejects it", "keyctl reject $1 30 rejected 0", "EKEYREJECTED"],
    ["rejects it with a number", "keyctl reject $1 30 13 0", "EACCES"],
    ["builds it twice", "keyctl instantiate $1 one 0; keyctl instantiate $1 two 0", "one"],
    ["builds it from a child that outlives it", "(sleep 0.3; keyctl instantiate $1 late 0) & exit 0", "ENOKEY"],
    ["lets it expire before it is done", "keyctl timeout $1 1; keyctl instantiate $1 short 0; sleep 2", "ENOKEY"],
    [
      "waits for the key that it builds",
      "keyctl print $1; keyctl request user $2; keyctl instantiate $1 after 0",
      "after",
    ],
    ["gives up its authority", "exec keyctl instantiate 1 x 0", "ENOKEY"],
  ];
  for (const [how, body, answer] of specification) {
    it(`that ${how}: ${answer}`, async () => {
      await using test = await startTestDaemon();
      script(test, body);
      const answered = await ask(test, "a:key");
      const findings = await findingsOf(test);
      await test.daemon.close();
      assert.equal(answered, answer);
      assert.deepEqual(findings, []);
    });
  }

  for (const [how, pipe] of [
    ["", ""],
    [" behind a pipe", "|"],
  ] as const) {
    it(`that hangs${how} is given up after the time that the daemon allows, and killed with its children`, async () => {
      await using test = await startTestDaemon(["--upcall-timeout", "0.5"]);
      const helper = test.script("helper", `#!/bin/sh\necho $$ > ${test.directory}/pid; sleep 1000 & wait\n`);
      test.rules(`create user a:* * ${pipe}${helper}\nnegate * * * /bin/touch ${test.directory}/negated\n`);
      const answered = await ask(test, "a:key");
      const again = await ask(test, "a:key");
      while (test.daemon.metrics.upcalls > 0) await new Promise((resolve) => setTimeout(resolve, 10));
      const findings = await findingsOf(test);
      const count = `ps -o stat= -g $(cat ${test.directory}/pid) | grep -v Z | wc -l; ls ${test.directory}/negated`;
      const { out } = await test.run("/bin/sh", ["-c", count]);
      const { upcallsTotal } = test.daemon.metrics;
      await test.daemon.close();
      assert.deepEqual([answered, again, upcallsTotal, out.trim()], ["ENOKEY", "ENOKEY", 1, "0"]);
      assert.deepEqual(findings, []);
    });
  }

  it("cannot build somebody else's key", async () => {
    await using test = await startTestDaemon();
    const slow = test.script("slow", "#!/bin/sh\nsleep 1\nkeyctl instantiate $1 own 0\n");
    const thief = test.script(
      "thief",
      `#!/bin/sh\nfor other in $(keyctl --keys | grep ' a:victim' | cut -c 1-8); do keyctl instantiate 0x$other stolen 0; done 2>${test.directory}/err\nkeyctl instantiate $1 thief 0\n`,
    );
    test.rules(`create user a:victim * ${slow} %k\ncreate user a:thief * ${thief} %k\n`);
    const answers = await Promise.all([ask(test, "a:victim"), ask(test, "a:thief")]);
    const { out } = await test.run("/bin/cat", [path.join(test.directory, "err")]);
    await test.daemon.close();
    assert.deepEqual(answers, ["own", "thief"]);
    assert.equal(out, "keyctl_instantiate: Operation not permitted\n");
  });

  it("is one, however many ask for the same key at once", async () => {
    await using test = await startTestDaemon();
    script(test, "sleep 0.2; keyctl instantiate $1 once 0");
    const serials = new Set<number>();
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      const ask = (): Promise<unknown> =>
        keys.request("user", "a:key", { callout: "", destination: "user" }).then(({ serial }) => serials.add(serial));
      await Promise.all(Array.from({ length: 1000 }, ask));
    }
    const { upcallsTotal } = test.daemon.metrics;
    await test.daemon.close();
    assert.deepEqual([serials.size, upcallsTotal], [1, 1]);
  });

  it("that does not exist: the error of its start, and a negative key", async () => {
    await using test = await startTestDaemon();
    test.rules("create user a:* * /nonexistent/helper %k\n");
    const answers = [await ask(test, "a:key"), await ask(test, "a:key")];
    await test.daemon.close();
    assert.deepEqual(answers, ["ENOENT", "ENOKEY"]);
    assert.ok(test.log.some((line) => line.includes("/nonexistent/helper")));
  });

  it("may be chosen by a program of one's own, as the kernel calls /sbin/request-key", async () => {
    await using test = await startTestDaemon(["--request-key", path.join(packageRoot, "bin/xrequest-key.js")]);
    const config = path.join(test.directory, "request-key.conf");
    await test.daemon.close();
    const program = `${path.join(packageRoot, "bin/xrequest-key.js")} --config ${config}`;
    await using other = await startTestDaemon(["--request-key", program]);
    writeFileSync(config, "create user cat:* * |/bin/cat\ncreate user sub:* * /bin/sh -c %{user:script} %k\n");
    let nested: string;
    {
      await using keys = await KeyClient.connect({ socket: other.socket });
      await keys.add("user", "script", Buffer.from("keyctl instantiate $0 nested 0"), "user");
      nested = await ask(other, "sub:it");
    }
    const [piped, none] = [await ask(other, "cat:it"), await ask(other, "other")];
    const findings = await findingsOf(other);
    await other.daemon.close();
    assert.deepEqual([piped, none, nested], ["ci", "ENOKEY", "nested"]);
    assert.deepEqual(findings, []);
  });
});

describe("helpers that ship", { skip }, () => {
  it("read files, variables and what programs print; what they need is in the requester's keyring", async () => {
    await using test = await startTestDaemon();
    const tenant = path.join(test.directory, "tenant");
    mkdirSync(tenant);
    writeFileSync(path.join(tenant, "orders"), "from a file");
    writeFileSync(path.join(test.directory, "env"), 'A=1\nORDERS="from a variable"\n');
    test.rules(
      [
        `create user file:* * ${xkeyHelper} file %k %d --directory-key user:tenant`,
        `create user env:* * ${xkeyHelper} environment %k %d --file ${test.directory}/env`,
        `create user cmd:* * ${xkeyHelper} command %k %d --input-key user:tenant -- /bin/cat`,
      ].join("\n"),
    );
    const before = await ask(test, "file:orders");
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      await keys.add("user", "tenant", Buffer.from(tenant), "user");
      const negative = await keys.list("user");
      for (const key of negative) if ((await key.describe()).description === "file:orders") await key.unlink("user");
    }
    const answers: string[] = [];
    for (const name of ["file:orders", "file:none", "file:../env", "env:ORDERS", "env:NONE", "cmd:x"]) {
      answers.push(await ask(test, name));
    }
    await test.daemon.close();
    assert.equal(before, "EKEYREJECTED");
    assert.deepEqual(answers, ["from a file", "ENOKEY", "EKEYREJECTED", "from a variable", "ENOKEY", tenant]);
  });

  it("fetch secrets over HTTP with the requester's own token, for as long as they are good", async () => {
    const store = createServer((request, response) => {
      if (request.headers["x-vault-token"] !== "t0ken") response.writeHead(403).end();
      else if (request.url === "/v1/orders") {
        response.writeHead(200, { "cache-control": "max-age=100" }).end('{"data":{"password":"from the store"}}');
      } else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => store.listen(0, "127.0.0.1", resolve));
    const { port } = store.address() as AddressInfo;
    await using test = await startTestDaemon();
    const url = `http://127.0.0.1:${port}/v1/{name}`;
    const options = `--url ${url} --token user:token --header x-vault-token --field data.password`;
    test.rules(`create user vault:* * ${xkeyHelper} http %k %d ${options}\n`);
    const answers: string[] = [];
    let listed: string;
    {
      await using keys = await KeyClient.connect({ socket: test.socket });
      const token = await keys.add("user", "token", Buffer.from("t0ken"), "user");
      answers.push(await ask(test, "vault:orders"), await ask(test, "vault:none"));
      await token.update(Buffer.from("wrong"));
      answers.push(await ask(test, "vault:other"));
      listed = (await test.keyctl(["--keys"])).out;
    }
    await test.daemon.close();
    store.close();
    assert.deepEqual(answers, ["from the store", "ENOKEY", "EKEYREJECTED"]);
    assert.match(listed, / 1m 3f010000 +0 +0 user {6}vault:orders: 14$/m);
  });
});
