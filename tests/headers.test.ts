import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { it } from "node:test";
import { commands } from "@yowasp/clang";
import type { Tree } from "@yowasp/clang";

const root = path.join(import.meta.dirname, "..", "..");
const include = path.join(root, "guest/include");

const headers = readdirSync(include, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".h"));

const place = (tree: Tree, [head = "", ...rest]: readonly string[], content: string): void => {
  if (rest.length === 0) {
    tree[head] = content;
    return;
  }
  const inner = tree[head];
  const folder: Tree = typeof inner === "object" && !(inner instanceof Uint8Array) ? inner : {};
  tree[head] = folder;
  place(folder, rest, content);
};

/** Compiles C for wasm32 with the headers of guest/include; the diagnostics, or nothing when it compiles. */
const diagnosticsOf = async (text: string): Promise<string> => {
  const tree: Tree = { "all.c": text };
  for (const name of headers)
    place(tree, ["include", ...name.split("/")], readFileSync(path.join(include, name), "utf8"));
  const decoder = new TextDecoder();
  let said = "";
  const hear = (bytes: Uint8Array | null): void => {
    said += decoder.decode(bytes ?? new Uint8Array());
  };
  const flags = ["--target=wasm32", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Iinclude", "-fsyntax-only"];
  try {
    await commands.clang([...flags, "all.c"], tree, { stdout: hear, stderr: hear, fetchProgress: () => {} });
  } catch (error) {
    return said + String(error);
  }
  return said;
};

const everyInclude = headers.map((name) => `#include <${name}>\n`).join("");

it("every C header compiles for wasm32, and its sizes and offsets are those of the interface", async () => {
  assert.ok(headers.length >= 15);
  assert.equal(await diagnosticsOf(everyInclude), "");
});

it("a struct whose layout is another is a compile error", async () => {
  const wrong = '_Static_assert(sizeof(struct vcpu_runstate_info) == 48, "natural wasm32 size");\n';
  assert.match(await diagnosticsOf(everyInclude + wrong), /natural wasm32 size/);
});

it("generated files are what the generator writes", () => {
  const run = spawnSync(process.execPath, [path.join(root, "tools/dist/generate.js"), "--check"], { encoding: "utf8" });
  assert.equal(run.status, 0, run.stdout + run.stderr);
});
