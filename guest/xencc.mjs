#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * xencc: compiles C into a Xenolith guest with the clang that comes from npm; nothing else needs installing.
 *
 *   node guest/xencc.mjs hello.c -o hello.wasm            a Xen-style guest (xen_main), no libc
 *   node guest/xencc.mjs --wasi tool.c -o tool.wasm       a WASI command (main) with libc; <xenolith/...> works too
 *
 * Further arguments go to clang. Exit code: clang's.
 */
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { runClang, runLLVM } from "@yowasp/clang";

const GUEST_DIRECTORY = dirname(fileURLToPath(import.meta.url));
const USAGE = `usage: xencc [--wasi] [-o OUT.wasm] [clang options] FILE.c...

  Compiles C files into one WebAssembly module that runs under Xenolith: xl run OUT.wasm
  --wasi   link wasi-libc and start at main(); without it the guest library starts at xen_main()
  -o OUT   where the module goes (default: a.wasm)
`;

/** Files of the guest library that a WASI program goes without: it has libc, no start_info, and no atomics. */
const XEN_STYLE_ONLY = new Set(
  "start events memory-functions grants gntalloc xenstore xenstore-nodes xenstore-ring xenbus vchan vchan-ring vchan-store balloon"
    .split(" ")
    .map((name) => `${name}.c`),
);

/** Every file below `directory` as a nested object, the shape in which the compiler takes its file system. */
const readTree = (directory) =>
  Object.fromEntries(
    readdirSync(directory, { withFileTypes: true }).map((entry) => {
      const path = join(directory, entry.name);
      return [entry.name, entry.isDirectory() ? readTree(path) : readFileSync(path)];
    }),
  );

const parse = (words) => {
  const options = { wasi: false, output: "a.wasm", sources: [], rest: [] };
  for (let i = 0; i < words.length; i += 1) {
    const word = words[i];
    if (word === "--wasi") options.wasi = true;
    else if (word === "-o") options.output = words[(i += 1)];
    else if (/\.(c|h)$/.test(word)) options.sources.push(word);
    else options.rest.push(word);
  }
  return options;
};

/**
 * Compiles `sources` (file name -> C text), with the guest library unless `library` is false.
 * @param {Record<string, string | Uint8Array>} sources
 * @param {{ wasi?: boolean, library?: boolean, flags?: readonly string[] }} [options]
 * @returns {Promise<Uint8Array>} the module
 */
export const compileGuest = async (sources, { wasi = false, library = true, flags = [] } = {}) => {
  const linked = readdirSync(join(GUEST_DIRECTORY, "lib"))
    .filter((name) => name.endsWith(".c") && !(wasi && XEN_STYLE_ONLY.has(name)))
    .map((name) => `guest/lib/${name}`);
  const target = wasi
    ? ["--target=wasm32-wasip1"]
    : ["--target=wasm32", "-nostdlib", "-ffreestanding", "-Wl,--no-entry", "-matomics", "-Wl,--no-check-features"];
  const files = {
    guest: { include: readTree(join(GUEST_DIRECTORY, "include")), lib: readTree(join(GUEST_DIRECTORY, "lib")) },
    src: sources,
  };
  const names = Object.keys(sources)
    .filter((name) => name.endsWith(".c"))
    .map((name) => `src/${name}`);
  const common = ["-O2", "-Wall", "-std=gnu17", "-Iguest/include", "-Isrc", "-Wl,-z,stack-size=65536"];
  const words = ["clang", ...target, ...common, ...flags, ...names, ...(library ? linked : []), "-o", "guest.wasm"];
  // Loads the compiler without its progress report, which would go to stdout.
  await runLLVM(null, {}, { fetchProgress: () => {} });
  const output = await runClang(words, files);
  return output["guest.wasm"];
};

const main = async (words) => {
  const options = parse(words);
  if (options.sources.length === 0 || words.includes("--help")) {
    process.stderr.write(USAGE);
    return words.includes("--help") ? 0 : 2;
  }
  const sources = Object.fromEntries(options.sources.map((path) => [basename(path), readFileSync(path)]));
  try {
    writeFileSync(options.output, await compileGuest(sources, { wasi: options.wasi, flags: options.rest }));
  } catch (error) {
    process.stderr.write(`xencc: ${error.message}\n`);
    return typeof error.code === "number" ? error.code : 1;
  }
  return 0;
};

if (process.argv[1] !== undefined && relative(process.argv[1], fileURLToPath(import.meta.url)) === "") {
  process.exitCode = await main(process.argv.slice(2));
}
