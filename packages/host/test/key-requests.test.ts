import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import type { KeyBuilder, KeyRequest } from "../src/index.ts";
import { onKeyHost, SECRET_AT } from "./key-call-kit.ts";
import { eventually } from "./support.ts";

const SESSION = abi.XENKEY_SESSION_KEYRING;

const number = (result: number | string): number => {
  assert.ok(typeof result === "number", `refused with ${result}`);
  return result;
};

/** A builder that answers with a text, and notes what it was told. */
const noting =
  (told: KeyRequest[], text = "payload"): KeyBuilder =>
  (request) => {
    told.push({ ...request, callout: Uint8Array.from(request.callout) });
    return Buffer.from(text);
  };

/** A turn of the event loop or two. */
const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

describe("a key that a guest asks for and does not have", () => {
  const told: KeyRequest[] = [];
  it(
    "is built by a function, which is told who asks",
    onKeyHost(
      async (host) => {
        const guest = host.domain(2);
        const key = number(await guest.request("user", "db:orders", { callout: "quickly" }));
        assert.equal(await guest.read(key, SECRET_AT, 64), 7);
        assert.equal(Buffer.from(guest.bytes.subarray(SECRET_AT, SECRET_AT + 7)).toString(), "payload");
        const [request] = told;
        assert.ok(request !== undefined);
        assert.deepEqual(request.domain, { domid: 2, name: "guest2" });
        assert.equal(request.uid, 0x8000_0000 + 12);
        assert.deepEqual([request.type, request.description, request.key], ["user", "db:orders", key]);
        assert.equal(Buffer.from(request.callout).toString(), "quickly");
        assert.deepEqual(request.argv.slice(0, 4), ["create", String(key), String(request.uid), String(request.uid)]);
        // It is there from now on, for this domain alone.
        assert.equal(await guest.request("user", "db:orders"), key);
        assert.equal(await host.domain(1).request("user", "db:orders"), "ENOKEY");
        assert.equal(told.length, 1);
      },
      { requestKey: noting(told) },
    ),
  );

  it(
    "is built out of a secret, which never leaves secret memory, and is released",
    onKeyHost(
      async (host) => {
        const pool = await host.secrets.pool();
        const owner = pool.owner("vault");
        const secret = owner.keep(Buffer.from("from a vault"));
        replies.push({ payload: secret, seconds: 1000 });
        const guest = host.domain(1);
        const key = number(await guest.request("user", "db:orders", { callout: "" }));
        assert.equal(await guest.read(key, SECRET_AT, 64), 12);
        assert.equal(secret.isLive, false);
        assert.match(
          (await host.service()).procKeys(host.keys.keyrings.of(1, await host.service()).threadOf(0)),
          / 16m .*db:orders/,
        );
      },
      { requestKey: () => replies.pop() },
    ),
  );
  const replies: ReturnType<KeyBuilder>[] = [];

  it(
    "is refused for a while with what the builder says, and the builder is not asked again",
    onKeyHost(
      async (host) => {
        const guest = host.domain(1);
        for (const [description, error] of [
          ["rejected", "EKEYREJECTED"],
          ["nothing", "ENOKEY"],
          ["thrown", "ENOKEY"],
          ["late", "ENOKEY"],
          ["empty", "ENOKEY"],
          ["large", "ENOKEY"],
        ] as const) {
          assert.equal(await guest.request("user", description, { callout: "" }), error, description);
          assert.equal(await guest.request("user", description, { callout: "" }), error, description);
          assert.equal(asked.filter((name) => name === description).length, 1, description);
        }
        assert.deepEqual(failures, [
          "thrown: RangeError",
          "late: Error",
          "empty: XenolithError",
          "large: XenolithError",
        ]);
      },
      {
        requestKey: ({ description }) => {
          asked.push(description);
          if (description === "rejected") return { error: "EKEYREJECTED", seconds: 60 };
          if (description === "thrown") throw new RangeError("with a secret in it");
          if (description === "late") return Promise.reject(new Error("with a secret in it"));
          if (description === "empty") return new Uint8Array(0);
          return description === "large" ? new Uint8Array(32_768) : undefined;
        },
        onRequestFailed: (error, { description }) =>
          failures.push(`${description}: ${error instanceof Error ? error.name : typeof error}`),
      },
    ),
  );
  const asked: string[] = [];
  const failures: string[] = [];

  it(
    "is -ENOENT where nobody builds keys, and -ENOKEY without a callout",
    onKeyHost(async (host) => {
      const guest = host.domain(1);
      assert.equal(await guest.request("user", "a", { callout: "" }), "ENOENT");
      assert.equal(await guest.request("user", "b"), "ENOKEY");
      assert.equal(await guest.request("keyring", "c", { callout: "" }), "EPERM");
      assert.equal(await guest.request("nonsense", "d", { callout: "" }), "ENOKEY");
    }),
  );

  it(
    "is built once for eight vCPUs that ask at once",
    onKeyHost(
      async (host) => {
        const guest = host.domain(1);
        const first = guest.request("user", "one", { callout: "" });
        const others = [1, 2, 3, 4, 5, 6, 7].map(
          async (vcpu) => await guest.request("user", "one", { callout: "", vcpu }),
        );
        await turns();
        assert.equal(waiting.length, 1);
        waiting[0]!(Buffer.from("x"));
        const answers = await Promise.all([first, ...others]);
        assert.equal(new Set(answers).size, 1);
        number(answers[0]);
        assert.equal(waiting.length, 1);
      },
      { requestKey: () => new Promise((resolve) => waiting.push(resolve)) },
    ),
  );
  const waiting: ((payload: Uint8Array) => void)[] = [];

  it(
    "is added meanwhile: what is added waits for the key, and then takes its place",
    onKeyHost(
      async (host) => {
        const guest = host.domain(1);
        const asked = guest.request("user", "one", { callout: "", ring: SESSION });
        await turns();
        const texts = [guest.text(0, "user"), guest.text(1, "one")] as const;
        const payload = { address: SECRET_AT, length: 5 };
        guest.bytes.set(Buffer.from("added"), SECRET_AT);
        const adding = guest.addPlaced([...texts, payload], abi.XENKEYF_secret_payload, SESSION);
        await turns();
        built[0]!(Buffer.from("built"));
        const key = number(await asked);
        assert.equal(await adding, key);
        guest.bytes.fill(0, SECRET_AT, SECRET_AT + 64);
        assert.equal(await guest.read(key, SECRET_AT, 64), 5);
        assert.equal(Buffer.from(guest.bytes.subarray(SECRET_AT, SECRET_AT + 5)).toString(), "added");
      },
      { requestKey: () => new Promise((resolve) => built.push(resolve)) },
    ),
  );
  const built: ((payload: Uint8Array) => void)[] = [];

  it(
    "is in nobody's way when its domain is destroyed in mid-request",
    onKeyHost(
      async (host) => {
        const [guest, other] = [host.domain(1), host.domain(2)];
        const asks = [0, 1, 2].map(async (vcpu) => await guest.request("user", `k${vcpu}`, { callout: "", vcpu }));
        const waits = guest.request("user", "k0", { callout: "", vcpu: 3 });
        await turns();
        const service = await host.service();
        assert.equal(pending.length, 3);
        assert.equal(service.statistics().waits, 4);
        guest.die();
        assert.deepEqual(await Promise.all([...asks, waits]), ["EINTR", "EINTR", "EINTR", "EINTR"]);
        assert.ok(pending.every(({ request }) => request.signal.aborted));
        assert.deepEqual(service.audit(), []);
        assert.doesNotMatch(service.procKeys(service.attach({ pid: 1, uid: 0, gid: 0 })), /request_/);
        // Too late, and wiped all the same.
        const late = Buffer.from("too late");
        for (const { resolve } of pending.splice(0)) resolve(late);
        await turns();
        assert.deepEqual(late, Buffer.alloc(8));
        const ask = other.request("user", "k0", { callout: "" });
        await turns();
        pending[0]!.resolve(Buffer.from("x"));
        number(await ask);
      },
      { requestKey: (request) => new Promise((resolve) => pending.push({ request, resolve })) },
    ),
  );
  const pending: { request: KeyRequest; resolve: (payload: Uint8Array) => void }[] = [];

  it(
    "is built in turns: four of a domain at once, and another domain's beside them",
    onKeyHost(
      async (host) => {
        const [greedy, other] = [host.domain(1), host.domain(2)];
        const asks = [0, 1, 2, 3, 4, 5, 6, 7].map(
          async (vcpu) => await greedy.request("user", `k${vcpu}`, { callout: "", vcpu }),
        );
        await turns();
        assert.deepEqual(open, ["k0", "k1", "k2", "k3"]);
        const ask = other.request("user", "other", { callout: "" });
        await turns();
        assert.deepEqual(open, ["k0", "k1", "k2", "k3", "other"]);
        const answers = Promise.all([...asks, ask]);
        while (going.length > 0) {
          going.shift()!(Buffer.from("x"));
          await turns();
        }
        for (const answer of await answers) number(answer);
        assert.equal(open.length, 9);
      },
      {
        requestKey: ({ description }) => {
          open.push(description);
          return new Promise((resolve) => going.push(resolve));
        },
      },
    ),
  );
  const open: string[] = [];
  const going: ((payload: Uint8Array) => void)[] = [];

  it(
    "has a name that is UTF-8: nobody is asked for another",
    onKeyHost(
      async (host) => {
        const guest = host.domain(1);
        assert.equal(await guest.request("user", "\xff\xfe", { callout: "" }), "ENOKEY");
        assert.equal(names.length, 0);
        const key = number(await guest.request("user", Buffer.from("dé;b;1").toString("latin1"), { callout: "" }));
        assert.ok(key > 0);
        assert.deepEqual(names, ["dé;b;1"]);
      },
      {
        requestKey: ({ description }) => {
          names.push(description);
          return Buffer.from("x");
        },
      },
    ),
  );
  const names: string[] = [];
});

describe("a program that builds keys", () => {
  const program = (script: string): { readonly requestKey: { readonly program: readonly string[] } } => ({
    requestKey: { program: ["/bin/sh", "-c", script, "request-key"] },
  });
  it(
    "is called as the kernel's is, with the request in its environment",
    onKeyHost(async (host) => {
      const guest = host.domain(1);
      const key = number(await guest.request("user", "db:orders", { callout: "hello" }));
      const size = number(await guest.read(key, SECRET_AT, 4096));
      const text = Buffer.from(guest.bytes.subarray(SECRET_AT, SECRET_AT + size)).toString();
      const uid = 0x8000_0000 + 11;
      const other = number(await guest.request("user", "db:bills", { callout: "" }));
      assert.ok(number(await guest.read(other, SECRET_AT, 4096)) > 0);
      assert.match(
        text,
        new RegExp(`^create ${key} ${uid} ${uid} \\d+ \\d+ \\d+\nuser db:orders ${uid} 1 guest1 hello /$`),
      );
    }, program('printf "%s\n%s" "$*" "$XENOLITH_KEY_TYPE $XENOLITH_KEY_DESCRIPTION $XENOLITH_KEY_UID $XENOLITH_DOMAIN_ID $XENOLITH_DOMAIN_NAME $(cat) $(pwd)"')),
  );

  const told: unknown[] = [];

  for (const [how, script] of [
    ["fails", "printf partly; exit 1"],
    ["is killed", "printf partly; kill -9 $$"],
    ["prints nothing", "exit 0"],
    ["prints more than a key holds", "head -c 40000 /dev/zero"],
    ["prints without end", "cat /dev/zero"],
  ] as const) {
    it(
      `that ${how} has built nothing`,
      onKeyHost(async (host) => {
        assert.equal(await host.domain(1).request("user", "x", { callout: "" }), "ENOKEY");
      }, program(script)),
    );
  }

  it(
    "that is not there has built nothing, and its operator is told",
    onKeyHost(
      async (host) => {
        assert.equal(await host.domain(1).request("user", "x", { callout: "" }), "ENOKEY");
        assert.match(String(told), /ENOENT/);
      },
      { requestKey: { program: ["/nonexistent/request-key"] }, onRequestFailed: (error) => told.push(error) },
    ),
  );

  const directory = mkdtempSync(path.join(tmpdir(), "key-program-"));
  after(() => rmSync(directory, { recursive: true }));
  const pidFile = path.join(directory, "pid");

  it(
    "ends with the domain that it works for",
    onKeyHost(
      async (host) => {
        const guest = host.domain(1);
        const ask = guest.request("user", "x", { callout: "" });
        await eventually(() => existsSync(pidFile));
        const pid = Number(readFileSync(pidFile, "utf8"));
        process.kill(pid, 0);
        guest.die();
        assert.equal(await ask, "EINTR");
        await eventually(() => !isRunning(pid));
      },
      program(`echo $$ > ${pidFile}.new; mv ${pidFile}.new ${pidFile}; exec sleep 1000`),
    ),
  );
});

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe("options of keys", () => {
  it("name one who builds them, by an absolute path", async () => {
    const { Host } = await import("../src/index.ts");
    const upcall = { run: async () => 0 };
    for (const keys of [
      { requestKey: () => undefined, upcall },
      { requestKey: { program: ["request-key"] } },
      { requestKey: { program: [] } },
    ])
      await assert.rejects(Host.open({ memoryBytes: 2 ** 26, keys }), { code: "INVALID_ARGUMENT" });
  });
});
