import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { formatSize, parseDuration, parseSize } from "../src/quantity.ts";

const sizes = `
  1K       4096
  4KiB     4096
  64       67108864
  64M      67108864
  64mib    67108864
  1.5G     1610612736
  4GiB     4294967296
`;

const rows = (text: string): string[][] =>
  text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/));

describe("sizes on the command line", () => {
  for (const [text, bytes] of rows(sizes)) {
    it(`${text} is ${bytes} bytes`, () => assert.equal(parseSize(text!), Number(bytes)));
  }
  for (const text of [
    "0",
    "-1M",
    "NaN",
    "Infinity",
    "1e9G",
    "5GiB",
    "4097M",
    "",
    "M",
    "64X",
    "1 2M",
    "0.0K",
    "9".repeat(400),
  ]) {
    it(`${JSON.stringify(text.slice(0, 12))} is refused by value and limit`, () => {
      assert.throws(() => parseSize(text), { code: "INVALID_SIZE" });
    });
  }
  it("may have another limit than an address space", () => {
    assert.equal(parseSize("8G", 2 ** 40), 8 * 2 ** 30);
    assert.throws(() => parseSize("2048G", 2 ** 40), { code: "INVALID_SIZE", message: /at most 1\.0 TiB/ });
  });
  it("prints sizes with one decimal", () => assert.equal(formatSize(1536 * 1024), "1.5 MiB"));
});

describe("durations on the command line", () => {
  it("bare numbers are seconds", () => assert.equal(parseDuration("2"), 2000));
  it("ms, s, m and h are units", () =>
    assert.deepEqual(["5ms", "1.5s", "2m", "1h"].map(parseDuration), [5, 1500, 120_000, 3_600_000]));
  for (const text of ["0", "-1s", "NaN", "30d", "25000h", "", "1e3s"]) {
    it(`${JSON.stringify(text)} is refused`, () =>
      assert.throws(() => parseDuration(text), { code: "INVALID_ARGUMENT" }));
  }
});
