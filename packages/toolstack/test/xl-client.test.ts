/**
 * What xl itself does before and after the daemon is asked: words, exit codes, and what it loads.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import path from "node:path";
import { after, describe, it } from "node:test";
import { type Answer, type Asked, FakeDaemon } from "./fake-daemon.ts";
import { QUICK_OPTIONS } from "../src/quick-list.ts";
import { dom0, view } from "./views.ts";
import { Workbench } from "./xl-harness.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

const notFound: Answer = { status: 404, body: { code: "DOMAIN_NOT_FOUND", message: 'no domain "x"', remedy: "" } };
const refusal: Answer = { status: 409, body: { code: "DOMAIN_STATE", message: "it is dying", remedy: "" } };

/** Every route with an answer that says little. */
const usual = ({ method, path: asked }: Asked): Answer => {
  if (asked === "/v1/domains" && method === "GET") return { body: { domains: [dom0(), view()] } };
  if (asked.endsWith("/vcpus")) return { body: { domid: 1, name: "notes", vcpus: [] } };
  if (asked === "/v1/audit") return { body: { findings: [] } };
  if (asked === "/v1/dmesg") return { body: { lines: [{ timeMs: 0, level: "warn", text: "bad\u001b[2Jguest" }] } };
  if (asked === "/v1/claims") return { body: { totalBytes: 0, claims: [] } };
  if (asked === "/v1/secrets") return { body: {} };
  if (asked === "/v1/host") return { body: { memoryBytes: 2 ** 30, memoryFreeBytes: 2 ** 29 } };
  if (asked === "/v1/definitions") return { body: { definitions: [{ name: "notes", config: { name: "notes" } }] } };
  return { body: view() };
};

const run = async (words: readonly string[], answer = usual) => {
  await using daemon = await FakeDaemon.start(bench, answer);
  const result = await bench.xl([...words, "--socket", daemon.socket]);
  return { ...result, asked: daemon.asked };
};

describe("what the daemon is asked", () => {
  const rows: readonly (readonly [string, readonly string[], readonly (readonly [string, unknown?])[]])[] = [
    ["list", ["list"], [["GET /v1/domains"]]],
    ["list of some", ["list", "notes", "1"], [["GET /v1/domains/notes"], ["GET /v1/domains/1"]]],
    ["a name with a slash", ["list", "../host"], [["GET /v1/domains/..%2Fhost"]]],
    ["list -l", ["list", "-l"], [["GET /v1/domains"], ["GET /v1/definitions"]]],
    ["vcpu-list", ["vcpu-list", "notes"], [["GET /v1/domains/notes/vcpus"]]],
    ["domid", ["domid", "notes"], [["GET /v1/domains/notes"]]],
    ["destroy", ["destroy", "a", "b"], [["DELETE /v1/domains/a"], ["DELETE /v1/domains/b"]]],
    ["shutdown", ["shutdown", "-F", "a"], [["POST /v1/domains/a/shutdown", { force: true }]]],
    ["reboot -a", ["reboot", "-a"], [["GET /v1/domains"], ["POST /v1/domains/1/reboot", { force: false }]]],
    ["pause", ["pause", "a"], [["POST /v1/domains/a/pause", {}]]],
    ["unpause", ["unpause", "a"], [["POST /v1/domains/a/unpause", {}]]],
    ["rename", ["rename", "a", "b"], [["POST /v1/domains/a/rename", { name: "b" }]]],
    ["mem-set in MiB", ["mem-set", "a", "64"], [["PUT /v1/domains/a/memory/target", { bytes: 2 ** 26 }]]],
    ["mem-set auto", ["mem-set", "a", "auto"], [["PUT /v1/domains/a/memory/target", { bytes: null }]]],
    ["mem-max", ["mem-max", "a", "1.5G"], [["PUT /v1/domains/a/memory/max", { bytes: 1.5 * 2 ** 30 }]]],
    ["dmesg", ["dmesg"], [["GET /v1/dmesg"]]],
    ["secrets", ["secrets"], [["GET /v1/secrets"]]],
    ["audit", ["debug", "audit"], [["POST /v1/audit", {}]]],
    [
      "create",
      ["create", "-p", "name=a", "kernel=/k.wasm", "memory=64M"],
      [
        [
          "POST /v1/domains",
          { config: { name: "a", kernel: "/k.wasm", memory: "64M", directories: [], keys: {} }, paused: true },
        ],
      ],
    ],
    [
      "config-update of keys",
      ["config-update", "notes", "memory=64"],
      [["GET /v1/domains/notes"], ["PATCH /v1/definitions/notes", { config: { memory: 64 } }]],
    ],
    ["config-remove", ["config-remove", "a"], [["DELETE /v1/definitions/a"]]],
    ["create --saved", ["create", "-s", "a"], [["POST /v1/domains", { definition: "a", paused: false }]]],
  ];
  for (const [what, words, expected] of rows) {
    it(what, async () => {
      const { code, asked, stderr } = await run(words);
      assert.equal(code, 0, stderr);
      const seen = asked.map(({ method, path: to, body }) => [
        `${method} ${to}`,
        ...(body === "" ? [] : [JSON.parse(body) as unknown]),
      ]);
      assert.deepEqual(seen, expected);
    });
  }
});

describe("xl list without the grammar", () => {
  it("has the options that the grammar has, but for those of a daemon that is far away", async () => {
    const { stdout } = await bench.xl(["list", "--help"]);
    const options = [...stdout.matchAll(/^ {2}(?:-(\w), )?--([\w-]+)( <\w+>)? /gm)].map(([, short, name, value]) => [
      name,
      { type: value === undefined ? "boolean" : "string", ...(short === undefined ? {} : { short }) },
    ]);
    const ours = new Map(options.map(([name, type]) => [name, type]));
    for (const other of ["help", "version", "connect", "token-file", "ca-file"]) assert.ok(ours.delete(other), other);
    assert.deepEqual(Object.fromEntries(ours), QUICK_OPTIONS);
  });
  it("leaves help and mistakes to it", async () => {
    for (const words of [
      ["list", "--halp"],
      ["list", "--socket"],
      ["list", "--json=1"],
    ]) {
      const { code, stderr } = await bench.xl(words);
      assert.equal(code, 125);
      assert.match(stderr, /^error: /);
    }
  });
});

describe("exit codes", () => {
  it("0 when all went well", async () => assert.equal((await run(["list"])).code, 0));
  it("1 when the daemon refused", async () => {
    const { code, stderr } = await run(["pause", "x"], () => refusal);
    assert.equal(code, 1);
    assert.match(stderr, /^xl: it is dying \[DOMAIN_STATE\]\n$/);
  });
  it("1 when the auditor found something", async () => {
    const { code, stdout } = await run(["debug", "audit"], () => ({ body: { findings: ["a page has two owners"] } }));
    assert.deepEqual([code, stdout], [1, "a page has two owners\n"]);
  });
  it("3 when no daemon answers, with the remedy", async () => {
    const { code, stderr } = await bench.xl(["list", "--socket", "/nowhere/xl.sock"]);
    assert.equal(code, 3);
    assert.match(stderr, /no daemon answers at \/nowhere\/xl\.sock: start one with `xl daemon`/);
  });
  it("4 when there is no such domain", async () => {
    const { code, stderr } = await run(["domid", "x"], () => notFound);
    assert.equal(code, 4);
    assert.match(stderr, /no domain "x" \[DOMAIN_NOT_FOUND\]/);
  });
  it("125 when what answers is no daemon", async () => {
    assert.equal((await run(["list"], () => ({ body: { other: 1 } }))).code, 125);
  });
  it("that of the first failure among several domains, and the others are done", async () => {
    const { code, asked } = await run(["pause", "a", "x", "b"], (each) =>
      each.path.includes("/x/") ? notFound : usual(each),
    );
    assert.equal(code, 4);
    assert.equal(asked.length, 3);
  });
});

describe("words that are refused before the daemon is asked", () => {
  const rows: readonly (readonly [string, readonly string[], RegExp])[] = [
    ["a target of 0", ["mem-set", "a", "0"], /size "0" is not above 0 and at most 4 GiB/],
    ["a negative target", ["mem-set", "a", "-64"], /size "-64"/],
    ["a target above an address space", ["mem-set", "a", "4097"], /size "4097" is not .* at most 4 GiB/],
    ["a target with an unknown unit", ["mem-max", "a", "64Q"], /size "64Q" is not a number with K, M, G/],
    ["a target that is no number", ["mem-max", "a", "NaN"], /size "NaN"/],
    ["shutdown of nobody", ["shutdown"], /shutdown takes domains, or --all and none/],
    ["shutdown of all and one", ["shutdown", "-a", "x"], /shutdown takes domains, or --all and none/],
    ["a configuration that is not there", ["create", "nowhere.toml"], /cannot read the configuration "nowhere\.toml"/],
    ["a configuration with an unknown key", ["create", "name=a", "kernel=k", "memroy=1"], /did you mean memory\?/],
    ["an update of nothing", ["config-update", "a"], /nothing to change/],
    ["a saved configuration beside a file", ["create", "-s", "a", "b.toml"], /--saved takes a name, and neither/],
    ["no looks at all", ["top", "-i", "0"], /iterations is "0", it must be a whole number from 1/],
    ["no delay", ["top", "-d", "0"], /duration "0"/],
    ["a domain too few", ["rename", "a"], /missing required argument 'name'/],
    ["an unknown command", ["lsit"], /unknown command 'lsit'\n\(Did you mean list\?\)/],
  ];
  for (const [what, words, message] of rows) {
    it(what, async () => {
      const result = await bench.xl(words);
      assert.equal(result.code, 125);
      assert.match(result.stderr, message);
    });
  }
  it("all that is wrong in a file, with its lines", async () => {
    const file = bench.file("bad.toml", 'name = "a"\nmemory = 0\nvcpus = 99\n');
    const { code, stderr } = await bench.xl(["create", file]);
    assert.equal(code, 125);
    assert.match(
      stderr,
      /bad\.toml:2: memory: size "0".*\n.*bad\.toml:3: vcpus is 99.*\n.*bad\.toml: kernel is missing/,
    );
  });
});

describe("what xl prints", () => {
  it("--json is JSON with the daemon's figures", async () => {
    const { stdout } = await run(["list", "--json"]);
    assert.deepEqual(JSON.parse(stdout), [dom0(), view()]);
  });
  it("list -l joins domains with their configurations", async () => {
    const { stdout } = await run(["list", "--long", "notes"]);
    assert.deepEqual(JSON.parse(stdout), [{ ...view(), config: { name: "notes" } }]);
  });
  it("config-update of a file takes away the keys that it does not have", async () => {
    const file = bench.file("notes.toml", 'name = "notes"\nkernel = "/k.wasm"\n');
    const { asked } = await run(["config-update", "notes", file]);
    const { config } = JSON.parse(asked.at(-1)!.body) as { config: Record<string, unknown> };
    assert.deepEqual([config["kernel"], config["memory"], config["autostart"]], ["/k.wasm", null, null]);
  });
  it("config-list shows names, domids and what starts by itself", async () => {
    const definitions = [
      { name: "notes", autostart: true, config: { kernel: "/n.wasm" }, domid: 3 },
      { name: "w", autostart: false, config: { kernel: "/w.wasm" } },
    ];
    const { stdout } = await run(["config-list"], () => ({ body: { definitions } }));
    assert.equal(
      stdout,
      "Name   ID  Autostart  Kernel\nnotes   3  yes        /n.wasm\nw       -  no         /w.wasm\n",
    );
  });
  it("control characters of guests are made visible", async () => {
    const { stdout } = await run(["dmesg"]);
    assert.equal(stdout, "[1970-01-01T00:00:00.000Z] warn: bad\\u{1b}[2Jguest\n");
  });
  it("create --dryrun shows what a configuration comes to and asks nobody", async () => {
    const { code, stdout, asked } = await run(["create", "-n", "name=a", "kernel=/k.wasm", "memory=64"]);
    assert.equal(code, 0);
    assert.equal((JSON.parse(stdout) as { memoryBytes: number }).memoryBytes, 2 ** 26);
    assert.deepEqual(asked, []);
  });
  it("top prints as many looks as it is asked for", async () => {
    const { stdout } = await run(["top", "-b", "-i", "2", "-d", "10ms"]);
    assert.equal(stdout.match(/^2 domains, memory 512\.0 MiB used of 1\.0 GiB$/gm)?.length, 2);
  });
});

describe("xl console", () => {
  it("prints what the guest says until its domain is gone, byte for byte when that is no terminal", async () => {
    const { code, stdout } = await run(["console", "notes"], () => ({
      stream: (response) => {
        response.write("one\u001b[1m ");
        setTimeout(() => response.end("two\n"), 10);
      },
    }));
    assert.deepEqual([code, stdout], [0, "one\u001b[1m two\n"]);
  });
  it("types standard input to the guest, piece after piece", async () => {
    let typed = "";
    let following: ServerResponse | undefined;
    const answer = ({ method, body }: Asked): Answer => {
      if (method === "GET") return { stream: (response) => void (following = response).write("> ") };
      typed += body;
      if (typed.endsWith("quit\n")) following!.end("bye\n");
      return { status: 204 };
    };
    await using daemon = await FakeDaemon.start(bench, answer);
    const { child, done } = bench.start(["console", "notes", "--socket", daemon.socket]);
    child.stdin.write("hello\n");
    child.stdin.write("quit\n");
    const { code, stdout } = await done;
    assert.deepEqual([code, stdout, typed], [0, "> bye\n", "hello\nquit\n"]);
  });
  it("says when the daemon breaks off", async () => {
    const { code, stderr } = await run(["console", "notes"], () => ({
      stream: (response) => {
        response.write("one");
        setTimeout(() => response.destroy(), 10);
      },
    }));
    assert.equal(code, 3);
    assert.match(stderr, /broke off/);
  });
  it("says that there is no such domain", async () => {
    assert.equal((await run(["console", "x"], () => notFound)).code, 4);
  });
  it("create -c lets a domain run once somebody follows its console", async () => {
    const { code, stdout, asked } = await run(["create", "-c", "-q", "name=notes", "kernel=/k.wasm"], (each) =>
      each.path.includes("/console") ? { stream: (response) => response.end("hello\n") } : usual(each),
    );
    assert.deepEqual([code, stdout], [0, "hello\n"]);
    const paths = asked.map(({ method, path: to }) => `${method} ${to}`);
    assert.deepEqual(paths, ["POST /v1/domains", "GET /v1/domains/1/console?follow=1", "POST /v1/domains/1/unpause"]);
  });
  it("create -c ends when its domain cannot begin", async () => {
    const { code, stderr } = await run(["create", "-c", "-q", "name=notes", "kernel=/k.wasm"], (each) => {
      if (each.path.includes("/console")) return { stream: (response) => void response.write("") };
      return each.path.endsWith("/unpause") ? refusal : usual(each);
    });
    assert.equal(code, 1);
    assert.match(stderr, /DOMAIN_STATE/);
  });
});

describe("xl shutdown --wait", () => {
  /** A daemon whose domain is as `looks` say, one look after the other; each event makes xl look again. */
  const ending = (looks: readonly Answer[]) => {
    const left = [...looks];
    return ({ method, path: to }: Asked): Answer => {
      if (method === "POST") return { body: view() };
      if (to !== "/v1/events") return left.shift() ?? notFound;
      return { stream: (response) => void setInterval(() => response.write("data: {}\n\n"), 5).unref() };
    };
  };
  const rows: readonly (readonly [string, readonly Answer[]])[] = [
    ["is gone", [{ body: view() }, { body: view() }, notFound]],
    ["has ended and is preserved", [{ body: view() }, { body: view({ state: { ...view().state, shutdown: true } }) }]],
    ["was replaced by another of this domid", [{ body: view({ generation: 12 }) }]],
  ];
  for (const [what, looks] of rows) {
    it(`ends when the domain ${what}`, async () => {
      const { code, asked } = await run(["shutdown", "-w", "notes"], ending(looks));
      assert.equal(code, 0);
      assert.equal(asked.filter(({ path: to }) => to === "/v1/domains/1").length, looks.length);
    });
  }
  const ends: readonly (readonly [string, (response: ServerResponse) => void])[] = [
    ["ends", (response) => response.end(": bye\n\n")],
    ["breaks off", (response) => response.destroy()],
  ];
  for (const [what, stream] of ends) {
    it(`ends when the daemon ${what}, and its domains with it`, async () => {
      const { code } = await run(["shutdown", "-w", "notes"], (each) =>
        each.path === "/v1/events" ? { stream } : usual(each),
      );
      assert.equal(code, 0);
    });
  }
});

describe("what xl loads", () => {
  /** Scripts that a run of xl loaded, as V8 counts them for coverage. */
  const loadedBy = async (words: readonly string[]): Promise<readonly string[]> => {
    const directory = path.join(bench.directory, `coverage-${performance.now()}`);
    await using daemon = await FakeDaemon.start(bench, usual);
    const { code } = await bench.xl([...words, "--socket", daemon.socket], "", { NODE_V8_COVERAGE: directory });
    assert.equal(code, 0);
    const reports = readdirSync(directory).map((file) => readFileSync(path.join(directory, file), "utf8"));
    const scripts = reports.flatMap((text) => (JSON.parse(text) as { result: { url: string }[] }).result);
    return scripts.map(({ url }) => url).filter((url) => url.startsWith("file:"));
  };
  /** The package of a script, and its file when it is our own. */
  const shorten = (url: string): string =>
    /node_modules\/((?:@[\w-]+\/)?[\w-]+)\//.exec(url)?.[1] ??
    url.replace(/^.*\/packages\/(\w+)\/(?:dist\/src\/)?/, "$1/");

  it("to list domains: the command and the client, nothing else", async () => {
    const loaded = new Set((await loadedBy(["list"])).map(shorten));
    assert.deepEqual([...loaded].toSorted(), [
      "abi/error.js",
      "toolstack/bin/xl.js",
      "toolstack/client/api-client.js",
      "toolstack/client/choose-place.js",
      "toolstack/client/connection.js",
      "toolstack/client/format.js",
      "toolstack/client/place.js",
      "toolstack/commands/list.js",
      "toolstack/commands/report.js",
      "toolstack/quick-list.js",
      "toolstack/runtime-directory.js",
      "toolstack/terminal.js",
      "toolstack/xl.js",
    ]);
  });
  it("to create a domain: a reader of TOML too, but no hypervisor", async () => {
    const loaded = (await loadedBy(["create", "name=a", "kernel=/k.wasm"])).map(shorten);
    assert.ok(loaded.includes("smol-toml") && loaded.includes("toolstack/config/check.js"));
    assert.ok(
      !loaded.some((each) => /^(host|core|sys|loader|xenstore)\/|^koffi$|^abi\/index/.test(each)),
      loaded.join(),
    );
  });
});
