/** The guide is true: its programs are compiled and run as they stand, and print what it says. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { closeDescriptor, createSecretMemfd } from "@xenolith/sys";
import { followGuide, readBlocks } from "./guide.ts";

describe("blocks of a page", () => {
  it("have the language and the file that is named last before them", () => {
    const page =
      "A file, `a.c`, and `b.ts`:\n\n```ts\nconst x = 1;\n```\n\nRun it:\n\n```sh\nnode b.ts\n```\n\n```\n1\n```\n";
    assert.deepEqual(readBlocks(page), [
      { language: "ts", text: "const x = 1;\n", file: "b.ts" },
      { language: "sh", text: "node b.ts\n", file: undefined },
      { language: "", text: "1\n", file: undefined },
    ]);
  });
});

describe("the guide to sharing and revoking", () => {
  it("can be followed word for word", async () => {
    const files = await followGuide("docs/guide/share-and-revoke.md");
    assert.deepEqual(files, ["plugin.c", "share.ts", "granter.c", "mapper.c", "pair.ts", "server.c", "client.c"]);
  });
});

describe("the guide to credentials of plugins", { skip: process.getuid!() !== 0 && "helpers are user 0" }, () => {
  it("can be followed word for word", async () => {
    const files = await followGuide("docs/guide/credentials.md");
    assert.deepEqual(files, ["plugin.ts", "launch.ts", "helper.ts", "host.ts"]);
  });
});

describe("the guide to many guests in little memory", () => {
  it("can be followed word for word", async () => {
    assert.deepEqual(await followGuide("docs/guide/memory.md"), ["worker.c", "many.ts"]);
  });
});

const withoutSecretMemory = ((): string | false => {
  try {
    closeDescriptor(createSecretMemfd(4096));
    return false;
  } catch (error) {
    return `this kernel gives no secret memory: ${String(error)}`;
  }
})();

describe("the guide to keeping a token out of the heap", { skip: withoutSecretMemory }, () => {
  it("can be followed word for word", async () => {
    assert.deepEqual(await followGuide("docs/guide/secrets.md"), ["token.ts", "keep.c", "keep.ts"]);
  });
});

describe("the guide to keys of guests", { skip: withoutSecretMemory }, () => {
  it("can be followed word for word", async () => {
    assert.deepEqual(await followGuide("docs/guide/guest-keys.md"), ["orders.c", "vault.ts", "give.ts"]);
  });
});

describe("the page of the package xenstore", () => {
  it("can be followed word for word", async () => {
    assert.deepEqual(await followGuide("packages/xenstore/README.md"), ["store.ts"]);
  });
});

describe("the page of the package keys", () => {
  it("can be followed word for word", async () => {
    assert.deepEqual(await followGuide("packages/keys/README.md"), ["keys.ts"]);
  });
});
