/**
 * xl and a daemon that it reaches over TCP: a real one, whose certificate is made here.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { after, before, describe, it } from "node:test";
import { ECHO } from "./daemon-bench.ts";
import { selfSigned } from "./self-signed.ts";
import { ServiceBench } from "./service-harness.ts";
import { Workbench, type XlRun } from "./xl-harness.ts";

const TOKEN = "a token of more than sixteen";
const pair = selfSigned("localhost");
const files = new Workbench();
const tokenFile = files.file("token", `${TOKEN}\n`);
const caFile = files.file("ca.pem", pair.certificate);
let bench: ServiceBench;
let url = "";
before(async () => {
  bench = await ServiceBench.open();
  await bench.service.listenAtPort({ address: "127.0.0.1", port: 0, ...pair, token: TOKEN });
  url = `https://localhost:${bench.service.places.at(-1)!.split(":")[1]!}`;
});
after(async () => {
  const findings = await bench.close();
  await bench[Symbol.asyncDispose]();
  files[Symbol.dispose]();
  assert.deepEqual(findings, []);
});

const quiet = { XENOLITH_CONNECT: "", XENOLITH_TOKEN_FILE: "", XENOLITH_CA_FILE: "" };
const xl = (words: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<XlRun> =>
  files.xl(words, "", { ...quiet, ...environment });
const place = (): string[] => ["--connect", url, "--token-file", tokenFile, "--ca-file", caFile];

describe("xl over TCP", () => {
  it("asks a daemon that is named by options, for lists, changes and streams", async () => {
    const image = await files.image("guest.wasm", ECHO);
    const words = [`kernel=${image}`, "name=far", "memory=2"];
    const created = await xl(["create", ...words, ...place()]);
    assert.deepEqual([created.code, created.stderr], [0, ""]);
    assert.match((await xl(["list", ...place()])).stdout, /^far +\d+ /m);
    const { code, stdout } = await xl(["info", "--json", ...place()]);
    assert.equal(code, 0);
    assert.ok((JSON.parse(stdout) as { daemon: { domainCount: number } }).daemon.domainCount === 1);
    const following = files.start(["console", "far", ...place()], quiet);
    await once(following.child.stdout, "data");
    assert.equal((await xl(["destroy", "far", ...place()])).code, 0);
    assert.equal((await following.done).code, 0);
  });

  it("or by the environment, which counts less than options do", async () => {
    const environment = { XENOLITH_CONNECT: url, XENOLITH_TOKEN_FILE: tokenFile, XENOLITH_CA_FILE: caFile };
    assert.equal((await xl(["list"], environment)).code, 0);
    assert.equal((await xl(["list", "--socket", "/nowhere/xl.sock"], environment)).code, 3);
    assert.equal((await xl(["list", "--connect", "https://localhost:1"], environment)).code, 3);
  });

  it("believes no certificate that it was not told to trust, nor one for another host", async () => {
    const untrusted = await xl(["list", "--connect", url, "--token-file", tokenFile]);
    assert.equal(untrusted.code, 3);
    assert.match(untrusted.stderr, /is not trusted \(.*\): name its authority, or itself, with --ca-file FILE/);
    const byAddress = await xl(["list", ...place(), "--connect", url.replace("localhost", "127.0.0.1")]);
    assert.equal(byAddress.code, 3);
    assert.match(byAddress.stderr, /is for another host/);
    const other = files.file("other.pem", selfSigned("localhost").certificate);
    const wrong = await xl(["list", ...place(), "--ca-file", other]);
    assert.equal(wrong.code, 3);
    assert.match(wrong.stderr, /--ca-file FILE/);
  });

  it("says what to do about a wrong token, and shows none", async () => {
    const wrong = files.file("wrong", "another token of sixteen");
    const { code, stderr } = await xl(["list", ...place(), "--token-file", wrong]);
    assert.equal(code, 1);
    assert.match(stderr, /a wrong one \(--token-file must be the file that the daemon was given\) \[UNAUTHORISED\]/);
    assert.doesNotMatch(stderr, /another token/);
  });

  it("says what to do when nobody answers, or somebody else does", async () => {
    const none = await xl(["list", ...place(), "--connect", "https://localhost:1"]);
    assert.equal(none.code, 3);
    assert.match(none.stderr, /no daemon answers at https:\/\/localhost:1 .*xl daemon --listen/);
    const server = net.createServer((socket) => socket.end("220 mail.example ESMTP\r\n")).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as net.AddressInfo;
    const mail = await xl(["list", ...place(), "--connect", `https://localhost:${port}`]);
    server.close();
    assert.equal(mail.code, 3);
    assert.match(mail.stderr, /does not speak TLS/);
  });

  it("refuses words that make no sense, before anything is sent", async () => {
    const [connect, token] = [["--connect", url] as const, ["--token-file", tokenFile] as const];
    for (const [words, message] of [
      [[...connect], /wants a token: name its file with --token-file FILE/],
      [[...connect, "--token-file", "/nowhere"], /cannot read the token "\/nowhere"/],
      [[...connect, "--token-file", files.file("empty", "\n")], /must have one line of printable ASCII/],
      [[...connect, "--token-file", files.file("two", "one\r\nX-Other: two")], /must have one line of printable ASCII/],
      [[...connect, ...token, "--ca-file", tokenFile], /has no certificate in PEM/],
      [[...connect, ...token, "--socket", "/run/xl.sock"], /two daemons: name one/],
      [[...token], /are for --connect/],
      [["--connect", url.replace("https", "http"), ...token], /is not https:\/\/HOST:PORT/],
      [["--connect", `${url}/path`, ...token], /is not https:\/\/HOST:PORT/],
      [["--connect", url.replace("//", "//user:secret@"), ...token], /is not https:\/\/HOST:PORT/],
      [["--connect", "localhost:7411", ...token], /is not https:\/\/HOST:PORT/],
    ] as const) {
      const { code, stderr } = await xl(["list", ...words]);
      assert.equal(code, 1, stderr);
      assert.match(stderr, message);
    }
  });
});
