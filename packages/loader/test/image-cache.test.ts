import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, describe, it } from "node:test";
import { promisify } from "node:util";

import { XenolithError } from "@xenolith/abi";
import { ImageCache, paravirtualise } from "../src/index.ts";
import { assembleWat, boot, callExport } from "./support.ts";

const root = mkdtempSync(join(tmpdir(), "xenolith-cache-"));
after(() => rmSync(root, { recursive: true }));
let directoryCount = 0;
const freshDirectory = (): string => join(root, String(directoryCount++));

const bytes = assembleWat(`(module (memory 1) (data (i32.const 8) "from the cache") (data "passive")
  (func (export "get") (param i32) (result i32) (i32.add (i32.load8_u (local.get 0)) (memory.size))))`);
const offer = { imports: [] };

/** Modules that differ in one constant. */
const numbered = (value: number): Uint8Array =>
  assembleWat(`(module (func (export "n") (result i32) (i32.const ${value})))`);

describe("ImageCache", () => {
  it("gives the same image as the loader itself, the first time and from then on", async () => {
    const cache = new ImageCache({ directory: freshDirectory() });
    const direct = paravirtualise(bytes, offer);
    const first = await cache.load(bytes, offer);
    assert.equal(readdirSync(cache.directory).length, 1);
    const second = await cache.load(bytes, offer);
    for (const image of [first, second]) {
      assert.deepEqual(image.manifest, direct.manifest);
      assert.ok(Buffer.compare(image.module, direct.module) === 0);
      assert.ok(Buffer.compare(image.data, direct.data) === 0);
    }
    assert.equal(callExport(boot(second).exports, "get", 8), "f".charCodeAt(0) + 1);
    assert.equal(cache.problem, null);
  });

  it("loads in a thread of its own what is large, with the same results, while its caller goes on", async () => {
    const directory = freshDirectory();
    const cache = new ImageCache({ directory, threadBytesMin: 0 });
    const direct = paravirtualise(bytes, offer);
    let turns = 0;
    const counting = setInterval(() => (turns += 1), 1);
    for (const from of ["the module", "the cache"]) {
      turns = 0;
      const image = await cache.load(bytes, offer);
      assert.ok(turns > 0, from);
      assert.deepEqual(image, direct);
    }
    clearInterval(counting);
    assert.deepEqual(readdirSync(directory), [readdirSync(directory)[0]]);
    assert.equal((await new ImageCache({ directory }).load(bytes, offer)).manifest.kind, "reactor");
    assert.equal(cache.problem, null);
  });

  it("refuses in a thread of its own what it refuses without, in the same words", async () => {
    const importing = assembleWat(`(module (import "a" "b" (func)))`);
    for (const bad of [bytes.subarray(0, 30), importing]) {
      const here = new ImageCache({ directory: freshDirectory() });
      const elsewhere = new ImageCache({ directory: freshDirectory(), threadBytesMin: 0 });
      const error: unknown = await here.load(bad, offer).catch((reason: unknown) => reason);
      assert.ok(error instanceof XenolithError);
      await assert.rejects(elsewhere.load(bad, offer), { code: error.code, message: error.message });
    }
    const unusable = new ImageCache({ directory: "/dev/null/below", threadBytesMin: 0 });
    assert.equal((await unusable.load(bytes, offer)).manifest.kind, "reactor");
    assert.equal(unusable.problem?.code, "IMAGE_CACHE");
  });

  it("keeps images with different options or limits apart", async () => {
    const cache = new ImageCache({ directory: freshDirectory() });
    await cache.load(bytes, offer);
    assert.equal((await cache.load(bytes, { ...offer, poll: true })).manifest.isPolled, true);
    await assert.rejects(cache.load(bytes, { ...offer, limits: { dataSegmentCount: 1 } }), {
      code: "MODULE_TOO_LARGE",
    });
    assert.equal((await cache.load(bytes, offer)).manifest.isPolled, false);
  });

  it("checks imports at every load, whoever filled the cache", async () => {
    const cache = new ImageCache({ directory: freshDirectory() });
    const importing = assembleWat(`(module (import "a" "b" (func)))`);
    await cache.load(importing, { imports: [{ module: "a", name: "b", params: [], results: [] }] });
    await assert.rejects(cache.load(importing, offer), { code: "IMPORT_UNKNOWN" });
  });

  it("does not keep what is refused", async () => {
    const cache = new ImageCache({ directory: freshDirectory() });
    await assert.rejects(cache.load(Uint8Array.of(1, 2, 3), offer), { code: "MODULE_INVALID" });
    assert.equal(existsSync(cache.directory), false);
  });

  it("writes a damaged file anew, wherever it is damaged", async () => {
    const cache = new ImageCache({ directory: freshDirectory() });
    const expected = await cache.load(bytes, offer);
    const path = join(cache.directory, readdirSync(cache.directory)[0]!);
    const intact = readFileSync(path);
    for (let at = 0; at < intact.length; at += 7) {
      const damaged = Buffer.from(intact);
      damaged[at]! ^= 0x10;
      writeFileSync(path, damaged);
      const image = await cache.load(bytes, offer);
      assert.ok(Buffer.compare(image.module, expected.module) === 0);
      assert.match(String(cache.problem), /IMAGE_CACHE|is damaged/);
      assert.ok(Buffer.compare(readFileSync(path), intact) === 0, `damaged at ${at}`);
    }
    for (const length of [0, 10, 63, 64, 65, intact.length - 1]) {
      truncateSync(path, length);
      await cache.load(bytes, offer);
      assert.equal(statSync(path).size, intact.length);
    }
    writeFileSync(path, Buffer.concat([intact, Buffer.of(0)]));
    await cache.load(bytes, offer);
    assert.equal(statSync(path).size, intact.length);
  });

  it("removes what was not used for longest when it grows over its bound", async () => {
    const directory = freshDirectory();
    const probe = new ImageCache({ directory });
    await probe.load(numbered(0), offer);
    const sizeBytes = statSync(join(directory, readdirSync(directory)[0]!)).size;
    const cache = new ImageCache({ directory, sizeBytesMax: sizeBytes * 3.5 });
    const first = readdirSync(directory)[0]!;
    await cache.load(numbered(1), offer);
    await cache.load(numbered(2), offer);
    assert.equal(readdirSync(directory).length, 3);
    for (const name of readdirSync(directory)) utimesSync(join(directory, name), 1_000, name === first ? 2_000 : 1_000);
    await cache.load(numbered(0), offer);
    await cache.load(numbered(3), offer);
    const left = readdirSync(directory);
    assert.equal(left.length, 3);
    assert.ok(left.includes(first), "the one that was used stays");
  });

  it("removes files that a killed process left unfinished, and no foreign ones", async () => {
    const directory = freshDirectory();
    mkdirSync(directory);
    for (const name of [".tmp-1-old", ".tmp-2-new", "README"]) writeFileSync(join(directory, name), "x");
    utimesSync(join(directory, ".tmp-1-old"), 1_000, 1_000);
    utimesSync(join(directory, "README"), 1_000, 1_000);
    await new ImageCache({ directory, sizeBytesMax: 10_000 }).load(bytes, offer);
    assert.deepEqual(
      readdirSync(directory)
        .filter((name) => !name.endsWith(".xim"))
        .toSorted(),
      [".tmp-2-new", "README"],
    );
  });

  it("costs time, not function, when its directory cannot be used", async () => {
    const file = join(root, "a-file");
    writeFileSync(file, "");
    const cache = new ImageCache({ directory: join(file, "below") });
    assert.equal((await cache.load(bytes, offer)).manifest.kind, "reactor");
    assert.equal(cache.problem?.code, "IMAGE_CACHE");
  });

  it("stores nothing that is larger than the whole cache may be", async () => {
    const cache = new ImageCache({ directory: freshDirectory(), sizeBytesMax: 100 });
    await cache.load(bytes, offer);
    assert.equal(existsSync(cache.directory), false);
    assert.throws(() => new ImageCache({ sizeBytesMax: -1 }), { code: "INVALID_SIZE", message: /-1/ });
    assert.throws(() => new ImageCache({ sizeBytesMax: Number.NaN }), { code: "INVALID_SIZE" });
  });

  it("is private to its user", async () => {
    const cache = new ImageCache({ directory: freshDirectory() });
    await cache.load(bytes, offer);
    assert.equal(statSync(cache.directory).mode & 0o777, 0o700);
    assert.equal(statSync(join(cache.directory, readdirSync(cache.directory)[0]!)).mode & 0o777, 0o600);
    chmodSync(cache.directory, 0o700);
  });

  it("neither reads nor writes where another user could have put an image", async () => {
    const poison = numbered(666);
    const victim = numbered(1);
    const name = async (module: Uint8Array): Promise<string> => {
      const cache = new ImageCache({ directory: freshDirectory() });
      await cache.load(module, offer);
      return join(cache.directory, readdirSync(cache.directory)[0]!);
    };
    const [poisoned, clean] = [await name(poison), await name(victim)];
    const load = async (prepare: (directory: string, path: string) => void): Promise<[unknown, string | undefined]> => {
      const directory = freshDirectory();
      mkdirSync(directory, { mode: 0o700 });
      prepare(directory, join(directory, basename(clean)));
      const cache = new ImageCache({ directory });
      const image = await cache.load(victim, offer);
      return [callExport(boot(image).exports, "n"), cache.problem?.message];
    };
    // What the check is for: a file in the place of another is believed.
    assert.deepEqual(await load((_, path) => copyFileSync(poisoned, path)), [666, undefined]);
    const [open, openProblem] = await load((directory, path) => {
      copyFileSync(poisoned, path);
      chmodSync(directory, 0o777);
    });
    assert.equal(open, 1);
    assert.match(openProblem!, /can be written by other users/);
    const [shared, sharedProblem] = await load((_, path) => {
      copyFileSync(poisoned, path);
      chmodSync(path, 0o620);
    });
    assert.equal(shared, 1);
    assert.match(sharedProblem!, /can be written by other users/);
    const [linked] = await load((_, path) => symlinkSync(poisoned, path));
    assert.equal(linked, 1);
    const [piped] = await load((_, path) => void execFileSync("mkfifo", [path]));
    assert.equal(piped, 1);
  });

  it("lies in the user's cache directory by default", () => {
    const previous = process.env["XDG_CACHE_HOME"];
    process.env["XDG_CACHE_HOME"] = "/somewhere/cache";
    assert.equal(new ImageCache().directory, "/somewhere/cache/xenolith/images");
    process.env["XDG_CACHE_HOME"] = "relative";
    assert.match(new ImageCache().directory, /\.cache\/xenolith\/images$/);
    if (previous === undefined) delete process.env["XDG_CACHE_HOME"];
    else process.env["XDG_CACHE_HOME"] = previous;
  });

  it("serves many loads at once, in one process and in several", async () => {
    const directory = freshDirectory();
    const program = `const { ImageCache } = await import(${JSON.stringify(new URL("../src/index.js", import.meta.url).href)});
      const bytes = Buffer.from(process.argv[2], "base64");
      const cache = new ImageCache({ directory: process.argv[1], sizeBytesMax: 3000 });
      for (let turn = 0; turn < 50; turn++) {
        const changed = Buffer.concat([bytes, Buffer.of(0, 3, 1, 0x61, turn % 5)]);
        const images = await Promise.all([1, 2, 3].map(() => cache.load(changed, { imports: [] })));
        if (images.some((image) => !WebAssembly.validate(image.module))) throw new Error("invalid");
      }
      if (cache.problem !== null) throw cache.problem;
      console.log("done");`;
    const parameters = ["--input-type=module", "-e", program, directory, Buffer.from(bytes).toString("base64")];
    const children = await Promise.all([1, 2, 3, 4].map(() => promisify(execFile)(process.execPath, parameters)));
    assert.deepEqual(
      children.map(({ stdout }) => stdout),
      ["done\n", "done\n", "done\n", "done\n"],
    );
    assert.ok(readdirSync(directory).every((name) => name.endsWith(".xim")));
  });
});
