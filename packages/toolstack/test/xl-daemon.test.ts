/**
 * Each command of xl against a daemon with real domains.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { DaemonBench, ECHO } from "./daemon-bench.ts";
import type { XlRun } from "./xl-harness.ts";

const at = new DaemonBench();
let image = "";

before(async () => {
  image = await at.bench.image("echo.wasm", ECHO);
  await at.start(["--memory", "256M"]);
});
after(() => at[Symbol.asyncDispose]());

/** Runs xl, which must succeed; what it printed. */
const done = async (words: readonly string[], input = ""): Promise<string> => {
  const { code, stdout, stderr } = await at.xl(words, input);
  assert.equal(code, 0, `xl ${words.join(" ")}: ${stderr}`);
  return stdout;
};

const refused = ({ code, stderr }: XlRun, expected: { readonly code: number; readonly says: RegExp }): void => {
  assert.match(stderr, expected.says);
  assert.equal(code, expected.code);
};

/** Fields of a domain's row in `xl list`. */
const rowOf = async (name: string): Promise<readonly string[]> => {
  const lines = (await done(["list"])).split("\n");
  return lines.find((line) => line.startsWith(`${name} `))?.split(/\s+/) ?? [];
};

const create = (name: string, ...words: string[]): Promise<string> =>
  done(["create", `name=${name}`, `kernel=${image}`, "memory=16", ...words]);

describe("xl against a daemon", () => {
  it("create makes a domain, list and its relatives show it, destroy ends it", async () => {
    assert.match(await create("notes", "vcpus=1"), /^created domain \d+, notes\n$/);
    const domid = (await done(["domid", "notes"])).trim();
    assert.equal(await done(["domname", domid]), "notes\n");
    const [, id, mem, vcpus, state] = await rowOf("notes");
    // What is set aside for it counts: nobody else can have that.
    assert.deepEqual([id, mem, vcpus], [domid, "16", "1"]);
    assert.match(state!, /^[r-][b-]----$/);
    assert.match(await done(["list", "-m", "notes"]), new RegExp(`^notes +${domid} +64 .* 16384 `, "m"));
    assert.match(await done(["vcpu-list", domid]), new RegExp(`^notes +${domid} +0 +- `, "m"));
    assert.match(await done(["uptime", "notes"]), new RegExp(`^notes +${domid} 0:00:\\d\\d$`, "m"));
    assert.match(await done(["top", "-b", "-i", "1"]), /^ +notes {2}[r-][b-]---- /m);
    assert.match(await done(["claims"]), /^notes .* 15$/m);
    assert.match(await done(["config-list"]), new RegExp(`^notes +${domid} +no `, "m"));
    await done(["destroy", "notes"]);
    assert.deepEqual(await rowOf("notes"), []);
    refused(await at.xl(["domid", "notes"]), { code: 4, says: /no domain "notes" \[DOMAIN_NOT_FOUND\]/ });
  });

  it("list --long has the hypervisor's figures and the configuration", async () => {
    await create("long", "environment.LANG=C");
    const [domain] = JSON.parse(await done(["list", "-l", "long"])) as {
      memory: { currentBytes: number; maxBytes: number };
      config: { kernel: string; environment: unknown };
    }[];
    assert.equal(domain!.memory.currentBytes, 65_536);
    assert.equal(domain!.memory.maxBytes, 16 * 2 ** 20);
    assert.deepEqual([domain!.config.kernel, domain!.config.environment], [image, { LANG: "C" }]);
    await done(["destroy", "long"]);
  });

  it("console shows what was printed, and types to the guest", async () => {
    await create("talk");
    const { child, done: ended } = at.bench.start(["console", "--socket", at.socket, "talk"]);
    let heard = "";
    child.stdout.on("data", (chunk) => {
      heard += String(chunk);
      if (heard === "hello\n") child.stdin.write("and you?\n");
      if (heard.endsWith("you?\n")) void at.xl(["destroy", "talk"]);
    });
    const { code, stdout } = await ended;
    assert.deepEqual([code, stdout], [0, "hello\nand you?\n"]);
  });

  it("create -c follows a program to its end", async () => {
    const fine = await at.bench.image(
      "fine.wasm",
      ECHO.replace("(loop $again", "(call $exit (i32.const 0)) (loop $again"),
    );
    const text = await done(["create", "-q", "-c", "name=fine", `kernel=${fine}`, "memory=1"]);
    assert.equal(text, "hello\n");
    assert.deepEqual(await rowOf("fine"), []);
  });

  it("create -p leaves a domain paused until unpause", async () => {
    await create("later", "--paused");
    assert.match((await rowOf("later"))[4]!, /^..p/);
    await done(["unpause", "later"]);
    assert.match((await rowOf("later"))[4]!, /^..-/);
    await done(["pause", "later"]);
    assert.match((await rowOf("later"))[4]!, /^..p/);
    await done(["destroy", "later"]);
  });

  it("shutdown --wait ends when the domain is gone, and on_poweroff = preserve keeps it", async () => {
    await create("brief");
    await create("kept", "on_poweroff=preserve");
    await done(["shutdown", "--wait", "brief", "kept"]);
    assert.deepEqual(await rowOf("brief"), []);
    assert.match((await rowOf("kept"))[4]!, /^...s/);
    await done(["destroy", "kept"]);
  });

  it("reboot starts it again under its name", async () => {
    await create("again");
    const [, before] = await rowOf("again");
    await done(["reboot", "--wait", "again"]);
    let after: string | undefined;
    while (after === undefined || after === before) [, after] = await rowOf("again");
    await done(["destroy", "again"]);
  });

  it("rename gives another name, which must be a name and free", async () => {
    await create("first");
    await create("second");
    await done(["rename", "first", "third"]);
    assert.equal((await rowOf("third"))[0], "third");
    refused(await at.xl(["rename", "third", "second"]), { code: 1, says: /"second".*\[DOMAIN_EXISTS\]/ });
    refused(await at.xl(["rename", "third", "17"]), { code: 1, says: /name is "17".*\[CONFIG_INVALID\]/ });
    await done(["destroy", "third", "second"]);
  });

  it("config-update holds from the next start on, config-remove forgets", async () => {
    await create("kept", "autostart=true");
    await done(["config-update", "kept", "memory=8"]);
    refused(await at.xl(["config-update", "kept", "memroy=8"]), { code: 1, says: /did you mean memory\?/ });
    await done(["destroy", "kept"]);
    assert.match(await done(["config-list"]), /^kept +- +yes /m);
    await done(["create", "--saved", "kept"]);
    assert.match(await done(["list", "-m", "kept"]), /^kept +\d+ +64 .* 8192 /m);
    await done(["destroy", "kept"]);
    await done(["config-remove", "kept"]);
    assert.doesNotMatch(await done(["config-list"]), /kept/);
    refused(await at.xl(["create", "--saved", "kept"]), { code: 4, says: /"kept" \[DEFINITION_NOT_FOUND\]/ });
  });

  it("mem-set sets what a domain is to have, mem-max how far that may go", async () => {
    /** Target and limit of the domain, in KiB. */
    const figures = async (): Promise<readonly string[]> => {
      const [, , , target, , most, limit] = (await done(["list", "-m", "sized"])).split("\n")[1]!.split(/\s+/);
      return [target!, most!, limit!];
    };
    await create("sized", "maxmem=32", "memory_min=4");
    assert.deepEqual((await figures()).slice(1), ["32768", "16384"]);
    await done(["mem-set", "sized", "24"]);
    assert.deepEqual((await figures()).slice(1), ["32768", "24576"]);
    await done(["mem-set", "sized", "7.5M"]);
    assert.deepEqual((await figures()).slice(1), ["32768", "7680"]);
    assert.match(await done(["list", "-m", "sized"]), /by hand$/m);
    refused(await at.xl(["mem-set", "sized", "33"]), {
      code: 1,
      says: /target is 34603008 bytes.* 33554432 \[INVALID_SIZE\]/,
    });
    await done(["mem-max", "sized", "6"]);
    assert.deepEqual((await figures()).slice(1), ["6144", "6144"]);
    refused(await at.xl(["mem-max", "sized", "1G"]), { code: 1, says: /1073741824 .*268435456.*\[INVALID_SIZE\]/ });
    await done(["mem-set", "sized", "auto"]);
    assert.doesNotMatch(await done(["list", "-m", "sized"]), /by hand/);
    await done(["destroy", "sized"]);
  });

  it("debug audit finds nothing, dmesg tells what happened, info what there is", async () => {
    assert.equal(await done(["debug", "audit"]), "no findings\n");
    assert.match(await done(["dmesg"]), /info: domain \d+ \(notes\) created/);
    assert.match(await done(["info"]), /^total_memory +256$/m);
  });
});

describe("what a daemon refuses", () => {
  const rows: readonly (readonly [string, readonly string[], { readonly code: number; readonly says: RegExp }])[] = [
    [
      "a module that is not there",
      ["create", "name=x", "kernel=/nowhere.wasm", "memory=1"],
      { code: 1, says: /\[FILE_NOT_FOUND\]/ },
    ],
    [
      "more memory than the host has",
      ["create", "name=x", "kernel=IMAGE", "memory=1G"],
      { code: 1, says: /268435456/ },
    ],
    ["to destroy itself", ["destroy", "0"], { code: 1, says: /\[DOMAIN_STATE\]/ }],
    ["a domain that is not there", ["pause", "nobody"], { code: 4, says: /\[DOMAIN_NOT_FOUND\]/ }],
    ["a domid that is not there", ["console", "4711"], { code: 4, says: /\[DOMAIN_NOT_FOUND\]/ }],
    ["a name that is a path", ["list", "../host"], { code: 4, says: /\[DOMAIN_NOT_FOUND\]/ }],
    [
      "the device model of nobody",
      ["create", "name=x", "kernel=IMAGE", "memory=1", "device_model_for=nobody"],
      { code: 4, says: /"nobody"/ },
    ],
  ];
  for (const [what, words, expected] of rows) {
    it(what, async () => {
      refused(await at.xl(words.map((word) => word.replace("IMAGE", image))), expected);
      assert.deepEqual(await rowOf("x"), []);
    });
  }
  it("a second domain of a name", async () => {
    await create("twin");
    refused(await at.xl(["create", "name=twin", `kernel=${image}`]), { code: 1, says: /\[DOMAIN_EXISTS\]/ });
    await done(["destroy", "twin"]);
  });
  it("a second daemon at its socket", async () => {
    const words = [
      "daemon",
      "--socket",
      at.socket,
      "--state",
      `${at.bench.directory}/other`,
      "--xenstore-socket",
      "none",
    ];
    refused(await at.bench.xl(words), { code: 125, says: /\[SERVICE_RUNNING\]/ });
  });
});

describe("words of xl daemon that are refused", () => {
  const rows: readonly (readonly [string, readonly string[], RegExp])[] = [
    [
      "TCP without TLS",
      ["--listen", "127.0.0.1:0"],
      /no TCP without TLS and a token: --tls-certificate, --tls-key, --token-file/,
    ],
    ["a token without TCP", ["--token-file", "token"], /--listen, --tls-certificate, --tls-key is missing/],
    ["a log level", ["--log-level", "loud"], /log level is "loud", it must be one of debug, info/],
    ["a policy that is not there", ["--policy", "nowhere.json"], /cannot read the policy "nowhere\.json"/],
    ["memory of nothing", ["--memory", "0"], /size "0" is not above 0 and at most 1\.0 TiB/],
  ];
  for (const [what, words, message] of rows) {
    it(what, async () => {
      const { code, stderr } = await at.bench.xl(["daemon", "--socket", `${at.bench.directory}/no.sock`, ...words]);
      assert.equal(code, 125);
      assert.match(stderr, message);
    });
  }
});

describe("the end of a daemon", () => {
  it("by SIGTERM is an orderly one, with its domains; xl says how to start one", async () => {
    await create("last");
    const { code } = await at.end();
    assert.equal(code, 0);
    refused(await at.xl(["list"]), { code: 3, says: /no daemon answers/ });
  });
});
