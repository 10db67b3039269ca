import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";

const root = path.join(import.meta.dirname, "..", "..");

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  readonly type: string;
  readonly engines: { readonly node: string };
  readonly files?: readonly string[];
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

const manifestOf = (folder: string): Manifest =>
  JSON.parse(readFileSync(path.join(root, folder, "package.json"), "utf8")) as Manifest;

const layers = ["abi", "sys", "core", "loader", "xenstore", "secrets", "keys", "host", "toolstack"];
const workspace = manifestOf(".");

/** All sources that are shipped. */
const sources = layers.flatMap((layer) => {
  const folder = path.join("packages", layer, "src");
  return readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => path.join(folder, name))
    .map((file) => ({ file, text: readFileSync(path.join(root, file), "utf8") }));
});

const common = ({ version, license, type, engines }: Manifest): unknown => ({ version, license, type, engines });

describe("packages", () => {
  it("are the declared layers", () => {
    assert.deepEqual(readdirSync(path.join(root, "packages")).toSorted(), layers.toSorted());
  });

  for (const [level, layer] of layers.entries()) {
    const manifest = manifestOf(path.join("packages", layer));
    it(`${layer} has the name, version, licence and engines of the workspace, and ships no tests`, () => {
      assert.equal(manifest.name, `@xenolith/${layer}`);
      assert.deepEqual(common(manifest), common(workspace));
      const files = manifest.files ?? [];
      assert.ok(files.includes("dist/src") && !files.includes("dist"));
    });
    it(`${layer} depends only on layers below it, and on exact versions`, () => {
      for (const [dependency, version] of Object.entries(manifest.dependencies ?? {})) {
        const [, sibling] = /^@xenolith\/(\w+)$/.exec(dependency) ?? [];
        if (sibling === undefined) assert.match(version, /^\d+\.\d+\.\d+$/, dependency);
        else assert.ok(layers.indexOf(sibling) < level && version === workspace.version, dependency);
        assert.ok(dependency !== "koffi" || layer === "sys", "only sys calls C");
      }
    });
  }

  for (const [dependency, places] of Object.entries({
    koffi: ["packages/sys/src/"],
    commander: ["packages/toolstack/src/"],
    "smol-toml": ["packages/toolstack/src/config/"],
    hono: ["packages/toolstack/src/daemon/"],
    "@hono/node-server": ["packages/toolstack/src/daemon/"],
    valibot: ["packages/toolstack/src/daemon/"],
    "@valibot/to-json-schema": ["packages/toolstack/src/daemon/"],
    lmdb: ["packages/toolstack/src/daemon/"],
    pino: ["packages/toolstack/src/daemon/"],
    "prom-client": ["packages/toolstack/src/daemon/"],
  })) {
    it(`${dependency} is imported in ${places.join(", ")} only`, () => {
      const importing = sources.filter(({ text }) => text.includes(`"${dependency}"`)).map(({ file }) => file);
      assert.ok(importing.length > 0, "it is imported nowhere");
      const elsewhere = importing.filter((file) => !places.some((place) => file.startsWith(place)));
      assert.deepEqual(elsewhere, []);
    });
  }

  it("the tools of the workspace are pinned exactly", () => {
    for (const [tool, version] of Object.entries(workspace.devDependencies ?? {})) assert.match(version, /^\d/, tool);
  });
});
