import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { once } from "node:events";
import { tmpdir } from "node:os";
import path from "node:path";
import { Readable } from "node:stream";
import { after, describe, it } from "node:test";
import { readCredential, readSecretFile, readSecretInput, readSecretStream } from "@xenolith/secrets";
import { closeDescriptor, createPipe, NativeBuffer, write } from "@xenolith/sys";
import { openPool, refused, runChild } from "./pools.ts";

const MARKER = "d41f-marker-that-is-read";
const directory = mkdtempSync(path.join(tmpdir(), "secrets-"));
after(() => {
  rmSync(directory, { recursive: true });
});

const fileWith = (name: string, text: string): string => {
  const file = path.join(directory, name);
  writeFileSync(file, text);
  return file;
};

describe("a secret from a file", () => {
  it("has its bytes, without the line feed at its end when that is wanted", () => {
    using pool = openPool();
    const owner = pool.owner("tests", { bytes: 256 });
    const file = fileWith("token", `${MARKER}\r\n`);
    assert.ok(readSecretFile(owner, file).equals(Buffer.from(`${MARKER}\r\n`)));
    assert.ok(readSecretFile(owner, file, { trimNewline: true }).equals(Buffer.from(MARKER)));
    const plain = fileWith("plain", MARKER);
    assert.ok(readSecretFile(owner, plain, { trimNewline: true, bytesMax: MARKER.length }).equals(Buffer.from(MARKER)));
    assert.equal(pool.statistics().slots, 3, "the room that was read into is given back");
  });

  it("that is missing, empty, too long or more than the quota is refused, and nothing stays behind", () => {
    using pool = openPool();
    const owner = pool.owner("tests", { bytes: 64 });
    refused(() => readSecretFile(owner, path.join(directory, "absent")), "FILE_NOT_FOUND");
    refused(() => readSecretFile(owner, fileWith("empty", "")), "INVALID_SIZE", /empty/);
    refused(() => readSecretFile(owner, fileWith("line", "\n"), { trimNewline: true }), "INVALID_SIZE", /empty/);
    refused(() => readSecretFile(owner, fileWith("long", "abc"), { bytesMax: 2 }), "INVALID_SIZE", /more than 2/);
    refused(() => readSecretFile(owner, fileWith("large", "x".repeat(49))), "SECRET_QUOTA");
    refused(() => readSecretFile(owner, directory), "SYSTEM_CALL", /read/);
    for (const bytesMax of [0, -1, 0.5, Number.NaN]) {
      refused(() => readSecretFile(owner, fileWith("some", "abc"), { bytesMax }), "INVALID_ARGUMENT");
    }
    refused(() => readSecretFile(owner, fileWith("some", "abc"), { bytesMax: 2 ** 21 }), "INVALID_SIZE");
    assert.equal(pool.statistics().usedBytes, 0);
    assert.ok(readSecretFile(owner, fileWith("some", "abc")).equals(Buffer.from("abc")), "control");
  });
});

describe("a secret from a descriptor", () => {
  it("is waited for, also when the descriptor does not block", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    const pipe = createPipe({ nonBlocking: true });
    assert.ok(typeof pipe !== "number");
    const word = new NativeBuffer(MARKER.length);
    Buffer.from(MARKER).copy(word.bytes);
    assert.equal(write(pipe.writeFd, { address: word.address, lengthBytes: MARKER.length }), MARKER.length);
    closeDescriptor(pipe.writeFd);
    assert.ok(readSecretInput(owner, pipe.readFd).equals(Buffer.from(MARKER)));
    closeDescriptor(pipe.readFd);
    refused(() => readSecretInput(owner, pipe.readFd), "SYSTEM_CALL", /EBADF/);
  });

  it("is read from standard input", () => {
    const { output, errors } = runChild(
      `using pool = open({ policy: "degraded" });
      const secret = secrets.readSecretInput(pool.owner("child"), 0, { trimNewline: true });
      console.log(secret.withBytes((bytes) => createHash("sha256").update(bytes).digest("hex")), secret.size);`,
      { input: `${MARKER}\n` },
    );
    assert.match(output, new RegExp(`^[0-9a-f]{64} ${MARKER.length}$`), errors);
  });
});

describe("a credential of systemd", () => {
  it("is the file of that name in the directory of the service's credentials", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    fileWith("db.password", MARKER);
    const before = process.env["CREDENTIALS_DIRECTORY"];
    try {
      delete process.env["CREDENTIALS_DIRECTORY"];
      refused(() => readCredential(owner, "db.password"), "FILE_NOT_FOUND", /CREDENTIALS_DIRECTORY is not set/);
      process.env["CREDENTIALS_DIRECTORY"] = directory;
      assert.ok(readCredential(owner, "db.password").equals(Buffer.from(MARKER)));
      refused(() => readCredential(owner, "other"), "FILE_NOT_FOUND");
      for (const name of ["", ".", "..", "../db.password", "a/b", "a\0b"]) {
        refused(() => readCredential(owner, name), "INVALID_ARGUMENT");
      }
    } finally {
      if (before === undefined) delete process.env["CREDENTIALS_DIRECTORY"];
      else process.env["CREDENTIALS_DIRECTORY"] = before;
    }
  });
});

describe("a secret from a stream", () => {
  it("is the body of a request, and the buffers that it passed are wiped", async () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    const seen: Uint8Array[] = [];
    const server = createServer((message, response) => {
      void (async () => {
        const watched = (async function* () {
          for await (const part of message) {
            seen.push(part as Uint8Array);
            yield part as unknown;
          }
        })();
        const secret = await readSecretStream(owner, watched, { bytesMax: 1000 });
        response.end(String(secret.equals(Buffer.from(MARKER))));
      })();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { readonly port: number };
    const client = request({ port, method: "POST" });
    client.write(MARKER.slice(0, 5));
    client.end(MARKER.slice(5));
    const [answer] = (await once(client, "response")) as [AsyncIterable<Buffer>];
    let text = "";
    for await (const part of answer) text += part.toString();
    server.close();
    assert.equal(text, "true");
    assert.ok(seen.length > 0 && seen.every((part) => part.every((byte) => byte === 0)));
  });

  it("that is too long, empty, of strings or breaks off is refused, and nothing stays behind", async () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    const long = [Buffer.from("abc"), Buffer.from("def")];
    await assert.rejects(readSecretStream(owner, Readable.from(long), { bytesMax: 5 }), { code: "INVALID_SIZE" });
    assert.deepEqual(long, [Buffer.alloc(3), Buffer.alloc(3)]);
    await assert.rejects(readSecretStream(owner, Readable.from([])), { code: "INVALID_SIZE" });
    await assert.rejects(readSecretStream(owner, Readable.from(["abc"])), { code: "INVALID_ARGUMENT" });
    const broken = (async function* () {
      yield Buffer.from("abc");
      throw new Error("broken off");
    })();
    await assert.rejects(readSecretStream(owner, broken), /broken off/);
    await assert.rejects(readSecretStream(pool.owner("poor", { bytes: 64 }), Readable.from(long)), {
      code: "SECRET_QUOTA",
    });
    assert.equal(pool.statistics().usedBytes, 0);
  });
});
