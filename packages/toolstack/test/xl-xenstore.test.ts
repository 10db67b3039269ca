import assert from "node:assert/strict";
import { existsSync, statSync } from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { Host } from "@xenolith/host";
import { type XlRun, Workbench } from "./xl-harness.ts";

const bench = new Workbench();
const socket = path.join(bench.directory, "store.sock");
const idle = `(module (memory (export "memory") 1) (func (export "_start")))`;
let host: Host;
let image: string;

before(async () => {
  host = await Host.open({ memoryBytes: 64 * 2 ** 20, warmVcpuCount: 0, xenstoreSocket: socket });
  image = await bench.image("idle.wasm", idle);
});
after(async () => {
  await host.close();
  bench[Symbol.dispose]();
});

const xenstore = (command: string, ...words: string[]): Promise<XlRun> =>
  bench.xl(["xenstore", command, "--socket", socket, ...words]);

/** It did what was asked, and said this. */
const says = async (run: Promise<XlRun>, stdout: string): Promise<void> =>
  assert.deepEqual(await run, { code: 0, stdout, stderr: "" });

/** The store refused with this name. */
const refuses = async (run: Promise<XlRun>, name: string): Promise<void> => {
  const { code, stdout, stderr } = await run;
  assert.deepEqual([code, stdout], [1, ""]);
  assert.match(stderr, new RegExp(`^xl: xenstore: .*${name}\n$`));
};

describe("xl xenstore", () => {
  it("write makes nodes, read prints values a line each, escaped as xenstore-read does", async () => {
    await says(xenstore("write", "/t/a", "one\ttwo\\", "/t/b", "é"), "");
    await says(xenstore("read", "/t/a", "/t/b"), "one\\ttwo\\\\\n\\303\\251\n");
    await says(xenstore("read", "--raw", "/t/b"), "é");
    await says(xenstore("read", "--json", "/t/b"), '{"/t/b":"\\\\303\\\\251"}\n');
    await refuses(xenstore("read", "/t/nothing"), "ENOENT");
  });
  it("write is all or none", async () => {
    await refuses(xenstore("write", "/none/a", "1", "/none//b", "2"), "EINVAL");
    assert.equal((await xenstore("exists", "/none")).code, 1);
  });
  it("ls prints the tree as xenstore-ls does: indented, or whole paths, with permissions", async () => {
    await says(xenstore("write", "/l/x/deep", "1", "/l/y", "2"), "");
    await says(xenstore("ls", "/l"), 'x = ""\n deep = "1"\ny = "2"\n');
    await says(xenstore("ls", "-f", "-p", "/l/x"), '/l/x/deep = "1"   (n0)\n');
    await says(xenstore("ls", "--json", "/l"), '{"/l/x":"","/l/x/deep":"1","/l/y":"2"}\n');
    await refuses(xenstore("ls", "/absent"), "ENOENT");
  });
  it("list prints names, exists answers by its exit code", async () => {
    await says(xenstore("write", "/n/one", "", "/n/two", ""), "");
    await says(xenstore("list", "/n"), "one\ntwo\n");
    await says(xenstore("list", "--json", "/n"), '{"/n":["one","two"]}\n');
    await says(xenstore("exists", "/n", "/n/one"), "");
    assert.deepEqual(await xenstore("exists", "--json", "/n", "/n/three"), {
      code: 1,
      stdout: '{"/n":true,"/n/three":false}\n',
      stderr: "",
    });
  });
  it("chmod sets the list, rm removes nodes that are there", async () => {
    await using domain = await host.createDomain({ image });
    await says(xenstore("write", "/c/x", ""), "");
    await says(xenstore("chmod", "/c", `r${domain.domid}`, "b0"), "");
    await says(xenstore("ls", "-p", "-f", "/c"), '/c/x = ""   (n0)\n');
    const store = await host.xenstore();
    assert.deepEqual(await store.getPermissions("/c"), [
      { domid: domain.domid, access: "r" },
      { domid: 0, access: "b" },
    ]);
    await says(xenstore("rm", "/c"), "");
    await refuses(xenstore("rm", "/c"), "ENOENT");
    await refuses(xenstore("rm", "/"), "EINVAL");
  });
  it("watch prints the paths of changes", async () => {
    const watching = xenstore("watch", "--count", "3", "/w");
    const store = await host.xenstore();
    // The watch is there when its first event was printed; until then changes may be merged into that one.
    let at = 0;
    const timer = setInterval(() => void store.write(`/w/n${(at += 1)}`, ""), 20);
    const { code, stdout } = await watching;
    clearInterval(timer);
    assert.equal(code, 0);
    assert.match(stdout, /^\/w\n\/w\/n\d+\n\/w\/n\d+\n$/);
  });
  it("shows the homes of domains, which go with them", async () => {
    const domain = await host.createDomain({ image, name: "web" });
    await says(xenstore("read", `/local/domain/${domain.domid}/name`), "web\n");
    await domain.destroy();
    assert.equal((await xenstore("exists", `/local/domain/${domain.domid}`)).code, 1);
  });
});

describe("xl xenstore: mistakes exit with 125 and say what is wrong", () => {
  const rows: readonly (readonly [string, readonly string[], RegExp])[] = [
    [
      "nobody serves there",
      ["list", "--socket", "/nowhere/sock", "/"],
      /\/nowhere\/sock.*--xenstore-socket PATH serves one/,
    ],
    ["a path without a value", ["write", "/a", "1", "/b"], /path "\/b" has no value/],
    ["a mode that is none", ["chmod", "/a", "x0"], /mode "x0" is not n, r, w or b and a domid/],
    ["a count that is none", ["watch", "--count", "0", "/a"], /count is "0".*whole number from 1/],
    ["no path", ["read"], /missing required argument/],
  ];
  for (const [what, words, message] of rows) {
    it(what, async () => {
      const run = await bench.xl(["xenstore", ...words]);
      assert.deepEqual([run.code, run.stdout], [125, ""]);
      assert.match(run.stderr, message);
    });
  }
  it("help teaches with examples", async () => {
    const { code, stdout } = await bench.xl(["xenstore", "--help"]);
    assert.equal(code, 0);
    assert.match(stdout, /xl xenstore ls -p \/local\/domain/);
    assert.match(stdout, /Exit code: 0; 1 the store refused/);
  });
});

describe("xl run --xenstore-socket", () => {
  it("serves the store while it runs, for this user only, and takes the socket away", async () => {
    const text = `(module (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start") (i32.store (i32.const 4) (i32.const 8)) (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))))`;
    const own = path.join(bench.directory, "run.sock");
    const { child, done } = bench.start([
      "run",
      "--name",
      "served",
      "--xenstore-socket",
      own,
      await bench.image("wait.wasm", text),
    ]);
    while (!existsSync(own)) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(statSync(own).mode & 0o777, 0o600);
    const watch = await bench.xl(["xenstore", "watch", "-n", "1", "--socket", own, "/local/domain/1"]);
    assert.equal(watch.stdout, "/local/domain/1\n");
    child.stdin.end();
    assert.equal((await done).code, 0);
    assert.equal(existsSync(own), false);
  });
  it("a socket that cannot be made is said", async () => {
    const run = await bench.xl(["run", "--xenstore-socket", "/nowhere/sock", image]);
    assert.equal(run.code, 125);
    assert.match(run.stderr, /listen at \/nowhere\/sock/);
  });
});
